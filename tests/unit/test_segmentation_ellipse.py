"""The mid-body ellipse: where it lies, how it is tilted, and which density leads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from config.phrases import in_english
from node.pipeline.artefacts import SegmentationArtefact, segmentation_from_bytes, segmentation_to_bytes
from scoring.density.bmd import measure_bmd
from segmentation.ct_volume import CtVolume, Grid, Mask
from segmentation.gates.bodies import ellipse_objection, quality_observations
from segmentation.levels import measure_level
from segmentation.regions.cancellous import cut_regions, mid_plane
from segmentation.regions.surface import body_share, box_around
from segmentation.settings import DensityRegions, EllipseSettings, GateSettings, RegionSettings
from segmentation.vertebrae import LABELS, EngineInfo, RegionKind, Vertebrae
from tests.unit.reference_images import crop_around_l3

pytestmark = pytest.mark.slow

WIDTH_MM, DEPTH_MM, HEIGHT_MM = 46.0, 34.0, 28.0
BONE_HU, VEIN_HU = 150.0, 20.0
BOTH = RegionSettings(bmd=DensityRegions.BOTH)
THIN, THICK = (1.0, 0.8, 0.8), (5.0, 0.8, 0.8)


def grid_of(spacing_mm: tuple[float, float, float], extent_mm: float = 70.0) -> Grid:
    nz, ny, nx = (int(extent_mm / spacing) for spacing in spacing_mm)
    return Grid(
        shape=(nz, ny, nx),
        spacing_mm=spacing_mm,
        origin_mm=(-35.0, -36.0, 100.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )


def axes_of(tilt_deg: float = 0.0, lean_deg: float = 0.0, turn_deg: float = 0.0) -> np.ndarray:
    """Unit vectors up, back and left: turned about the long axis, leant sideways, tilted forwards."""
    tilt, lean, turn = np.deg2rad([tilt_deg, lean_deg, turn_deg])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(lean), 0, np.sin(lean)], [0, 1, 0], [-np.sin(lean), 0, np.cos(lean)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return (about_x @ about_y @ about_z @ np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]).T).T


def local_mm(grid: Grid, axes: np.ndarray, shift_mm: float = 0.0) -> tuple[np.ndarray, ...]:
    """Of every voxel: mm above, behind and left of the body's middle."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    middle = grid.to_patient((np.asarray(grid.shape) - 1) / 2) + shift_mm * axes[0]
    return tuple(np.moveaxis((grid.to_patient(index) - middle) @ axes.T, -1, 0))


def body_in(grid: Grid, axes: np.ndarray, shift_mm: float = 0.0) -> Mask:
    above, behind, aside = local_mm(grid, axes, shift_mm)
    across = (2 * aside / WIDTH_MM) ** 2 + (2 * behind / DEPTH_MM) ** 2
    return (np.abs(above) <= HEIGHT_MM / 2) & (across <= 1)


def drawn(grid: Grid, body: Mask, axis: np.ndarray | None = None) -> Vertebrae:
    """As an engine draws it that knows whole voxels, and takes the long axis for straight up unless told."""
    axis = np.array([0.0, 0.0, 1.0]) if axis is None else axis
    return Vertebrae(
        grid=grid,
        bodies=np.where(body, LABELS["L3"], 0).astype(np.uint8),
        levels=(measure_level("L3", body, grid, axis=axis, complete=True),),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="test", version="1", model_free=True),
    )


def volume_of(grid: Grid, hu: float = BONE_HU) -> CtVolume:
    return CtVolume(hu=np.full(grid.shape, hu, np.float32), grid=grid)


