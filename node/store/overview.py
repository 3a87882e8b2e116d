"""Contents of the store for the command line, the operator's page and the metrics; read only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Function,
    Row,
    ScalarSelect,
    Select,
    alias,
    and_,
    case,
    func,
    select,
)

from node.store.database import Database, DatabaseRows, now_s
from node.store.errors import NoSuchStudy, StoreUnavailable
from node.store.jobs import is_due
from node.store.quarantine import QuarantineBounds, QuarantineLine, acknowledged, quarantine_lines
from node.store.schema import (
    artefacts,
    deliveries,
    instances,
    jobs,
    metadata,
    objects,
    quarantine,
    reports,
    studies,
)
from node.store.states import ARRIVED, CT_SOP_CLASSES, DeliveryState, JobState, QuarantineKind, StudyState
from node.store.study_lifecycle import lacks_purged_images


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One line of `osteonode studies list`. Times are UTC.

    Attributes
    ----------
    images : CT instances.
    others : anything else but the node's own objects.
    step : of the latest job.
    """

    study_instance_uid: str
    state: str
    reason: str
    generation: int
    images: int
    others: int
    last_received_at: datetime | None
    step: str | None
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    generation: int
    step: str
    state: str
    attempts: int
    not_before: datetime
    lease_owner: str | None
    last_error: str
    closed_by: str  # what showed that the study was whole: a ClosedBy, "" in older rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtefactRow:
    generation: int
    name: str
    step: str
    sha256: str
    size_bytes: int
    removed_at: datetime | None = None  # by retention


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    generation: int
    artefact: str
    sop_instance_uid: str
    destination: str
    state: str
    attempts: int
    status: int | None
    detail: str
    sent_at: datetime | None
    proof: str  # what shows that the destination holds it: a Proof, or "" while that is open
    proven_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    generation: int
    issued_at: datetime
    sop_instance_uid: str | None
    predecessor_uid: str | None
    predecessor_issued_at: datetime | None
    amendment_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDetail:
    """Content of `osteonode studies show`.

    Attributes
    ----------
    quarantined : files, of every kind.
    purged : received instances whose files retention removed.
    purged_at : the latest of them.
    results_removed_at : when retention removed artefacts, the latest of them.
    own_returned : objects made here that came back.
    """

    summary: StudySummary
    quarantined: int
    quarantine: tuple[QuarantineLine, ...]
    purged: int
    purged_at: datetime | None
    results_removed_at: datetime | None
    own_returned: int
    jobs: tuple[JobRow, ...]
    artefacts: tuple[ArtefactRow, ...]
    reports: tuple[ReportRow, ...]
    deliveries: tuple[DeliveryRow, ...]


