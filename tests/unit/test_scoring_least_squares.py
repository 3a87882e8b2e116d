"""A line through several rods: against hand-worked numbers, numpy's fit and the two-point formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri, stdtrit

from scoring.calibration import FitRules, Mineral, RodReading
from scoring.calibration.methods import (
    LEAST_SQUARES,
    calibrate,
    density_uncertainty,
    fit_observations,
    two_point,
)
from scoring.errors import CalibrationImpossible

BENT_HU = np.array([4.0, -4, 0, -4, 4])


def rods_of(densities, hu, *, error_hu=0.5):
    return tuple(
        RodReading(
            name=f"HA {density:g}",
            density_mg_cm3=density,
            hu_mean=reads,
            hu_sd=20.0,
            voxels=1600,
            axis_points_mm=(),
            standard_error_hu=error_hu,
        )
        for density, reads in zip(densities, hu, strict=True)
    )


def fitted(rods, **rules):
    return calibrate(
        method=LEAST_SQUARES, phantom="p", equivalent=Mineral.HA, rods=rods, rules=FitRules(**rules)
    )


def test_the_fit_by_hand():
    # HU 0, 100, 210 and density 0, 75, 150: mean 310/3 and 75; Sxy 15750, Sxx 22066.7
    calibration = fitted(rods_of((0, 75, 150), (0, 100, 210)))
    assert calibration.slope == pytest.approx(15750 / (66200 / 3))
    assert calibration.intercept == pytest.approx(75 - 15750 / (66200 / 3) * 310 / 3)
    assert calibration.r2 == pytest.approx(15750**2 / (66200 / 3) / 11250)


def test_the_fit_is_numpys_in_any_order_of_rods():
    densities, hu = (0, 50, 100, 150, 200), (3.0, 81.0, 149.0, 236.0, 309.0)
    rods = rods_of(densities, hu)
    calibration = fitted(rods[::-1])
    slope, intercept = np.polyfit(hu, densities, 1)
    assert (calibration.slope, calibration.intercept) == pytest.approx((slope, intercept))
    off_line = np.abs(np.array(hu) - (np.array(densities) - intercept) / slope)
    assert calibration.max_residual_hu == pytest.approx(off_line.max())
    assert calibration.rods == rods
    assert calibration.equivalent is Mineral.HA


def test_a_dense_rod_is_read_but_not_fitted():
    # 800 mg/cm3 reads 150 HU too low by beam hardening: trabecular density must not follow it.
    rods = rods_of((0, 200, 400, 600, 800), (0, 300, 600, 860, 1050))
    calibration = fitted(rods)
    assert calibration.bmd(150.0) == pytest.approx(100.0)
    assert calibration.rods == rods
    assert fitted(rods, fit_up_to_mg_cm3=800.0, r2_doubted_below=0.0).bmd(150.0) != pytest.approx(
        100.0, abs=1
    )


def test_two_rods_give_the_two_point_line_and_its_uncertainty():
    rods = rods_of((0, 200), (4, 324))
    line, points = fitted(rods), two_point(phantom="p", equivalent=Mineral.HA, rods=rods, rules=FitRules())
    assert (line.r2, line.max_residual_hu) == (None, None)
    for hu in (-50.0, 4.0, 148.0, 400.0):
        assert line.bmd(hu) == pytest.approx(points.bmd(hu))
        assert density_uncertainty(line, hu, 1.2) == pytest.approx(density_uncertainty(points, hu, 1.2))


def test_the_uncertainty_is_the_sum_of_what_each_rods_error_does():
    densities, hu = np.array([0.0, 100, 200, 400]), np.array([2.0, 154, 301, 603])
    errors = [0.8, 1.5, 2.0, 0.6]
    rods = tuple(
        replace(rod, standard_error_hu=error)
        for rod, error in zip(rods_of(densities, hu), errors, strict=True)
    )
    moved = [
        fitted(rods_of(densities, hu + 1e-4 * np.eye(4)[rod])).bmd(150.0) - fitted(rods).bmd(150.0)
        for rod in range(4)
    ]
    expected = np.linalg.norm(np.array(moved) / 1e-4 * errors)
    assert density_uncertainty(fitted(rods), 150.0, 0.0) == pytest.approx(expected, rel=1e-4)


def test_rods_off_the_line_count_by_their_distance_and_their_number():
    densities = (0, 50, 100, 150, 200)
    straight = np.array([0.0, 75, 150, 225, 300])
    bent = rods_of(densities, straight + BENT_HU, error_hu=0.3)
    calibration = fitted(bent)
    scatter_hu = np.sqrt(np.sum(((np.array(densities) - calibration.intercept) / calibration.slope
                                 - [rod.hu_mean for rod in bent]) ** 2) / 3)  # fmt: skip
    widened = scatter_hu * stdtrit(3, 0.975) / ndtri(0.975)
    at_the_middle = density_uncertainty(calibration, 150.0, 0.0)
    assert at_the_middle == pytest.approx(calibration.slope * widened / np.sqrt(5), rel=0.01)
    # The same distances explained by noise are no lack of fit.
    assert density_uncertainty(fitted(rods_of(densities, straight + BENT_HU, error_hu=4)), 150.0, 0.0) < 1.5


def test_intervals_hold_where_rods_scatter_more_than_their_noise():
    densities, straight = np.array([0.0, 50, 100, 150, 200]), np.array([0.0, 75, 150, 225, 300])
    rng = np.random.default_rng(32)
    held = 0
    for _ in range(2000):
        calibration = fitted(rods_of(densities, straight + rng.normal(0, 3.0, 5), error_hu=0.3))
        held += abs(calibration.bmd(140.0) - 140 / 1.5) <= 1.96 * density_uncertainty(calibration, 140.0, 0.0)
    assert 0.93 <= held / 2000 <= 0.97


@pytest.mark.parametrize(
    ("hu", "code"),
    [
        ((0, 100, 90, 300), "rod_order"),
        ((0, 100, 100, 300), "rod_order"),
        ((0, 5, 10, 300), "calibration_fit_failed"),
    ],
)
def test_rods_that_make_no_line_are_refused(hu, code):
    with pytest.raises(CalibrationImpossible) as refused:
        fitted(rods_of((0, 100, 200, 300), hu))
    assert refused.value.code == code


@pytest.mark.parametrize("densities", [(200,), (200, 800), (500, 800)])
def test_fewer_than_two_rods_to_fit_are_refused(densities):
    with pytest.raises(CalibrationImpossible) as refused:
        fitted(rods_of(densities, np.array(densities) * 1.5))
    assert refused.value.code == "rods_unsuited"


def test_a_poor_line_stands_with_a_caution():
    poor = fitted(rods_of((0, 100, 200, 300), (0, 200, 270, 450)))
    assert 0.90 < poor.r2 < 0.98
    (note,) = fit_observations(poor)
    assert note.code == "calibration_fit_poor"
    assert note.values["r2"] == round(poor.r2, 4)


def test_one_rod_far_off_a_good_line_is_said_too():
    one_off = fitted(rods_of((0, 100, 200, 300, 400), (0, 150, 316, 450, 600)))
    assert one_off.r2 > 0.99
    assert one_off.max_residual_hu > 10.0
    assert [note.code for note in fit_observations(one_off)] == ["calibration_fit_poor"]
    assert fit_observations(one_off, FitRules(residual_doubted_hu=20.0)) == ()
    good = fitted(rods_of((0, 100, 200, 300, 400), (0, 150, 303, 450, 600)))
    assert fit_observations(good) == ()


def test_a_site_may_hold_a_fit_to_a_stricter_limit():
    rods = rods_of((0, 100, 200, 300), (0, 200, 270, 450))
    with pytest.raises(CalibrationImpossible):
        fitted(rods, r2_refused_below=0.99)


def test_rods_of_equal_density_are_not_two_points():
    first, second = rods_of((200, 200), (300, 301))
    with pytest.raises(CalibrationImpossible) as refused:
        fitted((first, replace(second, name="again")))
    assert refused.value.code == "rods_unsuited"
