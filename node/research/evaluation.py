"""A model card on patients that it was not made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import expit

from config.findings import FindingTable
from node.research.card import trained_by
from node.research.feature_table import FeatureTable
from node.research.judged import Range, osteoporosis_of, require_enough
from node.research.tables import Matrix, clinical_values, measured
from node.research.technique import outside
from node.research.training import COMBINED, RADIOMICS
from scoring.bmd import StudyClass
from scoring.modelcard import CUTOFFS, ModelCard
from scoring.radscore import rad_score
from scoring.training.cohort import CLINICAL, Cohort, Patient, Split
from scoring.training.discrimination import Auc
from scoring.training.errors import CohortUnusable
from scoring.training.validation import Validation, subgroup_aucs, validate

_CARD_NAMES = {"age": "age", "alp_u_l": "alp", "homocysteine_umol_l": "homocysteine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Everything that came out."""

    cohort: Cohort
    left_out: Mapping[str, str]  # patient -> why there is no rad-score of this model
    without_probability: Mapping[str, str]  # patient -> why the nomogram gives none; neither model is judged
    cutoffs: Mapping[str, float]
    validation: Validation
    subgroups: Mapping[tuple[str, str], Auc]
    rad_scores: Mapping[str, tuple[float, ...]]  # by class


def evaluate_card(
    card: ModelCard,
    cohort: Cohort,
    folder: Path,
    table: FeatureTable,
    *,
    cutoff: float | None,
    findings: FindingTable,
) -> Evaluated:
    """Rad-score and combined model of a card on the patients of a cohort to whom the node would apply it.

    Left out are those that trained it, and those outside the card's technique or its plausible rad-scores;
    without probability are those whose age or laboratory is missing or beyond the card's axes.

    Parameters
    ----------
    cutoff : a probability for both models; None: those that the card was made with.
    findings : words for what the node would say.

    Raises
    ------
    CohortUnusable
        If the features were made with other settings or are not the card's, no cut-off is known, or too few
        patients are left of a class.
    """
    if table.made_with.radiomics_settings_sha256 != card.radiomics_settings_sha256:
        raise CohortUnusable("the features were made with other settings than the model's")
    absent = [one.name for one in card.features if one.name not in table.names]
    if absent:
        raise CohortUnusable(f"features of the model that the table lacks: {', '.join(absent)}")
    cutoffs = {name: _cutoff(card, name, cutoff) for name in (RADIOMICS, COMBINED)}
    reach = Range(model=card.name, terms=card.terms, findings=findings)
    scored = measured(cohort, folder, table).without(partial(_why_not_scored, card, reach))
    low = scored.without(lambda one, _: "normal bone" if one.label is StudyClass.NORMAL else "")
    judged = low.without(lambda one, row: reach.why_no_probability(_score(card, row), one))
    without_probability = {name: why for name, why in judged.left_out.items() if name not in low.left_out}
    require_enough(judged, {**scored.left_out, **without_probability})
    scores = np.array([_score(card, row) for row in scored.rows], dtype=np.float64)
    classes = np.array([one.label.value for one in scored.patients])
    judged_scores = np.array([_score(card, row) for row in judged.rows], dtype=np.float64)
    validation = validate(
        {
            RADIOMICS: np.asarray(expit(judged_scores)),
            COMBINED: combined_probability(card, judged_scores, clinical_values(judged.patients, CLINICAL)),
        },
        osteoporosis_of(judged),
        cutoffs,
        development=False,
    )
    return Evaluated(
        cohort=cohort,
        left_out=scored.left_out,
        without_probability=without_probability,
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
    effect = card.clinical.intercept + card.term("rad_score").coefficient * scores
    for column, values in zip(CLINICAL, clinical.T, strict=True):
        effect = effect + card.term(_CARD_NAMES[column]).coefficient * values
    return np.asarray(expit(effect))


def _score(card: ModelCard, row: Mapping[str, str]) -> float:
    return rad_score(card, {one.name: float(row[one.name]) for one in card.features}).value


def _why_not_scored(card: ModelCard, reach: Range, patient: Patient, row: Mapping[str, str]) -> str:
    if patient.split is Split.TRAIN:
        return "the table's split: trains"
    if trained_by(card, row["study_instance_uid"]):
        return "the model was trained on this study"
    return outside(row, card.applicability) or reach.why_not_scored(_score(card, row))


def _cutoff(card: ModelCard, model: str, given: float | None) -> float:
    if given is not None:
        return given
    kept = card.training.get(CUTOFFS[model])
    if not isinstance(kept, int | float):
        raise CohortUnusable(f"the card keeps no cut-off of its {model} model; name one with --cutoff")
    return float(kept)
