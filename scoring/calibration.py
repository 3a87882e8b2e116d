"""From Hounsfield units to mineral density: the methods by name, and what is made of their result."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

from scoring.calibration_types import Calibration, FitRules, Grade, LineUncertainty, Mineral, RodReading
from scoring.least_squares import LEAST_SQUARES, least_squares
from scoring.mindways import MINDWAYS, mindways
from scoring.two_point import TWO_POINT, two_point
from segmentation.observation import Observation

__all__ = [
    "LEAST_SQUARES",
    "METHODS",
    "MINDWAYS",
    "SHIPPED_RULES",
    "TWO_POINT",
    "Calibration",
    "FitRules",
    "Grade",
    "LineUncertainty",
    "Mineral",
    "RodReading",
    "calibrate",
    "density_uncertainty",
    "fit_observations",
]

METHODS = (TWO_POINT, LEAST_SQUARES, MINDWAYS)  # by rods in the image; a phantom's file names one

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
        If the rods do not determine one; its `code` says why.
    ValueError
        If there is no such method.
    """
    if method == TWO_POINT:
        return two_point(phantom=phantom, equivalent=equivalent, rods=rods, rules=rules, kvp=kvp)
    if method == LEAST_SQUARES:
        return least_squares(phantom=phantom, equivalent=equivalent, rods=rods, rules=rules, kvp=kvp)
    if method == MINDWAYS:
        return mindways(phantom=phantom, equivalent=equivalent, rods=rods, rules=rules, kvp=kvp)
    raise ValueError(f"unknown calibration method {method!r}; known: {', '.join(METHODS)}")


def fit_observations(calibration: Calibration, rules: FitRules = SHIPPED_RULES) -> tuple[Observation, ...]:
    """What to say of a calibration that stands: `calibration_fit_poor`."""
    r2, residual_hu = calibration.r2, calibration.max_residual_hu
    if (r2 is not None and r2 < rules.r2_doubted_below) or (
        residual_hu is not None and residual_hu > rules.residual_doubted_hu
    ):
        values: dict[str, str | int | float] = {
            "r2": "-" if r2 is None else round(r2, 4),
            "r2_limit": rules.r2_doubted_below,
            "residual_hu": "-" if residual_hu is None else round(residual_hu, 1),
            "limit": rules.residual_doubted_hu,
        }
        return (Observation(code="calibration_fit_poor", values=values),)
    return ()


def density_uncertainty(calibration: Calibration, hu_mean: float, hu_standard_error: float) -> float | None:
    """Standard uncertainty (k = 1) in mg/cm3 of ``calibration.bmd(hu_mean)``; marrow-fat error not included.

    The region's noise and the line's uncertainty (rods' noise, lack of fit), which are independent. None
    where the calibration states no uncertainty of its own.
    """
    if calibration.uncertainty is None:
        return None
    return hypot(calibration.slope * hu_standard_error, calibration.uncertainty.at(hu_mean))
