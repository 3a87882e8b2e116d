"""Makes config/models/demonstration.json: a model card fitted to patients who do not exist.

    .venv/bin/python tools/make_demonstration_model.py

The same arguments give the same card. Run it again whenever rendering (node/reference), regions
(segmentation), feature settings (config/radiomics.yaml) or the demonstration reference change; `--check`
says whether the committed card is still the one that would be made.

What is real here is the chain: digital reference studies are rendered, L3's radiomics region is cut, the six
features are computed, a rad-score and a combined model are fitted. What is invented is every patient:
density, age, alkaline phosphatase and homocysteine are drawn from distributions that no cohort gave. Xie et
al. 2022 publish neither coefficients nor scaler; of their facts only the class ratio (303 to 111) and the
order of merit (rad-score AUC 0.96, age alone 0.81) are imitated.
DEMONSTRATION MODEL - NOT FOR CLINICAL USE.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from config.catalog import load_radiomics_settings_text, load_reference
from node.reference.render import Raster, raster_of, render
from node.reference.spec import BODIES, StudySpec
from node.reference.spine import build_spine
from node.reference.study import MASK_LABELS, truth_mask
from scoring.density.bmd import Reference, StudyClass
from scoring.density.scores import T_OSTEOPENIA_BELOW, study_class
from scoring.models.card import (
    SCHEMA,
    SCHEMA_VERSION,
    Applicability,
    CardFeature,
    CardTerm,
    ClinicalModel,
    ModelCard,
    RadScoreModel,
    card_document,
)
from scoring.radiomics import RadiomicsSettings, compute_features, parse_settings
from segmentation.ct_volume import CtVolume, Grid
from segmentation.regions.cancellous import cut_regions
from segmentation.vertebrae import EngineInfo, Level, Vertebrae

CARD_PATH = Path(__file__).parents[1] / "config" / "models" / "demonstration.json"
NAME = "demonstration"
NOTICE = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE"
LEVEL = "L3"
KVP = 120

# "documented": named by the paper in full. The others are chosen in its spirit: three of its six are
# wavelet-LLH, and median, interquartile range, skewness and short-run low grey-level emphasis are among them.
FEATURES = {
    "wavelet-LLL_firstorder_10Percentile": "documented",
    "wavelet-LLL_firstorder_Median": "chosen",
    "original_firstorder_10Percentile": "chosen",
    "wavelet-LLH_firstorder_InterquartileRange": "chosen",
    "wavelet-LLH_firstorder_Skewness": "chosen",
    "wavelet-LLH_glrlm_ShortRunLowGrayLevelEmphasis": "chosen",
}
# Pixel [mm], slice [mm], matrix: the full study's, the reduced one's and one between; about 95 mm about L3.
GEOMETRIES = ((0.74, 2.0, 128), (1.2, 2.5, 80), (1.7, 3.0, 56))

# Inverse penalties. Fixed, not tuned: synthetic density separates the classes far better than patients'
# would, and a penalty keeps the coefficients in the range of a clinical model's.
RAD_SCORE_C = 0.02
COMBINED_C = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One who does not exist."""

    spec: StudySpec
    age: int
    alp_u_l: float
    homocysteine_umol_l: float
    osteoporosis: bool  # else osteopenia


def draw_patients(count: int, seed: int, reference: Reference) -> list[Patient]:
    """Patients with T < -1, in the paper's class ratio. All distributions are invented."""
    rng = np.random.default_rng(seed)
    wanted = {True: round(count * 303 / 414), False: count - round(count * 303 / 414)}
    patients: list[Patient] = []
    while len(patients) < count:
        density = float(rng.uniform(35.0, 150.0))
        # The label rests on another reading than this image's truth: without it the classes would separate.
        t = (density + rng.normal(0.0, 12.0) - reference.young.mean_mg_cm3) / reference.young.sd_mg_cm3
        osteoporosis = study_class(t) is StudyClass.OSTEOPOROSIS
        if (
            not t < T_OSTEOPENIA_BELOW
            or sum(p.osteoporosis is osteoporosis for p in patients) >= wanted[osteoporosis]
        ):
            continue
        # Age differs so that it alone has an AUC near the paper's 0.81; the laboratory adds little.
        age = int(np.clip(rng.normal(70.0 if osteoporosis else 59.0, 9.0), 50, 92))
        patients.append(
            Patient(
                spec=_study(rng, density, age),
                age=age,
                alp_u_l=float(np.clip(rng.normal(88.0 if osteoporosis else 79.0, 24.0), 25.0, 220.0)),
                homocysteine_umol_l=float(
                    np.clip(rng.normal(15.0 if osteoporosis else 13.0, 4.0), 4.0, 45.0)
                ),
                osteoporosis=osteoporosis,
            )
        )
    return patients


