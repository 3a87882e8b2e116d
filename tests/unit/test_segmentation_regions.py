"""Density and radiomics regions, and the gates, on bodies whose every voxel is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from config.catalog import load_radiomics_settings_text
from config.findings import load_findings
from config.phrases import in_english
from node.pipeline.artefacts import SegmentationArtefact
from node.pipeline.steps.score import measure
from scoring.radiomics import parse_settings
from segmentation.ct_volume import CtVolume, Grid, Mask
from segmentation.errors import GridMismatch, LevelNotFound
from segmentation.gates.bodies import quality_observations
from segmentation.levels import measure_level
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import GateSettings, ImageSettings, RegionSettings
from segmentation.vertebrae import LABELS, EngineInfo, Occupancy, Regions, Vertebrae

pytestmark = pytest.mark.slow

TABLE = load_findings()

ENGINE = EngineInfo(name="test", version="1", model_free=True)
CANCELLOUS_HU = 120.0
HALF_WIDTH_MM, HALF_DEPTH_MM, HALF_HEIGHT_MM = 22.0, 16.0, 14.0


def grid_of(spacing_mm: tuple[float, float, float], extent_mm: float = 64.0) -> Grid:
    nz, ny, nx = (int(extent_mm / spacing) for spacing in spacing_mm)
    return Grid(
        shape=(nz, ny, nx),
        spacing_mm=spacing_mm,
        origin_mm=(-31.0, -30.0, 100.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )


def body_coordinates_mm(grid: Grid, tilt_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(h, back, left) from the volume's middle, the body's axis tilted forward about the left-right axis."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    middle = grid.to_patient((np.asarray(grid.shape) - 1) / 2)
    x, y, z = np.moveaxis(grid.to_patient(index) - middle, -1, 0)
    angle = np.deg2rad(tilt_deg)
    return np.cos(angle) * z - np.sin(angle) * y, np.sin(angle) * z + np.cos(angle) * y, x


def elliptic_body(grid: Grid, tilt_deg: float = 0.0) -> Mask:
    h, back, left = body_coordinates_mm(grid, tilt_deg)
    return (np.abs(h) <= HALF_HEIGHT_MM) & ((left / HALF_WIDTH_MM) ** 2 + (back / HALF_DEPTH_MM) ** 2 <= 1)


def as_vertebrae(grid: Grid, body: Mask, tilt_deg: float = 0.0, name: str = "L3") -> Vertebrae:
    angle = np.deg2rad(tilt_deg)
    level = measure_level(name, body, grid, axis=(0.0, -np.sin(angle), np.cos(angle)), complete=True)
    return Vertebrae(
        grid=grid,
        bodies=np.where(body, LABELS[name], 0).astype(np.uint8),
        levels=(level,),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=ENGINE,
    )


def uniform(grid: Grid, hu: float = CANCELLOUS_HU) -> CtVolume:
    return CtVolume(hu=np.full(grid.shape, hu, np.float32), grid=grid)


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.7, 0.7), (3.0, 0.7, 0.7), (1.0, 0.5, 1.2), (5.0, 0.9, 0.9)])
def test_erosion_reaches_the_same_depth_in_mm_whatever_the_voxels(
    spacing_mm: tuple[float, float, float],
) -> None:
    grid = grid_of(spacing_mm)
    body = elliptic_body(grid)
    core = cut_regions(uniform(grid), as_vertebrae(grid, body), "L3").radiomics
    h, back, left = body_coordinates_mm(grid)
    assert core.any()
    # A mask knows its own border to half a voxel.
    assert np.abs(left[core]).max() <= HALF_WIDTH_MM - 3.0 + spacing_mm[2] / 2
    assert np.abs(back[core]).max() <= HALF_DEPTH_MM - 3.0 + spacing_mm[1] / 2
    assert np.abs(h[core]).max() <= HALF_HEIGHT_MM - 3.0 + spacing_mm[0] / 2
    # Not deeper than the voxels force: the erosion, a whole voxel, and half a voxel of the body's own border.
    assert np.abs(left[core]).max() >= HALF_WIDTH_MM - 3.0 - 2.0 * spacing_mm[2]
    assert np.abs(back[core]).max() >= HALF_DEPTH_MM - 3.0 - 2.0 * spacing_mm[1]
    assert np.abs(h[core]).max() >= HALF_HEIGHT_MM - 3.0 - 2.0 * spacing_mm[0]


def test_coarse_pixels_are_eroded_by_two_voxels_across_the_axis() -> None:
    grid = grid_of((2.0, 2.4, 2.4))
    core = cut_regions(uniform(grid), as_vertebrae(grid, elliptic_body(grid)), "L3").radiomics
    _, _, left = body_coordinates_mm(grid)
    assert np.abs(left[core]).max() <= HALF_WIDTH_MM - 1.5 * 2.4


def test_a_cortex_and_its_blur_leave_the_density_untouched() -> None:
    """Cancellous bone of one value under a blurred 1.2 mm cortex: the region must read that value."""
    grid = grid_of((1.0, 0.8, 0.8))
    body = elliptic_body(grid)
    depth = ndimage.distance_transform_edt(body, sampling=grid.spacing_mm)
    hu = np.where(body, np.where(depth <= 1.2, 900.0, CANCELLOUS_HU), 40.0)
    hu = ndimage.gaussian_filter(hu, 0.6 / np.asarray(grid.spacing_mm)).astype(np.float32)
    regions = cut_regions(CtVolume(hu=hu, grid=grid), as_vertebrae(grid, body), "L3")
    assert hu[regions.bmd].mean() == pytest.approx(CANCELLOUS_HU, abs=0.5)


@pytest.mark.parametrize("tilt_deg", [0.0, 25.0])
def test_density_is_read_in_the_middle_of_the_bodys_own_height(tilt_deg: float) -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    body = elliptic_body(grid, tilt_deg)
    bmd = cut_regions(uniform(grid), as_vertebrae(grid, body, tilt_deg), "L3").bmd
    h, _, _ = body_coordinates_mm(grid, tilt_deg)
    reach = RegionSettings().central_height * HALF_HEIGHT_MM
    assert np.abs(h[bmd]).max() == pytest.approx(reach, abs=1.0)


@pytest.mark.parametrize("first_mm", [0.0, 1.0, 2.0, 3.0, 4.0])
def test_no_endplate_enters_the_density_of_slices_of_5_mm(first_mm: float) -> None:
    """Wherever the slices begin. Read by its label map this body of 28 mm is up to 34 mm high."""
    fine = grid_of((0.5, 1.0, 1.0), extent_mm=70.0)
    body = elliptic_body(fine, tilt_deg=6.0)
    h, _, _ = body_coordinates_mm(fine, tilt_deg=6.0)
    endplate = body & (np.abs(h) > HALF_HEIGHT_MM - 3.0)  # hollow ones reach so far
    start = round(first_mm / 0.5)

    def thick(values: np.ndarray) -> np.ndarray:
        count = (len(values) - start) // 10
        return values[start : start + 10 * count].reshape(count, 10, *values.shape[1:]).mean(axis=1)

    share = thick(body.astype(np.float32))
    hu = thick(np.where(endplate, 1000.0, np.where(body, CANCELLOUS_HU, 80.0))).astype(np.float32)
    grid = replace(
        fine,
        shape=share.shape,
        spacing_mm=(5.0, 1.0, 1.0),
        origin_mm=(-31.0, -30.0, 100.0 + first_mm + 2.25),
    )
    known = Occupancy(corner=(0, 0, 0), share=np.round(share * 255).astype(np.uint8))
    found = replace(as_vertebrae(grid, share >= 0.5, tilt_deg=6.0), occupancy={"L3": known})
    bmd = cut_regions(CtVolume(hu=hu, grid=grid), found, "L3").bmd
    assert hu[bmd].mean() == pytest.approx(CANCELLOUS_HU, abs=2.0)


def test_the_basivertebral_wedge_is_cut_from_the_density_region_alone() -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    regions = cut_regions(uniform(grid), as_vertebrae(grid, elliptic_body(grid)), "L3")
    h, back, left = body_coordinates_mm(grid)
    behind = (np.abs(left) <= 1.0) & (back > 5.0) & (back < 9.0) & (np.abs(h) < 5.0)
    before = (np.abs(left) <= 1.0) & (back < -5.0) & (back > -9.0) & (np.abs(h) < 5.0)
    assert not regions.bmd[behind].any()
    assert regions.bmd[before].all()
    assert regions.radiomics[behind].all()


def test_a_bone_island_is_left_out_and_a_speck_of_noise_is_not() -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    body = elliptic_body(grid)
    volume = uniform(grid)
    h, back, left = body_coordinates_mm(grid)
    island = (left - 8) ** 2 + (back + 2) ** 2 + h**2 <= 4.0**2
    volume.hu[island] = 700.0
    speck = tuple(np.argwhere((np.abs(left + 8) < 0.6) & (np.abs(back + 2) < 0.6) & (np.abs(h) < 0.6))[0])
    volume.hu[speck] = 400.0
    bmd = cut_regions(volume, as_vertebrae(grid, body), "L3").bmd
    assert not bmd[island].any()
    assert bmd[speck]


def test_dense_young_bone_is_not_taken_for_sclerosis() -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    body = elliptic_body(grid)
    usual = cut_regions(uniform(grid), as_vertebrae(grid, body), "L3").bmd
    dense = cut_regions(uniform(grid, 380.0), as_vertebrae(grid, body), "L3").bmd
    assert (usual == dense).all()


def test_regions_need_the_level_and_the_same_grid() -> None:
    grid = grid_of((2.0, 2.0, 2.0))
    vertebrae = as_vertebrae(grid, elliptic_body(grid))
    with pytest.raises(LevelNotFound) as missing:
        cut_regions(uniform(grid), vertebrae, "L2")
    assert missing.value.level == "L2"
    with pytest.raises(GridMismatch):
        cut_regions(uniform(grid_of((2.0, 2.0, 1.5))), vertebrae, "L3")


def codes(volume: CtVolume, vertebrae: Vertebrae, regions: dict[str, Regions] | None = None) -> list[str]:
    found = quality_observations(volume, vertebrae, regions or {})
    return [TABLE.describe(observation).code for observation in found]  # each must have words


def test_a_sound_body_passes_every_gate() -> None:
    grid = grid_of((1.0, 0.8, 0.8))
    vertebrae = as_vertebrae(grid, elliptic_body(grid))
    volume = uniform(grid)
    assert codes(volume, vertebrae, {"L3": cut_regions(volume, vertebrae, "L3")}) == []


def test_a_flat_body_is_named_with_its_height() -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    h, _, _ = body_coordinates_mm(grid)
    flat = elliptic_body(grid) & (np.abs(h) <= 7.0)
    found, crushed, *_ = quality_observations(uniform(grid), as_vertebrae(grid, flat), {})
    assert (crushed.code, in_english(crushed.values["shape"])) == ("fracture", "crush")
    assert found.code == "body_height_implausible"
    assert found.values["height_mm"] == pytest.approx(14.0, abs=1.0)


@pytest.mark.parametrize(("distance_mm", "expected"), [(0.0, True), (8.0, True), (14.0, False)])
def test_a_screw_counts_within_ten_mm_of_the_body(distance_mm: float, expected: bool) -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    volume = uniform(grid)
    h, back, left = body_coordinates_mm(grid)
    at = HALF_DEPTH_MM + distance_mm
    screw = (np.abs(back - at) <= 1.0) & (np.abs(left) <= 2.0) & (np.abs(h) <= 6.0)
    volume.hu[screw] = 3000.0
    assert ("metal_near_body" in codes(volume, as_vertebrae(grid, elliptic_body(grid)))) == expected


@pytest.mark.parametrize(
    ("hu", "kvp", "expected"),
    [
        (1600.0, None, False),
        (1600.0, 120.0, False),
        (2100.0, 120.0, True),
        (2100.0, 80.0, False),
        (3071.0, 70.0, True),
    ],
)
def test_what_bone_can_be_at_a_tube_voltage_is_no_metal(hu: float, kvp: float | None, expected: bool) -> None:
    """A sclerotic endplate, or a spur: 200 mm3 of dense cortex cost a real patient two levels."""
    grid = grid_of((1.0, 1.0, 1.0))
    volume = replace(uniform(grid), kvp=kvp)
    h, back, left = body_coordinates_mm(grid)
    volume.hu[(np.abs(h - 10.0) <= 1.0) & (np.abs(back) <= 5.0) & (np.abs(left) <= 5.0)] = hu
    assert ("metal_near_body" in codes(volume, as_vertebrae(grid, elliptic_body(grid)))) == expected


def test_the_volume_of_metal_counts_what_is_joined_to_it_in_the_body() -> None:
    """A screw blurred by thick slices: its sides are no denser than bone."""
    grid = grid_of((1.0, 1.0, 1.0))
    volume = uniform(grid)
    h, back, left = body_coordinates_mm(grid)
    screw = (np.abs(left) <= 2.0) & (np.abs(h) <= 2.0) & (np.abs(back) <= 6.0)
    volume.hu[screw] = 1200.0
    volume.hu[screw & (np.abs(left) <= 1.0) & (np.abs(h) <= 1.0)] = 3071.0
    (metal,) = [
        one
        for one in quality_observations(volume, as_vertebrae(grid, elliptic_body(grid)), {})
        if one.code == "metal_near_body"
    ]
    assert metal.values["volume_mm3"] == np.count_nonzero(screw)


def test_one_voxel_of_noise_is_not_metal() -> None:
    grid = grid_of((3.0, 3.0, 3.0))
    volume = uniform(grid)
    volume.hu[tuple(n // 2 for n in grid.shape)] = 1500.0
    assert "metal_near_body" not in codes(volume, as_vertebrae(grid, elliptic_body(grid)))


def test_small_and_uneven_regions_are_named() -> None:
    grid = grid_of((1.0, 1.0, 1.0))
    vertebrae = as_vertebrae(grid, elliptic_body(grid))
    volume = uniform(grid)
    volume.hu[:] += np.random.default_rng(1).normal(0.0, 95.0, grid.shape).astype(np.float32)
    h, back, left = body_coordinates_mm(grid)
    small = (np.abs(h) < 5) & (np.abs(back) < 5) & (np.abs(left) < 5)
    regions = Regions(level="L3", bmd=small, radiomics=small, core_volume_mm3=1000.0)
    assert codes(volume, vertebrae, {"L3": regions}) == ["roi_too_small", "roi_heterogeneous"]


def test_a_spine_without_l3_says_so() -> None:
    grid = grid_of((2.0, 2.0, 2.0))
    assert codes(uniform(grid), as_vertebrae(grid, elliptic_body(grid), name="L2")) == ["l3_not_found"]


def test_a_site_says_how_much_denser_than_its_surroundings_a_body_is() -> None:
    grid = grid_of((2.0, 1.0, 1.0))
    body = elliptic_body(grid)
    volume = CtVolume(hu=np.where(body, 100.0, 70.0).astype(np.float32), grid=grid)
    for limit_hu, said in ((40.0, True), (20.0, False)):
        measured = measure(
            volume,
            SegmentationArtefact(vertebrae=as_vertebrae(grid, body), regions=()),
            None,
            feature_names=(),
            radiomics=parse_settings(load_radiomics_settings_text()[0]),
            quality=GateSettings(min_contrast_hu=limit_hu),
            image=ImageSettings(),
            noise_window_mm=5.0,
        )
        assert ("body_not_bone" in {one.code for one in measured.observations}) == said
