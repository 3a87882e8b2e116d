"""Surfaces between voxels: depth and volume must not depend on where the grid happens to lie."""

from __future__ import annotations

import numpy as np
import pytest

from node.reference.spec import StudySpec
from segmentation.ct_volume import Grid, reorientation_of
from segmentation.engines.geometric import GeometricEngine
from segmentation.regions.cancellous import cut_regions
from segmentation.regions.surface import body_share, deep_shares, surface_points
from segmentation.vertebrae import LABELS, EngineInfo, Level, Occupancy, Vertebrae
from tests.unit.segmentation_matrix_run import volume_of

pytestmark = pytest.mark.slow

HALF_MM = np.array([14.0, 16.0, 22.0])


def ellipsoid_share(spacing_mm: tuple[float, float, float], offset: float, fine: int = 4) -> np.ndarray:
    """The share of each voxel inside an ellipsoid that lies anywhere between voxels."""
    axes = []
    for step, half in zip(spacing_mm, HALF_MM, strict=True):
        count = int(np.ceil(half / step)) + 2
        sub = (np.arange((2 * count + 1) * fine) + 0.5) / fine - 0.5 - count + offset
        axes.append(sub * step / half)
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside = z * z + y * y + x * x <= 1
    shape = [size for axis in axes for size in (len(axis) // fine, fine)]
    share: np.ndarray = inside.reshape(shape).mean(axis=(1, 3, 5)).astype(np.float32)
    return share


@pytest.mark.parametrize("part", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9])
def test_a_flat_border_is_found_to_the_part_of_a_voxel(part: float) -> None:
    share = np.zeros((8, 3, 3), np.float32)
    share[:4] = 1.0
    share[4] = part
    points = surface_points(share, (1.0, 1.0, 1.0))
    assert points[:, 0] == pytest.approx(np.full(len(points), 3.5 + part), abs=1e-6)


@pytest.fixture(scope="module")
def finely() -> float:
    """Volume of the ellipsoid 3 mm beneath its surface, in mm3, on a fine grid."""
    share = ellipsoid_share((0.5, 0.5, 0.5), 0.0, fine=2)
    return float(deep_shares(share, (0.5, 0.5, 0.5), (3.0, 3.0, 3.0)).sum() * 0.5**3)


@pytest.mark.parametrize("spacing_mm", [(0.6, 0.7, 0.7), (2.0, 0.9, 1.4), (3.0, 1.4, 1.4), (5.0, 0.8, 0.8)])
@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5])
def test_the_volume_at_a_depth_is_the_same_on_every_grid(
    spacing_mm: tuple[float, float, float], offset: float, finely: float
) -> None:
    share = ellipsoid_share(spacing_mm, offset)
    deep = deep_shares(share, spacing_mm, (3.0, 3.0, 3.0))
    assert deep.sum() * np.prod(spacing_mm) == pytest.approx(finely, rel=0.04)


def test_an_eroded_ball_has_the_volume_that_geometry_gives() -> None:
    index = np.stack(np.meshgrid(*(np.arange(50.0),) * 3, indexing="ij"), axis=-1) * 0.8
    distance = np.linalg.norm(index - 19.7, axis=-1)
    share = np.clip(0.5 + (16.0 - distance) / 0.8, 0, 1).astype(np.float32)
    deep = deep_shares(share, (0.8, 0.8, 0.8), (3.0, 3.0, 3.0))
    assert deep.sum() * 0.8**3 == pytest.approx(4 / 3 * np.pi * 13.0**3, rel=0.01)


def test_a_label_map_without_shares_is_eroded_nearly_as_deep() -> None:
    share = ellipsoid_share((1.0, 1.0, 1.0), 0.2)
    inside = share >= 0.5
    grid = Grid(
        shape=(share.shape[0], share.shape[1], share.shape[2]),
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    level = Level(
        name="L3",
        label=LABELS["L3"],
        complete=True,
        centroid_mm=(0.0, 0.0, 0.0),
        body_volume_mm3=float(inside.sum()),
        axis=(0.0, 0.0, 1.0),
    )
    vertebrae = Vertebrae(
        grid=grid,
        bodies=np.where(inside, level.label, 0).astype(np.uint8),
        levels=(level,),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="test", version="1", model_free=True),
    )
    whole = (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
    smooth = body_share(vertebrae, level, whole)
    reach = (3.0, 3.0, 3.0)
    from_labels = deep_shares(smooth, grid.spacing_mm, reach).sum()
    from_shares = deep_shares(share, grid.spacing_mm, reach).sum()
    assert from_labels == pytest.approx(from_shares, rel=0.02)


def test_shares_follow_a_box_into_any_voxel_order() -> None:
    """A box of shares turned back to the source lies where the whole array turned back has it."""
    grid = Grid(
        shape=(9, 7, 8),
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)),
    )
    turn = reorientation_of(grid)
    there = turn.forward(np.zeros(grid.shape, np.uint8))
    box = (slice(1, 4), slice(2, 7), slice(0, 5))
    there[box] = np.arange(1, 3 * 5 * 5 + 1, dtype=np.uint8).reshape(3, 5, 5)
    shape = (there.shape[0], there.shape[1], there.shape[2])
    source = turn.backward(there)
    known = Occupancy(
        corner=tuple(part.start for part in turn.box_backward(box, shape)), share=turn.backward(there[box])
    )
    placed = np.zeros(grid.shape, np.uint8)
    placed[tuple(slice(c, c + n) for c, n in zip(known.corner, known.share.shape, strict=True))] = known.share
    assert np.array_equal(placed, source)


@pytest.fixture(scope="module")
def by_slice_mm() -> dict[float, tuple[float, float, float]]:
    """Body volume, core volume and mean HU of L3 of one patient, scanned with different slices."""
    found = {}
    for slice_mm in (0.4, 1.0, 3.0, 5.0):
        spec = StudySpec.reduced(
            pixel_spacing_mm=(1.2, 1.2),
            matrix=292,
            slice_spacing_mm=slice_mm,
            slice_thickness_mm=slice_mm,
            view=("L2", "L4"),
            scoliosis_degrees=8.0,
            seed=7,
        )
        volume = volume_of(spec)
        vertebrae = GeometricEngine(first_level="L2").segment(volume)
        third = vertebrae.level("L3")
        assert third is not None
        regions = cut_regions(volume, vertebrae, "L3")
        hu = float(volume.hu[regions.bmd].mean())
        found[slice_mm] = (third.body_volume_mm3, regions.core_volume_mm3, hu)
    return found


@pytest.mark.parametrize("slice_mm", [1.0, 3.0, 5.0])
def test_slices_of_other_thickness_give_the_same_body_core_and_density(
    by_slice_mm: dict[float, tuple[float, float, float]], slice_mm: float
) -> None:
    body, core, hu = by_slice_mm[0.4]
    assert by_slice_mm[slice_mm][0] == pytest.approx(body, rel=0.05)
    assert by_slice_mm[slice_mm][1] == pytest.approx(core, rel=0.05)
    assert by_slice_mm[slice_mm][2] == pytest.approx(hu, abs=2.0)
