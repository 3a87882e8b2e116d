"""Two passes in one series, between which the patient moved: one is measured and named, or neither is."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO

from node.reference.spec import StudySpec
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

Result = dict[str, Any]
Mark = Callable[[Dataset, int], None]  # sets what tells an image of the second pass apart, by its number

ASIDE_MM = 3.4  # of the patient, in the second pass
PHANTOM_BEHIND_MM = 93.0  # of the origin: it lies still


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L3")))
    return folder


@pytest.fixture(scope="module")
def of_one_pass(study: Path) -> Result:
    return Run(study, study / "truth_mask.nii.gz", files=False).result


def write_passes(study: Path, folder: Path, mark: Mark, *, up_mm: float, aside_mm: float = ASIDE_MM) -> Path:
    """The study's images and, `up_mm` above each of them, one of the second pass."""
    images = [dcmread(path) for path in study.glob("*.dcm")]
    first = sorted(images, key=lambda one: one.ImagePositionPatient[2])
    rows = first[0].Rows
    still = round((PHANTOM_BEHIND_MM - float(first[0].ImagePositionPatient[1])) / first[0].PixelSpacing[0])
    columns = round(aside_mm / first[0].PixelSpacing[1])
    for number, one in enumerate(first, start=1):
        one.save_as(folder / f"1{number:03d}.dcm", enforce_file_format=True)
        second = deepcopy(one)
        second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = f"{one.SOPInstanceUID}.2"
        x, y, z = (float(value) for value in one.ImagePositionPatient)
        second.ImagePositionPatient = [x, y, round(z + up_mm, 6)]
        pixels = one.pixel_array.copy()
        assert 0 < still < rows
        pixels[:still] = np.roll(pixels[:still], columns, axis=1)
        second.PixelData = pixels.astype("<u2").tobytes()
        mark(second, number)
        second.save_as(folder / f"2{number:03d}.dcm", enforce_file_format=True)
    return folder


def _of_acquisition_2(second: Dataset, number: int) -> None:
    second.AcquisitionNumber, second.AcquisitionTime = 2, "101730"


def text_of(result: Result, code: str) -> str:
    (found,) = [one for one in result["findings"] if one["code"] == code]
    return str(found["text"])


def test_two_interleaved_passes_are_measured_as_the_first_alone(
    study: Path, of_one_pass: Result, tmp_path: Path
) -> None:
    folder = write_passes(study, tmp_path, _of_acquisition_2, up_mm=1.5)
    run = Run(folder, study / "truth_mask.nii.gz")
    result = run.result
    same = ("levels", "calibration", "t_score", "rad_score")
    assert of_one_pass["t_score"] is not None
    assert [result[name] for name in same] == [of_one_pass[name] for name in same]
    images = of_one_pass["series"]["instances"]
    assert result["series"]["instances"] == images
    assert result["series"]["measured_pass"] == {
        "number": 1,
        "passes": 2,
        "told_by": "acquisition number",
        "reason": "the first complete pass",
        "images_left_out": images,
    }
    assert of_one_pass["series"]["measured_pass"] is None
    told = text_of(result, "one_pass_measured")
    assert told == (
        "The series contains 2 passes over the same body region, distinguished by acquisition number. "
        f"Only pass 1 is measured (the first complete pass). The other passes are excluded ({images} images)."
    )
    report = next(one for one in run.objects if one.file_name == "report.dcm")
    assert told.encode() in report.content
    measured = {str(one.SOPInstanceUID) for one in map(dcmread, study.glob("*.dcm"))}
    segmentation = next(one for one in run.objects if one.file_name == "segmentation.dcm")
    sources = (
        dcmread(DicomBytesIO(segmentation.content)).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    )
    assert {str(one.ReferencedSOPInstanceUID) for one in sources} <= measured


def test_passes_of_which_none_is_complete_are_refused_for_that(study: Path, tmp_path: Path) -> None:
    """The second begins before the first has ended."""
    folder = write_passes(study, tmp_path, _of_acquisition_2, up_mm=1.5)
    count = len(list(study.glob("*.dcm")))
    for number in range(1, count + 1):
        drop = f"1{number:03d}.dcm" if number > 0.6 * count else f"2{number:03d}.dcm"
        if number > 0.6 * count or number < 0.4 * count:
            (folder / drop).unlink()
    result = Run(folder, study / "truth_mask.nii.gz", files=False).result
    assert result["outcome"] == "refused"
    assert "several passes in one series: 2 parts overlap and none is complete by itself" in text_of(
        result, "no_usable_series"
    )
    assert result["levels"] == {}


def test_passes_that_no_header_tells_of_are_refused_by_what_images_show(study: Path, tmp_path: Path) -> None:
    folder = write_passes(study, tmp_path, lambda second, number: None, up_mm=1.5)
    mask = SimpleITK.ReadImage(str(study / "truth_mask.nii.gz"))
    doubled = SimpleITK.GetImageFromArray(np.repeat(SimpleITK.GetArrayFromImage(mask), 2, axis=0))
    x, y, z = mask.GetSpacing()
    doubled.SetSpacing((x, y, z / 2))
    doubled.SetOrigin(mask.GetOrigin())
    doubled.SetDirection(mask.GetDirection())
    SimpleITK.WriteImage(doubled, str(tmp_path / "mask.nii.gz"))
    result = Run(folder, tmp_path / "mask.nii.gz", files=False).result
    assert result["outcome"] == "refused"
    told = text_of(result, "alternate_images_displaced")
    assert "Every second image of the spine is displaced by 3.4 mm" in told
    assert {"L1", "L2", "L3"} <= result["levels"].keys()
    assert {level["bmd_mg_cm3"] for level in result["levels"].values()} == {None}
    assert (result["t_score"], result["rad_score"]) == (None, None)
