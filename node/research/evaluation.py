"""A model card on patients that it was not made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from node.research.card import cutoff_key
from node.research.tables import FeatureTable, Matrix, clinical_values, features_of
from node.research.training import COMBINED, RADIOMICS
from scoring.bmd import StudyClass
from scoring.modelcard import ModelCard
from scoring.radscore import rad_score
from scoring.training.cohort import CLINICAL, Cohort
from scoring.training.discrimination import Auc
from scoring.training.errors import CohortUnusable
from scoring.training.validation import Validation, subgroup_aucs, validate

_CARD_NAMES = {"age": "age", "alp_u_l": "alp", "homocysteine_umol_l": "homocysteine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Everything that came out."""

    cohort: Cohort
    without_features: Mapping[str, str]
    without_values: tuple[str, ...]  # patients whose clinical values are not all known
    cutoffs: Mapping[str, float]
    validation: Validation
    subgroups: Mapping[tuple[str, str], Auc]
    rad_scores: Mapping[str, tuple[float, ...]]  # by class


def evaluate_card(
    card: ModelCard, cohort: Cohort, folder: Path, table: FeatureTable, *, cutoff: float | None
) -> Evaluated:
    """Rad-score and combined model of a card on a cohort.

    Parameters
    ----------
    cutoff : a probability for both models; None: those that the card was made with.

    Raises
    ------
    CohortUnusable
        If the features were made with other settings or are not the card's, no cut-off is known, or a class
        has fewer than two patients.
    """
    if table.made_with["radiomics_settings_sha256"] != card.radiomics_settings_sha256:
        raise CohortUnusable("the features were made with other settings than the model's")
    absent = [one.name for one in card.features if one.name not in table.names]
    if absent:
        raise CohortUnusable(f"features of the model that the table lacks: {', '.join(absent)}")
    cutoffs = {name: _cutoff(card, name, cutoff) for name in (RADIOMICS, COMBINED)}
    patients, values, without = features_of(cohort, folder, table)
    scores = np.array(
        [rad_score(card, dict(zip(table.names, row, strict=True))).value for row in values.tolist()],
        dtype=np.float64,
    )
    clinical = clinical_values(patients, CLINICAL)
    classes = np.array([one.label.value for one in patients])
    known = np.isfinite(clinical).all(axis=1)
    judged = (classes != StudyClass.NORMAL) & known
    labels = classes[judged] == StudyClass.OSTEOPOROSIS
    validation = validate(
        {
            RADIOMICS: np.asarray(expit(scores[judged])),
            COMBINED: combined_probability(card, scores[judged], clinical[judged]),
        },
        labels,
        cutoffs,
        development=False,
    )
    return Evaluated(
        cohort=cohort,
        without_features=without,
        without_values=tuple(patients[at].name for at in np.flatnonzero(~known)),
        cutoffs=cutoffs,
        validation=validation,
        subgroups=subgroup_aucs(scores, classes),
        rad_scores={
            name: tuple(float(one) for one in scores[classes == name])
            for name in ("normal", "osteopenia", "osteoporosis")
            if (classes == name).any()
        },
    )


def combined_probability(card: ModelCard, scores: Matrix, clinical: Matrix) -> Matrix:
    """Of osteoporosis by the card's clinical terms; `clinical` has the columns of `CLINICAL`."""
    effect = card.clinical_intercept + card.term("rad_score").coefficient * scores
    for column, values in zip(CLINICAL, clinical.T, strict=True):
        effect = effect + card.term(_CARD_NAMES[column]).coefficient * values
    return np.asarray(expit(effect))


def _cutoff(card: ModelCard, model: str, given: float | None) -> float:
    if given is not None:
        return given
    kept = card.training.get(cutoff_key(model))
    if not isinstance(kept, int | float):
        raise CohortUnusable(f"the card keeps no cut-off of its {model} model; name one with --cutoff")
    return float(kept)
