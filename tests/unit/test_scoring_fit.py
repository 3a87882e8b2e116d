"""The distance of each rod from its calibration's line."""

from __future__ import annotations

import pytest

from scoring.calibration import Mineral, RodReading, fit_line, fit_points
from scoring.calibration.methods import calibrate


def rod(name: str, density: float, hu: float, water: float | None = None) -> RodReading:
    return RodReading(
        name=name,
        density_mg_cm3=density,
        hu_mean=hu,
        hu_sd=10.0,
        voxels=1000,
        axis_points_mm=((0.0, 0.0, 0.0),),
        water_mg_cm3=water,
    )


def test_two_rods_lie_on_their_line():
    found = calibrate(
        method="two-point",
        phantom="p",
        equivalent=Mineral.HA,
        rods=[rod("water", 0.0, 3.0), rod("bone", 200.0, 323.0)],
    )
    line = fit_line(found)
    assert (line.hu_per_mg, line.offset_hu) == pytest.approx((1.6, 3.0))
    assert [point.residual_hu for point in fit_points(found)] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_distances_are_measured_less_line_and_dense_rods_are_marked_as_left_out():
    hu = {0.0: 1.0, 100.0: 158.0, 200.0: 321.0, 400.0: 638.0, 800.0: 1100.0}
    found = calibrate(
        method="least-squares",
        phantom="p",
        equivalent=Mineral.HA,
        rods=[rod(f"HA {density:g}", density, value) for density, value in hu.items()],
    )
    points = fit_points(found)
    assert [point.fitted for point in points] == [True, True, True, True, False]
    assert max(abs(point.residual_hu) for point in points if point.fitted) == pytest.approx(
        found.max_residual_hu
    )
    for point in points:
        assert found.bmd(point.hu - point.residual_hu) == pytest.approx(point.rod.density_mg_cm3)
    assert points[-1].residual_hu < -100.0


def test_rods_in_water_are_compared_without_their_water():
    """sigma_ref 1.5 and beta_ref -1000: HU less water is 1.5 times the mineral less 1000. C is 5 HU off."""
    certificate = (
        (-51.83, 1012.25),
        (-53.40, 1056.95),
        (58.88, 1103.57),
        (157.05, 1119.52),
        (375.83, 923.20),
    )
    rods = [
        rod(name, mineral, 1.5 * mineral - 1000.0 + water + (5.0 if name == "C" else 0.0), water)
        for name, (mineral, water) in zip("ABCDE", certificate, strict=True)
    ]
    found = calibrate(method="mindways", phantom="p", equivalent=Mineral.K2HPO4, rods=rods)
    line, points = fit_line(found), {point.rod.name: point for point in fit_points(found)}
    assert line.without_water
    assert line.hu_per_mg == pytest.approx(1.5, abs=0.01)
    assert points["C"].residual_hu == pytest.approx(found.max_residual_hu)
    assert points["C"].residual_hu == pytest.approx(4.0, abs=0.2)  # a fifth of it moves the line
    assert sum(point.residual_hu for point in points.values()) == pytest.approx(0.0, abs=1e-9)
