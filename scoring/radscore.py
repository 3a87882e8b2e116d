"""The radiomic score: a linear combination of standardised features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scoring.errors import UnknownFeature
from scoring.modelcard import ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTerm:
    """One feature's way into the score: coefficient * (value - mean) / sd."""

    name: str  # pyradiomics name, e.g. "wavelet-LLL_firstorder_10Percentile"
    value: float
    standardised: float
    contribution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RadScore:
    """Rad-score = intercept + sum of the contributions (Xie et al. 2022)."""

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
