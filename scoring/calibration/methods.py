"""Calibration by rods: least squares, two-point, Mindways; checks of the fit; uncertainty of a density."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import hypot

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri, stdtrit

from scoring.calibration import (
    Calibration,
    FitRules,
    LineUncertainty,
    Mineral,
    RodReading,
    combined_uncertainty,
    line_uncertainty,
)
from scoring.calibration.spectrum import require_slope
from scoring.errors import CalibrationImpossible
from segmentation.phrase import Value
from segmentation.vertebrae import Observation

LEAST_SQUARES = "least-squares"

Array = npt.NDArray[np.float64]


def least_squares(
    *,
    phantom: str,
    equivalent: Mineral,
    rods: Sequence[RodReading],
    rules: FitRules,
    kvp: float | None = None,
) -> Calibration:
    """``BMD = m * HU + b``: ordinary least squares of certified density on HU.

    Rods denser than `rules.fit_up_to_mg_cm3` are kept in the calibration's `rods` and left out of the fit.
    Its uncertainty rests on the rods' own noise; where the rods lie further from the line than noise
    explains, on the distances instead (see `standard_errors_hu`).

    Parameters
    ----------
    kvp : tube voltage, for the range that the slope must lie in; None accepts what any voltage may give.

    Raises
    ------
    CalibrationImpossible
        If fewer than two rods are left (`rods_unsuited`), a denser rod does not read higher (`rod_order`),
        R squared is below `rules.r2_refused_below` (`calibration_fit_failed`), or the slope is implausible
        (`calibration_slope_off`).

    Source: the Ogo software's reference (Michalski), standard calibration.
    """
    ordered = tuple(sorted(rods, key=lambda rod: rod.density_mg_cm3))
    fitted = [rod for rod in ordered if rod.density_mg_cm3 <= rules.fit_up_to_mg_cm3]
    if len({rod.density_mg_cm3 for rod in fitted}) < 2:
        raise CalibrationImpossible(
            "rods_unsuited", f"{phantom} has fewer than two rods up to {rules.fit_up_to_mg_cm3:g} mg/cm3"
        )
    require_rising(ordered)
    hu = np.array([rod.hu_mean for rod in fitted])
    density = np.array([rod.density_mg_cm3 for rod in fitted])
    hu_off, density_off = hu - hu.mean(), density - density.mean()
    spread = float(hu_off @ hu_off)
    slope = float(hu_off @ density_off) / spread
    residuals_hu = density_off / slope - hu_off
    r2 = r_squared(hu, density)
    require_line(r2, rules)
    require_slope(1 / slope, rules.hu_per_mg, kvp, equivalent)
    return Calibration(
        method=LEAST_SQUARES,
        phantom=phantom,
        equivalent=equivalent,
        slope=slope,
        intercept=float(density.mean()) - slope * float(hu.mean()),
        r2=r2,
        max_residual_hu=None if r2 is None else float(np.abs(residuals_hu).max()),
        rods=ordered,
        left_out=tuple(rod.name for rod in ordered if rod not in fitted),
        uncertainty=line_uncertainty(
            float(hu.mean()),
            slope_by_rod=list((density_off - 2 * slope * hu_off) / spread),
            bmd_by_rod=[-slope / len(hu)] * len(hu),
            standard_errors_hu=standard_errors_hu(fitted, residuals_hu),
        ),
    )


def require_rising(rods: Sequence[RodReading]) -> None:
    """Require that each rod reads higher than the one before it.

    Raises
    ------
    CalibrationImpossible
        `rod_order`.
    """
    for lower, higher in pairwise(rods):
        if not higher.hu_mean > lower.hu_mean:
            raise CalibrationImpossible(
                "rod_order",
                f"{higher.name} reads {higher.hu_mean:.1f} HU, {lower.name} {lower.hu_mean:.1f} HU",
            )


def require_line(r2: float | None, rules: FitRules) -> None:
    """Require that the rods lie on a line.

    Raises
    ------
    CalibrationImpossible
        `calibration_fit_failed`: R squared is below `rules.r2_refused_below`.
    """
    if r2 is not None and r2 < rules.r2_refused_below:
        raise CalibrationImpossible(
            "calibration_fit_failed", f"R squared is {r2:.3f}, {rules.r2_refused_below:g} is needed"
        )


def r_squared(x: Array, y: Array) -> float | None:
    """Squared correlation; None for two points, which always lie on a line."""
    return None if len(x) < 3 else float(np.corrcoef(x, y)[0, 1] ** 2)


def standard_errors_hu(rods: Sequence[RodReading], residuals_hu: Array) -> list[float]:
    """Standard error in HU of each rod's mean for the uncertainty of the fit.

    The rods' noise, where it explains their distances from the line (chi squared, 95 %). Otherwise the line
    does not fit (beam hardening, a wrong certificate), and the standard deviation of the distances counts for
    every rod, multiplied by Student's t over the normal's 1.96: few rods estimate their scatter poorly.

    Parameters
    ----------
    residuals_hu : (rods,), distances from the line.
    """
    noise_hu = np.array([rod.hu_standard_error for rod in rods])
    freedom = len(rods) - 2
    if freedom < 1:
        return [float(one) for one in noise_hu]
    chi2 = float(np.sum((residuals_hu / np.maximum(noise_hu, np.finfo(float).tiny)) ** 2))
    if chi2 <= chdtri(freedom, 0.05):
        return [float(one) for one in noise_hu]
    scatter_hu = float(np.sqrt(residuals_hu @ residuals_hu / freedom))
    scatter_hu *= float(stdtrit(freedom, 0.975) / ndtri(0.975))
    return [max(float(one), scatter_hu) for one in noise_hu]


TWO_POINT = "two-point"


def two_point(
    *,
    phantom: str,
    equivalent: Mineral,
    rods: Sequence[RodReading],
    rules: FitRules,
    kvp: float | None = None,
) -> Calibration:
    """``Db = (Hb - Hw) / (Hk - Hw) * Ck``.

    Db is the density sought, Hb the region's HU, Hw the water-equivalent rod's HU, Hk and Ck the HU and the
    certified density of the mineral rod. Its uncertainty, with that of the region's mean, is
    ``Ck / (Hk - Hw) * sqrt(sb^2 + (1 - r)^2 sw^2 + r^2 sk^2)``, ``r = Db / Ck``: first-order propagation.

    Parameters
    ----------
    rods : one rod of density 0 and one of a higher density, in any order.
    kvp : tube voltage, for the range that the slope must lie in; None accepts what any voltage may give.

    Raises
    ------
    CalibrationImpossible
        If there are not exactly two such rods (`rods_unsuited`), the mineral rod does not read
        higher than the water rod (`rod_order`), or the slope is implausible (`calibration_slope_off`).

    Source: Xie et al., BMC Med Imaging 2022;22:140, Methods.
    """
    water, mineral = _water_and_mineral(rods)
    contrast_hu = mineral.hu_mean - water.hu_mean
    if not contrast_hu > 0:
        raise CalibrationImpossible(
            "rod_order", f"{mineral.name} reads {mineral.hu_mean:.1f} HU, {water.name} {water.hu_mean:.1f} HU"
        )
    require_slope(contrast_hu / mineral.density_mg_cm3, rules.hu_per_mg, kvp, equivalent)
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
        uncertainty=line_uncertainty(
            water.hu_mean,
            slope_by_rod=(slope / contrast_hu, -slope / contrast_hu),
            bmd_by_rod=(-slope, 0.0),
            standard_errors_hu=(water.hu_standard_error, mineral.hu_standard_error),
        ),
    )


def _water_and_mineral(rods: Sequence[RodReading]) -> tuple[RodReading, RodReading]:
    by_density = sorted(rods, key=lambda rod: rod.density_mg_cm3)
    if len(by_density) != 2 or by_density[0].density_mg_cm3 != 0 or by_density[1].density_mg_cm3 <= 0:
        raise CalibrationImpossible(
            "rods_unsuited", "two-point calibration needs one water rod and one mineral rod"
        )
    return by_density[0], by_density[1]


MINDWAYS = "mindways"
RODS = 5
# Any slope above 0.9 HU per mg/cm3 puts the rods in the order A to E, in which they must read.
_TYPICAL_SIGMA_REF = 1.5


def mindways(
    *,
    phantom: str,
    equivalent: Mineral,
    rods: Sequence[RodReading],
    rules: FitRules,
    kvp: float | None = None,
) -> Calibration:
    """``HU - rho_H2O = sigma_ref * rho_K2HPO4 + beta_ref``, fitted to five rods.

    Then ``BMD = (HU - beta_CT) / sigma_CT`` with ``sigma_CT = sigma_ref - 0.2174`` and
    ``beta_CT = beta_ref + 999.6``, unless `rules` state other constants.

    Parameters
    ----------
    rods : five, in any order, each with its certified water density.
    kvp : tube voltage, for the range that sigma_ref must lie in; None accepts what any voltage may give.

    Raises
    ------
    CalibrationImpossible
        If the rods are not five with water densities, or the equivalent is not K2HPO4 (`rods_unsuited`); they
        do not read in rising order A to E (`rod_order`); R squared is below `rules.r2_refused_below`
        (`calibration_fit_failed`); beta_CT, the HU of water, is off by more than `rules.offset_hu`
        (`calibration_offset`); sigma_ref is implausible at this voltage (`calibration_slope_off`).

    Its uncertainty rests on the rods, as least squares' does, and on the method's two constants.

    Source: Mindways QCT PRO User Guide v5.0, as cited by the Ogo software's reference (Michalski).
    """
    water = [rod.water_mg_cm3 for rod in rods if rod.water_mg_cm3 is not None]
    if equivalent is not Mineral.K2HPO4 or len(rods) != RODS or len(water) != RODS:
        raise CalibrationImpossible(
            "rods_unsuited", f"{phantom}: the method needs {RODS} rods of K2HPO4 with their water densities"
        )
    require_rising(sorted(rods, key=_typical_hu))
    density = np.array([rod.density_mg_cm3 for rod in rods])
    without_water_hu = np.array([rod.hu_mean for rod in rods]) - np.array(water)
    density_off = density - density.mean()
    by_rod = density_off / float(density_off @ density_off)  # of sigma_ref, by each rod's HU
    sigma_ref = float(by_rod @ without_water_hu)
    beta_ref = float(without_water_hu.mean()) - sigma_ref * float(density.mean())
    r2 = r_squared(density, without_water_hu)
    require_line(r2, rules)
    _require_water_near_zero(beta_ref, rules)
    require_slope(sigma_ref, rules.sigma_ref, kvp, Mineral.K2HPO4)
    slope, beta_ct = 1 / (sigma_ref - rules.displaced_water), beta_ref + rules.reference_water
    residuals_hu = without_water_hu - sigma_ref * density - beta_ref
    return Calibration(
        method=MINDWAYS,
        phantom=phantom,
        equivalent=equivalent,
        slope=slope,
        intercept=-slope * beta_ct,
        r2=r2,
        max_residual_hu=float(np.abs(residuals_hu).max()),
        rods=tuple(sorted(rods, key=lambda rod: rod.density_mg_cm3)),
        uncertainty=combined_uncertainty(
            line_uncertainty(
                beta_ct,
                slope_by_rod=list(-(slope**2) * by_rod),
                bmd_by_rod=list(-slope * (1 / RODS - float(density.mean()) * by_rod)),
                standard_errors_hu=standard_errors_hu(rods, residuals_hu),
            ),
            LineUncertainty(
                pivot_hu=beta_ct,
                bmd_mg_cm3=slope * rules.reference_water_uncertainty,
                slope=slope**2 * rules.displaced_water_uncertainty,
            ),
        ),
    )


def _require_water_near_zero(beta_ref: float, rules: FitRules) -> None:
    beta_ct = beta_ref + rules.reference_water
    if abs(beta_ct) > rules.offset_hu:
        raise CalibrationImpossible(
            "calibration_offset", f"beta_CT is {beta_ct:.1f} HU, up to {rules.offset_hu:g} HU are accepted"
        )


def _typical_hu(rod: RodReading) -> float:
    assert rod.water_mg_cm3 is not None  # the caller has made sure
    return rod.water_mg_cm3 + _TYPICAL_SIGMA_REF * rod.density_mg_cm3


_METHODS = {TWO_POINT: two_point, LEAST_SQUARES: least_squares, MINDWAYS: mindways}
METHODS = tuple(_METHODS)  # by rods in the image; a phantom's file names one

SHIPPED_RULES = FitRules()


def calibrate(
    *,
    method: str,
    phantom: str,
    equivalent: Mineral,
    rods: Sequence[RodReading],
    rules: FitRules = SHIPPED_RULES,
    kvp: float | None = None,
) -> Calibration:
    """The calibration that `method` (one of `METHODS`, as the phantom's file names it) makes of the rods.

    Parameters
    ----------
    kvp : tube voltage of the series; where it is known, the slope is held to what this voltage may give.

    Raises
    ------
    CalibrationImpossible
        If the rods do not determine one; its `code` is that of the finding.
    ValueError
        If there is no such method.
    """
    if method not in _METHODS:
        raise ValueError(f"unknown calibration method {method!r}; known: {', '.join(METHODS)}")
    return _METHODS[method](phantom=phantom, equivalent=equivalent, rods=rods, rules=rules, kvp=kvp)


def fit_observations(calibration: Calibration, rules: FitRules = SHIPPED_RULES) -> tuple[Observation, ...]:
    """`calibration_fit_poor`, where R squared or a residual exceeds its limit."""
    r2, residual_hu = calibration.r2, calibration.max_residual_hu
    if (r2 is not None and r2 < rules.r2_doubted_below) or (
        residual_hu is not None and residual_hu > rules.residual_doubted_hu
    ):
        values: dict[str, Value] = {
            "r2": "-" if r2 is None else round(r2, 4),
            "r2_limit": rules.r2_doubted_below,
            "residual_hu": "-" if residual_hu is None else round(residual_hu, 1),
            "limit": rules.residual_doubted_hu,
        }
        return (Observation(code="calibration_fit_poor", values=values),)
    return ()


def density_uncertainty(calibration: Calibration, hu_mean: float, hu_standard_error: float) -> float | None:
    """Standard uncertainty (k = 1) in mg/cm3 of ``calibration.bmd(hu_mean)``, marrow fat left out.

    Combines the region's noise and the line's uncertainty (rods' noise, lack of fit), which are independent.

    Parameters
    ----------
    hu_standard_error : of `hu_mean`.

    Returns
    -------
    None where the calibration states no uncertainty.
    """
    if calibration.uncertainty is None:
        return None
    return hypot(calibration.slope * hu_standard_error, calibration.uncertainty.at(hu_mean))
