"""Types of a calibration (minerals, readings, the line from HU to density), its uncertainty and residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from math import hypot, sqrt

import numpy as np

INTERNAL = "internal"  # the method
PATIENT_TISSUES = "own tissues"  # in place of a phantom's name


class Mineral(StrEnum):
    """Mineral in which a density is expressed. HA and K2HPO4 are different quantities."""

    HA = "HA"  # calcium hydroxyapatite
    K2HPO4 = "K2HPO4"  # dipotassium hydrogen phosphate


class Grade(StrEnum):
    """Basis of a calibration, from the strongest to the weakest."""

    PHANTOM = "phantom"  # rods in the very same image
    ASYNCHRONOUS = "asynchronous"  # rods scanned earlier on the same scanner
    INTERNAL = "internal"  # the patient's own tissues: screening only


@dataclass(frozen=True, slots=True, kw_only=True)
class RodReading:
    """One calibration rod as it reads in the image.

    Attributes
    ----------
    density_mg_cm3 : certified mineral density.
    hu_sd : SD of single voxels.
    axis_points_mm : centres along the rod, LPS, caudal to cranial.
    water_mg_cm3 : certified water density, where the rod is certified as mineral and water.
    standard_error_hu : of `hu_mean`, correlated noise included; None where it was not measured.
    """

    name: str
    density_mg_cm3: float
    hu_mean: float
    hu_sd: float
    voxels: int
    axis_points_mm: tuple[tuple[float, float, float], ...]
    water_mg_cm3: float | None = None
    standard_error_hu: float | None = None

    @property
    def hu_standard_error(self) -> float:
        """Standard error of `hu_mean` in HU: as measured, otherwise as if the voxels' noise were independent.

        The latter is a lower bound: noise of CT is correlated (`scoring.density.bmd.with_standard_errors`).
        """
        if self.standard_error_hu is not None:
            return self.standard_error_hu
        return self.hu_sd / sqrt(self.voxels)


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueReading:
    """One of the patient's own tissues as it reads in the image.

    Attributes
    ----------
    hu : median.
    volume_cm3 : of the voxels that were read.
    """

    name: str
    hu: float
    volume_cm3: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUncertainty:
    """Standard uncertainty (k = 1) of the line itself, in two independent parts.

    Attributes
    ----------
    pivot_hu : HU at which the line is best determined.
    bmd_mg_cm3 : standard uncertainty of the density at `pivot_hu`.
    slope : standard uncertainty of the slope, in mg/cm3 per HU.
    """

    pivot_hu: float
    bmd_mg_cm3: float
    slope: float

    def at(self, hu: float) -> float:
        """Standard uncertainty in mg/cm3 of the line's density at `hu`."""
        return hypot(self.bmd_mg_cm3, self.slope * (hu - self.pivot_hu))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Linear map: BMD [mg/cm3] = slope * HU + intercept.

    Attributes
    ----------
    method : one of `calibration.methods.METHODS`, with "asynchronous " before it for a prior scan; or
        "internal".
    phantom : the phantom's model name, as in config/phantoms/.
    slope : mg/cm3 per HU.
    intercept : mg/cm3.
    r2 : R squared of the fit; None for two rods, which always lie on a line.
    max_residual_hu : largest distance of a rod from the line; None for two rods.
    rods : all rods of the phantom, by rising density; see `FitRules.fit_up_to_mg_cm3`.
    uncertainty : None where it is not stated.
    phantom_serial : serial number of the phantom whose own certificate was used; "" where the model's
        densities were used.
    phantom_sha256 : of the files that describe the phantom; "" where there are none.
    left_out : names of rods that do not determine the line.
    scanned_on : date of the prior scan; None where the phantom is in the same image.
    tissues : the patient's tissues, where these calibrate in place of rods.
    effective_kev : effective photon energy, where tissues calibrate; None where rods do.
    """

    method: str
    phantom: str
    equivalent: Mineral
    slope: float
    intercept: float
    r2: float | None
    max_residual_hu: float | None
    rods: tuple[RodReading, ...]
    grade: Grade = Grade.PHANTOM
    uncertainty: LineUncertainty | None = None
    phantom_serial: str = ""
    phantom_sha256: str = ""
    left_out: tuple[str, ...] = ()
    scanned_on: date | None = None
    tissues: tuple[TissueReading, ...] = ()
    effective_kev: float | None = None

    @property
    def phantom_named(self) -> str:
        """The phantom's model and, where its own certificate was used, its serial number."""
        return f"{self.phantom} {self.phantom_serial}".strip()

    def bmd(self, hu: float) -> float:
        """Density in mg/cm3 of `equivalent` at `hu`."""
        return self.slope * hu + self.intercept


