"""Studies that look right and are not: each is measured rightly, or not at all, and the report says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread, dcmwrite

from node.reference.spec import StudySpec
from node.study_report import Outcome
from segmentation.errors import MaskNotUsable
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced())
    return folder


@pytest.fixture
def measure(study, tmp_path) -> Callable[[Callable[[int, Dataset], None]], Run]:
    """Measure a copy of the study in which each slice (number, data set) was changed."""

    def run(edit: Callable[[int, Dataset], None], mask: Path | None = None) -> Run:
        for number, path in enumerate(sorted(study.glob("*.dcm"))):
            dataset = dcmread(path)
            edit(number, dataset)
            dcmwrite(tmp_path / path.name, dataset)
        return Run(tmp_path, mask or study / "truth_mask.nii.gz")

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
    assert told in " ".join(finding.text for finding in found.report.findings)
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
    with pytest.raises(MaskNotUsable, match=r"mask-value-no-vertebra\(value=5\)"):
        measure(lambda number, dataset: None, tmp_path / "five.nii.gz")


@pytest.fixture(scope="module")
def drawn_alone(study, tmp_path_factory) -> Callable[[int, int, str], Path]:
    """A mask of the vertebra that the truth numbers so, with another value and under a file name."""

    def write(truth: int, value: int, name: str) -> Path:
        image = SimpleITK.ReadImage(str(study / "truth_mask.nii.gz"))
        path = tmp_path_factory.mktemp("alone") / name
        SimpleITK.WriteImage(SimpleITK.Cast(image == truth, SimpleITK.sitkUInt8) * value, str(path))
        return path

    return write


@pytest.mark.parametrize(("truth", "value"), [(31, 1), (29, 20)], ids=["L1 as 1", "L3 of version 1"])
def test_a_mask_of_one_vertebra_that_nothing_names_gives_a_refusal_that_says_how_to_name_it(
    study, drawn_alone, truth, value
):
    found = Run(study, drawn_alone(truth, value, "mask.nii.gz"))
    assert found.report.outcome is Outcome.REFUSED
    assert "mask_level_unknown" in found.codes
    (told,) = [one.text for one in found.report.findings if one.code == "mask_level_unknown"]
    assert f"its only value {value}" in told or f"its only value is {value}" in told
    assert "vertebrae_L3.nii.gz" in told
    assert "segmentation.mask_labels" in told
    assert found.report.levels == ()


def test_a_mask_of_one_vertebra_is_the_level_that_its_file_is_called(study, drawn_alone):
    found = Run(study, drawn_alone(31, 1, "vertebrae_L1.nii.gz"))
    (first,) = found.report.levels
    assert first.name == "L1"
    assert first.measured.bmd_mg_cm3 == pytest.approx(101.9, abs=2.0)
    assert found.report.rad_score is None
