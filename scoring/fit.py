"""How far each rod lies from the line of a calibration: what a reader needs to believe the line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.calibration_types import Calibration, RodReading


@dataclass(frozen=True, slots=True, kw_only=True)
class FitLine:
    """The line that was fitted to the rods: ``HU = hu_per_mg * density + offset_hu``."""

    hu_per_mg: float  # HU per mg/cm3
    offset_hu: float
    without_water: bool  # HU less the rod's water, as the Mindways method fits them

    def hu(self, density_mg_cm3: float) -> float:
        return self.hu_per_mg * density_mg_cm3 + self.offset_hu


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPoint:
    """One rod beside the line."""

    rod: RodReading
    hu: float  # as fitted: less the rod's water where `FitLine.without_water`
    residual_hu: float  # measured less the line
    fitted: bool  # False: read, but it does not determine the line


def fit_line(calibration: Calibration) -> FitLine:
    """The line behind a calibration, in the rods' own terms.

    Rods certified as mineral and water (Mindways) are fitted without their water. Their line is fitted here
    anew, for it differs from the one that bone is measured by, in slope and offset.
    """
    if calibration.rods and all(rod.water_mg_cm3 is not None for rod in calibration.rods):
        hu_per_mg, offset_hu = np.polyfit(
            [rod.density_mg_cm3 for rod in calibration.rods],
            [_without_water_hu(rod) for rod in calibration.rods],
            deg=1,
        )
        return FitLine(hu_per_mg=float(hu_per_mg), offset_hu=float(offset_hu), without_water=True)
    return FitLine(
        hu_per_mg=1 / calibration.slope,
        offset_hu=-calibration.intercept / calibration.slope,
        without_water=False,
    )


def _without_water_hu(rod: RodReading) -> float:
    return rod.hu_mean - (rod.water_mg_cm3 or 0.0)


def fit_points(calibration: Calibration) -> tuple[FitPoint, ...]:
    """Every rod that was read, by rising density."""
    line = fit_line(calibration)
    points = []
    for rod in calibration.rods:
        hu = _without_water_hu(rod) if line.without_water else rod.hu_mean
        points.append(
            FitPoint(
                rod=rod,
                hu=hu,
                residual_hu=hu - line.hu(rod.density_mg_cm3),
                fitted=rod.name not in calibration.left_out,
            )
        )
    return tuple(points)
