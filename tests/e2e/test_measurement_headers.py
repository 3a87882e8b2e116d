"""A good study whose headers are as other people's archives write them is measured, and rightly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite

from node.reference.spec import StudySpec
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

Result = dict[str, Any]
Measure = Callable[[Callable[[int, Dataset], None]], Result]
NEVER_WITHOUT_VOLTAGE = ("t_score", "z_score", "rad_score", "nomogram")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L3")))
    return folder


@pytest.fixture(scope="module")
def measured(study: Path) -> Result:
    return Run(study, study / "truth_mask.nii.gz", files=False).result


@pytest.fixture
def measure(study: Path, tmp_path: Path) -> Measure:
    """The result of the study after an edit of each image."""

    def run(edit: Callable[[int, Dataset], None]) -> Result:
        for number, path in enumerate(sorted(study.glob("*.dcm"))):
            dataset = dcmread(path)
            edit(number, dataset)
            dcmwrite(tmp_path / path.name, dataset)
        return Run(tmp_path, study / "truth_mask.nii.gz", files=False).result

    return run


def densities(result: Result) -> dict[str, float | None]:
    return {name: level["bmd_mg_cm3"] for name, level in result["levels"].items()}


def codes(result: Result) -> set[str]:
    return {one["code"] for one in result["findings"]}


def test_at_0_kv_there_is_density_and_no_score(measure: Measure, measured: Result) -> None:
    """De-identified, or never known: as where the attribute is absent."""

    def say(number: int, dataset: Dataset) -> None:
        dataset.KVP = "0"

    result = measure(say)
    assert result["series"]["kvp"] is None
    assert densities(result) == densities(measured)
    assert [result[name] for name in NEVER_WITHOUT_VOLTAGE] == [None] * 4
    assert {"reference_mismatch", "model_range"} <= codes(result)
    assert "the tube voltage is not stated" in str(result["findings"])


def test_numbers_in_two_spellings_and_a_nominal_tilt_change_nothing(
    measure: Measure, measured: Result
) -> None:
    def say(number: int, dataset: Dataset) -> None:
        dataset.KVP = "120" if number % 2 else "120.0"
        dataset.GantryDetectorTilt = "0.5"

    result = measure(say)
    assert measured["rad_score"] is not None
    same = ("t_score", "z_score", "rad_score", "levels", "calibration")
    assert [result[name] for name in same] == [measured[name] for name in same]


def test_thin_slices_with_rounded_positions_are_measured(tmp_path: Path) -> None:
    """1.25 mm apart, the positions written with one decimal: no image is missing, and none is displaced."""
    write_reference_study(
        tmp_path, StudySpec.reduced(view=("L2", "L3"), slice_spacing_mm=1.25, slice_thickness_mm=1.25)
    )
    truth = json.loads((tmp_path / "truth.json").read_text("utf-8"))
    for path in tmp_path.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.ImagePositionPatient = [f"{float(value):.1f}" for value in dataset.ImagePositionPatient]
        dcmwrite(path, dataset)
    run = Run(tmp_path, tmp_path / "truth_mask.nii.gz")
    assert run.result["outcome"] == "reported"
    assert run.result["series"]["slice_spacing_mm"] == pytest.approx(1.25, abs=0.001)
    for level in ("L2", "L3"):
        expected = truth["levels"][level]["bmd_mg_cm3"]
        assert run.result["levels"][level]["bmd_mg_cm3"] == pytest.approx(expected, abs=3)
    assert {one.file_name for one in run.objects} >= {"report.dcm", "segmentation.dcm"}
