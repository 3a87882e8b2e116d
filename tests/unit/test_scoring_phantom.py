"""The rods of a phantom are found wherever they lie, and every fault that forbids a calibration is named."""

from __future__ import annotations

from dataclasses import replace
from math import cos, pi, radians, sin, tan

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from config.catalog import load_phantom
from scoring.calibration.methods import calibrate
from scoring.phantoms import SliceReading
from scoring.phantoms.checks import CrossSection, area_deviates, reading_observations, slope_drift
from scoring.phantoms.rod_reading import find_rods
from segmentation.ct_volume import CtVolume, Grid

pytestmark = pytest.mark.slow

WATER_HU, HA_HU, BODY_HU = 2.0, 330.0, 35.0
AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def model():
    return load_phantom("siemens-osteo")[0]


def draw(
    *,
    slices: int = 16,
    spacing_mm: tuple[float, float, float] = (5.0, 1.5, 1.5),
    size_mm: tuple[float, float] = (330.0, 360.0),
    phantom: bool = True,
    centre_mm: tuple[float, float] = (128.0, 4.0),
    turn_degrees: float = 0.0,
    tilt_degrees: float = 0.0,
    water_hu: float = WATER_HU,
    ha_hu: float = HA_HU,
    ha_diameter_mm: float = 20.0,
    drift: float = 0.0,
    hole_hu: float | None = None,
    length_mm: float = 1000.0,
    noise_hu: float = 20.0,
    circle: bool = False,
) -> CtVolume:
    """A trunk with bone, contrast-filled bowel and a table, and under it a slab with two rods."""
    dz, dy, dx = spacing_mm
    y, x = np.meshgrid(
        np.arange(round(size_mm[0] / dy)) * dy, np.arange(round(size_mm[1] / dx)) * dx, indexing="ij"
    )
    y, x = y - size_mm[0] / 2, x - size_mm[1] / 2
    hu = np.empty((slices, *y.shape), np.float32)
    for k in range(slices):
        image = np.full(y.shape, -1000.0)
        image[(x / 165) ** 2 + ((y + 10) / 100) ** 2 < 1] = -100.0
        image[(x / 140) ** 2 + ((y + 10) / 80) ** 2 < 1] = 50.0
        image[(x / 23) ** 2 + ((y - 15) / 17) ** 2 < 1] = 160.0
        image[np.hypot(x - 75, y + 35) < 10] = 350.0  # as bright, as round and as straight as a rod
        image[np.hypot(x + 60, y + 30) < 14] = 10.0
        image[(np.abs(y - 155) < 2) & (np.abs(x) < 170)] = -200.0
        if phantom and k * dz <= length_mm:
            slope = tan(radians(tilt_degrees)) * (k - slices / 2) * dz
            turn = radians(turn_degrees)
            v, u = y - centre_mm[0] - slope, x - centre_mm[1]
            u, v = u * cos(turn) + v * sin(turn), v * cos(turn) - u * sin(turn)
            image[(np.abs(u) < 100) & (np.abs(v) < 15)] = BODY_HU
            image[np.hypot(u + 30, v) < 10] = water_hu
            image[np.hypot(u - 30, v) < ha_diameter_mm / 2] = ha_hu * (1 + drift * (k / (slices - 1) - 0.5))
            if hole_hu is not None and k in (7, 8):
                image[np.hypot(u - 30, v) < 3] = hole_hu
        hu[k] = image
    hu += np.random.default_rng(7).normal(0.0, noise_hu, hu.shape).astype(np.float32)
    if circle:
        hu[:, np.hypot(x, y) > min(size_mm) / 2] = -2000.0
    grid = Grid(
        shape=hu.shape,
        spacing_mm=spacing_mm,
        origin_mm=(-size_mm[1] / 2, -size_mm[0] / 2, -300.0),
        direction=AXIAL,
    )
    return CtVolume(hu=hu, grid=grid)


def codes(reading) -> list[str]:
    return [observation.code for observation in reading.observations]


