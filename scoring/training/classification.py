"""What a cut-off makes of a score: the counts, and rates with exact intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from scoring.training.discrimination import Labels, Scores, roc_curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A proportion with its exact 95 % interval (Clopper and Pearson); None of nothing."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def interval95(self) -> tuple[float, float] | None:
        """Quantiles of beta distributions: Clopper and Pearson, Biometrika 1934;26:404."""
        if not self.of:
            return None
        misses = self.of - self.hits
        lower = float(betaincinv(self.hits, misses + 1, 0.025)) if self.hits else 0.0
        upper = float(betaincinv(self.hits + 1, misses, 0.975)) if misses else 1.0
        return lower, upper


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A table of two by two. Positive is whatever the caller names so: say which."""

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
    """The table at a cut-off: positive is a score of at least `cutoff`."""
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