@pytest.mark.parametrize("spacing_mm", [THIN, THICK, (2.0, 0.6, 1.1)], ids=str)
@pytest.mark.parametrize(
    ("tilt_deg", "lean_deg", "turn_deg"), [(0, 0, 0), (15, 0, 0), (-8, 10, 0), (5, 0, 12)]
)
def test_the_plane_is_the_endplates_own_and_not_the_tables(spacing_mm, tilt_deg, lean_deg, turn_deg):
    """The engine's axis stays upright, up to 15 degrees off; thick slices show it less well."""
    grid, axes = grid_of(spacing_mm), axes_of(tilt_deg, lean_deg, turn_deg)
    vertebrae = drawn(grid, body_in(grid, axes))
    box = box_around(vertebrae.bodies > 0)
    plane = mid_plane(body_share(vertebrae, vertebrae.levels[0], box), grid.part(box), vertebrae.levels[0])
    for found, true in zip(plane.axes, axes, strict=True):
        assert np.degrees(np.arccos(np.clip(found @ true, -1, 1))) < 1.2 + spacing_mm[0]
    assert np.linalg.det(plane.axes[[2, 1, 0]]) == pytest.approx(1.0)
    middle = grid.to_patient((np.asarray(grid.shape) - 1) / 2)
    assert plane.middle_mm == pytest.approx(middle, abs=0.5)
    assert (plane.width_mm, plane.depth_mm) == pytest.approx((WIDTH_MM, DEPTH_MM), abs=1.5)


@pytest.mark.parametrize("spacing_mm", [THIN, (3.0, 0.7, 0.7)], ids=str)
def test_it_lies_in_the_middle_in_front_of_the_veins_and_is_as_high_as_configured(spacing_mm):
    grid, axes = grid_of(spacing_mm), axes_of(12.0)
    ellipse = cut_regions(volume_of(grid), drawn(grid, body_in(grid, axes)), "L3", BOTH).ellipse
    above, behind, aside = (axis[ellipse] for axis in local_mm(grid, axes))
    rules, slack = EllipseSettings(), max(spacing_mm)
    assert np.abs(above).max() <= rules.height_mm / 2 + slack / 2
    assert np.abs(above).max() >= rules.height_mm / 2 - slack
    assert behind.min() == pytest.approx((rules.front - 0.5) * DEPTH_MM, abs=1.5)
    assert behind.max() == pytest.approx((rules.back - 0.5) * DEPTH_MM, abs=1.5)
    assert np.abs(aside).max() == pytest.approx(rules.width * WIDTH_MM / 2, abs=1.5)
    volume_mm3 = np.pi / 4 * rules.height_mm * rules.width * WIDTH_MM * (rules.back - rules.front) * DEPTH_MM
    assert ellipse.sum() * grid.voxel_volume_mm3 == pytest.approx(volume_mm3, rel=0.1)


@pytest.mark.parametrize("shift_mm", [0.0, 1.0, 2.5, 4.0])
def test_thick_slices_count_by_the_share_of_them_that_lies_within(shift_mm):
    """Of slices of 5 mm, one or two make up 9 mm, wherever they fall; none lies mostly outside."""
    grid, axes = grid_of(THICK), axes_of()
    ellipse = cut_regions(volume_of(grid), drawn(grid, body_in(grid, axes, shift_mm)), "L3", BOTH).ellipse
    slices = np.flatnonzero(ellipse.any(axis=(1, 2)))
    assert len(slices) in (1, 2)
    above = local_mm(grid, axes, shift_mm)[0][slices, 0, 0]
    assert (
        np.abs(above).max() <= EllipseSettings().height_mm / 2 + 1.0
    )  # a mask knows its ends to half a slice
    assert ellipse_objection(volume_of(grid), ellipse, GateSettings()) is None


def test_veins_behind_and_a_bone_island_in_front_leave_its_density_as_it_is():
    grid, axes = grid_of(THIN), axes_of(10.0)
    volume = volume_of(grid)
    above, behind, aside = local_mm(grid, axes)
    volume.hu[(np.abs(above) < 4) & (behind > 1.5) & (np.abs(aside) < 6)] = VEIN_HU
    volume.hu[above**2 + (behind + 6) ** 2 + (aside - 4) ** 2 < 3**2] = 700.0
    regions = cut_regions(volume, drawn(grid, body_in(grid, axes)), "L3", BOTH)
    assert volume.hu[regions.ellipse].mean() == pytest.approx(BONE_HU, abs=0.5)
    assert not (regions.ellipse & ~regions.radiomics).any()