def assert_read_right(reading) -> None:
    assert codes(reading) == []
    assert reading.usable
    water, mineral = reading.rods
    assert water.hu_mean == pytest.approx(WATER_HU, abs=1.5)
    assert mineral.hu_mean == pytest.approx(HA_HU, abs=1.5)
    assert (water.density_mg_cm3, mineral.density_mg_cm3) == (0.0, 200.0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"turn_degrees": 12.0},
        {"turn_degrees": 180.0},  # the mineral rod on the other side
        {"turn_degrees": 90.0, "centre_mm": (0.0, 0.0), "size_mm": (420.0, 360.0)},
        {"tilt_degrees": 4.0},
        {"noise_hu": 45.0},
        {"spacing_mm": (1.0, 1.5, 1.5), "slices": 60},
        {"spacing_mm": (5.0, 1.2, 1.9)},
        {"spacing_mm": (2.0, 0.7, 0.7), "slices": 30},
        {"circle": True, "size_mm": (420.0, 420.0)},
        {"length_mm": 45.0},  # the phantom ends within the image
    ],
)
def test_rods_are_found_and_read(model, change):
    assert_read_right(find_rods(draw(**change), model))


@pytest.fixture(scope="module")
def drawn():
    return draw()


@pytest.mark.parametrize(
    ("axes", "flipped"),
    [
        ((0, 1, 2), (0,)),
        ((0, 1, 2), (1, 2)),
        ((1, 0, 2), ()),
        ((2, 0, 1), (0, 1, 2)),
        ((2, 1, 0), (1,)),
    ],
)
def test_rods_read_the_same_however_the_array_is_stored(model, drawn, axes, flipped):
    volume = drawn
    grid = volume.grid
    corner = [grid.shape[axis] - 1 if axis in flipped else 0 for axis in range(3)]
    stored = np.transpose(np.flip(volume.hu, flipped), axes)
    turned = Grid(
        shape=stored.shape,
        spacing_mm=tuple(grid.spacing_mm[axis] for axis in axes),
        origin_mm=tuple(grid.to_patient(corner)),
        direction=tuple(
            tuple((-1.0 if axis in flipped else 1.0) * value for value in grid.direction[axis])
            for axis in axes
        ),
    )
    reading = find_rods(CtVolume(hu=np.ascontiguousarray(stored), grid=turned), model)
    expected = find_rods(volume, model)
    assert [rod.hu_mean for rod in reading.rods] == [rod.hu_mean for rod in expected.rods]
    for rod, other in zip(reading.rods, expected.rods, strict=True):
        assert np.allclose(rod.axis_points_mm, other.axis_points_mm, atol=1e-6)


def test_axis_points_are_the_rods_centres_in_patient_coordinates(model):
    reading = find_rods(draw(noise_hu=5.0), model)
    water, mineral = (np.array(rod.axis_points_mm) for rod in reading.rods)
    assert np.abs(water[:, :2] - (4.0 - 30.0, 128.0)).max() < 0.5
    assert np.abs(mineral[:, :2] - (4.0 + 30.0, 128.0)).max() < 0.5
    assert np.all(np.diff(mineral[:, 2]) > 0)
    assert len(reading.slices) == len(mineral)


def test_area_tilt_and_drift_are_measured(model):
    reading = find_rods(draw(tilt_degrees=3.0, drift=0.015), model)
    assert reading.tilt_degrees == pytest.approx(3.0, abs=0.15)
    assert reading.areas_mm2 == pytest.approx((pi * 100, pi * 100), rel=0.08)
    # HU of the mineral rod rise by 1.5 %, so that the slope falls by as much.
    assert reading.slope_drift_percent == pytest.approx(-1.5, abs=0.5)
    assert reading.body_hu == pytest.approx(BODY_HU, abs=2.0)


def test_the_calibration_maps_the_rods_to_their_densities(model, drawn):
    reading = find_rods(drawn, model)
    calibration = calibrate(
        method=model.method, phantom=model.name, equivalent=model.equivalent, rods=reading.rods
    )
    assert calibration.bmd(WATER_HU + 0.5 * (HA_HU - WATER_HU)) == pytest.approx(100.0, abs=0.6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"phantom": False}, "phantom_not_found"),
        ({"slices": 3}, "phantom_not_found"),  # too little of it to be sure
        ({"water_hu": BODY_HU}, "phantom_not_found"),  # no water rod
        ({"centre_mm": (128.0, 145.0)}, "phantom_truncated"),  # mineral rod cut through
        ({"centre_mm": (128.0, -144.0)}, "phantom_truncated"),  # water rod cut through
        ({"centre_mm": (128.0, 172.0)}, "phantom_truncated"),  # mineral rod gone
        ({"circle": True, "size_mm": (280.0, 280.0)}, "phantom_truncated"),  # round field of view
        ({"water_hu": 19.0}, "water_rod_off"),
        ({"water_hu": -17.0}, "water_rod_off"),
        ({"ha_hu": 215.0}, "rod_off"),
        ({"tilt_degrees": 7.0}, "phantom_tilted"),
        ({"ha_diameter_mm": 27.0}, "rod_area_off"),
        ({"drift": 0.06}, "calibration_drift"),
        ({"hole_hu": -400.0}, "rod_uneven"),  # a bubble,
    ],
)
def test_each_fault_is_named_and_leaves_no_usable_reading(model, change, expected):
    reading = find_rods(draw(**change), model)
    assert codes(reading) == [expected]
    assert not reading.usable