def _study(rng: np.random.Generator, density: float, age: int) -> StudySpec:
    pixel, spacing, matrix = GEOMETRIES[int(rng.integers(len(GEOMETRIES)))]
    return StudySpec(
        bmd_mg_cm3={
            name: max(5.0, density + float(rng.normal(0.0, 5.0)) * (name != LEVEL)) for name in BODIES
        },
        kvp=KVP,
        seed=int(rng.integers(1, 2**31)),
        noise_hu=float(rng.uniform(12.0, 26.0)),
        texture_hu=float(rng.uniform(16.0, 28.0)),
        pixel_spacing_mm=(pixel, pixel),
        matrix=matrix,
        slice_spacing_mm=spacing,
        slice_thickness_mm=spacing,
        view=(LEVEL, LEVEL),
        phantom="none",
        age_years=age,
        study_date=date(2026, 1, 15),
    )


def features_of(spec: StudySpec, settings: RadiomicsSettings) -> list[float]:
    """The six features of L3, in the order of `FEATURES`."""
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    volume = CtVolume(hu=np.rint(render(spec, spine, raster)).astype(np.float32), grid=_grid(raster))
    bodies = np.where(
        truth_mask(spine, raster) == MASK_LABELS[LEVEL], np.uint8(MASK_LABELS[LEVEL]), np.uint8(0)
    )
    body = spine[LEVEL].body
    level = Level(
        name=LEVEL,
        label=MASK_LABELS[LEVEL],
        complete=True,
        centroid_mm=_triple(body.centre),
        body_volume_mm3=float(np.count_nonzero(bodies)) * volume.grid.voxel_volume_mm3,
        axis=_triple(body.axes[2]),
    )
    vertebrae = Vertebrae(
        grid=volume.grid,
        bodies=bodies,
        levels=(level,),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="truth", version="1", model_free=True),
    )
    region = cut_regions(volume, vertebrae, LEVEL).radiomics
    return list(compute_features(volume, region, tuple(FEATURES), settings).values())


def _triple(vector: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in vector)
    return x, y, z


def _grid(raster: Raster) -> Grid:
    spec = raster.spec
    return Grid(
        shape=(raster.slices, spec.matrix, spec.matrix),
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )


