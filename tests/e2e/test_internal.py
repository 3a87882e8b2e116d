"""A study calibrated by the patient's own tissues: a density for screening, and nothing that rests on one."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from node.study_report import ObjectKind
from tests.e2e.in_process import Run, unchecked
from tests.made_studies import write_reference_study

# The reference study's fat is heavier than NIST's, which is what a site's fat is taken to be.
CHOSEN = {"method": "internal", "internal": {"adipose_density_g_cm3": 0.95}}
CONVERSION = {"k2hpo4_from_ha": [1.0, 0.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("internal")


@pytest.fixture(scope="module")
def run(folder) -> Run:
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4"), phantom="none"))
    settings = unchecked(calibration=CHOSEN, scoring=CONVERSION)
    return Run(folder, folder / "truth_mask.nii.gz", settings=settings, declared_qct=True)


def test_density_is_given_for_screening_within_its_stated_uncertainty(run, folder):
    truth = json.loads((folder / "truth.json").read_text("utf-8"))["equivalents"]["K2HPO4"]
    levels = {name: one for name, one in run.result["levels"].items() if one["bmd_mg_cm3"] is not None}
    assert {"L1", "L2", "L3", "L4"} <= set(levels)
    for name, level in levels.items():
        error = level["bmd_mg_cm3"] - truth[name]
        assert abs(error) < 1.96 * level["bmd_uncertainty_mg_cm3"]
        assert level["bmd_uncertainty_mg_cm3"] > 0.078 * level["bmd_mg_cm3"]


def test_neither_score_nor_category_nor_class_rests_on_it(run):
    assert run.result["outcome"] == "reported"
    assert [run.result[name] for name in ("t_score", "z_score", "rad_score", "nomogram")] == [None] * 4
    assert run.result["categories"] == {"study_class": None, "density": None}
    assert "internal_calibration" in run.codes
    assert "phantom_not_found" not in run.codes


def test_tissues_energy_and_grade_stand_in_the_result_and_in_the_report(run):
    calibration = run.result["calibration"]
    assert (calibration["method"], calibration["grade"]) == ("internal", "internal")
    assert [one["name"] for one in calibration["tissues"]] == ["air", "adipose", "blood", "muscle"]
    assert calibration["effective_kev"] == pytest.approx(60.0, abs=2.0)
    assert "xraylib" in run.result["provenance"]["packages"]
    (report,) = (one for one in run.objects if one.kind is ObjectKind.STRUCTURED_REPORT)
    text = dcmread(BytesIO(report.content)).to_json()
    assert "own tissues" in text
    assert text.count("TISSUE-HU") == 4
    assert "CAL-KEV" in text
    assert "SCREENING GRADE" in text


def test_nothing_falls_back_on_it(folder, run):
    assert run.result["calibration"] is not None
    other = Run(folder, folder / "truth_mask.nii.gz", declared_qct=True)
    assert "phantom_not_found" in other.codes
    assert other.result["calibration"] is None
