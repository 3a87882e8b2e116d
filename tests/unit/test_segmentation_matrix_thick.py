"""Endplates on slices 5 mm apart: the model of what a slice averages, and what must not be smoothed away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from segmentation.ct_volume import Grid
from segmentation.engines.geometric.frame import body_frame
from segmentation.engines.geometric.thick_slices import PLATE_SIZE, Slabs, make_slabs, slab_average
from tests.unit.segmentation_matrix import mixed_otherwise
from tests.unit.segmentation_matrix_run import run

pytestmark = pytest.mark.slow

CORTEX_HU, BLUR_MM, SLICE_MM = 550.0, 0.7, 5.0
PLATE = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 150.0, 80.0, 1.2])  # square to the slices, 1 mm up


def slabs_at(heights_mm: np.ndarray, *, lean: float = 0.0, shape: np.ndarray = PLATE[:6]) -> Slabs:
    """Voxels up an axis that leans forward by `lean` radians."""
    along = np.array([np.cos(lean), -np.sin(lean), 0.0])
    frame = body_frame(np.zeros(3), along, np.array([0.0, -1.0, 0.0]))
    grid = Grid(
        shape=(1, 1, 1),
        spacing_mm=(SLICE_MM, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    local = np.stack([heights_mm, np.full_like(heights_mm, 3.0), np.full_like(heights_mm, -4.0)], axis=1)
    return make_slabs(np.zeros(len(local)), local, frame, grid, shape=shape, sense=1)


def test_a_voxel_is_the_mean_of_its_slab_of_blurred_bone_plate_and_disc() -> None:
    step = 0.01
    h = np.arange(-20, 20, step)
    tissue = np.where(h <= PLATE[0] - PLATE[8], PLATE[6], np.where(h <= PLATE[0], CORTEX_HU, PLATE[7]))
    blurred = ndimage.gaussian_filter1d(tissue, BLUR_MM / step, mode="nearest")
    mean = ndimage.uniform_filter1d(blurred, round(SLICE_MM / step))
    middles = np.arange(-9.0, 9.1, 0.5)
    hu, _ = slab_average(slabs_at(middles), PLATE, BLUR_MM, CORTEX_HU)
    assert hu == pytest.approx(np.interp(middles, h, mean), abs=1.0)


def test_a_leaning_slab_is_crossed_on_a_shorter_way() -> None:
    """At 60 degrees a slice of 5 mm spans 2.5 mm of the body's height."""
    upright, _ = slab_average(slabs_at(np.array([3.0])), PLATE, 0.1, CORTEX_HU)
    leaning, _ = slab_average(slabs_at(np.array([3.0]), lean=np.deg2rad(60)), PLATE, 0.1, CORTEX_HU)
    assert upright[0] > PLATE[7] + 20  # 0.5 mm of plate in 5
    assert leaning[0] == pytest.approx(PLATE[7], abs=0.1)


def test_the_slopes_of_the_model_are_those_of_its_values() -> None:
    plate = np.array([1.0, 0.1, -0.05, 0.002, 0.001, 0.004, 150.0, 80.0, 1.2])
    slabs = slabs_at(np.arange(-6.0, 8.0, 0.7), lean=0.3, shape=plate[:6])
    _, change = slab_average(slabs, plate, BLUR_MM, CORTEX_HU)
    for number in range(PLATE_SIZE + 1):
        step = 1e-5
        ends = []
        for sign in (-1, 1):
            moved = plate + sign * step * (np.arange(PLATE_SIZE) == number)
            blur_mm = BLUR_MM * np.exp(sign * step * (number == PLATE_SIZE))
            ends.append(slab_average(slabs, moved, blur_mm, CORTEX_HU)[0])
        assert change[:, number] == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-4, abs=1e-4)


def test_a_loss_of_a_third_on_slices_of_5_mm_is_said_not_to_be_assessed() -> None:
    """Bone as dense as its disc and much noise: heights cannot be believed, and no sound body is named."""
    (entry,) = (entry for entry in mixed_otherwise() if entry.number == 44)
    assert entry.spec.slice_spacing_mm == SLICE_MM
    assert entry.spec.bmd_mg_cm3["L3"] == 40.0
    found = run(entry).findings
    assert ("fracture_not_assessed", None) in found
    assert not [level for code, level in found if code.startswith("fracture") and level not in (None, "L3")]
