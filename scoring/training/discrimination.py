"""Discrimination of two classes by a score: ROC curve, AUC with DeLong's interval and test, and its optimism.

AUC: DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837; computed by mid-ranks (Sun and Xu, IEEE Signal
Process Lett 2014;21:1389). Both divide by the size of a class minus one, as pROC does.

Optimism: Harrell's bootstrap (Harrell, Lee and Mark, Stat Med 1996;15:361), with every step of the fit
repeated, selection included. The AUC of each resample's model on the resample, minus its AUC on the original
patients, is the optimism; its mean is subtracted from the apparent AUC. Each resample contains two thirds of
the original patients. With many features and few patients a model fits these too closely, and the correction
is too small. The AUC on the patients not drawn is free of that, and slightly too low, for its models are
fitted to fewer patients (Efron and Tibshirani, J Am Stat Assoc 1997;92:548).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from scoring.errors import CohortUnusable, FitImpossible

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]  # True: the positive class

Z95 = float(ndtri(0.975))


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """Area under the ROC curve."""

    value: float
    standard_error: float
    positives: int
    negatives: int

    @property
    def interval95(self) -> tuple[float, float] | None:
        """By DeLong, limited to 0..1; None where the variance is 0, as with completely separated classes."""
        if self.standard_error == 0.0:
            return None
        reach = Z95 * self.standard_error
        return max(0.0, self.value - reach), min(1.0, self.value + reach)

    @property
    def summary(self) -> str:
        """The area with its interval, as text."""
        if self.interval95 is None:
            return f"{self.value:.3f} (no interval: no variance)"
        return f"{self.value:.3f} ({self.interval95[0]:.3f} to {self.interval95[1]:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AucComparison:
    """Two scores on the same patients.

    Attributes
    ----------
    difference : first minus second.
    z : 0 where both scores order the patients alike; None where the AUCs differ without variance.
    p : two-sided.
    """

    difference: float
    z: float | None
    p: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """Points from (0, 0) to (1, 1).

    Attributes
    ----------
    false_positive_rate, true_positive_rate : (points,), rising.
    thresholds : (points,), falling from infinity: positive is a score of at least that.
    """

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
    """DeLong's test of two scores of the same patients.

    Parameters
    ----------
    first, second, labels : (patients,).

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
    """The curve with every threshold at which the classification changes.

    Parameters
    ----------
    scores, labels : (patients,). A higher score speaks for the positive class.

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


# R: share of resamples without a model beyond which the others do not represent all. Mostly a model separates
# their classes, which is where its optimism is largest: without them the estimate is too small.
MOST_FAILED = 0.1

# Fits models to patients (rows, with repeats) and scores all patients with each model. A model that cannot be
# fitted is left out; a patient whom a model cannot score has NaN.
Refit = Callable[[npt.NDArray[np.intp]], Mapping[str, Scores]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    """Apparent and corrected AUC of one model.

    Attributes
    ----------
    apparent : AUC on the patients of the fit.
    optimism : None where no resample gave a model.
    not_drawn : mean AUC on the patients not drawn; None where no resample gave one.
    resamples : number that gave a model.
    failed : number that gave none.
    """

    apparent: float  # AUC on the patients of the fit
    optimism: float | None  # None where no resample gave a model
    not_drawn: float | None  # mean AUC on the patients not drawn; None where no resample gave one
    resamples: int  # that gave a fit
    failed: int  # in which no model could be fitted

    @property
    def corrected(self) -> float | None:
        """Apparent AUC minus its optimism; None where more resamples than `MOST_FAILED` gave no model."""
        if self.optimism is None or self._too_many_failed:
            return None
        return self.apparent - self.optimism

    @property
    def corrected_not_drawn(self) -> float | None:
        """AUC on patients not drawn; None where more resamples than `MOST_FAILED` gave no model."""
        return None if self._too_many_failed else self.not_drawn

    @property
    def _too_many_failed(self) -> bool:
        return self.failed > MOST_FAILED * (self.resamples + self.failed)

    @property
    def summary(self) -> str:
        """Corrected AUC and AUC on patients not drawn, or why there is neither, with failures, as text."""
        share = f"{self.failed} of {self.resamples + self.failed} resamples gave no model"
        if self.corrected is None:
            return (
                f"unknown: {share}, such as those whose classes it separates, where it flatters itself most"
            )
        fresh = (
            ""
            if self.corrected_not_drawn is None
            else f", {self.corrected_not_drawn:.3f} on patients not drawn"
        )
        return f"{self.corrected:.3f}{fresh} ({share})"


def optimism_of_auc(refit: Refit, labels: Labels, *, resamples: int, seed: int) -> Mapping[str, Optimism]:
    """The bootstrap estimate for each model that can be fitted to all patients.

    Parameters
    ----------
    refit : fits models to patients and scores all patients.
    seed : of the resamples.

    Raises
    ------
    CohortUnusable, FitImpossible
        If no model can be fitted to all patients.
    """
    apparent = {name: _auc(scores, labels) for name, scores in refit(np.arange(len(labels))).items()}
    gains: dict[str, list[float]] = {name: [] for name in apparent}
    fresh: dict[str, list[float]] = {name: [] for name in apparent}
    for rows in _resamples(labels, resamples, seed):
        try:
            found = refit(rows)
        except (CohortUnusable, FitImpossible):
            continue
        for name in gains.keys() & found.keys():
            scores = found[name]
            gains[name].append(_auc(scores[rows], labels[rows]) - _auc(scores, labels))
            fresh[name] += _auc_of_others(scores, labels, rows)
    return {
        name: Optimism(
            apparent=apparent[name],
            optimism=float(np.mean(of_model)) if of_model else None,
            not_drawn=float(np.mean(fresh[name])) if fresh[name] else None,
            resamples=len(of_model),
            failed=resamples - len(of_model),
        )
        for name, of_model in gains.items()
    }


def _auc(scores: Scores, labels: Labels) -> float:
    known = np.isfinite(scores)
    return auc(scores[known], labels[known]).value


def _auc_of_others(scores: Scores, labels: Labels, drawn: npt.NDArray[np.intp]) -> list[float]:
    """The AUC of those not drawn; nothing where a class has too few of them."""
    others = np.setdiff1d(np.flatnonzero(np.isfinite(scores)), drawn)
    try:
        return [auc(scores[others], labels[others]).value]
    except CohortUnusable:
        return []


def _resamples(labels: Labels, count: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Patients drawn with replacement, each class by itself: its share stays what it is."""
    rng = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    for _ in range(count):
        drawn = np.concatenate([rng.choice(part, len(part)) for part in (positive, negative)])
        yield np.sort(drawn)
