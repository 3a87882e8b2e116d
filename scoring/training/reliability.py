"""Whether predicted probabilities come true: calibration curve, Hosmer and Lemeshow's test, Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from scoring.training.discrimination import Labels, Scores
from scoring.training.errors import CohortUnusable

GROUPS = 10
# Least variance of a group's count: below it all its risks are 0 or 1 but for rounding, and one patient of
# the other class would make chi squared a matter of the last digit.
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskGroup:
    """Patients of neighbouring predicted risk."""

    patients: int
    observed: int  # of the positive class
    expected: float  # sum of probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class HosmerLemeshow:
    """The test over groups of risk."""

    statistic: float
    degrees_of_freedom: int
    p: float
    groups: tuple[RiskGroup, ...]

    @property
    def p_told(self) -> str:
        """As papers give it: "= 0.024", "< 0.001"."""
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
        statistic=statistic,
        degrees_of_freedom=freedom,
        p=float(chdtrc(freedom, statistic)),
        groups=groups,
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
    """Mean squared distance of prediction and outcome. Source: Brier, Mon Weather Rev 1950;78:1."""
    return float(np.mean((probabilities - labels) ** 2))
