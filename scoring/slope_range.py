"""Whether a calibration's slope is one that the tube voltage may give.

Rods of another phantom, read as this one's, may lie on a straight line all the same: their slope is then that
of no X-ray beam. The ranges are wide (`FitRules`), so that only a gross error is noticed.
"""

from __future__ import annotations

import numpy as np

from scoring.calibration_types import Mineral, SlopeRanges
from scoring.errors import CalibrationImpossible
from segmentation.bone import known_kvp


def slope_range(ranges: SlopeRanges, kvp: float | None) -> tuple[float, float]:
    """Lowest and highest plausible slope in HU per mg/cm3; over all voltages where `kvp` is not known."""
    kilovolts, lowest, highest = np.array(ranges).T
    known = known_kvp(kvp)
    if known is None:
        return float(lowest.min()), float(highest.max())
    return float(np.interp(known, kilovolts, lowest)), float(np.interp(known, kilovolts, highest))


def require_slope(hu_per_mg: float, ranges: SlopeRanges, kvp: float | None, equivalent: Mineral) -> None:
    """Raise `CalibrationImpossible` (`calibration_slope_off`) where this voltage does not give the slope."""
    lowest, highest = slope_range(ranges, kvp)
    if not lowest <= hu_per_mg <= highest:
        known = known_kvp(kvp)
        at = "any tube voltage" if known is None else f"{known:g} kV"
        raise CalibrationImpossible(
            "calibration_slope_off",
            f"the slope is {hu_per_mg:.2f} HU per mg/cm3 {equivalent}; "
            f"at {at} it is {lowest:.2f} to {highest:.2f}",
        )
