"""The two-point formula and the propagation of its uncertainty, against numbers worked by hand."""

from __future__ import annotations

from math import sqrt

import pytest

from scoring.calibration import Calibration, FitRules, Grade, Mineral, RodReading, line_uncertainty
from scoring.calibration.methods import (
    METHODS,
    TWO_POINT,
    calibrate,
    density_uncertainty,
    fit_observations,
    two_point,
)
from scoring.errors import CalibrationImpossible


def rod(name: str, density: float, hu: float, *, sd: float = 20.0, voxels: int = 400) -> RodReading:
    return RodReading(
        name=name, density_mg_cm3=density, hu_mean=hu, hu_sd=sd, voxels=voxels, axis_points_mm=()
    )


WATER = rod("water", 0.0, 4.0)
HA_200 = rod("HA 200", 200.0, 324.0)


def fitted(*rods: RodReading):
    return two_point(phantom="siemens-osteo", equivalent=Mineral.HA, rods=rods, rules=FitRules())


def test_density_is_the_papers_formula_by_hand():
    # (148 - 4) / (324 - 4) * 200 = 90
    assert fitted(WATER, HA_200).bmd(148.0) == pytest.approx(90.0, abs=1e-12)


def test_rods_map_to_their_certified_densities_in_any_order():
    calibration = fitted(HA_200, WATER)
    assert calibration.bmd(4.0) == pytest.approx(0.0, abs=1e-12)
    assert calibration.bmd(324.0) == pytest.approx(200.0, abs=1e-12)
    assert [reading.name for reading in calibration.rods] == ["water", "HA 200"]


def test_two_points_claim_no_goodness_of_fit():
    calibration = fitted(WATER, HA_200)
    assert calibration.r2 is None
    assert calibration.max_residual_hu is None
    assert calibration.equivalent is Mineral.HA
    assert calibration.method == TWO_POINT
    assert calibration.grade is Grade.PHANTOM
    assert fit_observations(calibration) == ()


def test_sigma_by_hand():
    # r = 90/200 = 0.45; standard errors of the rods 20/sqrt(400) = 1 HU, of the region 2 HU:
    # 200/320 * sqrt(4 + 0.55^2 + 0.45^2)
    expected = 0.625 * sqrt(4.0 + 0.3025 + 0.2025)
    assert density_uncertainty(fitted(WATER, HA_200), 148.0, 2.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("hu", [-60.0, 4.0, 100.0, 324.0, 500.0])
def test_sigma_follows_the_published_form_at_every_hu(hu):
    noisy = rod("HA 200", 200.0, 324.0, sd=50.0)  # 2.5 HU
    r = (hu - 4.0) / 320.0
    expected = 200 / 320 * sqrt(0.7**2 + (1 - r) ** 2 * 1.0 + r**2 * 2.5**2)
    assert density_uncertainty(fitted(WATER, noisy), hu, 0.7) == pytest.approx(expected, rel=1e-12)


def test_sigma_uses_errors_of_means_not_of_single_voxels():
    few = fitted(rod("w", 0, 4, voxels=100), rod("k", 200, 324, voxels=100))
    many = fitted(rod("w", 0, 4, voxels=400), rod("k", 200, 324, voxels=400))
    assert density_uncertainty(few, 148.0, 0.0) == pytest.approx(2 * density_uncertainty(many, 148.0, 0.0))


def test_a_measured_standard_error_takes_the_place_of_the_independent_one():
    measured = RodReading(
        name="water",
        density_mg_cm3=0.0,
        hu_mean=4.0,
        hu_sd=20.0,
        voxels=400,
        axis_points_mm=(),
        standard_error_hu=2.4,
    )
    assert density_uncertainty(fitted(measured, HA_200), 4.0, 0.0) == pytest.approx(0.625 * 2.4)


def test_a_line_without_noise_is_certain_everywhere():
    certain = line_uncertainty(
        4.0, slope_by_rod=(1.0, -1.0), bmd_by_rod=(1.0, 0.0), standard_errors_hu=(0.0, 0.0)
    )
    assert (certain.at(4.0), certain.at(1000.0)) == (0.0, 0.0)


def test_a_calibration_that_states_no_uncertainty_gives_none():
    silent = Calibration(
        method=TWO_POINT,
        phantom="p",
        equivalent=Mineral.HA,
        slope=0.6,
        intercept=0.0,
        r2=None,
        max_residual_hu=None,
        rods=(),
    )
    assert density_uncertainty(silent, 100.0, 1.0) is None


@pytest.mark.parametrize("hu", [4.0, 3.0])
def test_a_mineral_rod_not_above_water_is_refused(hu: float):
    with pytest.raises(CalibrationImpossible) as refused:
        fitted(WATER, rod("HA 200", 200.0, hu))
    assert refused.value.code == "rod_order"


@pytest.mark.parametrize("rods", [(), (WATER,), (WATER, WATER), (WATER, HA_200, rod("HA 100", 100, 164))])
def test_anything_but_water_and_one_mineral_rod_is_refused(rods: tuple[RodReading, ...]):
    with pytest.raises(CalibrationImpossible) as refused:
        fitted(*rods)
    assert refused.value.code == "rods_unsuited"


def test_a_phantoms_method_is_found_by_its_name():
    named = calibrate(method=TWO_POINT, phantom="siemens-osteo", equivalent=Mineral.HA, rods=(WATER, HA_200))
    assert named == fitted(WATER, HA_200)
    assert set(METHODS) == {"two-point", "least-squares", "mindways"}


def test_an_unknown_method_is_an_error_not_a_guess():
    with pytest.raises(ValueError, match="by eye"):
        calibrate(method="by eye", phantom="siemens-osteo", equivalent=Mineral.HA, rods=(WATER, HA_200))