def fit_card(
    patients: list[Patient], features: npt.NDArray[np.float64], settings_sha256: str, seed: int
) -> ModelCard:
    """A ridge-penalised rad-score, and a ridge-penalised combined model on top of it."""
    labels = np.array([patient.osteoporosis for patient in patients])
    mean, sd = features.mean(axis=0), features.std(axis=0, ddof=1)
    rad_model = LogisticRegression(C=RAD_SCORE_C, tol=1e-10, max_iter=10_000)
    rad_model.fit((features - mean) / sd, labels)
    card_features = tuple(
        CardFeature(name=name, mean=_short(m), sd=_short(s), coefficient=_short(c), origin=origin)
        for (name, origin), m, s, c in zip(FEATURES.items(), mean, sd, rad_model.coef_[0], strict=True)
    )
    rad_intercept = _short(rad_model.intercept_[0])
    score = rad_intercept + sum(
        (column - f.mean) / f.sd * f.coefficient for column, f in zip(features.T, card_features, strict=True)
    )
    predictors = np.column_stack(
        [score, *np.array([(p.age, p.alp_u_l, p.homocysteine_umol_l) for p in patients]).T]
    )
    centre, scale = predictors.mean(axis=0), predictors.std(axis=0, ddof=1)
    combined = LogisticRegression(C=COMBINED_C, tol=1e-10, max_iter=10_000)
    combined.fit((predictors - centre) / scale, labels)
    slopes = combined.coef_[0] / scale
    low, high = np.floor(score.min()), np.ceil(score.max())
    terms = tuple(
        CardTerm(name=name, label=label, unit=unit, coefficient=_short(slope), axis=axis, plausible=plausible)
        for (name, label, unit, axis, plausible), slope in zip(
            (
                ("rad_score", "Rad-score", "1", (float(low), float(high)), (float(low) - 4, float(high) + 4)),
                # R: what is plausible at all must be confirmed with each laboratory.
                ("age", "Age", "a", (50.0, 90.0), (20.0, 110.0)),
                ("alp", "ALP", "U/L", (20.0, 180.0), (5.0, 2000.0)),
                ("homocysteine", "Homocysteine", "umol/L", (5.0, 30.0), (1.0, 300.0)),
            ),
            slopes,
            strict=True,
        )
    )
    ages = predictors[:, 1]
    return ModelCard(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        name=NAME,
        version="1",
        demonstration=True,
        notice=NOTICE,
        positive_class="osteoporosis",
        negative_class="osteopenia",
        label="T-score of a simulated second reading of L3 against the invented demonstration reference",
        rad_score=RadScoreModel(intercept=rad_intercept, features=card_features),
        clinical=ClinicalModel(
            intercept=_short(combined.intercept_[0] - float(slopes @ centre)), terms=terms
        ),
        applicability=Applicability(
            kvp=(KVP - 5.0, KVP + 5.0),
            slice_spacing_mm=(1.5, 3.5),
            pixel_spacing_mm=(0.6, 1.8),
            equivalent=load_reference("demonstration")[0].equivalent,
        ),
        software={name: version(name) for name in ("pyradiomics", "PyWavelets", "scikit-learn")},
        radiomics_settings_sha256=settings_sha256,
        training={
            "cohort": "synthetic: digital reference studies of patients who do not exist",
            "patients_osteoporosis": int(labels.sum()),
            "patients_osteopenia": int((~labels).sum()),
            "seed": seed,
            "penalty_rad_score": f"ridge, C = {RAD_SCORE_C:g} on standardised features",
            "penalty_combined": f"ridge, C = {COMBINED_C:g} on standardised predictors",
            "auc_apparent_rad_score": round(float(roc_auc_score(labels, score)), 3),
            "auc_apparent_age": round(float(roc_auc_score(labels, ages)), 3),
            "auc_apparent_combined": round(
                float(roc_auc_score(labels, combined.decision_function((predictors - centre) / scale))), 3
            ),
            "published_coefficients": "none: Xie et al. 2022 publish neither coefficients nor scaler",
            "features_documented": "the paper names wavelet-LLL 10th percentile in full; five are chosen",
            "circularity": "labels and features derive from the same HU: the AUC flatters",
        },
    )


def _short(value: float) -> float:
    """Six significant digits: what a reader can check, and equal on every machine."""
    return float(f"{value:.6g}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=CARD_PATH, help="where the card is written")
    parser.add_argument("--patients", type=int, default=414, help="size of the cohort (default 414)")
    parser.add_argument("--seed", type=int, default=2022, help="of all random draws (default 2022)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the card would change")
    chosen = parser.parse_args(arguments)
    text, settings_sha256 = load_radiomics_settings_text()
    settings = parse_settings(text)
    patients = draw_patients(chosen.patients, chosen.seed, load_reference("demonstration")[0])
    features = np.array([features_of(patient.spec, settings) for patient in patients])
    card = fit_card(patients, features, settings_sha256, chosen.seed)
    content = json.dumps(card_document(card), indent=2, ensure_ascii=False) + "\n"
    if chosen.check:
        same = chosen.out.is_file() and chosen.out.read_text("utf-8") == content
        print("unchanged" if same else f"{chosen.out} is out of date")
        return 0 if same else 1
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(content, "utf-8")
    for feature in card.features:
        print(f"{feature.name:50} {feature.coefficient:+.3f}   mean {feature.mean:.4g} SD {feature.sd:.3g}")
    for term in card.terms:
        print(f"{term.label:20} {term.coefficient:+.4f} per {term.unit}   axis {term.axis}")
    print({key: value for key, value in card.training.items() if key.startswith(("auc", "patients"))})
    print(f"{chosen.out}: sha256 {card.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
