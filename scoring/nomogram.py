"""The nomogram: points per predictor, their total, and the probability it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramAxis:
    """One predictor's scale: points rise linearly from one end of its range to the other."""

    name: str  # "rad_score", "age", "alp", "homocysteine"
    label: str  # as printed
    unit: str  # UCUM
    lower: float
    upper: float
    points_at_lower: float
    points_at_upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramInput:
    """This patient's value on one axis."""

    name: str
    value: float
    unit: str  # UCUM
    points: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramScale:
    """The drawing's axes: they belong to the model, not to the patient."""

    axes: tuple[NomogramAxis, ...]
    total_points_max: float
    points_per_lp: float  # points for one unit of the linear predictor
    lp_at_zero_points: float

    def probability(self, total_points: float) -> float:
        """Probability of the positive class at a total (logistic link)."""
        return 1.0 / (1.0 + exp(-(self.lp_at_zero_points + total_points / self.points_per_lp)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramResult:
    """This patient on the nomogram."""

    scale: NomogramScale
    inputs: tuple[NomogramInput, ...]
    total_points: float
    probability: float
    positive_class: str  # "osteoporosis"
    model_name: str
    demonstration: bool
