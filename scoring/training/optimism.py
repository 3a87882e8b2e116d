"""How much a model flatters itself: Harrell's bootstrap with every step repeated, selection included.

Source: Harrell, Lee and Mark, Stat Med 1996;15:361. In each resample the whole fit is made anew; its AUC
there less its AUC on the original patients is the optimism, whose mean is taken off the apparent AUC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.training.discrimination import Labels, Scores, auc
from scoring.training.errors import CohortUnusable, FitImpossible

# Fits to patients (by row, repeats included) and scores all patients.
Refit = Callable[[npt.NDArray[np.intp]], Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    apparent: float  # AUC on the patients of the fit
    optimism: float
    resamples: int  # that gave a fit
    failed: int  # in which no model could be fitted

    @property
    def corrected(self) -> float:
        return self.apparent - self.optimism


def optimism_of_auc(refit: Refit, labels: Labels, *, resamples: int, seed: int) -> Optimism:
    """The bootstrap estimate.

    Parameters
    ----------
    refit : given rows, fits a model to them and returns the scores of all patients in order.

    Raises
    ------
    CohortUnusable
        If no resample gave a model.
    """
    apparent = auc(refit(np.arange(len(labels))), labels).value
    gains: list[float] = []
    failed = 0
    for rows in _resamples(labels, resamples, seed):
        try:
            scores = refit(rows)
        except (CohortUnusable, FitImpossible):
            failed += 1
            continue
        gains.append(auc(scores[rows], labels[rows]).value - auc(scores, labels).value)
    if not gains:
        raise CohortUnusable("no resample of these patients gave a model")
    return Optimism(apparent=apparent, optimism=float(np.mean(gains)), resamples=len(gains), failed=failed)


def _resamples(labels: Labels, count: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Patients drawn with replacement, each class by itself: its share stays what it is."""
    rng = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    for _ in range(count):
        drawn = np.concatenate([rng.choice(part, len(part)) for part in (positive, negative)])
        yield np.sort(drawn)