def test_the_core_leads_where_both_are_measured_and_is_the_same_as_alone():
    grid = grid_of(THIN)
    volume, vertebrae = volume_of(grid), drawn(grid, body_in(grid, axes_of()))
    alone = cut_regions(volume, vertebrae, "L3")
    both = cut_regions(volume, vertebrae, "L3", BOTH)
    single = cut_regions(volume, vertebrae, "L3", RegionSettings(bmd=DensityRegions.ELLIPSE))
    assert (alone.kind, alone.ellipse) == (RegionKind.CORE, None)
    assert both.kind is RegionKind.CORE
    assert (both.bmd == alone.bmd).all()
    assert (single.kind, single.ellipse) == (RegionKind.ELLIPSE, None)
    assert (single.bmd == both.ellipse).all()
    assert measure_bmd(volume, single.bmd, None, level="L3", kind=single.kind).region is RegionKind.ELLIPSE


def test_an_ellipse_that_serves_for_nothing_is_said_and_the_core_stands():
    grid = grid_of(THIN)
    volume, vertebrae = volume_of(grid), drawn(grid, body_in(grid, axes_of()))
    regions = cut_regions(volume, vertebrae, "L3", BOTH)
    strict = GateSettings(min_ellipse_cm3=50.0)
    (found,) = quality_observations(volume, vertebrae, {"L3": regions}, strict)
    assert (found.code, found.level) == ("ellipse_not_measured", "L3")
    assert "cm3 of the mid-body ellipse lie in cancellous bone" in in_english(found.values["reason"])
    volume.hu[regions.ellipse] += np.random.default_rng(1).normal(0, 95, regions.ellipse.sum())
    (uneven,) = quality_observations(volume, vertebrae, {"L3": regions})
    assert uneven.code == "roi_heterogeneous"  # said, and given all the same, as in the core
    assert ellipse_objection(volume, regions.ellipse, GateSettings()) is None
    leading = replace(regions, bmd=regions.ellipse, kind=RegionKind.ELLIPSE, ellipse=None)
    codes = [one.code for one in quality_observations(volume, vertebrae, {"L3": leading}, strict)]
    assert codes == ["roi_too_small", "roi_heterogeneous"]


@pytest.mark.parametrize("choice", DensityRegions)
def test_regions_survive_being_written_down(choice):
    grid = grid_of((3.0, 1.5, 1.5))
    vertebrae = drawn(grid, body_in(grid, axes_of()))
    regions = cut_regions(volume_of(grid), vertebrae, "L3", RegionSettings(bmd=choice))
    written = segmentation_to_bytes(SegmentationArtefact(vertebrae=vertebrae, regions=(regions,)))
    (back,) = segmentation_from_bytes(written).regions
    assert back.kind is regions.kind
    assert (back.bmd == regions.bmd).all()
    assert (back.ellipse is None) == (regions.ellipse is None)
    assert regions.ellipse is None or (back.ellipse == regions.ellipse).all()


def test_on_a_real_vertebra_it_lies_in_front_and_follows_its_slight_turn(test_data):
    """The crop's L3 is turned by two degrees and stands almost upright; its wall carries small spurs."""
    volume, vertebrae = crop_around_l3(test_data)
    level = vertebrae.level("L3")
    box = box_around(vertebrae.bodies == level.label)
    plane = mid_plane(body_share(vertebrae, level, box), volume.grid.part(box), level)
    assert np.degrees(np.arccos(plane.axes[2] @ [1.0, 0.0, 0.0])) == pytest.approx(1.9, abs=1.0)
    assert np.degrees(np.arccos(plane.axes[0] @ level.axis)) < 3.0
    regions = cut_regions(volume, vertebrae, "L3", BOTH)
    behind = plane.local(volume.grid.to_patient(np.argwhere(regions.ellipse)))[:, 1]
    assert (behind.min(), behind.max()) == pytest.approx((-0.35 * plane.depth_mm, 0.0), abs=1.5)
    assert ellipse_objection(volume, regions.ellipse, GateSettings()) is None
    apart = volume.hu[regions.ellipse].mean() - volume.hu[regions.bmd].mean()
    assert abs(apart) < 15.0
