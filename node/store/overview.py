"""What the node holds and why it stands where it stands: for the command line and the operator's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, Select, alias, and_, func, select

from node.store.database import Database
from node.store.errors import NoSuchStudy
from node.store.quarantine import QuarantineLine, quarantine_lines
from node.store.schema import artefacts, deliveries, instances, jobs, objects, reports, studies
from node.store.states import CT_SOP_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One line of `osteonode studies list`. Times are UTC."""

    study_instance_uid: str
    state: str
    reason: str
    generation: int
    images: int  # CT instances
    others: int  # anything else but the node's own objects
    last_received_at: datetime | None
    step: str | None  # of the latest job
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
    """Everything that `osteonode studies show` says."""

    summary: StudySummary
    quarantined: int  # files, of every kind
    quarantine: tuple[QuarantineLine, ...]
    purged: int  # received instances whose files retention removed
    purged_at: datetime | None  # the latest of them
    results_removed_at: datetime | None  # when retention removed artefacts, the latest of them
    own_returned: int  # objects made here that came back
    jobs: tuple[JobRow, ...]
    artefacts: tuple[ArtefactRow, ...]
    reports: tuple[ReportRow, ...]
    deliveries: tuple[DeliveryRow, ...]


class Overview:
    """Reads only. Tells studies apart by their UID; patients are not named in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, limit: int | None = None) -> Sequence[StudySummary]:
        """All studies, or the latest `limit` of them; the latest first."""
        chosen = select(studies).order_by(studies.c.created_at.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(_summaries(chosen)).all()
        return tuple(_summary(row) for row in rows)

    def show(self, study_instance_uid: str) -> StudyDetail:
        """Raises NoSuchStudy."""
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


def _summaries(chosen: Select[Any]) -> Select[Any]:
    """What is told of the chosen studies: the rest of the tables is not read for it."""
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