class Overview(DatabaseRows):
    """Contents of the store, by Study Instance UID; the database names no patients."""

    def list(self, limit: int | None = None) -> Sequence[StudySummary]:
        """Studies, the latest first.

        Parameters
        ----------
        limit : at most so many; None for all.
        """
        chosen = select(studies).order_by(studies.c.created_at.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(_summaries(chosen)).all()
        return tuple(_summary(row) for row in rows)

    def show(self, study_instance_uid: str) -> StudyDetail:
        """One study with its jobs, artefacts, reports and deliveries.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        """
        with self._database.reading() as connection:
            chosen = select(studies).where(studies.c.study_instance_uid == study_instance_uid)
            row = connection.execute(_summaries(chosen)).first()
            if row is None:
                raise NoSuchStudy(study_instance_uid)
            lines = quarantine_lines(connection, study_instance_uid)
            purged = connection.execute(
                select(
                    func.count(instances.c.purged_at).label("files"),
                    func.max(instances.c.purged_at).label("latest_at"),
                ).where(instances.c.study_instance_uid == study_instance_uid)
            ).one()
            made = _artefacts(connection, study_instance_uid)
            return StudyDetail(
                summary=_summary(row),
                quarantined=sum(line.files for line in lines),
                quarantine=lines,
                purged=purged.files,
                purged_at=None if purged.latest_at is None else _utc(purged.latest_at),
                own_returned=connection.execute(
                    select(func.count())
                    .select_from(instances)
                    .where(instances.c.study_instance_uid == study_instance_uid, instances.c.own)
                ).scalar_one(),
                jobs=_jobs(connection, study_instance_uid),
                results_removed_at=max((one.removed_at for one in made if one.removed_at), default=None),
                artefacts=made,
                reports=_reports(connection, study_instance_uid),
                deliveries=_deliveries(connection, study_instance_uid),
            )

    def rows(self, study_instance_uid: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Rows of one study, by table, as they are stored; for the search for a fault.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        """
        of_study = {
            name: select(table).where(table.c.study_instance_uid == study_instance_uid)
            for name, table in metadata.tables.items()
            if "study_instance_uid" in table.c
        }
        of_study["deliveries"] = (
            select(deliveries)
            .join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
            .where(objects.c.study_instance_uid == study_instance_uid)
        )
        with self._database.reading() as connection:
            found = {
                name: tuple(dict(row) for row in connection.execute(wanted).mappings())
                for name, wanted in of_study.items()
            }
        if not found["studies"]:
            raise NoSuchStudy(study_instance_uid)
        return found


def _summaries(chosen: Select[Any]) -> Select[Any]:
    """The summaries of the chosen studies; rows of other studies are not read."""
    study = chosen.cte("chosen")
    ct = instances.c.sop_class_uid.in_(CT_SOP_CLASSES)

    def counted(which: ColumnElement[bool]) -> ScalarSelect[int]:
        mine = instances.c.study_instance_uid == study.c.study_instance_uid
        return select(func.count()).where(mine, ~instances.c.own, which).scalar_subquery()

    latest = (
        select(func.max(jobs.c.generation))
        .where(jobs.c.study_instance_uid == study.c.study_instance_uid)
        .scalar_subquery()
    )
    last_job = alias(jobs)
    return (
        select(
            study.c.study_instance_uid,
            study.c.state,
            study.c.reason,
            study.c.generation,
            counted(ct).label("images"),
            counted(~ct).label("others"),
            study.c.last_received_at,
            last_job.c.step,
            func.coalesce(last_job.c.attempts, 0).label("attempts"),
            func.coalesce(last_job.c.last_error, "").label("last_error"),
        )
        .select_from(study)
        .outerjoin(
            last_job,
            and_(
                last_job.c.study_instance_uid == study.c.study_instance_uid, last_job.c.generation == latest
            ),
        )
        .order_by(study.c.created_at.desc())
    )


def _summary(row: Row[tuple[object, ...]]) -> StudySummary:
    fields = dict(row._mapping)
    at = fields.pop("last_received_at")
    return StudySummary(last_received_at=None if at is None else _utc(at), **fields)


def _jobs(connection: Connection, study_instance_uid: str) -> tuple[JobRow, ...]:
    wanted = select(
        jobs.c.generation,
        jobs.c.step,
        jobs.c.state,
        jobs.c.attempts,
        jobs.c.not_before,
        jobs.c.lease_owner,
        jobs.c.last_error,
        jobs.c.closed_by,
    ).where(jobs.c.study_instance_uid == study_instance_uid)
    rows = connection.execute(wanted.order_by(jobs.c.generation)).mappings()
    return tuple(JobRow(**{**row, "not_before": _utc(row["not_before"])}) for row in rows)


def _artefacts(connection: Connection, study_instance_uid: str) -> tuple[ArtefactRow, ...]:
    wanted = select(
        artefacts.c.generation,
        artefacts.c.name,
        artefacts.c.step,
        artefacts.c.sha256,
        artefacts.c.size_bytes,
        artefacts.c.removed_at,
    ).where(artefacts.c.study_instance_uid == study_instance_uid)
    order = (artefacts.c.generation, artefacts.c.written_at, artefacts.c.name)
    return tuple(
        ArtefactRow(**{**row, "removed_at": None if row["removed_at"] is None else _utc(row["removed_at"])})
        for row in connection.execute(wanted.order_by(*order)).mappings()
    )


def _reports(connection: Connection, study_instance_uid: str) -> tuple[ReportRow, ...]:
    wanted = select(
        reports.c.generation,
        reports.c.issued_at,
        reports.c.sop_instance_uid,
        reports.c.predecessor_uid,
        reports.c.predecessor_issued_at,
        reports.c.amendment_reason,
    ).where(reports.c.study_instance_uid == study_instance_uid)
    rows = connection.execute(wanted.order_by(reports.c.generation)).mappings()
    times = ("issued_at", "predecessor_issued_at")
    return tuple(ReportRow(**{**row, **{name: _from_iso(row[name]) for name in times}}) for row in rows)


def _deliveries(connection: Connection, study_instance_uid: str) -> tuple[DeliveryRow, ...]:
    wanted = (
        select(
            objects.c.generation,
            objects.c.artefact,
            objects.c.sop_instance_uid,
            deliveries.c.destination,
            deliveries.c.state,
            deliveries.c.attempts,
            deliveries.c.status,
            deliveries.c.detail,
            deliveries.c.sent_at,
            deliveries.c.proof,
            deliveries.c.proven_at,
        )
        .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
        .where(objects.c.study_instance_uid == study_instance_uid)
    )
    order = (objects.c.generation, deliveries.c.destination, objects.c.artefact)
    rows = connection.execute(wanted.order_by(*order)).mappings()
    return tuple(
        DeliveryRow(
            **{
                **row,
                **{name: _utc(row[name]) for name in ("sent_at", "proven_at") if row[name] is not None},
            }
        )
        for row in rows
    )


def _from_iso(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCounts:
    """Counts at one moment. States that nothing is in count 0.

    Attributes
    ----------
    jobs : by step and state; only those that occur.
    deliveries : by destination and state; likewise.
    quarantined : files.
    waiting_for_purged : studies that images came for after retention had removed the others.
    oldest_due_s : how long the job that waits longest has been due; 0 where none is.
    due : jobs that a worker could take up now.
    quarantine_share : of the room for what was acknowledged; at 1 other content is refused.
    """

    studies: Mapping[StudyState, int]
    jobs: Mapping[tuple[str, JobState], int]
    deliveries: Mapping[tuple[str, DeliveryState], int]
    quarantined: Mapping[QuarantineKind, int]
    waiting_for_purged: int
    oldest_due_s: float
    due: int = 0
    quarantine_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """State of the deliveries to one destination, and result of the last attempt to send.

    Attributes
    ----------
    last_state : of the last object that was tried; None before the first.
    last_status : DIMSE status; None where no answer came.
    last_at : UTC.
    waiting_s : how long the oldest object waits that it did not take when it was tried.
    taken_s : since it took an object last.
    """

    name: str
    arrived: int
    pending: int
    failed: int
    last_state: DeliveryState | None
    last_status: int | None
    last_detail: str
    last_at: datetime | None
    waiting_s: float | None = None
    taken_s: float | None = None


class StatusCounts(DatabaseRows):
    """Counts for the operator's page and the metrics; no identities.

    Parameters
    ----------
    quarantine : bounds of what was acknowledged to senders.
    """

    def __init__(self, database: Database, quarantine: QuarantineBounds) -> None:
        super().__init__(database)
        self._quarantine = quarantine

    def answers(self) -> None:
        """Check that the database answers.

        An open SQLite connection continues to work on a deleted file, and everything written to it is lost
        when it closes; so the file's presence is checked too.

        Raises
        ------
        StoreUnavailable
            If the database does not answer, or its SQLite file is gone.
        """
        with self._database.reading() as connection:
            connection.execute(select(func.count()).select_from(studies)).scalar_one()
            url = connection.engine.url
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
            raise StoreUnavailable("the database's file is gone")

    def take(self) -> NodeCounts:
        """All counts, in one consistent view."""
        with self._database.reading() as connection:
            by_state = _by_state(connection)
            due, oldest_due_s = _due(connection)
            return NodeCounts(
                studies={state: by_state.get(state, 0) for state in StudyState},
                jobs={
                    (step, JobState(state)): number
                    for step, state, number in connection.execute(
                        select(jobs.c.step, jobs.c.state, func.count()).group_by(jobs.c.step, jobs.c.state)
                    )
                },
                deliveries={
                    (name, DeliveryState(state)): number
                    for name, state, number in connection.execute(
                        select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
                            deliveries.c.destination, deliveries.c.state
                        )
                    )
                },
                quarantined=_quarantined(connection),
                quarantine_share=self._quarantine.share(*acknowledged(connection)),
                waiting_for_purged=connection.execute(
                    select(func.count())
                    .select_from(studies)
                    .where(studies.c.state == StudyState.RECEIVING, lacks_purged_images())
                ).scalar_one(),
                oldest_due_s=oldest_due_s,
                due=due,
            )

    def destinations(self) -> Sequence[DestinationStatus]:
        """Every destination that something was ever scheduled for, by name."""
        newest = (
            select(
                deliveries.c.destination,
                deliveries.c.state,
                deliveries.c.status,
                deliveries.c.detail,
                deliveries.c.updated_at,
                func.row_number()
                .over(
                    partition_by=deliveries.c.destination,
                    order_by=(deliveries.c.updated_at.desc(), deliveries.c.sop_instance_uid),
                )
                .label("age_rank"),
            )
            .where(deliveries.c.attempts > 0)
            .subquery()
        )
        tried = and_(deliveries.c.state == DeliveryState.PENDING, deliveries.c.attempts > 0)
        totals = (
            select(
                deliveries.c.destination.label("name"),
                _number_in(ARRIVED).label("arrived"),
                _number_in((DeliveryState.PENDING,)).label("pending"),
                _number_in((DeliveryState.FAILED,)).label("failed"),
                (now_s() - func.min(case((tried, deliveries.c.pending_since)))).label("waiting_s"),
                (now_s() - func.max(deliveries.c.sent_at)).label("taken_s"),
            )
            .group_by(deliveries.c.destination)
            .subquery()
        )
        wanted = (
            select(totals, newest.c.state, newest.c.status, newest.c.detail, newest.c.updated_at)
            .outerjoin(newest, (newest.c.destination == totals.c.name) & (newest.c.age_rank == 1))
            .order_by(totals.c.name)
        )
        with self._database.reading() as connection:
            return tuple(
                DestinationStatus(
                    name=row.name,
                    arrived=row.arrived,
                    pending=row.pending,
                    failed=row.failed,
                    last_state=None if row.state is None else DeliveryState(row.state),
                    last_status=row.status,
                    last_detail=row.detail or "",
                    last_at=None if row.updated_at is None else datetime.fromtimestamp(row.updated_at, UTC),
                    waiting_s=row.waiting_s,
                    taken_s=row.taken_s,
                )
                for row in connection.execute(wanted)
            )


def _by_state(connection: Connection) -> dict[str, int]:
    counted = select(studies.c.state, func.count().label("studies")).group_by(studies.c.state)
    return {row.state: row.studies for row in connection.execute(counted)}


def _quarantined(connection: Connection) -> Mapping[QuarantineKind, int]:
    counted = select(quarantine.c.kind, func.count().label("files")).group_by(quarantine.c.kind)
    files = {row.kind: row.files for row in connection.execute(counted)}
    return {kind: files.get(kind, 0) for kind in QuarantineKind}


def _due(connection: Connection) -> tuple[int, float]:
    """Number of due jobs, and seconds since the oldest became due; of a lost job since its lease expired."""
    left = case((jobs.c.state == JobState.RUNNING, jobs.c.lease_until), else_=jobs.c.not_before)
    number, since_s = connection.execute(select(func.count(), now_s() - func.min(left)).where(is_due())).one()
    return number, max(0.0, float(since_s or 0.0))


def _number_in(states: Sequence[DeliveryState]) -> Function[int]:
    return func.sum(case((deliveries.c.state.in_(states), 1), else_=0))
