"""The model card of a training: what a node needs to apply the model, and what its users should know."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from math import ceil, floor

import numpy as np

from node import __version__
from node.research.feature_table import FeatureTable
from node.research.tables import clinical_values
from node.research.training import COMBINED, RADIOMICS, Plan, Trained
from scoring.modelcard import CUTOFFS, CardFeature, CardTerm, ModelCard, canonical_json, parse_model_card
from scoring.training.agreement import FORM
from scoring.training.cohort import CLINICAL, PLAUSIBLE, LabelKind, Split

# Named in full by Xie et al. 2022 (science of the project: five further names are incomplete there).
DOCUMENTED = frozenset({"wavelet-LLL_firstorder_10Percentile"})
# Card name, label and UCUM unit of each clinical value.
_TERMS = {
    "age": ("age", "Age", "a"),
    "alp_u_l": ("alp", "ALP", "U/L"),
    "homocysteine_umol_l": ("homocysteine", "Homocysteine", "umol/L"),
}
LABELS = {
    LabelKind.STATED: "class as the cohort's table states it",
    LabelKind.BY_T_SCORE: "T-score as the cohort's table states it, by the rule of Xie et al. 2022",
}
_STUDIES = "studies"  # of a card's `training`: digests of the StudyInstanceUIDs that trained
CIRCULARITY = (
    "T-score labels derive from the same HU that the features measure, where they come from the same CT: "
    "the AUC then tells more of their kinship than of a patient's bone"
)


def card_of(trained: Trained, table: FeatureTable, plan: Plan, *, name: str, version_: str) -> ModelCard:
    """The combined model as a card, read back from its JSON form: what is returned, a node can read.

    Raises
    ------
    ModelCardInvalid
    """
    fits = trained.fits
    lowest, highest = _outward(trained.trained_range)
    clinical = clinical_values(trained.splits[Split.TRAIN], CLINICAL)
    fitted = clinical[np.isfinite(clinical).all(axis=1)]  # as `scoring.training.fitting.fit_models` does
    terms = [
        CardTerm(
            name="rad_score",
            label="Rad-score",
            unit="1",
            coefficient=fits.combined.terms[0].value,
            axis=(lowest, highest),
            plausible=(2 * lowest - highest, 2 * highest - lowest),
        )
    ]
    for column, values, coefficient in zip(CLINICAL, fitted.T, fits.combined.terms[1:], strict=True):
        short, label, unit = _TERMS[column]
        terms.append(
            CardTerm(
                name=short,
                label=label,
                unit=unit,
                coefficient=coefficient.value,
                axis=(float(values.min()), float(values.max())),
                plausible=PLAUSIBLE[column],
            )
        )
    card = ModelCard(
        name=name,
        version=version_,
        demonstration=False,
        notice="For research; not validated beyond the cohorts that its card names",
        positive_class="osteoporosis",
        negative_class="osteopenia",
        label=LABELS[trained.cohort.label_kind],
        rad_score_intercept=fits.rad_score.intercept,
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
        clinical_intercept=fits.combined.intercept.value,
        terms=tuple(terms),
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


def _outward(ends: tuple[float, float]) -> tuple[float, float]:
    """A range of rad-scores with the digits that a report gives, its ends included."""
    return floor(ends[0] * 100) / 100, ceil(ends[1] * 100) / 100