def test_rods_that_do_not_rise_with_density_are_refused(model, drawn):
    reading = find_rods(drawn, model)
    swapped = tuple(
        replace(rod, hu_mean=other.hu_mean)
        for rod, other in zip(reading.rods, reversed(reading.rods), strict=True)
    )
    round_rod = CrossSection(area_mm2=pi * 100, standard_error_mm2=0.0, sd_hu=1.0)
    found = reading_observations(
        replace(reading, rods=swapped), model, (round_rod, round_rod), truncated=False
    )
    assert "rod_order" in [observation.code for observation in found]


def test_an_area_that_noise_explains_is_not_off(model):
    expected = pi * 100
    assert area_deviates(model, 0, 1.4 * expected)
    assert area_deviates(model, 0, 1.4 * expected, 0.05 * expected)
    assert not area_deviates(model, 0, 1.4 * expected, 0.1 * expected)
    assert not area_deviates(model, 0, 1.2 * expected)


def _noisy(seed: int, *, smoothed_slices: float, drift: float = 0.0, slices: int = 40) -> list[SliceReading]:
    """Readings whose noise neighbouring slices share, as overlapping reconstructions do."""
    noise = np.random.default_rng(seed).standard_normal(slices + 40)
    if smoothed_slices:
        noise = gaussian_filter1d(noise, smoothed_slices)
    noise = noise[20:-20] / noise.std()
    ramp = 1.0 + drift * np.linspace(-0.5, 0.5, slices)
    return [SliceReading(z_mm=1.5 * k, hu=(0.0, 300.0 * ramp[k] + 2.0 * noise[k])) for k in range(slices)]


@pytest.mark.parametrize("smoothed_slices", [0.0, 1.0, 2.0])
def test_one_in_twenty_sound_scans_at_most_seems_to_drift_however_slices_overlap(smoothed_slices):
    drifts = [slope_drift(_noisy(seed, smoothed_slices=smoothed_slices)) for seed in range(1000)]
    seeming = np.mean([abs(one.percent) > one.noise_percent for one in drifts])
    assert 0.01 < seeming < 0.08


def test_a_drift_of_4_percent_is_seen_through_shared_noise():
    drifts = [slope_drift(_noisy(seed, smoothed_slices=1.0, drift=0.04)) for seed in range(200)]
    assert np.mean([abs(one.percent) > one.noise_percent for one in drifts]) > 0.95


def test_a_trend_within_noise_is_no_drift():
    noisy = np.random.default_rng(3).normal(300.0, 25.0, 8)
    drift = slope_drift([SliceReading(z_mm=5.0 * k, hu=(0.0, hu)) for k, hu in enumerate(noisy)])
    assert abs(drift.percent) > 2.0
    assert abs(drift.percent) < drift.noise_percent
    assert slope_drift([SliceReading(z_mm=0.0, hu=(0.0, 300.0))] * 2) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 200, 200), (2, 5, 5), (30, 8, 150), (20, 30, 30)])
@pytest.mark.parametrize("spacing_mm", [(2.0, 1.0, 1.0), (10.0, 20.0, 20.0)])
def test_no_volume_is_too_small_or_too_coarse_to_be_answered(model, shape, spacing_mm):
    hu = np.random.default_rng(5).normal(35.0, 300.0, shape).astype(np.float32)
    grid = Grid(shape=shape, spacing_mm=spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    for volume in (CtVolume(hu=hu, grid=grid), CtVolume(hu=np.full_like(hu, -1000.0), grid=grid)):
        assert codes(find_rods(volume, model)) == ["phantom_not_found"]
