"""How far each rod lies from the line of a calibration: what a reader needs to believe the line."""

from __future__ import annotations

from dataclasses import dataclass

from scoring.calibration_types import Calibration, RodReading
from scoring.mindways import BETA_REF_TO_CT, SIGMA_REF_TO_CT


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

    Rods of mineral dissolved in water (Mindways) are fitted without their water, and their line differs from
    the one that bone is measured by: by 0.2174 in slope and 999.6 HU.
    """
    hu_per_mg = 1 / calibration.slope
    offset_hu = -calibration.intercept / calibration.slope
    if calibration.rods and all(rod.water_mg_cm3 is not None for rod in calibration.rods):
        return FitLine(
            hu_per_mg=hu_per_mg - SIGMA_REF_TO_CT, offset_hu=offset_hu - BETA_REF_TO_CT, without_water=True
        )
    return FitLine(hu_per_mg=hu_per_mg, offset_hu=offset_hu, without_water=False)


def fit_points(calibration: Calibration) -> tuple[FitPoint, ...]:
    """Every rod that was read, by rising density."""
    line = fit_line(calibration)
    points = []
    for rod in calibration.rods:
        hu = rod.hu_mean - ((rod.water_mg_cm3 or 0.0) if line.without_water else 0.0)
        points.append(
            FitPoint(
                rod=rod,
                hu=hu,
                residual_hu=hu - line.hu(rod.density_mg_cm3),
                fitted=rod.name not in calibration.left_out,
            )
        )
    return tuple(points)
