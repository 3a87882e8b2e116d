"""Formats of values on the page: short, with units, and never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jinja2 import Environment, PackageLoader, StrictUndefined

from config.sections import Destination
from config.settings import command_line
from node.pipeline.policy import in_words
from node.store.overview import DeliveryRow, DestinationStatus, StudySummary
from node.store.states import DeliveryState, JobState, Proof, QuarantineKind, StudyState, WorkerState
from node.study_report import ClosedBy

_LONG_UID_CHARACTERS = 26


class Tone(StrEnum):
    """What a state means to the operator. Each has a colour and a sign of its own."""

    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"
    QUIET = "quiet"


_TONES: dict[str, Tone] = {
    StudyState.RECEIVING: Tone.BUSY,
    StudyState.PROCESSING: Tone.BUSY,
    StudyState.NOT_APPLICABLE: Tone.QUIET,
    StudyState.REPORTED: Tone.GOOD,
    StudyState.DELIVERED: Tone.GOOD,
    StudyState.SENT: Tone.GOOD,
    StudyState.UNDELIVERED: Tone.BAD,
    StudyState.SET_ASIDE: Tone.BAD,  # of jobs, too
    JobState.WAITING: Tone.BUSY,
    JobState.RUNNING: Tone.BUSY,
    JobState.FINISHED: Tone.GOOD,
    JobState.SUPERSEDED: Tone.QUIET,
    DeliveryState.PENDING: Tone.BUSY,
    DeliveryState.COMMITTED: Tone.GOOD,
    DeliveryState.FOUND: Tone.GOOD,
    DeliveryState.FAILED: Tone.BAD,
    QuarantineKind.IDENTITY: Tone.BAD,
    QuarantineKind.CONTENT: Tone.BAD,
    QuarantineKind.UNDECODABLE: Tone.BAD,
    QuarantineKind.REJECTED: Tone.QUIET,
    QuarantineKind.REPLACED: Tone.QUIET,
    WorkerState.WORKING: Tone.GOOD,
    WorkerState.REFUSING: Tone.BAD,
    WorkerState.SILENT: Tone.BAD,
    WorkerState.ENDED: Tone.QUIET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationLine:
    """One row of the table of destinations. Empty strings and None where nothing is known.

    Attributes
    ----------
    standing : None where nothing was ever scheduled for it.
    """

    name: str
    ae_title: str
    address: str
    standing: DestinationStatus | None
    configured: bool


def destination_lines(
    configured: Sequence[Destination], standings: Sequence[DestinationStatus]
) -> tuple[DestinationLine, ...]:
    """Rows of the destinations: configured ones in their order, then those with earlier deliveries only."""
    past = {standing.name: standing for standing in standings}
    lines = [
        DestinationLine(
            name=one.name,
            ae_title=one.ae_title,
            address=f"{one.host}:{one.port}",
            standing=past.pop(one.name, None),
            configured=True,
        )
        for one in configured
    ]
    lines += [
        DestinationLine(name=name, ae_title="", address="", standing=standing, configured=False)
        for name, standing in past.items()
    ]
    return tuple(lines)


def why(study: StudySummary) -> str:
    """Reason for a study's state."""
    arriving = "images may still arrive" if study.state == StudyState.RECEIVING else ""
    return study.last_error or study.reason or arriving


_CLOSED_BY = {
    ClosedBy.COUNTS.value: "image counts of an archive",
    ClosedBy.GEOMETRY.value: "complete slice geometry and a short quiet time",
    ClosedBy.QUIET.value: "quiet time only",
    ClosedBy.INCOMPLETE.value: "timeout: archived images did not arrive",
}


def whole_by(code: str) -> str:
    """Evidence that a study was complete."""
    return _CLOSED_BY.get(code, "not recorded")


def tone(state: str) -> Tone:
    return _TONES[state]


def short_uid(uid: str) -> str:
    """Both ends of a long UID: the beginning names its creator, the end distinguishes it from others."""
    return uid if len(uid) <= _LONG_UID_CHARACTERS else f"{uid[:10]}…{uid[-10:]}"


def at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def size(number_bytes: int) -> str:
    for unit, factor in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if number_bytes >= factor:
            return f"{number_bytes / factor:.1f} {unit}"
    return f"{number_bytes} B"


def duration(seconds: float) -> str:
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def unproven(delivery: DeliveryRow) -> str:
    """Of an object that a destination has not been shown to hold: whether that is still to come."""
    if delivery.state != DeliveryState.SENT:
        return ""
    return "by status only" if delivery.proof == Proof.STATUS else "awaited"


def dimse(status: int | None) -> str:
    return "" if status is None else in_words(status)


def make_environment() -> Environment:
    """Templates that escape everything, and fail on an undefined name."""
    environment = Environment(
        loader=PackageLoader("node.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "why": why,
            "tone": tone,
            "short_uid": short_uid,
            "at": at,
            "size": size,
            "dimse": dimse,
            "unproven": unproven,
            "whole_by": whole_by,
            "duration": duration,
        }
    )
    environment.globals["command_line"] = command_line
    return environment
