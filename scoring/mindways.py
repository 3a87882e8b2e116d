"""Calibration by a phantom whose rods are certified as water and K2HPO4: Mindways Model 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scoring.calibration_types import (
    Calibration,
    FitRules,
    LineUncertainty,
    Mineral,
    RodReading,
    combined_uncertainty,
    line_uncertainty,
)
from scoring.errors import CalibrationImpossible
from scoring.least_squares import r_squared, require_line, require_rising, standard_errors_hu
from scoring.slope_range import require_slope

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
