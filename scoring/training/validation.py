"""Validation of models on patients: counts at a cut-off, calibration, decision curve, and all together.

Decision curves: Vickers and Elkin, Med Decis Making 2006;26:565: ``TP/n - FP/n * pt / (1 - pt)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, chdtrc

from scoring.errors import CohortUnusable
from scoring.training.discrimination import (
    Auc,
    AucComparison,
    Labels,
    RocCurve,
    Scores,
    auc,
    compare,
    roc_curve,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A proportion with its exact 95 % interval; None where `of` is 0.

    Attributes
    ----------
    hits : numerator.
    of : denominator.
    """

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def interval95(self) -> tuple[float, float] | None:
        """Clopper and Pearson's interval, by quantiles of beta distributions.

        Source: Clopper and Pearson, Biometrika 1934;26:404.
        """
        if not self.of:
            return None
        misses = self.of - self.hits
        lower = float(betaincinv(self.hits, misses + 1, 0.025)) if self.hits else 0.0
        upper = float(betaincinv(self.hits + 1, misses, 0.975)) if misses else 1.0
        return lower, upper


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A two by two table. The caller defines which class is positive."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int

    @property
    def accuracy(self) -> Rate:
        hits = self.true_positive + self.true_negative
        return Rate(hits=hits, of=hits + self.false_positive + self.false_negative)

    @property
    def sensitivity(self) -> Rate:
        return Rate(hits=self.true_positive, of=self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Rate:
        return Rate(hits=self.true_negative, of=self.true_negative + self.false_positive)

    @property
    def positive_predictive_value(self) -> Rate:
        return Rate(hits=self.true_positive, of=self.true_positive + self.false_positive)

    @property
    def negative_predictive_value(self) -> Rate:
        return Rate(hits=self.true_negative, of=self.true_negative + self.false_negative)


def counts_at(scores: Scores, labels: Labels, cutoff: float) -> Counts:
    """The table at a cut-off.

    Parameters
    ----------
    scores, labels : (patients,).
    cutoff : positive is a score of at least this.
    """
    called = scores >= cutoff
    return Counts(
        true_positive=int((called & labels).sum()),
        false_negative=int((~called & labels).sum()),
        false_positive=int((called & ~labels).sum()),
        true_negative=int((~called & ~labels).sum()),
    )


def youden_cutoff(scores: Scores, labels: Labels) -> float:
    """The cut-off with the largest sensitivity + specificity; of several the highest.

    Source: Youden, Cancer 1950;3:32.

    Raises
    ------
    CohortUnusable
        If a class has fewer than two patients or a score is not finite.
    """
    curve = roc_curve(scores, labels)
    gain = curve.true_positive_rate - curve.false_positive_rate
    return float(curve.thresholds[1:][int(np.argmax(gain[1:]))])


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCurve:
    """Net benefit by threshold probability; treating none is 0 everywhere.

    Attributes
    ----------
    thresholds, model, treat_all : (thresholds,).
    """

    thresholds: Scores
    model: Scores
    treat_all: Scores


def decision_curve(probabilities: Scores, labels: Labels, thresholds: Scores | None = None) -> DecisionCurve:
    """Net benefit of a model, and of treating everybody.

    Parameters
    ----------
    thresholds : of probability, above 0 and below 1; by default every hundredth.
    """
    at = np.asarray(np.arange(0.01, 1.0, 0.01) if thresholds is None else thresholds, np.float64)
    called = probabilities[None] >= at[:, None]
    odds = at / (1 - at)
    prevalence = labels.mean()
    return DecisionCurve(
        thresholds=at,
        model=(called & labels).mean(axis=1) - (called & ~labels).mean(axis=1) * odds,
        treat_all=prevalence - (1 - prevalence) * odds,
    )


GROUPS = 10  # of risk, in a calibration curve
# Least variance of a group's count: below it all risks of the group are 0 or 1 except for rounding, and one
# patient of the other class would make chi squared depend on the last digit.
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskGroup:
    """Patients of neighbouring predicted risk.

    Attributes
    ----------
    observed : patients of the positive class.
    expected : sum of the predicted probabilities.
    """

    patients: int
    observed: int
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HosmerLemeshow:
    """Hosmer and Lemeshow's test over groups of predicted risk.

    Attributes
    ----------
    statistic : chi squared.
    groups : by rising risk.
    """

    statistic: float
    degrees_of_freedom: int
    p: float
    groups: tuple[RiskGroup, ...]

    @property
    def p_text(self) -> str:
        """The p value as papers print it: "= 0.024", "< 0.001"."""
        return f"= {self.p:.3f}" if self.p >= 0.001 else "< 0.001"


def hosmer_lemeshow(probabilities: Scores, labels: Labels, *, development: bool) -> HosmerLemeshow:
    """Chi squared of observed against expected over tenths of predicted risk.

    Parameters
    ----------
    development : True for the data that the model was fitted to, which costs two degrees of freedom; on new
        data there are as many as groups (Hosmer, Lemeshow and Sturdivant, Applied Logistic Regression).

    Raises
    ------
    CohortUnusable
        If predictions fall into fewer than three groups, are no probabilities, or are 0 or 1 throughout one.
    """
    groups = risk_groups(probabilities, labels)
    freedom = len(groups) - 2 if development else len(groups)
    if len(groups) < 3:
        raise CohortUnusable("predicted risks fall into fewer than three groups")
    statistic = 0.0
    for group in groups:
        variance = group.expected * (1 - group.expected / group.patients)
        if variance < _LEAST_VARIANCE:
            raise CohortUnusable("all predicted risks of a group are 0 or 1")
        statistic += (group.observed - group.expected) ** 2 / variance
    return HosmerLemeshow(
        statistic=statistic, degrees_of_freedom=freedom, p=float(chdtrc(freedom, statistic)), groups=groups
    )


def risk_groups(probabilities: Scores, labels: Labels, groups: int = GROUPS) -> tuple[RiskGroup, ...]:
    """Patients by quantiles of risk, upper bounds included; equal risks stay together.

    Raises
    ------
    CohortUnusable
        If a prediction is not between 0 and 1.
    """
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise CohortUnusable("a predicted probability is not between 0 and 1")
    bounds = np.unique(np.quantile(probabilities, np.linspace(0, 1, groups + 1)))
    place = np.clip(np.searchsorted(bounds, probabilities, "left") - 1, 0, max(len(bounds) - 2, 0))
    return tuple(
        RiskGroup(
            patients=int(inside.sum()),
            observed=int(labels[inside].sum()),
            expected=float(probabilities[inside].sum()),
        )
        for inside in (place == number for number in range(max(len(bounds) - 1, 1)))
        if inside.any()
    )


def brier_score(probabilities: Scores, labels: Labels) -> float:
    """Mean squared difference of prediction and outcome.

    Source: Brier, Mon Weather Rev 1950;78:1.
    """
    return float(np.mean((probabilities - labels) ** 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelValidation:
    """One model on one set of patients. The positive class is osteoporosis throughout.

    Attributes
    ----------
    cutoff : probability from which a patient counts as positive.
    calibration : None where the risks allow no test.
    """

    auc: Auc
    roc: RocCurve
    cutoff: float
    counts: Counts
    calibration: HosmerLemeshow | None
    brier: float
    decision: DecisionCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Several models on the same patients.

    Attributes
    ----------
    comparisons : DeLong's test of each pair of models.
    """

    patients: int
    positives: int
    models: Mapping[str, ModelValidation]
    comparisons: Mapping[tuple[str, str], AucComparison]


def validate(
    probabilities: Mapping[str, Scores], labels: Labels, cutoffs: Mapping[str, float], *, development: bool
) -> Validation:
    """Judge models on patients whose class is known.

    Parameters
    ----------
    probabilities : of osteoporosis by each model, shape (patients,); every model of every patient.
    labels : True for osteoporosis.
    cutoffs : of each model, chosen on the training patients.
    development : whether the models were fitted to these patients.

    Raises
    ------
    CohortUnusable
        If a class has fewer than two patients, or a probability is missing.
    """
    names = tuple(probabilities)
    return Validation(
        patients=len(labels),
        positives=int(labels.sum()),
        models={
            name: _validate_one(probabilities[name], labels, cutoffs[name], development) for name in names
        },
        comparisons={
            (first, second): compare(probabilities[first], probabilities[second], labels)
            for place, first in enumerate(names)
            for second in names[place + 1 :]
        },
    )


def _validate_one(probabilities: Scores, labels: Labels, cutoff: float, development: bool) -> ModelValidation:
    area = auc(probabilities, labels)  # first: it refuses what cannot be judged
    try:
        calibration = hosmer_lemeshow(probabilities, labels, development=development)
    except CohortUnusable:
        calibration = None
    return ModelValidation(
        auc=area,
        roc=roc_curve(probabilities, labels),
        cutoff=cutoff,
        counts=counts_at(probabilities, labels, cutoff),
        calibration=calibration,
        brier=brier_score(probabilities, labels),
        decision=decision_curve(probabilities, labels),
    )


def subgroup_aucs(scores: Scores, classes: npt.NDArray[np.str_]) -> Mapping[tuple[str, str], Auc]:
    """AUC of a score for pairs of classes.

    Osteoporosis against osteopenia, and the three comparisons with normal bone of Xie et al. 2022, one of
    which joins the two classes.

    Parameters
    ----------
    scores : (patients,), higher speaks for osteoporosis.
    classes : (patients,), "normal", "osteopenia" or "osteoporosis".

    Returns
    -------
    By (positive class, negative class); pairs with fewer than two patients of a class are left out.
    """
    found = {}
    for positive, negative in (
        (("osteoporosis",), "osteopenia"),
        (("osteoporosis",), "normal"),
        (("osteoporosis", "osteopenia"), "normal"),
        (("osteopenia",), "normal"),
    ):
        among = np.isin(classes, positive)
        chosen = among | (classes == negative)
        labels = among[chosen]
        if labels.sum() >= 2 and (~labels).sum() >= 2:
            found[" or ".join(positive), negative] = auc(scores[chosen], labels)
    return found
