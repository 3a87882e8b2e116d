"""Studies that look right and are not: each is measured rightly, or not at all, and the report says why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread, dcmwrite

from config.settings import load_settings
from node.clinical.csv import NoLaboratory
from node.pipeline.artefacts import REPORT, MemoryArtefacts, from_json
from node.pipeline.context import StepContext
from node.pipeline.engine import settle_engine
from node.pipeline.local import run_locally
from node.pipeline.objects import stored_objects
from node.pipeline.ports import Issue
from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from node.report import Outcome, Report
from segmentation.errors import MaskNotUsable

ISSUED = Issue(issued_at=datetime(2026, 1, 16, 9, tzinfo=UTC))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced())
    return folder


class Measured:
    """One run of the pipeline in this process, with a mask so that segmentation takes no time."""

    def __init__(self, folder: Path, mask: Path) -> None:
        settings = load_settings(segmentation={"cross_check": False})  # it takes longer than all the rest
        engine = settle_engine(settings.segmentation, mask)
        artefacts = MemoryArtefacts()
        run_locally(
            StepContext(
                settings=settings,
                instances=tuple(sorted(folder.glob("*.dcm"))),
                artefacts=artefacts,
                engine=lambda: engine,
                clinical=NoLaboratory(),
                issue=lambda: ISSUED,
                declared_qct=True,
            )
        )
        self.report = from_json(Report, artefacts.get(REPORT))
        self.objects = stored_objects(artefacts)

    @property
    def codes(self) -> set[str]:
        return {finding.code for finding in self.report.findings}

    @property
    def reasons(self) -> str:
        return " ".join(finding.text for finding in self.report.findings)


@pytest.fixture
def measure(study, tmp_path) -> Callable[[Callable[[int, Dataset], None]], Measured]:
    """Measure a copy of the study in which each slice (number, data set) was changed."""

    def run(edit: Callable[[int, Dataset], None], mask: Path | None = None) -> Measured:
        for number, path in enumerate(sorted(study.glob("*.dcm"))):
            dataset = dcmread(path)
            edit(number, dataset)
            dcmwrite(tmp_path / path.name, dataset)
        return Measured(tmp_path, mask or study / "truth_mask.nii.gz")

    return run


def test_the_unchanged_study_is_measured(measure):
    found = measure(lambda number, dataset: None)
    assert found.report.outcome is Outcome.REPORTED
    assert found.report.t_score is not None


def test_contrast_in_some_slices_is_contrast(measure):
    def late(number: int, dataset: Dataset) -> None:
        if number > 30:
            dataset.ContrastBolusAgent = "Iohexol"

    found = measure(late)
    assert "contrast_given" in found.codes
    assert found.report.t_score is None
    assert found.report.rad_score is None
    assert not {"demonstration_reference", "demonstration_model", "not_dxa"} & found.codes


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")  # pydicom writes the NaN and says so
@pytest.mark.parametrize(
    ("keyword", "value", "told"),
    [
        ("KVP", "80", "technique varies between slices: KVP"),
        ("ConvolutionKernel", "BONE", "technique varies between slices: ConvolutionKernel"),
        ("RescaleType", "MGML", "rescale to Hounsfield units missing"),
        ("ImagePositionPatient", ["nan", "0", "0"], "geometry missing: ImagePositionPatient"),
        ("FrameOfReferenceUID", "", "technique varies between slices: FrameOfReferenceUID"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused(measure, keyword, value, told):
    def later(number: int, dataset: Dataset) -> None:
        if number > 40:
            setattr(dataset, keyword, value)

    found = measure(later)
    assert found.report.outcome is Outcome.REFUSED
    assert told in found.reasons
    assert found.report.levels == ()


def test_a_study_of_two_patients_is_filed_under_neither(measure):
    def other(number: int, dataset: Dataset) -> None:
        if number > 40:
            dataset.PatientID = "OTHER"

    found = measure(other)
    assert "patient_conflict" in found.codes
    assert found.report.outcome is Outcome.REFUSED
    assert found.report.calibration is None
    assert found.objects == ()


def test_an_offset_that_steps_along_the_patient_gives_no_density(measure):
    def step(number: int, dataset: Dataset) -> None:
        if number > 52:
            dataset.RescaleIntercept = str(float(dataset.RescaleIntercept) - 30)

    found = measure(step)
    assert {"water_rod_drift"} <= found.codes
    assert found.report.outcome is Outcome.REFUSED


def test_a_placeholder_for_a_birth_date_does_not_make_a_patient_old(measure):
    def unknown(number: int, dataset: Dataset) -> None:
        dataset.PatientBirthDate, dataset.PatientAge = "19000101", "045Y"

    found = measure(unknown)
    assert found.report.study.age_years is None
    assert "age_unknown" in found.codes
    assert found.report.t_score is None


def test_a_mask_beside_the_spine_is_not_measured_as_bone(study, tmp_path, measure):
    """A whole mask 40 mm too far forward lies in bowel and vessels."""
    image = SimpleITK.ReadImage(str(study / "truth_mask.nii.gz"))
    moved = SimpleITK.GetImageFromArray(np.roll(SimpleITK.GetArrayFromImage(image), -24, axis=1))
    moved.CopyInformation(image)
    SimpleITK.WriteImage(moved, str(tmp_path / "moved.nii.gz"))
    found = measure(lambda number, dataset: None, tmp_path / "moved.nii.gz")
    assert "body_not_bone" in found.codes
    assert found.report.outcome is Outcome.REFUSED
    assert all(level.measured is None for level in found.report.levels)


def test_a_mask_of_something_else_is_refused(study, tmp_path, measure):
    image = SimpleITK.ReadImage(str(study / "truth_mask.nii.gz"))
    SimpleITK.WriteImage(SimpleITK.Cast(image == 29, SimpleITK.sitkUInt8) * 5, str(tmp_path / "five.nii.gz"))
    with pytest.raises(MaskNotUsable, match="stands for no lumbar vertebra"):
        measure(lambda number, dataset: None, tmp_path / "five.nii.gz")
