"""From Hounsfield units to mineral density."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mineral(StrEnum):
    """The substance a density is expressed in. HA and K2HPO4 are different quantities."""

    HA = "HA"  # calcium hydroxyapatite
    K2HPO4 = "K2HPO4"  # dipotassium hydrogen phosphate


@dataclass(frozen=True, slots=True, kw_only=True)
class RodReading:
    """One calibration rod as it reads in the image."""

    name: str
    density_mg_cm3: float  # certified mineral density
    hu_mean: float
    hu_sd: float  # of single voxels
    voxels: int
    axis_points_mm: tuple[tuple[float, float, float], ...]  # centres along the rod, LPS, caudal to cranial


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Linear map: BMD [mg/cm3] = slope * HU + intercept."""

    method: str  # "two-point"
    phantom: str  # the phantom's model name, as in config/phantoms/
    equivalent: Mineral
    slope: float  # mg/cm3 per HU
    intercept: float  # mg/cm3
    r2: float | None  # None for two points, where it is 1 by construction and means nothing
    max_residual_hu: float | None  # None for two points, likewise
    rods: tuple[RodReading, ...]

    def bmd(self, hu: float) -> float:
        """Density in mg/cm3 of `equivalent` at `hu`."""
        return self.slope * hu + self.intercept
