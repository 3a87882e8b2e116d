"""How well a score tells two classes apart: ROC curve, AUC, DeLong's interval and test.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837; computed by mid-ranks as Sun and Xu show
(IEEE Signal Process Lett 2014;21:1389). Both use the classes' own numbers less one, as pROC does.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from scoring.training.errors import CohortUnusable

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]  # True: the positive class

_Z95 = float(ndtri(0.975))


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """Area under the ROC curve."""

    value: float
    standard_error: float
    positives: int
    negatives: int

    @property
    def interval95(self) -> tuple[float, float] | None:
        """By DeLong, cut at 0 and 1; None where that variance is 0, as of classes that are told apart wholly:
        such patients do not say how far another's AUC may lie from theirs."""
        if self.standard_error == 0.0:
            return None
        reach = _Z95 * self.standard_error
        return max(0.0, self.value - reach), min(1.0, self.value + reach)

    @property
    def told(self) -> str:
        """The area with its interval."""
        if self.interval95 is None:
            return f"{self.value:.3f} (no interval: no variance)"
        return f"{self.value:.3f} ({self.interval95[0]:.3f} to {self.interval95[1]:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AucComparison:
    """Two scores on the same patients."""

    difference: float  # first less second
    z: float | None  # 0 where both AUCs are the same in every sense; None where they differ without variance
    p: float | None  # two-sided


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """Points from (0, 0) to (1, 1), a threshold each: positive is a score of at least that."""

    false_positive_rate: Scores
    true_positive_rate: Scores
    thresholds: Scores


def auc(scores: Scores, labels: Labels) -> Auc:
    """AUC by Mann and Whitney (ties count half), its standard error by DeLong.

    Parameters
    ----------
    scores, labels : shape (patients,). A higher score speaks for the positive class.

    Raises
    ------
    CohortUnusable
        If a class has fewer than two patients or a score is not finite.
    """
    areas, covariance = _delong(scores[None], labels)
    error = sqrt(max(float(covariance[0, 0]), 0.0))
    return Auc(
        value=float(areas[0]),
        standard_error=error,
        positives=int(labels.sum()),
        negatives=int((~labels).sum()),
    )


def compare(first: Scores, second: Scores, labels: Labels) -> AucComparison:
    """DeLong's test of two scores that were read on the same patients.

    Raises
    ------
    CohortUnusable
        As `auc`.
    """
    areas, covariance = _delong(np.stack([first, second]), labels)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 0.0:
        alike = difference == 0.0  # both order the patients alike; else nothing to judge the difference by
        return AucComparison(difference=difference, z=0.0 if alike else None, p=1.0 if alike else None)
    z = difference / sqrt(variance)
    return AucComparison(difference=difference, z=z, p=float(2 * ndtr(-abs(z))))


def roc_curve(scores: Scores, labels: Labels) -> RocCurve:
    """Every threshold at which the classification changes.

    Raises
    ------
    CohortUnusable
        As `auc`.
    """
    _require_classes(scores, labels)
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal scores
    true = np.cumsum(hits)[last]
    false = last + 1 - true
    return RocCurve(
        false_positive_rate=np.concatenate([[0.0], false / (~labels).sum()]),
        true_positive_rate=np.concatenate([[0.0], true / labels.sum()]),
        thresholds=np.concatenate([[np.inf], ordered[last]]),
    )


def _delong(scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
    """AUC of each row of `scores`, and their covariance."""
    _require_classes(scores, labels)
    ranks = np.stack([rankdata(row) for row in scores])
    positive = ranks[:, labels] - np.stack([rankdata(row[labels]) for row in scores])
    negative = ranks[:, ~labels] - np.stack([rankdata(row[~labels]) for row in scores])
    m, n = int(labels.sum()), int((~labels).sum())
    by_positive, by_negative = positive / n, 1.0 - negative / m
    covariance = np.atleast_2d(np.cov(by_positive)) / m + np.atleast_2d(np.cov(by_negative)) / n
    return by_positive.mean(axis=1), covariance


def _require_classes(scores: Scores, labels: Labels) -> None:
    if not np.isfinite(scores).all():
        raise CohortUnusable("a score is missing or not finite")
    if labels.sum() < 2 or (~labels).sum() < 2:
        raise CohortUnusable(
            f"two patients of each class are needed; there are {int(labels.sum())} positive and "
            f"{int((~labels).sum())} negative"
        )
