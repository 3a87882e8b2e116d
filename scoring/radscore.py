"""The radiomic score: a linear combination of standardised features."""

from __future__ import annotations

from dataclasses import dataclass


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
