"""A phantom scanned without a patient feeds the scanner's charts and is never reported."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from config.settings import Settings, load_settings
from node.clinical.csv import NoLaboratory
from node.pipeline.artefacts import REPORT, MemoryArtefacts
from node.pipeline.context import StepContext, Verdict
from node.pipeline.engine import settle_engine
from node.pipeline.local import LocalRun, run_locally
from node.pipeline.ports import Issue
from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from scoring.phantom_scan import holds_no_patient
from scoring.quality_control import ScannerReading
from segmentation.volume import CtVolume, Grid

PHANTOM_BELOW_MM = 92.0  # LPS y: the reference study's phantom lies behind the patient's back
AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
ISSUED = Issue(issued_at=datetime(2026, 1, 16, 9, tzinfo=UTC))


class Remembered:
    """A history in memory, by series."""

    def __init__(self) -> None:
        self.kept: dict[str, ScannerReading] = {}

    def keep(self, study_instance_uid: str, series_instance_uid: str, reading: ScannerReading) -> None:
        self.kept[series_instance_uid] = reading

    def readings(self, device_serial: str) -> Sequence[ScannerReading]:
        return [one for one in self.kept.values() if one.protocol.device_serial == device_serial]


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


def run(
    folder: Path,
    settings: Settings,
    history: Remembered | None,
    mask: Path | None = None,
    *,
    asked_for: bool = False,
) -> tuple[LocalRun, MemoryArtefacts]:
    engine = settle_engine(settings.segmentation, mask)
    artefacts = MemoryArtefacts()
    done = run_locally(
        StepContext(
            settings=settings,
            instances=tuple(sorted(folder.glob("*.dcm"))),
            artefacts=artefacts,
            engine=lambda: engine,
            clinical=NoLaboratory(),
            issue=lambda: ISSUED,
            declared_qct=asked_for,
            scanners=history,
        )
    )
    return done, artefacts


def settings_with(**quality) -> Settings:
    return load_settings(segmentation={"engine": "geometric", "cross_check": False}, quality=quality)


def test_a_phantom_alone_is_kept_for_its_scanner_and_gives_no_report(phantom):
    history = Remembered()
    done, artefacts = run(phantom, settings_with(), history)
    assert done.verdict is Verdict.NOT_APPLICABLE
    assert "without a patient" in done.reason
    assert REPORT not in artefacts.names()
    (reading,) = history.kept.values()
    assert reading.protocol.device_serial == "REF-1"
    assert reading.slope == pytest.approx(200.0 / 308.83, rel=0.01)  # the truth's rods
    assert reading.water_hu == pytest.approx(0.0, abs=2.0)


def test_without_a_history_the_same_scan_is_refused_aloud(phantom):
    done, artefacts = run(phantom, settings_with(), None)
    assert done.verdict is Verdict.PROCEED
    assert b"no_lumbar_level" in artefacts.get(REPORT)


def test_whoever_asks_for_a_study_by_name_gets_an_answer(phantom):
    done, artefacts = run(phantom, settings_with(), Remembered(), asked_for=True)
    assert done.verdict is Verdict.PROCEED
    assert b"no_lumbar_level" in artefacts.get(REPORT)


def test_a_patients_study_feeds_the_charts_and_is_reported(patient):
    history = Remembered()
    settings = load_settings(segmentation={"cross_check": False})
    done, artefacts = run(patient, settings, history, patient / "truth_mask.nii.gz")
    assert done.verdict is Verdict.PROCEED
    assert REPORT in artefacts.names()
    assert len(history.kept) == 1


def test_a_patient_id_that_a_site_scans_phantoms_under_never_gives_a_report(patient):
    patient_id = str(dcmread(next(patient.glob("*.dcm")), stop_before_pixels=True).PatientID)
    settings = load_settings(
        segmentation={"cross_check": False}, quality={"phantom_patient_ids": [patient_id[:3] + "*"]}
    )
    done, artefacts = run(patient, settings, Remembered(), patient / "truth_mask.nii.gz")
    assert done.verdict is Verdict.NOT_APPLICABLE
    assert REPORT not in artefacts.names()


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
