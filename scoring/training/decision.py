"""Decision curve: what treating by a model gains against treating all or none.

Source: Vickers and Elkin, Med Decis Making 2006;26:565: ``TP/n - FP/n * pt / (1 - pt)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.training.discrimination import Labels, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCurve:
    """Net benefit by threshold probability; treating none is 0 everywhere."""

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
