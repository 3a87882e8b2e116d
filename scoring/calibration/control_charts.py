"""Drift of a scanner: groups of comparable phantom readings, and their control charts.

A Shewhart chart detects a sudden jump, a tabular CUSUM a slow or small shift. Both compare later readings
with the mean and SD of the first ones, the baseline.

Sources: E. S. Page, Continuous inspection schemes, Biometrika 41 (1954) 100-115; D. C. Montgomery,
Introduction to Statistical Quality Control (tabular CUSUM; with k = 0.5 and h = 5 one false alarm in about
465 readings).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from datetime import date
from enum import StrEnum
from statistics import fmean, stdev

from scoring.calibration import Calibration, Mineral
from scoring.calibration.spectrum import ScanTechnique, technique_differences
from scoring.settings import ChartSettings, PriorScanSettings
from segmentation.phrase import phrase
from segmentation.vertebrae import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What must be equal for two phantom readings to be comparable, beside their technique.

    Attributes
    ----------
    device_serial : unique only together with the scanner's model.
    phantom : the phantom's model; "" where it is unknown.
    phantom_serial : "" where it is unknown.
    """

    device_serial: str
    kvp: float
    kernel: str
    phantom: str
    phantom_serial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannerReading:
    """Reading of the phantom in one series or single slice, without the patient's identity.

    A reading that failed a check is kept too, with the line of its rods as far as they give one.

    Attributes
    ----------
    model : the scanner's model.
    slope : in mg/cm3 of `equivalent` per HU; None where the rods give no line.
    intercept : in mg/cm3 of `equivalent`.
    water_hu : HU of the water rod; without one, the HU at which the line gives 0 mg/cm3.
    r2 : None for two rods.
    tilt_degrees : of the rods against the slice normal.
    taken_at : HHMMSS[.ffffff] by the scanner's clock, "" where it is not stated.
    technique : None in readings kept by versions that did not record it.
    calibration : may calibrate later studies; None where any check failed.
    equivalent : None in readings kept by versions that did not record it.
    findings : codes of the findings against the reading; () where it passed every check.
    failed : whether these findings forbid a density.
    alone : whether the phantom was scanned without a patient.
    first_kept_at_s : UNIX time at which the series was first stored.
    """

    protocol: Protocol
    model: str
    taken_on: date
    slope: float | None
    intercept: float | None
    water_hu: float | None
    r2: float | None
    tilt_degrees: float | None
    taken_at: str = ""
    technique: ScanTechnique | None = None
    calibration: Calibration | None = None
    equivalent: Mineral | None = None
    findings: tuple[str, ...] = ()
    failed: bool = False
    alone: bool = False
    first_kept_at_s: float = field(default=0.0, compare=False)

    @property
    def charted(self) -> bool:
        """Whether its numbers count in control charts."""
        return not self.failed and self.slope is not None and self.water_hu is not None

    @property
    def order(self) -> tuple[date, str]:
        """Sort key: oldest first."""
        return self.taken_on, self.taken_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingGroup:
    """Comparable readings, oldest first; at least one."""

    readings: tuple[ScannerReading, ...]

    @property
    def protocol(self) -> Protocol:
        return self.readings[0].protocol

    @property
    def reference(self) -> ScannerReading:
        """The reading that was stored first, by which membership of the group is decided."""
        return min(self.readings, key=_arrival)

    @property
    def latest(self) -> ScannerReading:
        return self.readings[-1]

    @property
    def charted(self) -> tuple[ScannerReading, ...]:
        return tuple(one for one in self.readings if one.charted)


