"""The model card of a training: what a node needs to apply the model, and what its users should know."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from math import ceil, floor
from typing import Any

import numpy as np

from node import __version__
from node.research.tables import FeatureTable, clinical_values
from node.research.training import COMBINED, RADIOMICS, Plan, Trained
from scoring.calibration import Mineral
from scoring.modelcard import Applicability, CardFeature, CardTerm, ModelCard
from scoring.training.agreement import FORM
from scoring.training.cohort import CLINICAL, PLAUSIBLE, LabelKind, Split
from scoring.training.discrimination import Auc

# Named in full by Xie et al. 2022 (science of the project: five further names are incomplete there).
DOCUMENTED = frozenset({"wavelet-LLL_firstorder_10Percentile"})
# Card name, label and UCUM unit of each clinical value.
_TERMS = {
    "age": ("age", "Age", "a"),
    "alp_u_l": ("alp", "ALP", "U/L"),
    "homocysteine_umol_l": ("homocysteine", "Homocysteine", "umol/L"),
}
_LABELS = {
    LabelKind.STATED: "class as the cohort's table states it",
    LabelKind.BY_T_SCORE: "T-score as the cohort's table states it, by the rule of Xie et al. 2022",
}
CIRCULARITY = (
    "T-score labels derive from the same HU that the features measure, where they come from the same CT: "
    "the AUC then tells more of their kinship than of a patient's bone"
)


def card_of(
    trained: Trained, table: FeatureTable, used: Mapping[str, Any], plan: Plan, *, name: str, version_: str
) -> ModelCard:
    """The combined model as a card.

    Parameters
    ----------
    used : kVp, spacings and equivalent of the training studies (`node.research.tables.technique`).
    """
    fits = trained.fits
    lowest, highest = float(floor(trained.trained_range[0])), float(ceil(trained.trained_range[1]))
    patients = trained.splits[Split.TRAIN]
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
    for column, coefficient in zip(CLINICAL, fits.combined.terms[1:], strict=True):
        values = clinical_values(patients, [column])
        short, label, unit = _TERMS[column]
        terms.append(
            CardTerm(
                name=short,
                label=label,
                unit=unit,
                coefficient=coefficient.value,
                axis=_axis(float(np.nanmin(values)), float(np.nanmax(values))),
                plausible=PLAUSIBLE[column],
            )
        )
    return ModelCard(
        name=name,
        version=version_,
        demonstration=False,
        notice="For research; not validated beyond the cohorts that its card names",
        positive_class="osteoporosis",
        negative_class="osteopenia",
        label=_LABELS[trained.cohort.label_kind],
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
        applicability=Applicability(
            kvp=_around(used["kvp"], 0.0),
            slice_spacing_mm=_around(used["slice_spacing_mm"], 0.05),
            pixel_spacing_mm=_around(used["pixel_spacing_mm"], 0.05),
            equivalent=Mineral(used["equivalent"]),
        ),
        software={"osteonode": __version__}
        | {package: version(package) for package in ("scikit-learn", "statsmodels")}
        | dict(table.made_with["packages"]),
        radiomics_settings_sha256=str(table.made_with["radiomics_settings_sha256"]),
        training=_summary(trained, plan),
    )


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
    }
    for split, patients in trained.splits.items():
        for label in ("osteoporosis", "osteopenia"):
            told[f"{split}_{label}"] = sum(one.label == label for one in patients)
        for name, model in trained.validations[split].models.items():
            told[f"{split}_auc_{name}"] = auc_text(model.auc)
    for name in (RADIOMICS, COMBINED):
        if name in trained.optimism:
            one = trained.optimism[name]
            told[f"train_auc_{name}_less_optimism"] = (
                f"unknown: none of {one.failed} resamples gave a model"
                if one.corrected is None
                else round(one.corrected, 3)
            )
    return told | {cutoff_key(name): trained.cutoffs[name] for name in (RADIOMICS, COMBINED)}


def cutoff_key(model: str) -> str:
    """Under which a card's `training` keeps a model's cut-off, a probability of osteoporosis."""
    return f"cutoff_{model}"


def auc_text(area: Auc) -> str:
    """The area with its 95 % interval."""
    return f"{area.value:.3f} ({area.lower:.3f} to {area.upper:.3f})"


def _axis(lowest: float, highest: float) -> tuple[float, float]:
    """Whole tens about a range, as an axis is drawn."""
    low, high = 10.0 * floor(lowest / 10), 10.0 * ceil(highest / 10)
    return (low, high) if low < high else (low, low + 10.0)


def _around(given: tuple[float, float], share: float) -> tuple[float, float]:
    """A range a little wider than what was seen; one tube voltage reaches 1 kV to either side."""
    lower, upper = given
    if share == 0.0:
        return lower - 1.0, upper + 1.0
    return lower * (1 - share), upper * (1 + share)
