"""Features by repeated masks: whether they are of the studies to train on, and how well the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from node.research.feature_table import FeatureTable, read_features
from node.research.rows import first_of, repeated
from scoring.training.agreement import Icc, icc
from scoring.training.errors import CohortUnusable

FEWEST = 3  # studies masked twice


def read_repeats(paths: Sequence[Path], first: Path) -> dict[str, FeatureTable]:
    """Tables by their files' names, which name what is written about them.

    Parameters
    ----------
    first : the table to train on.

    Raises
    ------
    CohortUnusable
        If a table is unusable, is the one to train on, or shares its name with another.
    """
    if first.resolve() in [path.resolve() for path in paths]:
        raise CohortUnusable(f"{first} cannot be its own repeat")
    if twice := repeated([path.stem for path in paths]):
        raise CohortUnusable(
            f"repeats are told apart by their files' names; more than one is called {', '.join(twice)}"
        )
    return {path.stem: read_features(path) for path in paths}


def agreements(first: FeatureTable, second: FeatureTable) -> dict[str, Icc]:
    """ICC of each feature over the studies that both tables have.

    Raises
    ------
    CohortUnusable
        If the tables hold other features or such of other settings, other studies under the same paths, fewer
        than three studies in common, features that are all the same, or one that is the same in all of these.
    """
    if first.names != second.names:
        raise CohortUnusable("repeated masks must have the same features")
    if first.made_with.radiomics_settings_sha256 != second.made_with.radiomics_settings_sha256:
        raise CohortUnusable("features of repeated masks were made with other radiomics settings")
    both = [
        (one, other)
        for key, one in first.rows.items()
        if (other := second.rows.get(key)) is not None and not one["reason"] and not other["reason"]
    ]
    changed = [
        one["study"] for one, other in both if one["study_instance_uid"] != other["study_instance_uid"]
    ]
    if changed:
        raise CohortUnusable(f"repeated masks are of other studies than these: {first_of(changed)}")
    if len(both) < FEWEST:
        raise CohortUnusable(f"{len(both)} studies were masked twice; agreement needs {FEWEST}")
    ratings = {
        name: np.array([[float(one[name]), float(other[name])] for one, other in both])
        for name in first.names
    }
    if all((values[:, 0] == values[:, 1]).all() for values in ratings.values()):
        raise CohortUnusable(
            "the repeat has the same features in all studies: its masks are no repeated ones"
        )
    if same := [name for name, values in ratings.items() if np.ptp(values) == 0.0]:
        raise CohortUnusable(f"features that are the same in all studies masked twice: {', '.join(same)}")
    return {name: icc(values) for name, values in ratings.items()}
