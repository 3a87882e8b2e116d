"""Patients who do not exist, their features, and the commands that train and judge a model on them."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from config.catalog import load_radiomics_settings_text
from node.cli import build
from node.commands import train
from node.research.extraction import ABOUT, made_with_sha256
from scoring.radiomics import feature_names, parse_settings

SETTINGS_TEXT, _ = load_radiomics_settings_text()
OTHER_SETTINGS = SETTINGS_TEXT.replace("binWidth: 25", "binWidth: 20")
NAMES = feature_names(parse_settings(SETTINGS_TEXT))[200:240]
PATIENTS = 150


@dataclass(frozen=True)
class Files:
    folder: Path
    cohort: Path
    features: Path
    values: np.ndarray
    rows: list[dict[str, str]]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_features(
    path: Path, values: np.ndarray, *, kvp: str = "120.0", radiomics_settings: str = SETTINGS_TEXT
) -> Path:
    about = dict.fromkeys(ABOUT, "") | {"level": "L3", "engine": "mask 2", "kvp": kvp}
    about |= {"energy": "single", "beam_filter": "none"}
    made = {
        "packages": {"pyradiomics": "3.0.1"},
        "radiomics_settings": radiomics_settings,
        "radiomics_settings_sha256": hashlib.sha256(radiomics_settings.encode()).hexdigest(),
    }
    about |= {
        "slice_spacing_mm": "1.0",
        "pixel_spacing_mm": "0.7",
        "equivalent": "HA",
        "settings_sha256": made_with_sha256(made),
    }
    rows = [
        about
        | {"study": str(path.parent / f"study{number}")}
        | {"study_instance_uid": f"2.25.{uuid5(NAMESPACE_OID, f'{path.parent} {number}').int}"}
        | dict(zip(NAMES, (repr(float(one)) for one in row), strict=True))
        for number, row in enumerate(values)
    ]
    path.with_name(path.name + ".json").write_text(json.dumps(made))
    return write(path, rows)


def write_cohort(folder: Path, seed: int) -> Files:
    """Class by the second feature, the fifth, and age; the rest is noise."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(PATIENTS, len(NAMES))) * 10 + 50
    age = rng.normal(66, 8, PATIENTS).round()
    effect = (values[:, 1] - 50) / 7 - (values[:, 4] - 50) / 9 + (age - 66) / 9 + 0.8
    ill = rng.random(PATIENTS) < 1 / (1 + np.exp(-effect))
    rows: list[dict[str, object]] = [
        {
            "patient": f"p{number}",
            "study": f"study{number}",
            "label": "normal" if number % 15 == 0 else "osteoporosis" if ill[number] else "osteopenia",
            "age": f"{age[number]:g}",
            "sex": "FM"[number % 2],
            "alp_u_l": f"{rng.normal(85, 15):.1f}",
            "homocysteine_umol_l": f"{max(5.0, rng.normal(14, 3)):.1f}",
            "calcium_mmol_l": f"{rng.normal(2.3, 0.1):.2f}",
        }
        for number in range(PATIENTS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return Files(
        folder=folder,
        cohort=write(folder / "cohort.csv", rows),
        features=write_features(folder / "features.csv", values),
        values=values,
        rows=[{key: str(value) for key, value in row.items()} for row in rows],
    )


def run(*arguments: object, figures: bool = False) -> Result:
    """`train` or `evaluate`; figures, three quarters of the time, are drawn where they are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr(train, "training_figures", lambda *_: {})
            patch.setattr(train, "validation_figures", lambda *_: {})
        return CliRunner().invoke(build(["train", "evaluate"]), [str(one) for one in arguments])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
