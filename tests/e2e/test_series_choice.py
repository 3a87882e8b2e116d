"""Of several series the one is measured that a radiologist would take; each other is told what it lost by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from config.phrases import in_english
from node.pipeline.study_run import Arrival
from node.reference.spec import StudySpec
from tests.e2e.in_process import selected
from tests.made_studies import write_reference_study

Hu = npt.NDArray[np.float32]
PHANTOM_BEHIND_MM = 92.0  # LPS y: behind it lies the reference study's phantom alone


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Of a study, caudal to cranial."""
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4")))
    return sorted(map(dcmread, folder.glob("*.dcm")), key=lambda one: one.ImagePositionPatient[2])


def hu_of(images: Sequence[Dataset]) -> Hu:
    return np.stack([one.pixel_array * one.RescaleSlope + one.RescaleIntercept for one in images])


def filled(images: Sequence[Dataset], hu: Hu) -> None:
    for one, image in zip(images, hu, strict=True):
        one.Rows, one.Columns = image.shape
        one.PixelData = np.rint((image - one.RescaleIntercept) / one.RescaleSlope).astype(np.int16).tobytes()


def series(images: Sequence[Dataset], name: str, **changes: object) -> list[Dataset]:
    """Copies as a series of their own, with attributes changed."""
    copies = deepcopy(list(images))
    for one in copies:
        one.SeriesInstanceUID = f"{one.SeriesInstanceUID}.{name}"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{one.SOPInstanceUID}.{name}"
        for keyword, value in changes.items():
            setattr(one, keyword, value)
    return copies


def thick(images: Sequence[Dataset], name: str) -> list[Dataset]:
    """Twice as thick: each of two neighbours' mean."""
    pairs = len(images) // 2
    fused = series(images[: 2 * pairs : 2], name)
    hu = hu_of(images)
    filled(fused, (hu[: 2 * pairs : 2] + hu[1 : 2 * pairs : 2]) / 2)
    for number, one in enumerate(fused):
        x, y, low = map(float, one.ImagePositionPatient)
        high = float(images[2 * number + 1].ImagePositionPatient[2])
        one.ImagePositionPatient = [x, y, (low + high) / 2]
        one.SliceThickness = 2 * float(one.SliceThickness)
    return fused


def target(images: Sequence[Dataset], name: str) -> list[Dataset]:
    """A reconstruction of the middle 180 mm, in which the phantom does not lie."""
    middle, half = int(images[0].Rows) // 2, round(90 / float(images[0].PixelSpacing[0]))
    cut = series(images, name)
    filled(cut, hu_of(images)[:, middle - half : middle + half, middle - half : middle + half])
    for one in cut:
        x, y, z = map(float, one.ImagePositionPatient)
        aside = (middle - half) * float(one.PixelSpacing[0])
        one.ImagePositionPatient = [x + aside, y + aside, z]
    return cut


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    def write(*several: list[Dataset]) -> Path:
        for place, images in enumerate(several):
            for number, one in enumerate(images):
                dcmwrite(tmp_path / f"{place}-{number:04d}.dcm", one)
        return tmp_path

    return write


def uid_of(images: Sequence[Dataset]) -> str:
    return str(images[0].SeriesInstanceUID)


def choice(folder: Path, **changes: Any) -> tuple[str, dict[str, str], dict[str, str]]:
    """The chosen series, why the others were not, and what was found by its code."""
    found = selected(folder, **changes)
    assert found.series is not None
    reasons = {one.series_instance_uid: in_english(one.reason) for one in found.rejected}
    told = {one.code: " ".join(map(in_english, one.values.values())) for one in found.observations}
    return found.series.series_instance_uid, reasons, told


def test_the_field_that_shows_the_phantom_goes_before_a_thinner_target_reconstruction(slices, study) -> None:
    whole, narrow = thick(slices, "1"), target(slices, "2")
    chosen, reasons, told = choice(study(whole, narrow))
    assert chosen == uid_of(whole)
    assert reasons == {uid_of(narrow): "no phantom in view, unlike the chosen series"}
    assert told["series_passed_over"] == "thinner slices"


def test_a_native_series_goes_before_a_thinner_one_with_contrast(slices, study) -> None:
    bright = hu_of(slices)
    back = round((PHANTOM_BEHIND_MM - slices[0].ImagePositionPatient[1]) / slices[0].PixelSpacing[0])
    tissue = bright[:, :back]
    tissue[(tissue > 90) & (tissue < 450)] += 28
    venous = series(slices, "2", ContrastBolusAgent="IOHEXOL 350")
    filled(venous, bright)
    native = thick(slices, "1")
    chosen, reasons, told = choice(study(native, venous))
    assert chosen == uid_of(native)
    assert reasons == {uid_of(venous): "contrast medium given, unlike in the chosen series"}
    assert "contrast_given" not in told
    assert told["series_passed_over"] == "thinner slices"


