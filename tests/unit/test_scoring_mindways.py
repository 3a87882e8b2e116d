"""Mindways Model 3: against a published program's worked example and the rods' certificate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scoring.calibration import FitRules, Mineral, RodReading
from scoring.calibration.methods import (
    MINDWAYS,
    SHIPPED_RULES,
    calibrate,
    density_uncertainty,
    fit_observations,
)
from scoring.calibration.spectrum import slope_range
from scoring.errors import CalibrationImpossible

# Certificate of serials 4541A and 4560, as Ogo's reference gives it.
NAMES = ("A", "B", "C", "D", "E")
K2HPO4 = (-51.83, -53.40, 58.88, 157.05, 375.83)
WATER = (1012.25, 1056.95, 1103.57, 1119.52, 923.20)


def rods_of(hu, *, error_hu=0.3):
    return tuple(
        RodReading(
            name=name,
            density_mg_cm3=density,
            hu_mean=float(reads),
            hu_sd=15.0,
            voxels=2500,
            axis_points_mm=(),
            water_mg_cm3=water,
            standard_error_hu=error_hu,
        )
        for name, density, water, reads in zip(NAMES, K2HPO4, WATER, hu, strict=True)
    )


def fitted(rods, *, kvp=None, rules=SHIPPED_RULES):
    return calibrate(
        method=MINDWAYS,
        phantom="mindways-model-3",
        equivalent=Mineral.K2HPO4,
        rods=rods,
        rules=rules,
        kvp=kvp,
    )


def ideal_hu(sigma_ref, beta_ref):
    return np.array(WATER) + sigma_ref * np.array(K2HPO4) + beta_ref


def test_the_worked_example_of_ogo_is_reproduced():
    """Source: Ogo (Bonelab), tests of its Mindways calibration, `test_fit` and `test_predict`."""
    hu = [462.93637565619906, 345.73809215407005, 176.71197512467555, -35.378190313384316, -69.54917011727602]
    calibration = fitted(rods_of(hu[::-1]))
    sigma_ct = 1 / calibration.slope
    assert sigma_ct == pytest.approx(1.24955849554, abs=1e-10)
    assert calibration.slope == pytest.approx(0.8002826626918712)
    assert calibration.intercept == pytest.approx(8.122906532849933)
    assert -calibration.intercept * sigma_ct == pytest.approx(-10.1500468666)
    assert calibration.r2 == pytest.approx(0.9998533422632067**2)
    densities = [calibration.bmd(one) for one in hu]
    assert densities == pytest.approx([378.6028619, 284.81110752, 149.54243652, -20.18964581, -47.53608852])


def test_the_certificates_rods_read_as_computed_and_are_fitted_back():
    hu = ideal_hu(1.5, -1000.0)
    assert [round(float(one)) for one in hu] == [-65, -23, 192, 355, 487]
    calibration = fitted(rods_of(hu))
    assert calibration.slope == pytest.approx(1 / (1.5 - 0.2174))
    assert calibration.bmd(-0.4) == pytest.approx(0.0, abs=1e-9)  # beta_CT = -1000 + 999.6
    assert calibration.r2 == pytest.approx(1.0)
    assert calibration.max_residual_hu == pytest.approx(0.0, abs=1e-9)
    assert fit_observations(calibration) == ()


def test_the_order_of_the_rods_given_does_not_matter():
    rods = rods_of(ideal_hu(1.59, -1003.0))
    assert fitted(rods[::-1]).slope == pytest.approx(fitted(rods).slope)


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_two_rods_exchanged_are_refused(pair):
    hu = ideal_hu(1.5, -1000.0)
    hu[list(pair)] = hu[list(pair[::-1])]
    with pytest.raises(CalibrationImpossible) as refused:
        fitted(rods_of(hu))
    assert refused.value.code == "rod_order"


@pytest.mark.parametrize(
    ("beta_ref", "accepted"), [(-985.0, True), (-984.0, False), (-1014.0, True), (-1015.0, False)]
)
def test_water_must_read_near_zero(beta_ref, accepted):
    rods = rods_of(ideal_hu(1.5, beta_ref))
    if accepted:
        assert fitted(rods).slope > 0
    else:
        with pytest.raises(CalibrationImpossible) as refused:
            fitted(rods)
        assert refused.value.code == "calibration_offset"


@pytest.mark.parametrize(
    ("sigma_ref", "kvp", "accepted"),
    [
        (2.46, 80, True),
        (1.55, 80, False),
        (1.59, 140, True),
        (2.46, 140, False),
        (1.59, None, True),
        (3.2, None, False),
    ],
)
def test_the_slope_must_be_one_that_the_tube_voltage_may_give(sigma_ref, kvp, accepted):
    rods = rods_of(ideal_hu(sigma_ref, -1000.0))
    if accepted:
        assert fitted(rods, kvp=kvp).slope == pytest.approx(1 / (sigma_ref - 0.2174))
    else:
        with pytest.raises(CalibrationImpossible) as refused:
            fitted(rods, kvp=kvp)
        assert refused.value.code == "calibration_slope_off"
        assert "HU per mg/cm3 K2HPO4" in str(refused.value)


def test_between_tabulated_voltages_the_range_is_interpolated():
    low, high = slope_range(((80.0, 2.0, 3.0), (120.0, 1.0, 2.0)), 110.0)
    assert (low, high) == pytest.approx((1.25, 2.25))


def test_rods_without_water_density_or_one_short_are_refused():
    rods = rods_of(ideal_hu(1.5, -1000.0))
    for unsuited in (rods[:4], (*rods[:4], replace(rods[4], water_mg_cm3=None))):
        with pytest.raises(CalibrationImpossible) as refused:
            fitted(unsuited)
        assert refused.value.code == "rods_unsuited"


def test_hydroxyapatite_is_not_calibrated_this_way():
    with pytest.raises(CalibrationImpossible) as refused:
        calibrate(method=MINDWAYS, phantom="p", equivalent=Mineral.HA, rods=rods_of(ideal_hu(1.5, -1000.0)))
    assert refused.value.code == "rods_unsuited"


def test_rods_that_make_no_line_are_refused():
    hu = ideal_hu(1.5, -1000.0) + np.array([0, 0, 60, -40, 0])
    with pytest.raises(CalibrationImpossible) as refused:
        fitted(rods_of(hu), rules=FitRules(r2_refused_below=0.99))
    assert refused.value.code == "calibration_fit_failed"


def test_the_uncertainty_is_the_sum_of_what_each_rods_error_does():
    hu, errors = ideal_hu(1.6, -1000.0), [0.8, 1.5, 2.0, 0.6, 1.1]
    rods = tuple(
        replace(rod, standard_error_hu=error) for rod, error in zip(rods_of(hu), errors, strict=True)
    )
    moved = [
        fitted(rods_of(hu + 1e-4 * np.eye(5)[rod])).bmd(120.0) - fitted(rods).bmd(120.0) for rod in range(5)
    ]
    expected = np.linalg.norm(np.array(moved) / 1e-4 * errors)
    exact = FitRules(displaced_water_uncertainty=0.0, reference_water_uncertainty=0.0)
    assert density_uncertainty(fitted(rods, rules=exact), 120.0, 0.0) == pytest.approx(expected, rel=1e-4)


def test_the_doubt_about_the_methods_constants_grows_with_density_from_waters():
    """Each constant moved by its standard uncertainty moves the density by so much."""
    rods = rods_of(ideal_hu(1.6, -1000.0), error_hu=1e-9)
    rules = FitRules(displaced_water_uncertainty=0.013)
    steeper = 1 / (1.6 - 0.2174 - rules.displaced_water_uncertainty) - 1 / (1.6 - 0.2174)
    for hu in (0.0, 60.0, 200.0):
        found = density_uncertainty(fitted(rods, rules=rules), hu, 0.0)
        expected = np.hypot(
            steeper * (hu + 0.4), rules.reference_water_uncertainty / (1.6 - 0.2174)
        )  # beta_CT is -0.4 HU
        assert found == pytest.approx(expected, rel=0.02)


def test_a_phantoms_file_may_state_the_methods_constants():
    """sigma_CT is 1.6 - 0.2 then, and beta_CT -1000 + 1000."""
    rules = FitRules(displaced_water=0.2, reference_water=1000.0)
    found = fitted(rods_of(ideal_hu(1.6, -1000.0)), rules=rules)
    assert found.slope == pytest.approx(1 / 1.4)
    assert found.intercept == pytest.approx(0.0, abs=1e-9)
