"""The standard error of a mean in correlated noise, and whether stated intervals hold the truth."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from config.catalog import load_phantom
from config.settings import load_settings
from node.reference.render import raster_of, render
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from scoring.calibration import Mineral, RodReading
from scoring.calibration.methods import TWO_POINT, calibrate, density_uncertainty
from scoring.density.bmd import (
    BmdResult,
    interval95,
    mean_density_uncertainty,
    measure_bmd,
    standard_error_of_mean,
    with_standard_errors,
)
from scoring.phantoms.rod_reading import find_rods
from scoring.settings import NOISE_WINDOW_MM
from segmentation.ct_volume import CtVolume, Grid
from tests.unit.calibration_coverage import run

pytestmark = pytest.mark.slow

SPACING_MM = (2.0, 0.7, 0.7)
SHAPE = (12, 50, 60)


def ellipsoid(shape=SHAPE):
    """Semi-axes 9, 13 and 18 mm in the middle of the volume."""
    axes = [
        (np.arange(size) - (size - 1) / 2) * step / half_mm
        for size, step, half_mm in zip(shape, SPACING_MM, (9.0, 13.0, 18.0), strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 <= 1


def noise(seed, *, in_plane_mm=0.5, along_mm=0.0, shape=SHAPE):
    grain = np.random.default_rng(seed).standard_normal(shape)
    for axis, width_mm in enumerate((along_mm, in_plane_mm, in_plane_mm)):
        if width_mm:
            grain = gaussian_filter1d(grain, width_mm / SPACING_MM[axis], axis=axis, mode="wrap")
    return 20.0 * grain / grain.std()


def stated_and_real(*, mask, make, trials=150):
    """Root mean square of the stated standard errors, and the SD of the means themselves."""
    images = [make(seed) for seed in range(trials)]
    stated = [standard_error_of_mean(image, mask, SPACING_MM) for image in images]
    return sqrt(np.mean(np.square(stated))), float(np.std([image[mask].mean() for image in images]))


@pytest.mark.parametrize(
    ("in_plane_mm", "along_mm"), [(0.0, 0.0), (0.5, 0.0), (0.8, 0.0), (0.5, 1.0)], ids=str
)
def test_the_stated_error_is_the_real_one_whatever_the_correlation(in_plane_mm, along_mm):
    stated, real = stated_and_real(
        mask=ellipsoid(), make=lambda seed: noise(seed, in_plane_mm=in_plane_mm, along_mm=along_mm)
    )
    assert stated == pytest.approx(real, rel=0.15)  # 150 means tell their SD to 6 %, one sigma


def test_noise_of_a_softer_kernel_needs_a_wider_window():
    """Smoothed by 2 mm, noise is correlated over some 6 mm: a window of 3 mm states 60 % of the error."""
    mask = ellipsoid()
    images = [noise(seed, in_plane_mm=2.0) for seed in range(60)]
    real = float(np.std([image[mask].mean() for image in images]))
    narrow, wide = (
        sqrt(
            np.mean([standard_error_of_mean(image, mask, SPACING_MM, window_mm=mm) ** 2 for image in images])
        )
        for mm in (NOISE_WINDOW_MM, 8.0)
    )
    assert narrow < 0.7 * real
    assert 0.9 * real < wide < 1.3 * real  # a region of few windows is told a little too much


def test_correlated_noise_makes_a_mean_far_less_certain_than_independence_says():
    mask = ellipsoid()
    image = noise(1)
    assert standard_error_of_mean(image, mask, SPACING_MM) > 2 * image[mask].std() / sqrt(mask.sum())


def test_a_trabecular_pattern_that_evens_out_adds_little():
    def patterned(seed):
        grain = np.random.default_rng([seed, 1]).standard_normal(SHAPE)
        fine = gaussian_filter(grain, [0.5 / step for step in SPACING_MM])
        fine -= gaussian_filter(fine, [1.5 / step for step in SPACING_MM])
        return noise(seed) + 20.0 * fine / fine.std()

    stated, real = stated_and_real(mask=ellipsoid(), make=patterned)
    assert 0.85 * real < stated < 1.35 * real


def test_a_gradient_through_the_body_is_no_noise():
    mask, image = ellipsoid(), noise(2)
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij", sparse=True)
    tilted = image + 3.0 * z - 1.5 * y + 0.8 * x
    plain = standard_error_of_mean(image, mask, SPACING_MM)
    assert standard_error_of_mean(tilted, mask, SPACING_MM) == pytest.approx(plain, rel=1e-6)


def test_orientation_offset_and_surroundings_do_not_matter():
    mask, image = ellipsoid(), noise(3)
    plain = standard_error_of_mean(image, mask, SPACING_MM)
    assert standard_error_of_mean(image[::-1, :, ::-1], mask[::-1, :, ::-1], SPACING_MM) == pytest.approx(
        plain
    )
    turned = standard_error_of_mean(image.transpose(2, 1, 0), mask.transpose(2, 1, 0), SPACING_MM[::-1])
    assert turned == pytest.approx(plain)
    padded = np.pad(image + 500.0, 5, constant_values=-1000.0)
    assert standard_error_of_mean(padded, np.pad(mask, 5), SPACING_MM) == pytest.approx(plain)


def test_one_slice_is_enough():
    mask = ellipsoid(shape=(1, 50, 60))
    images = [noise(seed, shape=(1, 50, 60)) for seed in range(200)]
    stated = [standard_error_of_mean(image, mask, SPACING_MM) for image in images]
    real = np.std([image[mask].mean() for image in images])
    assert sqrt(np.mean(np.square(stated))) == pytest.approx(real, rel=0.15)


def test_a_region_too_small_to_show_its_correlation_gets_an_upper_bound():
    mask = np.zeros(SHAPE, bool)
    mask[5, 20:23, 20:23] = True
    image = noise(4)
    independent = image[mask].std(ddof=1) / 3
    assert standard_error_of_mean(image, mask, SPACING_MM) == pytest.approx(3 * independent)
    mask[:] = False
    mask[5, 20, 20] = True
    assert standard_error_of_mean(image, mask, SPACING_MM) == 0.0


def test_without_noise_there_is_no_error():
    assert standard_error_of_mean(np.full(SHAPE, 97.0), ellipsoid(), SPACING_MM) == pytest.approx(
        0.0, abs=1e-9
    )


def tilted_rod(shape=(40, 60, 60), *, seed=5):
    """A rod that leans by 1 mm in 10 and its reading, in a volume whose z runs downwards."""
    image = noise(seed, shape=shape) + 300.0
    grid = Grid(
        shape=shape,
        spacing_mm=SPACING_MM,
        origin_mm=(10.0, -20.0, 30.0),
        direction=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    centres = np.array([(k, 30.0, 28.0 + 0.2 * k * 2.0 / 2.0) for k in range(shape[0])])
    volume = CtVolume(hu=image.astype(np.float32), grid=grid)
    reading = RodReading(
        name="HA 200",
        density_mg_cm3=200.0,
        hu_mean=300.0,
        hu_sd=20.0,
        voxels=shape[0] * 270,  # a disc of 6.5 mm
        axis_points_mm=tuple(tuple(point) for point in grid.to_patient(centres)),
    )
    return volume, reading


def test_a_rods_error_is_measured_where_it_lies():
    volume, reading = tilted_rod()
    (measured,) = with_standard_errors(volume, [reading])
    assert measured == replace(reading, standard_error_hu=measured.standard_error_hu)
    assert measured.hu_standard_error == measured.standard_error_hu
    # In-plane smoothing by 0.5 mm spreads noise over 4 pi 0.5^2 = 3.1 mm2, 6.4 pixels.
    assert measured.standard_error_hu == pytest.approx(20.0 * sqrt(6.4 / reading.voxels), rel=0.25)
    assert reading.hu_standard_error == pytest.approx(20.0 / sqrt(reading.voxels))


def test_a_window_that_a_site_widens_is_that_of_rods_and_region():
    assert load_settings().scoring.noise_window_mm == NOISE_WINDOW_MM
    volume, reading = tilted_rod()
    soft = replace(volume, hu=gaussian_filter(volume.hu, (0.0, 2.0 / SPACING_MM[1], 2.0 / SPACING_MM[2])))
    windows_mm = (NOISE_WINDOW_MM, 5.0)
    by_default, wide = (
        with_standard_errors(soft, [reading], window_mm=mm)[0].standard_error_hu for mm in windows_mm
    )
    assert wide > 1.1 * by_default
    region = np.zeros(soft.hu.shape, bool)
    region[5:35, 20:40, 20:40] = True
    windows_mm = (NOISE_WINDOW_MM, 5.0)
    by_default, wide = (
        measure_bmd(soft, region, calibration(), level="L3", noise_window_mm=mm) for mm in windows_mm
    )
    assert wide.hu_standard_error > 1.1 * by_default.hu_standard_error
    assert wide.bmd_mg_cm3 == by_default.bmd_mg_cm3


def test_a_rod_at_the_images_border_is_read_where_the_image_is():
    volume, reading = tilted_rod()
    points = tuple((x - 22.0, y, z) for x, y, z in reading.axis_points_mm)
    (measured,) = with_standard_errors(volume, [replace(reading, axis_points_mm=points)])
    assert 0.0 < measured.standard_error_hu < 2.0


def test_rods_found_in_a_study_err_as_much_as_their_slices_scatter():
    spec = StudySpec.reduced(pixel_spacing_mm=(1.0, 1.0), matrix=300, view=("L2", "L4"))
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    grid = Grid(
        shape=(raster.slices, spec.matrix, spec.matrix),
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    volume = CtVolume(hu=render(spec, spine, raster), grid=grid)
    reading = find_rods(volume, load_phantom("siemens-osteo")[0])
    slices = np.array([one.hu for one in reading.slices])  # the study's noise is independent between slices
    scatter = slices.std(axis=0, ddof=1) / sqrt(len(slices))
    measured = with_standard_errors(volume, reading.rods)
    assert [rod.standard_error_hu for rod in measured] == pytest.approx(scatter, rel=0.3)


def calibration():
    def rod(name, density, hu):
        return RodReading(
            name=name,
            density_mg_cm3=density,
            hu_mean=hu,
            hu_sd=20.0,
            voxels=9000,
            axis_points_mm=(),
            standard_error_hu=0.5,
        )

    return calibrate(
        method=TWO_POINT,
        phantom="p",
        equivalent=Mineral.HA,
        rods=(rod("w", 0.0, 2.0), rod("k", 200.0, 302.0)),
    )


def test_a_regions_density_carries_its_interval():
    mask, image = ellipsoid(), noise(6) + 150.0
    grid = Grid(
        shape=SHAPE,
        spacing_mm=SPACING_MM,
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    volume = CtVolume(hu=image.astype(np.float32), grid=grid)
    result = measure_bmd(volume, mask, calibration(), level="L3")
    assert result.hu_standard_error == pytest.approx(standard_error_of_mean(volume.hu, mask, SPACING_MM))
    sigma = density_uncertainty(calibration(), result.hu_mean, result.hu_standard_error)
    assert result.bmd_uncertainty_mg_cm3 == pytest.approx(sigma)
    assert result.bmd_interval95_mg_cm3 == interval95(result.bmd_mg_cm3, sigma)
    assert measure_bmd(volume, mask, None, level="L3").bmd_interval95_mg_cm3 is None


def test_an_interval_is_196_standard_uncertainties_to_either_side():
    assert interval95(100.0, 2.0) == pytest.approx((96.08, 103.92), abs=1e-3)
    assert interval95(80.0, 0.0) == (80.0, 80.0)


def level(name, hu, error_hu):
    return BmdResult(
        level=name,
        hu_mean=hu,
        hu_sd=25.0,
        voxels=5000,
        roi_volume_mm3=4000.0,
        bmd_mg_cm3=None,
        bmd_uncertainty_mg_cm3=None,
        hu_standard_error=error_hu,
    )


def test_noise_averages_out_over_levels_and_the_calibration_does_not():
    line = calibration()
    pair = (level("L1", 140.0, 1.0), level("L2", 160.0, 1.0))
    expected = density_uncertainty(line, 150.0, sqrt(2) / 2)
    assert mean_density_uncertainty(line, pair) == pytest.approx(expected)
    many = [level("L1", 150.0, 1.0)] * 10_000
    assert mean_density_uncertainty(line, many) == pytest.approx(line.uncertainty.at(150.0), rel=1e-3)


def test_the_uncertainty_of_a_mean_needs_that_of_every_level():
    line = calibration()
    assert mean_density_uncertainty(line, ()) is None
    assert mean_density_uncertainty(line, (level("L1", 140.0, 1.0), level("L2", 160.0, None))) is None


def test_stated_intervals_hold_the_truth_on_a_fixed_sample_of_studies():
    """`make coverage` is the long form. Of 36 intervals of 95 %, 31 hold with a probability of 99.1 %."""
    studies = [run(number) for number in range(36)]
    assert sum(study.holds for study in studies) >= 31
    assert 0.7 < np.std([study.deviation for study in studies]) < 1.3
    assert abs(np.mean([study.measured.bmd_mg_cm3 - study.truth_mg_cm3 for study in studies])) < 0.2
