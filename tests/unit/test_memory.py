"""What a larger volume costs: a few bytes for each voxel more, not a copy of it in double precision."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.gates.bodies import bone_observations, quality_observations
from segmentation.regions.cancellous import cut_regions
from segmentation.vertebrae import LABELS, LUMBAR
from tests.unit import reference_images

pytestmark = pytest.mark.slow

# Beyond the volume itself: a label map, its copy in the canonical frame, what is left of it when bodies have
# been cut, and two masks for each level: 12.5 for five levels. A single array of float64 takes eight more.
LIMIT_BYTES_PER_VOXEL = 16.0


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray, Grid]:
    volume, found = reference_images.study()
    return volume.hu, found.bodies, volume.grid


def peak_bytes(hu: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, float, float]) -> int:
    """The most that segment, regions and gates hold at once."""
    grid = Grid(
        shape=hu.shape, spacing_mm=spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=reference_images.STRAIGHT
    )
    volume = CtVolume(hu=hu, grid=grid)
    tracemalloc.start()
    try:
        mask = LabelImage(labels=labels, grid=grid)
        found = MaskEngine(mask, Convention.TOTALSEGMENTATOR).segment(volume)
        regions = {
            level.name: cut_regions(volume, found, level.name)
            for level in found.levels
            if level.complete and level.name in LUMBAR
        }
        quality_observations(volume, found, regions)
        bone_observations(volume, found, minimum_contrast_hu=40.0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_voxel_more_costs_a_few_bytes(small):
    """The same anatomy with air around it: what is added is the cost of size alone."""
    hu, labels, grid = small
    around = ((0, 0), (70, 70), (70, 70))
    wide_hu = np.pad(hu, around, constant_values=np.float32(-1000.0))
    wide_labels = np.pad(labels, around)
    assert (wide_labels == LABELS["L3"]).any()
    more = peak_bytes(wide_hu, wide_labels, grid.spacing_mm) - peak_bytes(hu, labels, grid.spacing_mm)
    assert 0 < more / (wide_hu.size - hu.size) < LIMIT_BYTES_PER_VOXEL
