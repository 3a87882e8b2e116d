"""A few slices of a series to look at: evenly spread, few whatever its length, whatever its geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from node.dicom.ct.headers import Instance, group_series, read_headers
from node.dicom.ct.slice_reading import LEAST_SLICES, MOST_SAMPLED, sample_series, slices_per_series

pytestmark = [pytest.mark.slow, pytest.mark.slow]


@pytest.fixture
def images(tmp_path, make_slice):
    def write(count: int, step_mm: float = 1.0, *, start_hu: int = 0, **changes: object) -> list[Instance]:
        """Slice k reads `start_hu + k` HU."""
        done = len(list(tmp_path.iterdir()))
        for k in range(count):
            place = (0.0, 0.0, k * step_mm)
            pixels = np.full((8, 8), start_hu + k, np.int16)
            make_slice(tmp_path / f"{done + k:04d}.dcm", pixels, place, **changes)
        return all_in(tmp_path)

    return write


def all_in(folder: Path) -> list[Instance]:
    return [one for series in group_series(read_headers(folder.glob("*.dcm"))) for one in series.instances]


def test_a_long_series_costs_no_more_than_a_short_one(images):
    (stack,) = sample_series(images(300))
    assert stack.facts.instances <= MOST_SAMPLED
    assert stack.extent_mm == 299.0
    shown = stack.volume.hu[:, 0, 0]
    assert len(shown) == 12
    assert np.ptp(np.diff(shown)) <= 2.0  # evenly spread
    assert shown[0] < 15
    assert shown[-1] > 284


def test_a_whole_body_is_looked_at_every_30_mm(images):
    (stack,) = sample_series(images(145, 5.0))
    assert len(stack.volume.hu) == 24
    assert stack.volume.grid.spacing_mm[0] == pytest.approx(30.0, abs=1.0)


@pytest.mark.parametrize(("series", "slices"), [(1, 48), (20, 48), (40, 24), (1000, LEAST_SLICES)])
def test_of_many_series_fewer_slices_are_looked_at(series, slices):
    assert slices_per_series(series) == slices


def test_slices_of_another_size_make_a_stack_of_their_own(images, tmp_path, make_slice):
    images(20)
    make_slice(tmp_path / "9000.dcm", np.zeros((16, 16), np.int16), (0.0, 0.0, 5.0))
    stacks = sample_series(all_in(tmp_path))
    assert [one.volume.hu.shape[1:] for one in stacks] == [(8, 8), (16, 16)]


def test_passes_are_not_blended(images):
    images(60, AcquisitionNumber=1)
    (stack,) = sample_series(images(60, start_hu=1000, AcquisitionNumber=2))
    shown = stack.volume.hu[:, 0, 0]
    assert set((shown > 500).tolist()) == {True, False}
    assert not np.any((shown > 70) & (shown < 1000))


def test_coronal_images_are_no_axial_ones(images):
    assert sample_series(images(20, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])) == ()


def test_what_cannot_be_decoded_is_left_out(images, tmp_path):
    images(24)
    for path in sorted(tmp_path.glob("*.dcm"))[:12]:
        dataset = dcmread(path)
        dataset.PixelData = dataset.PixelData[:10]
        dataset.save_as(path)
    (stack,) = sample_series(all_in(tmp_path))
    assert stack.volume.hu.min() >= 12


@pytest.mark.parametrize(
    "keyword", ["ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "FrameOfReferenceUID"]
)
def test_what_a_header_lacks_does_not_keep_it_from_being_looked_at(images, keyword):
    (stack,) = sample_series(images(30, **{keyword: None}))
    assert len(stack.volume.hu) >= 2
