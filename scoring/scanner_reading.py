"""What a calibration phantom read in one series, and which readings may be held against one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from scoring.calibration_types import Calibration, Mineral
from scoring.scan_technique import ScanTechnique, TechniqueTolerance, technique_differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What must be equal for two phantom readings to be comparable, beside their technique."""

    device_serial: str  # makers number each for themselves: of one scanner only with its model
    kvp: float
    kernel: str
    phantom: str  # its model; "" where none could be told
    phantom_serial: str  # "" where it is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannerReading:
    """What the phantom read in one series or single slice. Nothing in it tells who was scanned.

    A reading that failed a check is kept as well, with the line that its rods give as far as they give one.
    """

    protocol: Protocol
    model: str  # of the scanner
    taken_on: date
    slope: float | None  # mg/cm3 of `equivalent` per HU; None where the rods give no line
    intercept: float | None  # mg/cm3 of `equivalent`
    water_hu: float | None  # of the water rod; without one, the HU at which the line gives no mineral
    r2: float | None  # None for two rods
    tilt_degrees: float | None  # of the rods against the slice normal
    taken_at: str = ""  # HHMMSS[.ffffff] by the scanner's clock, "" where it is not stated
    technique: ScanTechnique | None = None  # None in what was kept before it was asked for
    calibration: Calibration | None = None  # that may be lent; None where anything is said against it
    equivalent: Mineral | None = None  # None in what was kept before it was asked for
    findings: tuple[str, ...] = ()  # codes of what is said against it; () where it passed every check
    failed: bool = False  # whether they forbid a density
    alone: bool = False  # no patient in the beam
    first_kept_at_s: float = field(default=0.0, compare=False)  # UNIX time at which its series was first kept

    @property
    def charted(self) -> bool:
        """Whether its numbers count in control charts."""
        return not self.failed and self.slope is not None and self.water_hu is not None

    @property
    def order(self) -> tuple[date, str]:
        """By which readings are sorted, oldest first."""
        return self.taken_on, self.taken_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingGroup:
    """Readings that may be held against one another, oldest first; at least one."""

    readings: tuple[ScannerReading, ...]

    @property
    def protocol(self) -> Protocol:
        return self.readings[0].protocol

    @property
    def measure(self) -> ScannerReading:
        """By which it was told what belongs to the group: that which was kept first."""
        return min(self.readings, key=_arrival)

    @property
    def latest(self) -> ScannerReading:
        return self.readings[-1]

    @property
    def charted(self) -> tuple[ScannerReading, ...]:
        return tuple(one for one in self.readings if one.charted)


def comparable_groups(
    readings: Sequence[ScannerReading], tolerance: TechniqueTolerance
) -> tuple[ReadingGroup, ...]:
    """Readings by protocol, technique and whether a patient lay on the phantom.

    Table height and field of view have no natural steps: the reading of a group that was kept first is its
    measure, and whatever lies within the tolerance of it belongs to the group. So one that comes late,
    however long ago it was taken, parts no readings that were together before: a drift stays seen.

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
    return tuple(sorted(made, key=lambda group: _protocol_key(group.protocol)))


def made_alike(one: ScannerReading, other: ScannerReading, tolerance: TechniqueTolerance) -> bool:
    """Whether both are of one scanner and protocol and a technique within tolerance.

    Patients do not count here.
    """
    if (one.protocol, one.model) != (other.protocol, other.model):
        return False
    if one.technique is None or other.technique is None:
        return one.technique is other.technique
    return not technique_differences(one.technique, other.technique, tolerance)


def _arrival(reading: ScannerReading) -> tuple[float, date, str]:
    """By which readings are put into groups; of those kept at once the oldest comes first."""
    return reading.first_kept_at_s, *reading.order


def _belongs(one: ScannerReading, measure: ScannerReading, tolerance: TechniqueTolerance) -> bool:
    return one.alone == measure.alone and made_alike(measure, one, tolerance)


def _protocol_key(protocol: Protocol) -> tuple[str, float, str, str, str]:
    return (
        protocol.device_serial,
        protocol.kvp,
        protocol.kernel,
        protocol.phantom,
        protocol.phantom_serial,
    )
