"""Where the canal's path ends: a tube of bone whose filling is known slice by slice."""

import numpy as np
import pytest

from segmentation.engines.geometric.canal import track_canal
from segmentation.engines.geometric.frame import WorkingVolume
from segmentation.settings import CanalSettings

SAC_HU, MARROW_HU, BONE_HU, FLESH_HU = 20.0, 95.0, 400.0, 50.0
SLICES, OF_MARROW, STEP_MM = 44, 14, 2.0


def tube() -> WorkingVolume:
    """A sac in a ring of bone, 60 mm long, above 28 mm of the same ring that faint marrow fills."""
    row, column = np.indices((40, 40)) - 20
    radius = np.hypot(row, column)
    hu = np.full((SLICES, 40, 40), FLESH_HU, np.float32)
    hu[:, radius <= 8] = BONE_HU
    hu[:, radius <= 5] = SAC_HU
    hu[:OF_MARROW, radius <= 5] = MARROW_HU
    return WorkingVolume(hu=hu, step_mm=STEP_MM)


def first_slice_of_canal(rules: CanalSettings) -> int:
    canal = track_canal(tube(), rules)
    assert canal is not None
    assert canal.points_mm[-1, 0] == STEP_MM * (SLICES - 1)
    return round(canal.points_mm[0, 0] / STEP_MM)


def test_the_canal_ends_where_faint_marrow_begins() -> None:
    assert first_slice_of_canal(CanalSettings()) == OF_MARROW


@pytest.mark.parametrize(
    "rules", [CanalSettings(marrow_above_sac_hu=80.0), CanalSettings(marrow_mm=30.0)], ids=["HU", "mm"]
)
def test_a_site_says_what_is_marrow_by_its_hu_and_its_length(rules: CanalSettings) -> None:
    """Marrow 75 HU above the sac over 28 mm: short of either limit it counts as canal."""
    assert first_slice_of_canal(rules) == 0


@pytest.mark.parametrize(("near_mm", "column"), [(20.0, 40), (60.0, 62)])
def test_a_site_says_how_far_from_the_trunk_s_middle_a_canal_may_lie(near_mm: float, column: int) -> None:
    """A ring that is open behind in the middle; a closed one, as marrow's is, 44 mm beside it."""
    row, across = np.indices((40, 81))
    hu = np.full((SLICES, 40, 81), FLESH_HU, np.float32)
    for middle in (40, 62):
        radius = np.hypot(row - 20, across - middle)
        hu[:, radius <= 8] = BONE_HU
        hu[:, radius <= 5] = SAC_HU
    hu[:, (row > 25) & (np.abs(across - 40) <= 3)] = FLESH_HU
    canal = track_canal(WorkingVolume(hu=hu, step_mm=STEP_MM), CanalSettings(near_midline_mm=near_mm))
    assert canal is not None
    assert canal.points_mm[:, 2] / STEP_MM == pytest.approx(np.full(SLICES, column), abs=2)
