"""Do two groups of patients differ? One variable at a time, as the tables of clinical papers ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from scoring.training.errors import CohortUnusable

NORMALITY_P = 0.05

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTest:
    """A test of one variable between two groups."""

    test: str  # "Welch t", "Mann-Whitney U" or "chi-squared"
    statistic: float
    p: float


def compare_measured(first: Values, second: Values) -> GroupTest:
    """Welch's t where Shapiro and Wilk's test finds both groups normal (p > 0.05), else Mann and Whitney's U.

    Parameters
    ----------
    first, second : values of the two groups, none missing, at least three each.

    Raises
    ------
    CohortUnusable
        If a group is too small.
    """
    if min(len(first), len(second)) < 3:
        raise CohortUnusable("a group of fewer than three patients cannot be compared")
    if _normal(first) and _normal(second):
        found = stats.ttest_ind(first, second, equal_var=False)
        return GroupTest(test="Welch t", statistic=float(found.statistic), p=float(found.pvalue))
    if np.ptp(np.concatenate([first, second])) == 0.0:
        return GroupTest(test="Mann-Whitney U", statistic=len(first) * len(second) / 2, p=1.0)
    found = stats.mannwhitneyu(first, second, alternative="two-sided")
    return GroupTest(test="Mann-Whitney U", statistic=float(found.statistic), p=float(found.pvalue))


def compare_counted(table: npt.NDArray[np.int64]) -> GroupTest:
    """Pearson's chi-squared test without continuity correction.

    Parameters
    ----------
    table : counts, shape (2, categories).

    Raises
    ------
    CohortUnusable
        If a group or every category but one is empty.
    """
    kept = table[:, table.sum(axis=0) > 0]
    if kept.shape[1] < 2 or not (kept.sum(axis=1) > 0).all():
        raise CohortUnusable("a comparison needs two groups and two categories")
    statistic, p, *_ = stats.chi2_contingency(kept, correction=False)
    return GroupTest(test="chi-squared", statistic=float(statistic), p=float(p))


def _normal(values: Values) -> bool:
    return bool(np.ptp(values) > 0 and stats.shapiro(values).pvalue > NORMALITY_P)
