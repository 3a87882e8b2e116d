"""Calibration by several rods of one mineral: a straight line through all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri, stdtrit

from scoring.calibration_types import Calibration, FitRules, Mineral, RodReading, line_uncertainty
from scoring.errors import CalibrationImpossible
from scoring.slope_range import require_slope

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
    """Raise `CalibrationImpossible` (`rod_order`) unless each rod reads higher than the one before it."""
    for lower, higher in pairwise(rods):
        if not higher.hu_mean > lower.hu_mean:
            raise CalibrationImpossible(
                "rod_order",
                f"{higher.name} reads {higher.hu_mean:.1f} HU, {lower.name} {lower.hu_mean:.1f} HU",
            )


def require_line(r2: float | None, rules: FitRules) -> None:
    """Raise `CalibrationImpossible` (`calibration_fit_failed`) where rods do not lie on a line."""
    if r2 is not None and r2 < rules.r2_refused_below:
        raise CalibrationImpossible(
            "calibration_fit_failed", f"R squared is {r2:.3f}, {rules.r2_refused_below:g} is needed"
        )


def r_squared(x: Array, y: Array) -> float | None:
    """Squared correlation; None for two points, which always lie on a line."""
    return None if len(x) < 3 else float(np.corrcoef(x, y)[0, 1] ** 2)


def standard_errors_hu(rods: Sequence[RodReading], residuals_hu: Array) -> list[float]:
    """Standard error of each rod's mean as the fit has reason to believe it.

    The rods' noise where it explains their distances from the line (chi squared, 95 %). Else the line does
    not fit (beam hardening, a certificate that is off), and the standard deviation of the distances counts
    for every rod, widened by Student's t over the normal's 1.96: few rods tell little of their own scatter.
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
