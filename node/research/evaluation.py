"""Validation of a model card on patients that it was not made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.special import expit

from config.findings import FindingTable
from node import __version__
from node.research.cohort_tables import FeatureTable, Matrix, clinical_values, measured, outside
from node.research.model_training import (
    COMBINED,
    RADIOMICS,
    Plan,
    Range,
    Trained,
    osteoporosis_of,
    require_enough,
)
from scoring.density.bmd import StudyClass
from scoring.errors import CohortUnusable
from scoring.models.card import (
    CUTOFFS,
    SCHEMA,
    SCHEMA_VERSION,
    CardFeature,
    ClinicalModel,
    ModelCard,
    RadScoreModel,
    canonical_json,
    parse_model_card,
    rad_score,
)
from scoring.training.cohort import CLINICAL, Cohort, LabelKind, Patient, Split
from scoring.training.discrimination import Auc
from scoring.training.feature_selection import ICC_FORM
from scoring.training.validation import Validation, subgroup_aucs, validate

# The model card of a training: what a node needs to apply the model, and what its users should know.


# Named in full by Xie et al. 2022 (science of the project: five further names are incomplete there).
DOCUMENTED = frozenset({"wavelet-LLL_firstorder_10Percentile"})
LABELS = {
    LabelKind.STATED: "class as the cohort's table states it",
    LabelKind.BY_T_SCORE: "T-score as the cohort's table states it, by the rule of Xie et al. 2022",
}
_STUDIES = "studies"  # of a card's `training`: digests of the StudyInstanceUIDs that trained
CIRCULARITY = (
    "T-score labels derive from the same HU that the features measure, where they come from the same CT: "
    "the AUC then reflects their similarity more than a patient's bone"
)


def card_of(trained: Trained, table: FeatureTable, plan: Plan) -> ModelCard:
    """The combined model as a card, read back from its JSON form: what is returned, a node can read.

    Raises
    ------
    ModelCardInvalid
    """
    fits = trained.fits
    card = ModelCard(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        name=plan.name,
        version=plan.version,
        demonstration=False,
        notice="For research; not validated beyond the cohorts that its card names",
        positive_class="osteoporosis",
        negative_class="osteopenia",
        label=LABELS[trained.cohort.label_kind],
        rad_score=RadScoreModel(
            intercept=fits.rad_score.intercept,
            features=tuple(
                CardFeature(
                    name=one.name,
                    mean=one.mean,
                    sd=one.sd,
                    coefficient=one.coefficient,
                    origin="documented" if one.name in DOCUMENTED else "chosen",
                )
                for one in fits.rad_score.features
            ),
        ),
        clinical=ClinicalModel(intercept=fits.combined.intercept.value, terms=trained.terms),
        applicability=trained.technique,
        software={"osteonode": __version__}
        | {package: version(package) for package in ("scikit-learn", "statsmodels")}
        | dict(table.made_with.packages),
        radiomics_settings_sha256=table.made_with.radiomics_settings_sha256,
        training=_summary(trained, plan),
    )
    return parse_model_card(canonical_json(card))


def _summary(trained: Trained, plan: Plan) -> dict[str, str | int | float | bool]:
    told: dict[str, str | int | float | bool] = {
        "seed": plan.seed,
        "penalty": plan.penalty.value,
        "split": "the table's own" if trained.own_split else "drawn, 7:3 of each class",
        "folds": "the table's own" if trained.own_folds else "drawn",
        "agreement": f"{', '.join(trained.agreement)}: {ICC_FORM}" if trained.agreement else "not assessed",
        "features_kept": len(trained.kept),
        "features_after_mrmr": len(trained.fits.rad_score.relevant),
        "circularity": CIRCULARITY,
        _STUDIES: " ".join(sorted(_digest(uid) for uid in trained.studies)),
    }
    for split, patients in trained.splits.items():
        for label in ("osteoporosis", "osteopenia"):
            told[f"{split}_{label}"] = sum(one.label == label for one in patients)
        for name, model in trained.validations[split].models.items():
            told[f"{split}_auc_{name}"] = model.auc.summary
    for name in (RADIOMICS, COMBINED):
        if name in trained.optimism:
            told[f"train_auc_{name}_less_optimism"] = trained.optimism[name].summary
    return told | {key: trained.cutoffs[name] for name, key in CUTOFFS.items()}


def tells_its_studies(card: ModelCard) -> bool:
    """Whether a card names its training studies; cards of older versions and of R do not."""
    return bool(card.training.get(_STUDIES))


def trained_by(card: ModelCard, study_instance_uid: str) -> bool:
    """Whether a study is of those that a card says it was trained on."""
    return bool(study_instance_uid) and _digest(study_instance_uid) in str(
        card.training.get(_STUDIES, "")
    ).split(" ")


def _digest(study_instance_uid: str) -> str:
    """Tells one study from others, and nothing to who has not its UID; 48 bits: a chance match of one in 1e9
    for a thousand studies against three hundred."""
    return hashlib.sha256(study_instance_uid.encode()).hexdigest()[:12]


_CARD_NAMES = {"age": "age", "alp_u_l": "alp", "homocysteine_umol_l": "homocysteine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Results of a validation.

    Attributes
    ----------
    left_out : reason by patient without a rad-score of this model.
    without_probability : reason by patient without a nomogram probability; no model is judged on them.
    rad_scores : by class.
    """

    cohort: Cohort
    left_out: Mapping[str, str]
    without_probability: Mapping[str, str]
    cutoffs: Mapping[str, float]
    validation: Validation
    subgroups: Mapping[tuple[str, str], Auc]
    rad_scores: Mapping[str, tuple[float, ...]]


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
    """Probability of osteoporosis by the card's clinical terms.

    Parameters
    ----------
    scores : rad-scores, shape (patients,).
    clinical : shape (patients, variables); the columns of `CLINICAL`.

    Returns
    -------
    Shape (patients,).
    """
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
