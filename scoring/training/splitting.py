"""Which patients train and which test; in which fold. The same seed gives the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, train_test_split

from scoring.training.discrimination import Labels
from scoring.training.errors import CohortUnusable

TEST_SHARE = 0.3  # Xie et al. 2022
FOLDS = 10
FEWEST_OF_A_CLASS = 10  # R: below, folds of the training part run out of a class


def stratified_split(labels: Labels, seed: int) -> Labels:
    """True for the patients to train on: seven of ten of each class.

    Raises
    ------
    CohortUnusable
        If a class has fewer than ten patients.
    """
    require_enough(labels)
    train, _ = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=seed
    )
    chosen = np.zeros(len(labels), bool)
    chosen[train] = True
    return chosen


def stratified_folds(labels: Labels, seed: int) -> npt.NDArray[np.int64]:
    """A fold's number for each patient: ten folds, fewer where a class is small.

    Raises
    ------
    CohortUnusable
        If a class has fewer than three patients.
    """
    rarest = int(min(labels.sum(), (~labels).sum()))
    if rarest < 3:
        raise CohortUnusable(f"a class has {rarest} patients to train on; three folds need three")
    folds = np.zeros(len(labels), np.int64)
    chosen = StratifiedKFold(n_splits=min(FOLDS, rarest), shuffle=True, random_state=seed)
    for number, (_, out) in enumerate(chosen.split(np.zeros(len(labels)), labels)):
        folds[out] = number
    return folds


def require_enough(labels: Labels) -> None:
    """Raise `CohortUnusable` unless each class has patients enough to be split."""
    positive, negative = int(labels.sum()), int((~labels).sum())
    if min(positive, negative) < FEWEST_OF_A_CLASS:
        raise CohortUnusable(
            f"{positive} patients with osteoporosis and {negative} with osteopenia; "
            f"{FEWEST_OF_A_CLASS} of each are needed"
        )