def test_contrast_with_the_phantom_goes_before_native_without_it_and_is_told(slices, study) -> None:
    native = target(slices, "1")
    venous = series(slices, "2", ContrastBolusAgent="IOHEXOL 350")
    chosen, reasons, told = choice(study(native, venous))
    assert chosen == uid_of(venous)
    assert reasons == {uid_of(native): "no phantom in view, unlike the chosen series"}
    assert told["contrast_given"] == "IOHEXOL 350"
    assert told["series_passed_over"] == "no contrast medium"


def test_of_equal_series_the_earlier_is_measured_then_the_lower_number_whatever_their_uids(
    slices, study
) -> None:
    late = series(slices, "1", AcquisitionTime="101500", SeriesNumber=2)
    high = series(slices, "2", AcquisitionTime="101400", SeriesNumber=9)
    low = series(slices, "3", AcquisitionTime="101400", SeriesNumber=3)
    chosen, reasons, told = choice(study(late, high, low))
    assert chosen == uid_of(low)
    assert reasons == {
        uid_of(late): "acquired later than the chosen series",
        uid_of(high): "higher series number than the chosen series",
    }
    assert told == {}


def test_without_a_phantom_what_shows_the_lumbar_spine_goes_before_a_longer_thinner_chest(
    slices, study
) -> None:
    spine, chest = thick(target(slices, "1"), "1"), target(slices, "2")
    hu = hu_of(chest)
    hu[:, 30:70, 10:35] = hu[:, 30:70, -35:-10] = -800.0  # lungs, closed in by the chest's wall
    filled(chest, hu)
    chosen, reasons, told = choice(study(spine, chest), arrival=Arrival(declared_qct=True))
    assert chosen == uid_of(spine)
    assert reasons == {uid_of(chest): "less coverage than the chosen series"}
    assert "series_passed_over" not in told


def test_a_series_whose_phantom_fails_a_check_gives_way_to_one_whose_does_not(slices, study) -> None:
    """The water rod of the thinner series reads 25 HU."""
    off = series(slices, "2")
    for one in off:
        one.RescaleIntercept += 25.0
    sound = thick(slices, "1")
    chosen, reasons, _ = choice(study(off, sound))
    assert chosen == uid_of(sound)
    assert reasons == {uid_of(off): "unusable phantom, unlike the chosen series"}


def test_a_check_that_the_whole_series_alone_can_fail_counts_as_well(slices, study) -> None:
    """A step of the offset half way along: a few slices do not tell it from noise."""
    off = series(slices, "2")
    for one in off[len(off) // 2 :]:
        one.RescaleIntercept += 12.0
    sound = thick(slices, "1")
    chosen, reasons, _ = choice(study(off, sound))
    assert chosen == uid_of(sound)
    assert reasons == {uid_of(off): "unusable phantom, unlike the chosen series"}


def test_two_phantoms_that_disagree_are_told_where_another_series_shows_one_of_them_alone(
    slices, study
) -> None:
    both, one_alone = series(slices, "1"), series(slices, "2")
    hu = hu_of(both)
    first_mm, step_mm = slices[0].ImagePositionPatient[1], slices[0].PixelSpacing[0]
    rows = slice(*(round((end - first_mm) / step_mm) for end in (93.0, 131.0)))
    columns = slice(hu.shape[2] // 5, hu.shape[2] * 4 // 5)
    block = np.where(hu[:, rows] > -200, 1.08 * hu[:, rows], hu[:, rows])
    hu[:, 4 : 4 + block.shape[1], columns] = block[:, :, columns]
    filled(both, hu)
    top = 4 + block.shape[1]
    filled(one_alone, hu[:, top:])
    for one in one_alone:
        one.ImagePositionPatient[1] += top * step_mm
    chosen, reasons, told = choice(study(both, one_alone))
    assert chosen == uid_of(one_alone)
    assert reasons == {uid_of(both): "unusable phantom, unlike the chosen series"}
    assert "phantoms_disagree_elsewhere" in told


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Single-slice QCT."""
    folder = tmp_path_factory.mktemp("lone")
    write_reference_study(folder, StudySpec.one_slice_each("L2", "L3"))
    return sorted(map(dcmread, folder.glob("*.dcm")), key=lambda one: one.ImagePositionPatient[2])


def test_single_slices_are_ranked_alike(lone, study) -> None:
    native = series(lone, "3", ConvolutionKernel="BONE")
    venous = series(lone, "1", ContrastBolusAgent="IOHEXOL 350")
    narrow = target(lone, "2")
    chosen, reasons, told = choice(study(venous, narrow, native))
    assert chosen == uid_of(native)
    assert reasons == {
        uid_of(venous): "contrast medium given, unlike in the chosen series",
        uid_of(narrow): "no phantom in view, unlike the chosen series",
    }
    assert told["series_passed_over"] == "a softer kernel"


def test_single_slices_with_the_phantom_go_before_a_volume_without_it(slices, lone, study) -> None:
    volume = target(slices, "1")
    several = series(lone, "2", StudyInstanceUID=volume[0].StudyInstanceUID)
    chosen, reasons, told = choice(study(volume, several))
    assert chosen == uid_of(several)
    assert reasons == {uid_of(volume): "no phantom in view, unlike the chosen series"}
    assert "single_slice" in told
