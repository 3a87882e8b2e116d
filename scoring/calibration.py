"""From Hounsfield units to mineral density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import hypot, sqrt

from scoring.errors import CalibrationImpossible


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

    @property
    def hu_standard_error(self) -> float:
        """Standard error of `hu_mean`, as if the voxels' noise were independent (see `two_point_sigma`)."""
        return self.hu_sd / sqrt(self.voxels)


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


TWO_POINT = "two-point"


def two_point(*, phantom: str, equivalent: Mineral, rods: Sequence[RodReading]) -> Calibration:
    """The two-point calibration of Xie et al. 2022: ``Db = (Hb - Hw) / (Hk - Hw) * Ck``.

    Db is the density sought, Hb the region's HU, Hw the water-equivalent rod's HU, Hk and Ck the HU and the
    certified density of the mineral rod.

    Parameters
    ----------
    rods : one rod of density 0 and one of a higher density, in any order.

    Raises
    ------
    CalibrationImpossible
        If there are not exactly two such rods (`phantom_not_found`), or the mineral rod does not read
        higher than the water rod (`rod_order`).

    Source: Xie et al., BMC Med Imaging 2022;22:140, Methods.
    """
    water, mineral = _water_and_mineral(rods)
    contrast_hu = mineral.hu_mean - water.hu_mean
    if not contrast_hu > 0:
        raise CalibrationImpossible(
            "rod_order",
            f"{mineral.name} reads {mineral.hu_mean:.1f} HU, {water.name} {water.hu_mean:.1f} HU",
        )
    slope = mineral.density_mg_cm3 / contrast_hu
    return Calibration(
        method=TWO_POINT,
        phantom=phantom,
        equivalent=equivalent,
        slope=slope,
        intercept=-slope * water.hu_mean,
        r2=None,
        max_residual_hu=None,
        rods=(water, mineral),
    )


def two_point_sigma(rods: Sequence[RodReading], hu_mean: float, hu_standard_error: float) -> float:
    """Standard uncertainty (k = 1) in mg/cm3 of a two-point density at `hu_mean`.

    ``sigma_D = Ck / (Hk - Hw) * sqrt(sb^2 + (1 - r)^2 sw^2 + r^2 sk^2)`` with ``r = Db / Ck``: first-order
    propagation of Xie's formula. sb, sw, sk are standard errors of *means*. They are computed as if voxel
    noise were independent; CT noise is correlated between neighbours, so that the stated uncertainty is a
    lower bound of the noise part. Marrow fat is not in it.
    """
    water, mineral = _water_and_mineral(rods)
    contrast_hu = mineral.hu_mean - water.hu_mean
    fraction = (hu_mean - water.hu_mean) / contrast_hu
    spread_hu = hypot(
        hu_standard_error,
        (1.0 - fraction) * water.hu_standard_error,
        fraction * mineral.hu_standard_error,
    )
    return mineral.density_mg_cm3 / contrast_hu * spread_hu


def _water_and_mineral(rods: Sequence[RodReading]) -> tuple[RodReading, RodReading]:
    by_density = sorted(rods, key=lambda rod: rod.density_mg_cm3)
    if len(by_density) != 2 or by_density[0].density_mg_cm3 != 0 or by_density[1].density_mg_cm3 <= 0:
        raise CalibrationImpossible(
            "phantom_not_found", "two-point calibration needs one water rod and one mineral rod"
        )
    return by_density[0], by_density[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way from rods to a calibration, with the propagation of uncertainty that belongs to it."""

    fit: Callable[..., Calibration]  # keywords phantom, equivalent, rods
    sigma: Callable[[Sequence[RodReading], float, float], float]  # rods, HU mean, its standard error


METHODS: Mapping[str, Method] = {TWO_POINT: Method(fit=two_point, sigma=two_point_sigma)}


def calibrate(*, method: str, phantom: str, equivalent: Mineral, rods: Sequence[RodReading]) -> Calibration:
    """The calibration that `method` (a key of `METHODS`, as the phantom's file names it) makes of the rods.

    Raises
    ------
    CalibrationImpossible
        If the rods do not determine one.
    """
    return METHODS[method].fit(phantom=phantom, equivalent=equivalent, rods=rods)


def density_uncertainty(calibration: Calibration, hu_mean: float, hu_standard_error: float) -> float:
    """Standard uncertainty (k = 1) in mg/cm3 of ``calibration.bmd(hu_mean)``, by the calibration's method."""
    return METHODS[calibration.method].sigma(calibration.rods, hu_mean, hu_standard_error)
