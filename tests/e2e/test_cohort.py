"""From DICOM to a model card that scores a new patient, by the real commands.

Two studies are read from DICOM; the rows of all other patients lie between theirs, so that the whole takes
seconds. `make cohort` reads every patient from DICOM.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.reference.spec import BODIES, StudySpec
from node.research.extraction import ABOUT
from scoring.models.card import ModelCard, parse_model_card
from tests.e2e.in_process import osteonode
from tests.made_studies import write_reference_study

MASK = "truth_mask.nii.gz"
DENSITIES_MG_CM3 = (65.0, 135.0)  # of the studies that are read
PATIENTS = 90
AGE, ALP, HOMOCYSTEINE = 68, 88.0, 15.0  # of the new patient
READING_SD_MG_CM3 = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    model: Path
    result: dict[str, Any]

    @property
    def card(self) -> ModelCard:
        return parse_model_card((self.model / "model.json").read_text("utf-8"))


def done(*words: object) -> None:
    ended = osteonode(*words)
    assert ended.status == 0, ended.errors


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_study(folder: Path, density_mg_cm3: float) -> Path:
    """All of one spine, so that a density between two of them has features between theirs."""
    densities = dict.fromkeys(BODIES, density_mg_cm3)
    spec = StudySpec.reduced(view=("L2", "L4"), age_years=AGE, bmd_mg_cm3=densities)
    write_reference_study(folder, spec)
    return folder


def between(read: list[dict[str, str]], density: float, rng: np.random.Generator) -> dict[str, str]:
    """A patient's features, between those of the studies that were read, as density is."""
    seen = float(np.clip(density + rng.normal(0, READING_SD_MG_CM3), *DENSITIES_MG_CM3))
    row = dict(read[0])
    for name in [one for one in row if one not in ABOUT]:  # in order: each draws a number
        values = [float(one[name]) for one in read]
        value = float(np.interp(seen, DENSITIES_MG_CM3, values))
        row[name] = repr(value + float(rng.normal(0, 0.02)) * (abs(value) + 1e-3))
    return row


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(7)
    studies = [
        write_study(folder / f"study{number}", density) for number, density in enumerate(DENSITIES_MG_CM3, 1)
    ]
    settings = folder / "node.toml"
    site = folder / "site"
    (site / "models").mkdir(parents=True)
    settings.write_text(f'[node]\nsite = "{site}"\n[segmentation]\ncross_check = false\n', "utf-8")
    model = folder / "model"
    features = model / "features.csv"
    done("features", *studies, "--out", features, "--mask", MASK, "--config", settings, "--jobs", "1")
    read = table(features)

    densities = [*DENSITIES_MG_CM3, *rng.uniform(70.0, 130.0, PATIENTS - len(studies))]
    rows = []
    for number, density in enumerate(densities):
        osteoporosis = density <= 97.5  # T -2.5 of the demonstration's reference, 170 +- 29 mg/cm3
        rows.append(
            {
                "patient": f"p{number}",
                "study": f"study{number + 1}",
                "t_score": f"{(density - 170) / 29:.3f}",
                "age": f"{np.clip(rng.normal(70 if osteoporosis else 63, 8), 50, 90):.0f}",
                "sex": "FM"[number % 2],
                "alp_u_l": f"{rng.uniform(60, 120):.0f}",
                "homocysteine_umol_l": f"{rng.uniform(8, 24):.1f}",
            }
        )
    write(folder / "cohort.csv", rows)
    invented = [
        between(read, density, rng)
        | {"study": str(folder / row["study"]), "study_instance_uid": f"2.25.{number}"}
        for number, (density, row) in enumerate(zip(densities, rows, strict=True))
    ]
    write(features, read + invented[len(read) :])
    cohort = ("train", folder / "cohort.csv", "--out", model, "--features", features)
    done(*cohort, "--config", settings, "--bootstrap", "0", "--name", "small")

    card = model / "model.json"
    (site / "models" / "small.json").write_bytes(card.read_bytes())
    settings.write_text(settings.read_text("utf-8") + '[scoring]\nmodel = "small"\n', "utf-8")
    new = write_study(folder / "new", 85.0)
    laboratory = {"patient_id": "REFERENCE-1", "issuer": "", "date": "2026-01-15"}
    laboratory |= {"alp_u_l": str(ALP), "homocysteine_umol_l": str(HOMOCYSTEINE)}
    write(folder / "laboratory.csv", [laboratory])
    done(
        "process", new, "--out", folder / "result", "--config", settings, "--mask", new / MASK,
        "--clinical", folder / "laboratory.csv",
    )  # fmt: skip
    return Trained(model=model, result=json.loads((folder / "result" / "result.json").read_text("utf-8")))


def test_training_finds_what_tells_the_classes_apart(trained):
    (row,) = [
        one for one in table(trained.model / "tables" / "performance_test.csv") if one["model"] == "radiomics"
    ]
    assert float(row["auc"]) > 0.7
    assert trained.card.applicability.kvp == (119.0, 121.0)
    assert trained.card.applicability.equivalent == "HA"
    assert trained.card.label.startswith("T-score as the cohort's table states it")


def test_the_node_scores_a_new_patient_with_the_card_as_the_card_says(trained):
    card, result = trained.card, trained.result
    assert result["provenance"]["model_sha256"] == card.sha256
    features = result["features"]
    score = card.rad_score.intercept + sum(
        one.coefficient * (features[one.name] - one.mean) / one.sd for one in card.features
    )
    assert result["rad_score"] == pytest.approx(score, rel=1e-9)
    inputs = {"rad_score": score, "age": AGE, "alp": ALP, "homocysteine": HOMOCYSTEINE}
    effect = card.clinical.intercept + sum(one.coefficient * inputs[one.name] for one in card.terms)
    assert result["nomogram"]["probability"] == pytest.approx(1 / (1 + exp(-effect)), rel=1e-9)
    assert result["nomogram"]["positive_class"] == "osteoporosis"
