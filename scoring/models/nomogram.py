"""The rad-score, and the nomogram: points of each predictor, their total and its probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from scoring.errors import LaboratoryMissing, UnknownFeature
from scoring.models.card import ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramAxis:
    """One predictor's scale: points rise linearly from one end of its range to the other.

    Attributes
    ----------
    name : "rad_score", "age", "alp", "homocysteine".
    label : as printed.
    unit : UCUM code.
    """

    name: str
    label: str
    unit: str
    lower: float
    upper: float
    points_at_lower: float
    points_at_upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramInput:
    """This patient's value on one axis.

    Attributes
    ----------
    unit : UCUM code.
    """

    name: str
    value: float
    unit: str
    points: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramScale:
    """The drawing's axes: they belong to the model, not to the patient.

    Attributes
    ----------
    points_per_lp : points for one unit of the linear predictor.
    lp_at_zero_points : linear predictor at a total of 0 points.
    """

    axes: tuple[NomogramAxis, ...]
    total_points_max: float
    points_per_lp: float
    lp_at_zero_points: float

    def probability(self, total_points: float) -> float:
        """Probability of the positive class at a total of points (logistic link)."""
        return logistic(self.lp_at_zero_points + total_points / self.points_per_lp)


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramResult:
    """This patient on the nomogram.

    Attributes
    ----------
    positive_class : "osteoporosis".
    """

    scale: NomogramScale
    inputs: tuple[NomogramInput, ...]
    total_points: float
    probability: float
    positive_class: str
    model_name: str
    demonstration: bool


def logistic(linear_predictor: float) -> float:
    """Probability by log-odds, without overflow at either end."""
    if linear_predictor >= 0:
        return 1.0 / (1.0 + exp(-linear_predictor))
    odds = exp(linear_predictor)
    return odds / (1.0 + odds)


def nomogram_scale(card: ModelCard) -> NomogramScale:
    """The axes of a card's nomogram: the predictor whose axis moves the log-odds most spans 100 points.

    ``points_k = (x_k * beta_k - min_k) * sc`` with ``sc = 100 / max_k(range of x_k * beta_k)``, min_k the
    least of ``x_k * beta_k`` on its axis; ``LP = intercept + sum(min_k) + total / sc``.

    Source: the algorithm of rms::nomogram (Harrell).
    """
    effects = [(term.axis[0] * term.coefficient, term.axis[1] * term.coefficient) for term in card.terms]
    points_per_lp = 100.0 / max(abs(upper - lower) for lower, upper in effects)
    axes = tuple(
        NomogramAxis(
            name=term.name,
            label=term.label,
            unit=term.unit,
            lower=term.axis[0],
            upper=term.axis[1],
            points_at_lower=(lower - min(lower, upper)) * points_per_lp,
            points_at_upper=(upper - min(lower, upper)) * points_per_lp,
        )
        for term, (lower, upper) in zip(card.terms, effects, strict=True)
    )
    return NomogramScale(
        axes=axes,
        total_points_max=sum(max(axis.points_at_lower, axis.points_at_upper) for axis in axes),
        points_per_lp=points_per_lp,
        lp_at_zero_points=card.clinical.intercept + sum(min(effect) for effect in effects),
    )


def apply_nomogram(
    card: ModelCard, *, rad_score: float, age: float | None, alp: float | None, homocysteine: float | None
) -> NomogramResult:
    """This patient's points and probability. Values beyond an axis have points beyond its ends.

    Parameters
    ----------
    age : in years.
    alp : in U/L.
    homocysteine : in umol/L.

    Raises
    ------
    LaboratoryMissing
        If an input is None: missing values are never replaced.
    """
    given = {"rad_score": rad_score, "age": age, "alp": alp, "homocysteine": homocysteine}
    values = {name: value for name, value in given.items() if value is not None}
    if len(values) != len(given):
        raise LaboratoryMissing(tuple(name for name in given if name not in values))
    scale = nomogram_scale(card)
    inputs = tuple(
        NomogramInput(
            name=term.name,
            value=values[term.name],
            unit=term.unit,
            points=(values[term.name] * term.coefficient - min(end * term.coefficient for end in term.axis))
            * scale.points_per_lp,
        )
        for term in card.terms
    )
    total = sum(entry.points for entry in inputs)
    return NomogramResult(
        scale=scale,
        inputs=inputs,
        total_points=total,
        probability=scale.probability(total),
        positive_class=card.positive_class,
        model_name=card.name,
        demonstration=card.demonstration,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTerm:
    """One feature's contribution to the score: coefficient * (value - mean) / sd.

    Attributes
    ----------
    name : pyradiomics name, such as "wavelet-LLL_firstorder_10Percentile".
    """

    name: str
    value: float
    standardised: float
    contribution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RadScore:
    """Rad-score = intercept + sum of the contributions.

    Source: Xie et al. 2022.
    """

    value: float
    intercept: float
    terms: tuple[FeatureTerm, ...]
    model_name: str
    model_sha256: str
    demonstration: bool


def rad_score(card: ModelCard, features: Mapping[str, float]) -> RadScore:
    """``intercept + sum of coefficient * (value - mean) / sd``, mean and SD being the training cohort's.

    Raises
    ------
    UnknownFeature
        If a feature that the card needs is not among `features`.

    Source: Xie et al. 2022, Methods.
    """
    missing = tuple(feature.name for feature in card.features if feature.name not in features)
    if missing:
        raise UnknownFeature(missing)
    terms = []
    for feature in card.features:
        standardised = (features[feature.name] - feature.mean) / feature.sd
        terms.append(
            FeatureTerm(
                name=feature.name,
                value=features[feature.name],
                standardised=standardised,
                contribution=feature.coefficient * standardised,
            )
        )
    return RadScore(
        value=card.rad_score.intercept + sum(term.contribution for term in terms),
        intercept=card.rad_score.intercept,
        terms=tuple(terms),
        model_name=card.name,
        model_sha256=card.sha256,
        demonstration=card.demonstration,
    )