def comparable_groups(
    readings: Sequence[ScannerReading], tolerance: PriorScanSettings
) -> tuple[ReadingGroup, ...]:
    """Readings grouped by protocol, technique, and whether a patient lay on the phantom.

    Table height and field of view have no natural steps: a reading belongs to the group from whose first
    stored reading it differs by no more than the tolerance. A late arrival, whenever it was taken, therefore
    separates no readings that belonged together: a drift remains visible.

    Parameters
    ----------
    readings : of any scanners, in any order.
    """
    groups: list[list[ScannerReading]] = []
    for one in sorted(readings, key=_arrival):
        home = next((group for group in groups if _belongs(one, group[0], tolerance)), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    made = [
        ReadingGroup(readings=tuple(sorted(group, key=lambda reading: reading.order))) for group in groups
    ]
    return tuple(sorted(made, key=lambda group: astuple(group.protocol)))


def same_technique(one: ScannerReading, other: ScannerReading, tolerance: PriorScanSettings) -> bool:
    """Whether two readings have one scanner, one protocol, and techniques within tolerance.

    Patients do not matter here. Two readings without a technique are alike.
    """
    if (one.protocol, one.model) != (other.protocol, other.model):
        return False
    if one.technique is None or other.technique is None:
        return one.technique is other.technique
    return not technique_differences(one.technique, other.technique, tolerance)


def _arrival(reading: ScannerReading) -> tuple[float, date, str]:
    """Order of grouping; of readings stored together the oldest comes first."""
    return reading.first_kept_at_s, *reading.order


def _belongs(one: ScannerReading, measure: ScannerReading, tolerance: PriorScanSettings) -> bool:
    return one.alone == measure.alone and same_technique(measure, one, tolerance)


class Signal(StrEnum):
    """Why a reading is out of control."""

    HIGH = "above its limit"
    LOW = "below its limit"
    RISING = "shifted upwards (CUSUM)"
    FALLING = "shifted downwards (CUSUM)"


SIGNALS = {
    Signal.HIGH: phrase("signal-above"),
    Signal.LOW: phrase("signal-below"),
    Signal.RISING: phrase("signal-upwards"),
    Signal.FALLING: phrase("signal-downwards"),
}
QUANTITIES = {"slope": phrase("slope"), "water": phrase("water")}  # of the charts


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPoint:
    """One reading on its chart.

    Attributes
    ----------
    upper_sum : upper CUSUM in sigmas; 0 within the baseline.
    lower_sum : lower CUSUM in sigmas; 0 within the baseline.
    signal : None where the reading is in control or part of the baseline.
    """

    value: float
    upper_sum: float
    lower_sum: float
    signal: Signal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChart:
    """Readings of one quantity under one protocol, oldest first.

    Attributes
    ----------
    mean : of the baseline.
    sigma : of the baseline.
    """

    quantity: str
    unit: str
    mean: float
    sigma: float
    baseline_readings: int
    rules: ChartSettings
    points: tuple[ChartPoint, ...]

    @property
    def signal(self) -> Signal | None:
        """Of the latest reading."""
        return self.points[-1].signal


def control_chart(
    quantity: str, unit: str, values: Sequence[float], rules: ChartSettings, *, minimum_sigma: float
) -> ControlChart | None:
    """The chart of some readings; None while there are fewer than a baseline.

    Parameters
    ----------
    values : oldest first.
    minimum_sigma : replaces a smaller SD of the baseline, which few similar readings may have.
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


def _signal(z: float, upper: float, lower: float, rules: ChartSettings) -> Signal | None:
    if z > rules.limit_sigmas:
        return Signal.HIGH
    if z < -rules.limit_sigmas:
        return Signal.LOW
    if upper > rules.cusum_h:
        return Signal.RISING
    return Signal.FALLING if lower > rules.cusum_h else None


def scanner_charts(readings: Sequence[ScannerReading], rules: ChartSettings) -> tuple[ControlChart, ...]:
    """Charts of slope and water of comparable readings; empty while there is no baseline.

    A reading that failed a check has no point. What made it fail, such as a tilted phantom, is often no fault
    of the scanner, and would widen the limits in a baseline. It is listed beside the chart.

    Parameters
    ----------
    readings : of one group (`comparable_groups`), oldest first.
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
    """Unit of the slope, with the mineral where all readings have the same."""
    minerals = sorted({one.equivalent.value for one in readings if one.equivalent is not None})
    return " ".join(["mg/cm3", *minerals, "per HU"]) if len(minerals) == 1 else "mg/cm3 per HU"


def drift_observations(readings: Sequence[ScannerReading], rules: ChartSettings) -> tuple[Observation, ...]:
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
                "quantity": QUANTITIES[chart.quantity],
                "signal": SIGNALS[chart.signal] if chart.signal else "",
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
