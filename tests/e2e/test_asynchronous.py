"""A study without a phantom, calibrated by one that the node measured days before."""

from __future__ import annotations

import json
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from node.reference.spec import StudySpec
from node.study_report import ObjectKind
from tests.e2e.in_process import Remembered, Run, unchecked
from tests.made_studies import write_reference_study

ALLOWED = {"asynchronous": {"enabled": True}}
SCORES = ("t_score", "z_score", "rad_score", "nomogram")
OWN_REFERENCE = """
name = "own"
population = "Own"
authority = "none"
source = "A test"
demonstration = true
sex = "any"
equivalent = "HA"
levels = ["L3"]
kvp = [80.0, 140.0]
roi = "core"
young = { age_from = 20, age_to = 39, mean_mg_cm3 = 170.0, sd_mg_cm3 = 29.0 }
grades = ["phantom", "asynchronous"]
"""


def written(folder: Path, **changes: object) -> Path:
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L3"), **changes))
    return folder


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("earlier"), study_date=date(2026, 1, 10))


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Another patient, five days later, without a phantom."""
    return written(tmp_path_factory.mktemp("bare"), phantom="none", patient_id="OTHER", seed=7)


@pytest.fixture(scope="module")
def history() -> Remembered:
    return Remembered()


@pytest.fixture(scope="module")
def own(earlier, history) -> Run:
    """The earlier study by its own phantom, which is kept."""
    return Run(earlier, earlier / "truth_mask.nii.gz", scanners=history, files=False)


@pytest.fixture
def own_history(history) -> Remembered:
    """What is remembered so far, for a test that adds to it."""
    remembered = Remembered()
    remembered.kept.update(history.kept)
    return remembered


@pytest.fixture(scope="module")
def borrowed(bare, own, history) -> Run:
    assert own.result["calibration"]["grade"] == "phantom"
    return Run(
        bare,
        bare / "truth_mask.nii.gz",
        declared_qct=True,
        settings=unchecked(calibration=ALLOWED),
        scanners=history,
    )


def test_the_borrowed_line_gives_the_true_density_with_a_wider_interval(borrowed, bare, own):
    truth = json.loads((bare / "truth.json").read_text("utf-8"))["levels"]
    with_phantom = own.result["levels"]
    for name, level in borrowed.result["levels"].items():
        if level["complete"]:
            assert level["bmd_mg_cm3"] == pytest.approx(truth[name]["bmd_mg_cm3"], abs=1.5)
            assert level["bmd_uncertainty_mg_cm3"] > 2 * with_phantom[name]["bmd_uncertainty_mg_cm3"]


def test_method_date_and_grade_stand_in_the_result_and_in_the_report(borrowed):
    calibration = borrowed.result["calibration"]
    assert calibration["method"] == "asynchronous two-point"
    assert calibration["grade"] == "asynchronous"
    assert calibration["scanned_on"] == "2026-01-10"
    (said,) = (one for one in borrowed.result["findings"] if one["code"] == "asynchronous_calibration")
    assert "2026-01-10 (5 days earlier)" in said["text"]
    (report,) = (one for one in borrowed.objects if one.kind is ObjectKind.STRUCTURED_REPORT)
    text = dcmread(BytesIO(report.content)).to_json()
    assert "asynchronous two-point" in text
    assert "CAL-DATE" in text
    assert "2026-01-10 (5 days earlier)" in text


def test_no_score_and_no_category_rests_on_it_unless_the_reference_takes_it(
    borrowed, bare, history, tmp_path
):
    assert [borrowed.result[name] for name in SCORES] == [None] * 4
    assert borrowed.result["categories"] == {"study_class": None, "density": None}
    assert {"reference_mismatch", "density_rule_grade"} <= borrowed.codes
    (tmp_path / "references").mkdir()
    (tmp_path / "references/own.toml").write_text(OWN_REFERENCE, "utf-8")
    settings = unchecked(
        calibration=ALLOWED, node={"site": str(tmp_path)}, scoring={"reference": "own", "model": ""}
    )
    accepted = Run(
        bare, bare / "truth_mask.nii.gz", declared_qct=True, settings=settings, scanners=history, files=False
    )
    assert accepted.result["t_score"] is not None
    assert accepted.result["categories"]["density"] is None


def test_without_a_fitting_scan_the_study_is_refused_and_told_why(bare):
    settings = unchecked(calibration=ALLOWED)
    run = Run(
        bare,
        bare / "truth_mask.nii.gz",
        declared_qct=True,
        settings=settings,
        scanners=Remembered(),
        files=False,
    )
    assert {"phantom_not_found", "asynchronous_missing"} <= run.codes
    assert any(
        "no phantom has been read on scanner Analytic scanner REF-1" in finding["text"]
        for finding in run.result["findings"]
    )
    assert run.result["outcome"] == "refused"
    assert run.result["calibration"] is None
    assert all(level["bmd_mg_cm3"] is None for level in run.result["levels"].values())


def test_a_phantom_of_another_model_than_the_configured_one_is_not_replaced_by_an_earlier_scan(
    tmp_path, own, own_history
):
    study = written(tmp_path, phantom="qrm-bdc-3", patient_id="OTHER", seed=7)
    run = Run(
        study,
        study / "truth_mask.nii.gz",
        settings=unchecked(calibration=ALLOWED),
        scanners=own_history,
        declared_qct=True,
        files=False,
    )
    assert {"phantom_not_found", "phantom_suspected"} <= run.codes
    assert "asynchronous_calibration" not in run.codes
    assert run.result["calibration"] is None
    assert all(level["bmd_mg_cm3"] is None for level in run.result["levels"].values())


def test_a_phantom_45_hu_too_low_is_not_replaced_by_an_earlier_scan(tmp_path, own, own_history):
    study = written(tmp_path, patient_id="OTHER", seed=7)
    for path in study.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) - 45.0
        dcmwrite(path, dataset)
    run = Run(
        study,
        study / "truth_mask.nii.gz",
        settings=unchecked(calibration=ALLOWED),
        scanners=own_history,
        declared_qct=True,
        files=False,
    )
    assert {"phantom_not_found", "phantom_suspected"} <= run.codes
    assert run.result["calibration"] is None


def test_a_phantom_too_far_off_to_be_found_ends_the_lending_to_the_next_study(
    tmp_path, own, own_history, bare
):
    off = written(tmp_path, patient_id="THIRD", seed=9, study_date=date(2026, 1, 12))
    for path in off.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) - 45.0
        dcmwrite(path, dataset)
    mask, allowed = off / "truth_mask.nii.gz", unchecked(calibration=ALLOWED)
    assert (
        "phantom_suspected" in Run(off, mask, scanners=own_history, declared_qct=True, files=False).codes
    )  # lending is off
    (kept,) = (one for one in own_history.kept.values() if one.taken_on == date(2026, 1, 12))
    assert (kept.findings, kept.failed) == (("phantom_not_found", "phantom_suspected"), True)

    after = Run(
        bare,
        bare / "truth_mask.nii.gz",
        declared_qct=True,
        settings=allowed,
        scanners=own_history,
        files=False,
    )
    assert after.result["calibration"] is None
    (told,) = (one["text"] for one in after.result["findings"] if one["code"] == "asynchronous_missing")
    assert "2026-01-12" in told
    assert "phantom_suspected" in told


def test_a_reading_tells_when_its_images_were_taken(own, history):
    (kept,) = history.kept.values()
    assert (kept.taken_on, kept.taken_at) == (date(2026, 1, 10), "101500")


def test_a_borrowed_calibration_is_not_lent_again(borrowed, history):
    assert len(history.kept) == 1
