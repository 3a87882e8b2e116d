"""The predictors of a new card: how much each counts, and which values the training patients had."""

from __future__ import annotations

from math import ceil, floor

import numpy as np

from node.research.tables import Matrix
from scoring.modelcard import CardTerm
from scoring.training.cohort import CLINICAL, PLAUSIBLE
from scoring.training.logistic import LogisticModel

# Card name, label and UCUM unit of each clinical value.
_TERMS = {
    "age": ("age", "Age", "a"),
    "alp_u_l": ("alp", "ALP", "U/L"),
    "homocysteine_umol_l": ("homocysteine", "Homocysteine", "umol/L"),
}


def card_terms(combined: LogisticModel, scores: Matrix, clinical: Matrix) -> tuple[CardTerm, ...]:
    """The combined model's terms, each with its axis.

    Parameters
    ----------
    combined : fitted to `scores`, then the columns of `CLINICAL`.
    scores : rad-scores of all who trained, shape (patients,).
    clinical : of the same, shape (patients, values); NaN where a value is missing. As for the fit
        (`scoring.training.fitting.fit_models`), whoever lacks a value counts for none of these axes.
    """
    lowest, highest = _outward(scores)
    fitted = clinical[np.isfinite(clinical).all(axis=1)]
    rad_score, *others = combined.terms
    terms = [
        CardTerm(
            name="rad_score",
            label="Rad-score",
            unit="1",
            coefficient=rad_score.value,
            axis=(lowest, highest),
            plausible=(2 * lowest - highest, 2 * highest - lowest),
        )
    ]
    for column, values, coefficient in zip(CLINICAL, fitted.T, others, strict=True):
        name, label, unit = _TERMS[column]
        terms.append(
            CardTerm(
                name=name,
                label=label,
                unit=unit,
                coefficient=coefficient.value,
                axis=(float(values.min()), float(values.max())),
                plausible=PLAUSIBLE[column],
            )
        )
    return tuple(terms)


def _outward(scores: Matrix) -> tuple[float, float]:
    """The range of rad-scores with the digits that a report gives, its ends included."""
    return floor(float(scores.min()) * 100) / 100, ceil(float(scores.max()) * 100) / 100
