"""What page, alerts and metrics read from: settings, store, probes, readiness checks, the latest result.

The operator must act on an alert; its thresholds are settings, [alerts]. The patient's identity is dropped
when a result is read, so that no template can show it. Scores that depend on a reference population or a
model are shown only on the report's own pages, with their limitations.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import ValidationError

from config.findings import gravest_first
from config.sections import AlertSettings
from config.settings import Settings, command_line
from node.pipeline.artefacts import RESULT
from node.pipeline.policy import in_words
from node.pipeline.ports import Step
from node.result_document import FindingEntry, ResultDocument, read_result
from node.store.errors import NoSuchArtefact
from node.store.overview import DestinationStatus, NodeCounts, StudyDetail
from node.store.states import QuarantineKind, StudyState, WorkerState
from node.store.store import Store
from node.store.workers import PUBLISHING, ServiceStatus, WorkerStatus
from segmentation.vertebrae import RegionKind

# Without these nothing can be received. Without the others studies wait, or are reported with less.
NEEDED_TO_RECEIVE = frozenset({"database", "disk", "listener"})

Probe = Callable[[], str]
"""Tries one part of the node: gives what it found in a few words, or raises `NotReady`."""


class NotReady(Exception):
    """A part that the node needs does not work now; the message gives the reason, without patient data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one readiness check.

    Attributes
    ----------
    name : of the part.
    detail : what the check found, or why the part does not work.
    """

    name: str
    ok: bool
    detail: str

    @property
    def stops_reception(self) -> bool:
        return not self.ok and self.name in NEEDED_TO_RECEIVE


def try_all(probes: Mapping[str, Probe]) -> Sequence[Check]:
    """Run every probe.

    Returns
    -------
    One check for each probe, in their order.
    """
    return tuple(_try(name, probe) for name, probe in probes.items())


def _try(name: str, probe: Probe) -> Check:
    try:
        return Check(name=name, ok=True, detail=probe())
    except NotReady as reason:
        return Check(name=name, ok=False, detail=str(reason))


_LOW_DISK_BYTES = 5 * 1024**3  # a few dozen studies
_NEARLY_FULL = 0.9  # of the room in quarantine for what was acknowledged


class AlertSeverity(StrEnum):
    """What happens if nobody comes."""

    URGENT = "urgent"  # studies are not received, not measured, or their results do not arrive
    ATTENTION = "attention"  # some study waits for a person, or something will fail soon


class AlertCode(StrEnum):
    """Codes of all alerts. docs/operation.md says what to do about each."""

    DATABASE_NOT_READY = "database_not_ready"
    DISK_NOT_READY = "disk_not_ready"
    LISTENER_NOT_READY = "listener_not_ready"
    BROKER_NOT_READY = "broker_not_ready"
    ENGINE_NOT_READY = "engine_not_ready"
    STORAGE_UNREADABLE = "storage_unreadable"
    NOTHING_PUBLISHED = "nothing_published"
    NO_WORKER = "no_worker"
    WORK_LATE = "work_late"
    WORK_PILES_UP = "work_piles_up"
    DESTINATION_AWAY = "destination_away"
    CERTIFICATE_EXPIRED = "certificate_expired"
    MODEL_NOT_READY = "model_not_ready"
    FEATURES_NOT_READY = "features_not_ready"
    DISK_LOW = "disk_low"
    CERTIFICATE_EXPIRES = "certificate_expires"
    DELIVERY_STUCK = "delivery_stuck"
    THREAD_SILENT = "thread_silent"
    PROCESS_DIED = "process_died"
    WORKER_SILENT = "worker_silent"
    WORKER_REFUSES = "worker_refuses"
    WORKER_DIFFERS = "worker_differs"
    STUDY_SET_ASIDE = "study_set_aside"
    STUDY_UNDELIVERED = "study_undelivered"
    IDENTITY_WAITS = "identity_waits"
    IMAGES_REMOVED = "images_removed"
    QUARANTINE_FULL = "quarantine_full"
    OTHER_CONTENT = "other_content"
    UNDECODABLE = "undecodable"


SEVERITIES: Mapping[AlertCode, AlertSeverity] = {
    code: AlertSeverity.URGENT
    if code
    in {
        AlertCode.DATABASE_NOT_READY,
        AlertCode.DISK_NOT_READY,
        AlertCode.LISTENER_NOT_READY,
        AlertCode.BROKER_NOT_READY,
        AlertCode.ENGINE_NOT_READY,
        AlertCode.STORAGE_UNREADABLE,
        AlertCode.NOTHING_PUBLISHED,
        AlertCode.NO_WORKER,
        AlertCode.WORK_LATE,
        AlertCode.WORK_PILES_UP,
        AlertCode.DESTINATION_AWAY,
        AlertCode.CERTIFICATE_EXPIRED,
    }
    else AlertSeverity.ATTENTION
    for code in AlertCode
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that the operator must act on.

    Attributes
    ----------
    since : UTC; None where it is not known.
    """

    code: AlertCode
    severity: AlertSeverity
    text: str
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSnapshot:
    """State of the store at one moment."""

    census: NodeCounts
    destinations: Sequence[DestinationStatus]
    workers: Sequence[WorkerStatus]
    parts: Sequence[ServiceStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known without the database.

    Attributes
    ----------
    free_bytes : under the storage root; None where that cannot be read.
    certificate_ends : expiry of the node's own certificate, UTC; None without TLS.
    """

    checks: Sequence[Check]
    free_bytes: int | None
    certificate_ends: datetime | None


def alerts(
    surroundings: Surroundings, standing: StoreSnapshot | None, rules: AlertSettings, now: datetime
) -> tuple[Alert, ...]:
    """Alerts, the urgent first; empty where there is nothing to do.

    Parameters
    ----------
    standing : None where the database does not answer; its check reports that.
    rules : thresholds.
    now : UTC.
    """
    found = [*_of_surroundings(surroundings, rules, now)]
    if standing is not None:
        found += _of_work(standing, rules, now)
        found += _of_destinations(standing.destinations, rules, now)
        found += _of_parts(standing.parts, rules, now)
        found += _of_workers(standing.workers, now)
        found += _of_studies(standing.census)
    order = list(AlertCode)
    return tuple(sorted(found, key=lambda one: order.index(one.code)))


def _alert(code: AlertCode, text: str, since: datetime | None = None) -> Alert:
    return Alert(code=code, severity=SEVERITIES[code], text=text, since=since)


def _of_surroundings(seen: Surroundings, rules: AlertSettings, now: datetime) -> Iterator[Alert]:
    for check in seen.checks:
        if not check.ok:
            text = f"The {check.name} is not ready: {check.detail}."
            yield _alert(AlertCode(f"{check.name}_not_ready"), text)
    if seen.free_bytes is None:
        yield _alert(AlertCode.STORAGE_UNREADABLE, "The storage folder cannot be read.")
    elif seen.free_bytes < _LOW_DISK_BYTES:
        text = f"Only {size(seen.free_bytes)} are free under the storage folder."
        yield _alert(AlertCode.DISK_LOW, text)
    if seen.certificate_ends is not None:
        left = seen.certificate_ends - now
        day = f"{seen.certificate_ends:%Y-%m-%d %H:%M} UTC"
        if left <= timedelta(0):
            text = f"The node's TLS certificate expired on {day}: peers refuse it. Install a new one."
            yield _alert(AlertCode.CERTIFICATE_EXPIRED, text, seen.certificate_ends)
        elif left <= timedelta(days=rules.certificate_days):
            text = f"The node's TLS certificate expires on {day}, in {duration(left.total_seconds())}."
            yield _alert(AlertCode.CERTIFICATE_EXPIRES, text)


def _of_work(standing: StoreSnapshot, rules: AlertSettings, now: datetime) -> Iterator[Alert]:
    census = standing.census
    for part in standing.parts:
        if part.name == PUBLISHING and not part.has_ended and part.heard_s > rules.publish_silence_s:
            yield _alert(
                AlertCode.NOTHING_PUBLISHED,
                f"No study was closed and no work published for {duration(part.heard_s)}: "
                f"the process {PUBLISHING} has not completed a cycle.",
                _ago(now, part.heard_s),
            )
    served = {
        queue for one in standing.workers if one.state is WorkerState.WORKING for queue in one.worker.queues
    }
    if lacking := [step for step in Step if step not in served]:
        steps = (
            "any step"
            if len(lacking) == len(Step)
            else f"the step{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
        )
        yield _alert(AlertCode.NO_WORKER, f"No worker runs {steps}.")
    if census.oldest_due_s > rules.due_s:
        yield _alert(
            AlertCode.WORK_LATE,
            f"Work has been waiting for a worker for {duration(census.oldest_due_s)}.",
            _ago(now, census.oldest_due_s),
        )
    if census.due > rules.due_jobs:
        text = (
            f"{count(census.due, 'step waits', 'steps wait')} for a worker: more arrive than are processed."
        )
        yield _alert(AlertCode.WORK_PILES_UP, text)


def _of_destinations(
    destinations: Sequence[DestinationStatus], rules: AlertSettings, now: datetime
) -> Iterator[Alert]:
    for one in destinations:
        if one.waiting_s is None or one.waiting_s < rules.destination_away_s:
            continue
        last = in_words(one.last_status) if one.last_status is not None else one.last_detail or "no answer"
        pending = count(one.pending, "object is", "objects are")
        silent_s = one.waiting_s if one.taken_s is None else min(one.waiting_s, one.taken_s)
        if silent_s >= rules.destination_away_s:
            yield _alert(
                AlertCode.DESTINATION_AWAY,
                f"{one.name} has accepted nothing for {duration(silent_s)}: {pending} pending; "
                f"the last attempt ended with: {last}.",
                _ago(now, silent_s),
            )
        else:
            yield _alert(
                AlertCode.DELIVERY_STUCK,
                f"{one.name} accepts results, but not all: {pending} pending, one of them "
                f"for {duration(one.waiting_s)}.",
                _ago(now, one.waiting_s),
            )


def _of_parts(parts: Sequence[ServiceStatus], rules: AlertSettings, now: datetime) -> Iterator[Alert]:
    for part in parts:
        if (
            part.beats
            and part.name != PUBLISHING
            and not part.has_ended
            and part.heard_s > rules.thread_silence_s
        ):
            text = f"{part.name} has not completed a cycle for {duration(part.heard_s)}."
            yield _alert(AlertCode.THREAD_SILENT, text, _ago(now, part.heard_s))
        if part.died_s is not None and part.died_s < rules.died_s:
            times = "" if part.deaths == 1 else f" {part.deaths} times, last"
            yield _alert(
                AlertCode.PROCESS_DIED,
                f"The process {part.name} ended unexpectedly{times} {duration(part.died_s)} ago, "
                "and was restarted.",
                _ago(now, part.died_s),
            )


def _of_workers(workers: Sequence[WorkerStatus], now: datetime) -> Iterator[Alert]:
    for one in workers:
        name = f"The worker on {one.worker.host} (process {one.worker.pid}, {', '.join(one.worker.queues)})"
        if one.state is WorkerState.SILENT:
            text = f"{name} stopped reporting {duration(one.heard_s)} ago without being stopped."
            yield _alert(AlertCode.WORKER_SILENT, text, _ago(now, one.heard_s))
        elif one.state is WorkerState.REFUSING:
            yield _alert(AlertCode.WORKER_REFUSES, f"{name} takes no work: {one.problem}.")
        elif one.differs and one.state is WorkerState.WORKING:
            yield _alert(AlertCode.WORKER_DIFFERS, f"{name} has {one.differs} than most workers.")


def _of_studies(census: NodeCounts) -> Iterator[Alert]:
    if number := census.studies[StudyState.SET_ASIDE]:
        studies = count(number, "study is set aside and needs", "studies are set aside and need")
        yield _alert(AlertCode.STUDY_SET_ASIDE, f"{studies} a decision.")
    if number := census.studies[StudyState.UNDELIVERED]:
        studies = count(number, "study has", "studies have")
        text = f"{studies} results that a destination did not accept or confirm."
        yield _alert(AlertCode.STUDY_UNDELIVERED, text)
    if number := census.quarantined[QuarantineKind.IDENTITY]:
        yield _alert(
            AlertCode.IDENTITY_WAITS,
            f"{count(number, 'image', 'images')} arrived again under another identity: "
            "the page of each study gives the command that shows the difference and decides.",
        )
    if number := census.waiting_for_purged:
        yield _alert(
            AlertCode.IMAGES_REMOVED,
            f"{count(number, 'study', 'studies')} received images after retention had removed the others: "
            "send the whole study again.",
        )
    if census.quarantine_share >= _NEARLY_FULL:
        yield _alert(
            AlertCode.QUARANTINE_FULL,
            f"Quarantine is {100 * census.quarantine_share:.0f} % full. Beyond its limits, images of other "
            "content or identity under a known UID are refused. "
            f"`{command_line('studies', 'quarantine')}` lists it.",
        )
    if number := census.quarantined[QuarantineKind.CONTENT]:
        yield _alert(
            AlertCode.OTHER_CONTENT,
            f"{count(number, 'instance is', 'instances are')} in quarantine: "
            "other content arrived under a known UID.",
        )
    if number := census.quarantined[QuarantineKind.UNDECODABLE]:
        text = f"{count(number, 'received file', 'received files')} could not be decoded."
        yield _alert(AlertCode.UNDECODABLE, text)


def _ago(now: datetime, seconds: float) -> datetime:
    return (now - timedelta(seconds=seconds)).astimezone(UTC)


# Numbers in the alerts and on the page.


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system under the storage root."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Bound by node.processes.

    Attributes
    ----------
    settings : with real ports where 0 was asked for.
    engine : the segmentation engine in words, as the workers settled it: without one there is no page.
    probes : by the name of what each tries.
    certificate_ends : when the node's own TLS certificate expires; None without TLS.
    """

    settings: Settings
    store: Store
    engine: str
    probes: Mapping[str, Probe]
    certificate_ends: Callable[[], datetime | None] = lambda: None

    def checks(self) -> Sequence[Check]:
        """Check of every part that a study needs, in the order of `probes`; the engine last."""
        return (*try_all(self.probes), Check(name="engine", ok=True, detail=self.engine))

    def disk(self) -> Disk | None:
        """Size and free space of the file system.

        Returns
        -------
        None where the storage root cannot be read.
        """
        try:
            usage = shutil.disk_usage(self.store.files.root)
        except OSError:
            return None
        return Disk(free_bytes=usage.free, total_bytes=usage.total)

    def standing(self) -> StoreSnapshot:
        """State of the store now.

        Raises
        ------
        StoreError
            If the database cannot be used.
        """
        store = self.store
        return StoreSnapshot(
            census=store.census.take(),
            destinations=store.census.destinations(),
            workers=store.workers.list(),
            parts=store.parts.list(),
        )

    def alerts(self, checks: Sequence[Check], standing: StoreSnapshot | None) -> Sequence[Alert]:
        """Alerts, the urgent first.

        Parameters
        ----------
        standing : None where the database does not answer.
        """
        disk = self.disk()
        return alerts(
            Surroundings(
                checks=checks,
                free_bytes=None if disk is None else disk.free_bytes,
                certificate_ends=self.certificate_ends(),
            ),
            standing,
            self.settings.alerts,
            datetime.now(UTC),
        )


# Written by the report step. Names given by a browser are looked up here and go no further.
PICTURES: Mapping[str, str] = {
    "nomogram.png": "Nomogram or refusal",
    "overlay.png": "Region of interest on the images",
    "calibration.png": "Calibration: rods, line and image",
}
_REGIONS = {RegionKind.CORE: "cancellous core", RegionKind.ELLIPSE: "mid-body ellipse"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestResult:
    """The result of the latest generation that has one.

    Attributes
    ----------
    result : without identity; None where it is gone, altered, or of another shape.
    pictures : of `PICTURES`, those that this generation has.
    """

    generation: int
    result: ResultDocument | None
    pictures: tuple[str, ...]

    @property
    def findings(self) -> list[FindingEntry]:
        """Findings, the most serious first."""
        return gravest_first(self.result.findings) if self.result else []

    @property
    def region(self) -> str | None:
        """Region in which the levels' densities are read, in words."""
        region = self.result.region if self.result else None
        return None if region is None else _REGIONS[region]


def latest_result(store: Store, detail: StudyDetail) -> LatestResult | None:
    """Result of the latest generation that has one.

    Returns
    -------
    None before the first report.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    kept = [row for row in detail.artefacts if row.removed_at is None]
    generations = [row.generation for row in kept if row.name == RESULT]
    if not generations:
        return None
    generation = max(generations)
    names = {row.name for row in kept if row.generation == generation}
    return LatestResult(
        generation=generation,
        result=_read(store, detail.summary.study_instance_uid, generation),
        pictures=tuple(name for name in PICTURES if name in names),
    )


def _read(store: Store, study_instance_uid: str, generation: int) -> ResultDocument | None:
    try:
        return read_result(store.artefacts.get(study_instance_uid, generation, RESULT)).without_identity()
    except (NoSuchArtefact, ValidationError):
        return None


def latest_picture(store: Store, study_instance_uid: str, name: str) -> bytes:
    """One of `PICTURES`, as PNG, of the generation that `latest_result` shows.

    Raises
    ------
    NoSuchStudy, NoSuchArtefact, StoreUnavailable
    """
    if name not in PICTURES:
        raise NoSuchArtefact("no such picture")
    detail = store.overview.show(study_instance_uid)
    kept = [row for row in detail.artefacts if row.removed_at is None]
    generations = [row.generation for row in kept if row.name == RESULT]
    if not generations:
        raise NoSuchArtefact("no result yet")
    return store.artefacts.get(study_instance_uid, max(generations), name)