# By tube voltage, between which they are interpolated: kV, lowest and highest slope in HU per mg/cm3.
SlopeRanges = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRules:
    """Which rods a fit uses, and when its result is poor or refused. A phantom's file may state its own.

    V: published in the Ogo software's reference (Michalski). R: recalled or chosen here, to be confirmed
    before clinical use.

    Attributes
    ----------
    fit_up_to_mg_cm3 : denser rods are left out of the fit, because trabecular bone is measured (R).
    r2_refused_below : R squared below which there is no calibration (V).
    r2_doubted_below : R squared below which the fit is called poor (V; a stricter 0.99 is R).
    residual_doubted_hu : largest distance of a rod from the line before the fit is called poor (R).
    offset_hu : limit of abs(beta_CT) of the Mindways method, the HU of water (R).
    """

    fit_up_to_mg_cm3: float = 400.0
    r2_refused_below: float = 0.90
    r2_doubted_below: float = 0.98
    residual_doubted_hu: float = 10.0
    offset_hu: float = 15.0
    # V: the constants of the Mindways method, from water and K2HPO4 apart to K2HPO4 in the place of water
    # (user guide of QCT PRO, as cited by Ogo's reference): mg of water that a mg of K2HPO4 displaces, and
    # water in mg/cm3. The first defines what is measured, so that there is no doubt about it unless a site
    # states one; the second is 0.4 less than the 1000 of HU's water, which is its standard uncertainty (R).
    displaced_water: float = 0.2174
    displaced_water_uncertainty: float = 0.0
    reference_water: float = 999.6
    reference_water_uncertainty: float = 0.4
    # R: range of the Mindways sigma_ref by tube voltage. Computed for effective energies of 50, 60 and
    # 70 keV it is 2.46, 1.89 and 1.59; an example of Ogo's has 1.47.
    sigma_ref: SlopeRanges = ((80.0, 1.8, 2.9), (100.0, 1.5, 2.5), (120.0, 1.3, 2.2), (140.0, 1.1, 2.0))
    # R: the same for the lines of the other methods. HA reads 2.27, 1.66 and 1.33 HU per mg/cm3 at 50, 60 and
    # 70 keV (computed); which effective energy a tube voltage has behind a patient depends on its filter and
    # on the patient. Allowed for: about 46 to 62, 50 to 69, 55 to 79 and 58 to 84 keV.
    hu_per_mg: SlopeRanges = ((80.0, 1.55, 2.65), (100.0, 1.35, 2.25), (120.0, 1.1, 1.95), (140.0, 1.0, 1.75))


def line_uncertainty(
    origin_hu: float,
    slope_by_rod: Sequence[float],
    bmd_by_rod: Sequence[float],
    standard_errors_hu: Sequence[float],
) -> LineUncertainty:
    """First-order propagation of the rods' errors, which are independent of one another, into a line.

    Parameters
    ----------
    origin_hu : any HU.
    slope_by_rod : derivative of the line's slope by each rod's HU, in mg/cm3 per HU squared.
    bmd_by_rod : derivative of the density at `origin_hu` by each rod's HU, in mg/cm3 per HU.
    """
    errors = np.asarray(standard_errors_hu)
    by_slope, by_bmd = np.asarray(slope_by_rod) * errors, np.asarray(bmd_by_rod) * errors
    slope_variance = float(by_slope @ by_slope)
    if slope_variance == 0.0:
        return LineUncertainty(pivot_hu=origin_hu, bmd_mg_cm3=float(np.linalg.norm(by_bmd)), slope=0.0)
    shift_hu = -float(by_slope @ by_bmd) / slope_variance
    return LineUncertainty(
        pivot_hu=origin_hu + shift_hu,
        bmd_mg_cm3=float(np.linalg.norm(by_bmd + shift_hu * by_slope)),
        slope=sqrt(slope_variance),
    )


def combined_uncertainty(*parts: LineUncertainty) -> LineUncertainty:
    """Sum of independent uncertainties of one line.

    Parameters
    ----------
    parts : at least one.
    """
    by_slope = sum(part.slope**2 for part in parts)
    if by_slope == 0.0:
        total = sqrt(sum(part.bmd_mg_cm3**2 for part in parts))
        return LineUncertainty(pivot_hu=parts[0].pivot_hu, bmd_mg_cm3=total, slope=0.0)
    pivot_hu = sum(part.slope**2 * part.pivot_hu for part in parts) / by_slope
    return LineUncertainty(
        pivot_hu=pivot_hu,
        bmd_mg_cm3=sqrt(sum(part.at(pivot_hu) ** 2 for part in parts)),
        slope=sqrt(by_slope),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FitLine:
    """The line that was fitted to the rods: ``HU = hu_per_mg * density + offset_hu``.

    Attributes
    ----------
    hu_per_mg : in HU per mg/cm3.
    without_water : True where the rods' water is subtracted from their HU (Mindways).
    """

    hu_per_mg: float
    offset_hu: float
    without_water: bool

    def hu(self, density_mg_cm3: float) -> float:
        return self.hu_per_mg * density_mg_cm3 + self.offset_hu


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPoint:
    """One rod beside the line.

    Attributes
    ----------
    hu : HU that was fitted: without the rod's water where `FitLine.without_water`.
    residual_hu : measured minus the line.
    fitted : False for a rod that does not determine the line.
    """

    rod: RodReading
    hu: float
    residual_hu: float
    fitted: bool


def fit_line(calibration: Calibration) -> FitLine:
    """The line that was fitted to the rods.

    Rods certified as mineral and water (Mindways) are fitted without their water: their line is fitted again
    here, because it differs in slope and offset from the calibration's.

    Parameters
    ----------
    calibration : with rods, or a slope other than 0.
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
    """Every rod of the phantom with its distance from the line, by rising density."""
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
