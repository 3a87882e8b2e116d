"""The two-point calibration of Xie et al. 2022."""

from __future__ import annotations

from collections.abc import Sequence

from scoring.calibration_types import Calibration, FitRules, Mineral, RodReading, line_uncertainty
from scoring.errors import CalibrationImpossible
from scoring.slope_range import require_slope

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
            "rod_order",
            f"{mineral.name} reads {mineral.hu_mean:.1f} HU, {water.name} {water.hu_mean:.1f} HU",
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
