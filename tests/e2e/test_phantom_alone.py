"""A phantom scanned without a patient feeds the scanner's charts and is never reported."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from config.settings import Settings, load_settings
from node.pipeline.artefacts import REPORT
from node.pipeline.study_run import Verdict
from node.reference.spec import StudySpec
from scoring.phantoms import holds_no_patient
from scoring.settings import TrunkSettings
from segmentation.ct_volume import CtVolume, Grid
from tests.e2e.in_process import Remembered, Run, unchecked
from tests.made_studies import write_reference_study

PHANTOM_BELOW_MM = 92.0  # LPS y: the reference study's phantom lies behind the patient's back
AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patient")
    write_reference_study(folder, StudySpec.reduced())
    return folder


@pytest.fixture(scope="module")
def phantom(patient, tmp_path_factory) -> Path:
    """The same scan with air where the patient was."""
    folder = tmp_path_factory.mktemp("phantom")
    for path in sorted(patient.glob("*.dcm")):
        dataset = dcmread(path)
        pixels = dataset.pixel_array.copy()
        back = round((PHANTOM_BELOW_MM - dataset.ImagePositionPatient[1]) / dataset.PixelSpacing[0])
        pixels[:back] = -1000 - int(dataset.RescaleIntercept)
        dataset.PixelData = pixels.astype(np.int16).tobytes()
        dcmwrite(folder / path.name, dataset)
    return folder


def settings_with(**quality) -> Settings:
    return unchecked(segmentation={"engine": "geometric"}, quality=quality)


def test_a_phantom_alone_is_kept_for_its_scanner_and_gives_no_report(phantom):
    history = Remembered()
    run = Run(phantom, settings=settings_with(), scanners=history)
    assert run.local.verdict is Verdict.NOT_APPLICABLE
    assert "without a patient" in run.local.reason
    assert REPORT not in run.artefacts.names()
    (reading,) = history.kept.values()
    assert reading.protocol.device_serial == "REF-1"
    assert reading.slope == pytest.approx(200.0 / 308.83, rel=0.01)  # the truth's rods
    assert reading.water_hu == pytest.approx(0.0, abs=2.0)


def shifted(folder: Path, source: Path, hu: float) -> Path:
    """The same scan on a scanner that reads everything that much higher."""
    folder.mkdir()
    for path in sorted(source.glob("*.dcm")):
        dataset = dcmread(path)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) + hu
        dcmwrite(folder / path.name, dataset)
    return folder


def test_a_phantom_alone_that_fails_a_check_is_kept_with_its_finding_and_gives_no_report(phantom, tmp_path):
    history = Remembered()
    off = shifted(tmp_path / "off", phantom, 20.0)
    run = Run(off, settings=settings_with(), scanners=history)
    assert run.local.verdict is Verdict.NOT_APPLICABLE
    assert REPORT not in run.artefacts.names()
    (reading,) = history.kept.values()
    assert (reading.findings, reading.failed, reading.alone) == (("water_rod_off",), True, True)
    assert reading.calibration is None
    assert reading.water_hu == pytest.approx(20.0, abs=2.0)


def test_a_declared_phantom_that_is_not_even_found_is_kept_as_failed(phantom, tmp_path):
    patient_id = str(dcmread(next(phantom.glob("*.dcm")), stop_before_pixels=True).PatientID)
    history = Remembered()
    far_off = shifted(tmp_path / "far_off", phantom, 60.0)
    run = Run(
        far_off,
        settings=settings_with(phantom_patient_ids=[patient_id]),
        scanners=history,
    )
    assert run.local.verdict is Verdict.NOT_APPLICABLE
    assert "without a patient" in run.local.reason
    (reading,) = history.kept.values()
    assert (reading.findings, reading.failed) == (("phantom_not_found", "phantom_suspected"), True)


def test_an_undeclared_phantom_too_far_off_to_be_found_is_kept_as_failed(phantom, tmp_path):
    history = Remembered()
    far_off = shifted(tmp_path / "far_off", phantom, -40.0)
    run = Run(far_off, settings=settings_with(), scanners=history)
    assert run.local.verdict is Verdict.NOT_APPLICABLE
    assert "without a patient" in run.local.reason
    assert REPORT not in run.artefacts.names()
    (reading,) = history.kept.values()
    assert reading.findings == ("phantom_not_found", "phantom_suspected")
    assert (reading.failed, reading.alone, reading.calibration) == (True, True, None)


def test_the_drift_that_a_phantom_alone_shows_is_told_to_the_operator(phantom):
    history = Remembered()
    settings = settings_with()
    Run(phantom, settings=settings, scanners=history, files=False)
    (reading,) = history.kept.values()
    for number in range(settings.quality.baseline_readings):
        earlier = reading.taken_on - timedelta(days=number + 1)
        history.kept[str(number)] = replace(reading, taken_on=earlier, water_hu=reading.water_hu + 9.0)
    run = Run(phantom, settings=settings, scanners=history)
    assert run.local.verdict is Verdict.NOT_APPLICABLE
    assert run.local.reason.endswith("scanner drift: water is below its limit")


def test_without_a_history_the_same_scan_is_refused_aloud(phantom):
    run = Run(phantom, settings=settings_with(), scanners=None, files=False)
    assert run.local.verdict is Verdict.PROCEED
    assert b"no_lumbar_level" in run.artefacts.get(REPORT)


def test_whoever_asks_for_a_study_by_name_gets_an_answer(phantom):
    run = Run(phantom, settings=settings_with(), scanners=Remembered(), declared_qct=True, files=False)
    assert run.local.verdict is Verdict.PROCEED
    assert b"no_lumbar_level" in run.artefacts.get(REPORT)


@pytest.fixture(scope="module")
def reported(patient) -> tuple[Run, Remembered]:
    history = Remembered()
    return Run(patient, patient / "truth_mask.nii.gz", scanners=history), history


def test_a_patients_study_feeds_the_charts_and_is_reported(reported):
    run, history = reported
    assert run.local.verdict is Verdict.PROCEED
    assert REPORT in run.artefacts.names()
    assert len(history.kept) == 1


def test_a_patient_id_that_a_site_scans_phantoms_under_never_gives_a_report(patient):
    patient_id = str(dcmread(next(patient.glob("*.dcm")), stop_before_pixels=True).PatientID)
    run = Run(
        patient,
        patient / "truth_mask.nii.gz",
        settings=unchecked(quality={"phantom_patient_ids": [patient_id[:3] + "*"]}),
        scanners=Remembered(),
    )
    assert run.local.verdict is Verdict.NOT_APPLICABLE
    assert REPORT not in run.artefacts.names()


@pytest.mark.parametrize(("side_mm", "alone"), [(100.0, True), (140.0, True), (145.0, False), (300.0, False)])
def test_somebody_lies_there_where_slices_show_more_than_200_cm2(side_mm, alone):
    step_mm = 2.5
    hu = np.full((40, 160, 160), -1000.0, np.float32)
    hu[:, : round(side_mm / step_mm), : round(side_mm / step_mm)] = 40.0
    hu[0] = 40.0  # the end of something else in one slice
    grid = Grid(
        shape=hu.shape, spacing_mm=(3.0, step_mm, step_mm), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL
    )
    assert holds_no_patient(CtVolume(hu=hu, grid=grid)) is alone


def test_how_far_noise_is_correlated_is_the_sites_to_set_and_changes_the_uncertainty_alone(patient, reported):
    narrow = Run(
        patient,
        patient / "truth_mask.nii.gz",
        settings=unchecked(scoring={"noise_window_mm": 0.1}),
        files=False,
    )
    shipped = reported[0].result["levels"]["L3"]
    single = narrow.result["levels"]["L3"]
    assert single["bmd_mg_cm3"] == shipped["bmd_mg_cm3"]
    # Voxel by voxel trabeculae count as noise: their pattern evens out only over some millimetres.
    assert single["bmd_uncertainty_mg_cm3"] > 1.2 * shipped["bmd_uncertainty_mg_cm3"]


def test_what_counts_as_a_patient_is_the_sites_to_set(phantom):
    """The mat's 100 cm2 are somebody to a site that says so: then its study is refused aloud."""
    assert load_settings().quality.patient == TrunkSettings()
    run = Run(
        phantom,
        settings=settings_with(patient={"least_cm2": 20.0}),
        scanners=Remembered(),
        files=False,
    )
    assert run.local.verdict is Verdict.PROCEED
    assert b"no_lumbar_level" in run.artefacts.get(REPORT)
