"""The model card of a training: what a node needs to apply the model, and what its users should know."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from node import __version__
from node.research.feature_table import FeatureTable
from node.research.training import COMBINED, RADIOMICS, Plan, Trained
from scoring.modelcard import (
    CUTOFFS,
    SCHEMA,
    SCHEMA_VERSION,
    CardFeature,
    ClinicalModel,
    ModelCard,
    RadScoreModel,
    canonical_json,
    parse_model_card,
)
from scoring.training.agreement import FORM
from scoring.training.cohort import LabelKind

# Named in full by Xie et al. 2022 (science of the project: five further names are incomplete there).
DOCUMENTED = frozenset({"wavelet-LLL_firstorder_10Percentile"})
LABELS = {
    LabelKind.STATED: "class as the cohort's table states it",
    LabelKind.BY_T_SCORE: "T-score as the cohort's table states it, by the rule of Xie et al. 2022",
}
_STUDIES = "studies"  # of a card's `training`: digests of the StudyInstanceUIDs that trained
CIRCULARITY = (
    "T-score labels derive from the same HU that the features measure, where they come from the same CT: "
    "the AUC then tells more of their kinship than of a patient's bone"
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
        "agreement": f"{', '.join(trained.agreement)}: {FORM}" if trained.agreement else "not assessed",
        "features_kept": len(trained.kept),
        "features_after_mrmr": len(trained.fits.rad_score.relevant),
        "circularity": CIRCULARITY,
        _STUDIES: " ".join(sorted(_digest(uid) for uid in trained.studies)),
    }
    for split, patients in trained.splits.items():
        for label in ("osteoporosis", "osteopenia"):
            told[f"{split}_{label}"] = sum(one.label == label for one in patients)
        for name, model in trained.validations[split].models.items():
            told[f"{split}_auc_{name}"] = model.auc.told
    for name in (RADIOMICS, COMBINED):
        if name in trained.optimism:
            told[f"train_auc_{name}_less_optimism"] = trained.optimism[name].told
    return told | {key: trained.cutoffs[name] for name, key in CUTOFFS.items()}


def tells_its_studies(card: ModelCard) -> bool:
    """Whether a card says on which studies it was trained: those of older versions and of R do not."""
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
