"""Whether a scanner drifts: control charts of what a calibration phantom reads on it.

A Shewhart chart sees a sudden jump, a tabular CUSUM a slow or small shift. Both compare later readings with
the mean and SD of the first ones, the baseline.

Sources: E. S. Page, Continuous inspection schemes, Biometrika 41 (1954) 100-115; D. C. Montgomery,
Introduction to Statistical Quality Control (tabular CUSUM; with k = 0.5 and h = 5 one false alarm in about
465 readings).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev

from scoring.scanner_reading import ScannerReading
from segmentation.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRules:
    """When a reading is out of control. All are settings of a site (R, but k and h, which are usual)."""

    baseline_readings: int = 20
    limit_sigmas: float = 3.0  # Shewhart
    cusum_k: float = 0.5  # in sigmas: half the shift that is to be seen
    cusum_h: float = 5.0  # in sigmas
    minimum_slope_cv: float = (
        0.002  # repeated scans differ by 0.2 % (PMC5524691): a baseline's SD may be less
    )
    minimum_water_sd_hu: float = 0.5


class Signal(StrEnum):
    """Why a reading is out of control."""

    HIGH = "above its limit"
    LOW = "below its limit"
    RISING = "shifted upwards (CUSUM)"
    FALLING = "shifted downwards (CUSUM)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPoint:
    """One reading on its chart."""

    value: float
    upper_sum: float  # CUSUM, in sigmas; 0 within the baseline
    lower_sum: float
    signal: Signal | None  # None: in control, or part of the baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChart:
    """Readings of one quantity under one protocol, oldest first."""

    quantity: str
    unit: str
    mean: float  # of the baseline
    sigma: float
    baseline_readings: int
    rules: ChartRules
    points: tuple[ChartPoint, ...]

    @property
    def signal(self) -> Signal | None:
        """Of the latest reading."""
        return self.points[-1].signal


def control_chart(
    quantity: str, unit: str, values: Sequence[float], rules: ChartRules, *, minimum_sigma: float
) -> ControlChart | None:
    """The chart of some readings, None while they are fewer than a baseline.

    Parameters
    ----------
    values : oldest first.
    minimum_sigma : takes the place of a smaller SD of the baseline, which few alike readings may give.
    """
    count = rules.baseline_readings
    if len(values) < count:
        return None
    mean = fmean(values[:count])
    sigma = max(stdev(values[:count]), minimum_sigma)
    scaled = [(value - mean) / sigma for value in values[count:]]
    sums = cusum(scaled, k=rules.cusum_k)
    baseline = [
        ChartPoint(value=value, upper_sum=0.0, lower_sum=0.0, signal=None) for value in values[:count]
    ]
    later = [
        ChartPoint(value=value, upper_sum=upper, lower_sum=lower, signal=_signal(z, upper, lower, rules))
        for value, z, (upper, lower) in zip(values[count:], scaled, sums, strict=True)
    ]
    return ControlChart(
        quantity=quantity,
        unit=unit,
        mean=mean,
        sigma=sigma,
        baseline_readings=count,
        rules=rules,
        points=(*baseline, *later),
    )


def cusum(values: Sequence[float], *, k: float) -> tuple[tuple[float, float], ...]:
    """Tabular CUSUM about 0: ``S+ = max(0, S+ + x - k)`` and ``S- = max(0, S- - x - k)``, from 0.

    Parameters
    ----------
    values : deviations from the target; `k` in the same unit.
    """
    upper, lower = 0.0, 0.0
    sums = []
    for value in values:
        upper, lower = max(0.0, upper + value - k), max(0.0, lower - value - k)
        sums.append((upper, lower))
    return tuple(sums)


def _signal(z: float, upper: float, lower: float, rules: ChartRules) -> Signal | None:
    if z > rules.limit_sigmas:
        return Signal.HIGH
    if z < -rules.limit_sigmas:
        return Signal.LOW
    if upper > rules.cusum_h:
        return Signal.RISING
    return Signal.FALLING if lower > rules.cusum_h else None


def scanner_charts(readings: Sequence[ScannerReading], rules: ChartRules) -> tuple[ControlChart, ...]:
    """Slope and water of comparable readings; none while there is no baseline.

    A reading that failed a check has no point: what made it fail, a tilted phantom for one, is often no
    matter of the scanner, and in a baseline it would widen the limits. It is told beside the chart.

    Parameters
    ----------
    readings : of one group (`scoring.scanner_reading.comparable_groups`), oldest first.
    """
    charted = [one for one in readings if one.charted]
    slopes = [one.slope for one in charted if one.slope is not None]
    water = [one.water_hu for one in charted if one.water_hu is not None]
    count = rules.baseline_readings
    smallest = rules.minimum_slope_cv * abs(fmean(slopes[:count])) if slopes else 0.0
    charts = (
        control_chart("slope", slope_unit(charted), slopes, rules, minimum_sigma=smallest),
        control_chart("water", "HU", water, rules, minimum_sigma=rules.minimum_water_sd_hu),
    )
    return tuple(chart for chart in charts if chart is not None)


def slope_unit(readings: Sequence[ScannerReading]) -> str:
    """With the mineral, as far as the readings tell one: HA and K2HPO4 are different quantities."""
    minerals = sorted({one.equivalent.value for one in readings if one.equivalent is not None})
    return " ".join(["mg/cm3", *minerals, "per HU"]) if len(minerals) == 1 else "mg/cm3 per HU"


def drift_observations(readings: Sequence[ScannerReading], rules: ChartRules) -> tuple[Observation, ...]:
    """`scanner_drift` for each quantity whose latest charted reading is out of control.

    Parameters
    ----------
    readings : of one group, oldest first.
    """
    charts = [chart for chart in scanner_charts(readings, rules) if chart.signal is not None]
    if not charts:
        return ()
    latest = [one for one in readings if one.charted][-1]
    return tuple(
        Observation(
            code="scanner_drift",
            values={
                "quantity": chart.quantity,
                "signal": chart.signal.value if chart.signal else "",
                "value": f"{chart.points[-1].value:.4g}",
                "mean": f"{chart.mean:.4g}",
                "sigma": f"{chart.sigma:.2g}",
                "unit": chart.unit,
                "kvp": f"{latest.protocol.kvp:g}",
                "phantom": f"{latest.protocol.phantom} {latest.protocol.phantom_serial}".strip(),
                "date": str(latest.taken_on),
            },
        )
        for chart in charts
    )
