"""How many of what stand where: for the operator's page and for metrics. Counts, and no identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Function, and_, case, func, select

from node.store.database import Database, now_s
from node.store.errors import StoreUnavailable
from node.store.jobs import is_due
from node.store.quarantine import QuarantineBounds, acknowledged
from node.store.schema import deliveries, jobs, quarantine, studies
from node.store.states import ARRIVED, DeliveryState, JobState, QuarantineKind, StudyState
from node.store.studies import lacks_purged_images


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Counts at one moment. States that nothing is in count 0."""

    studies: Mapping[StudyState, int]
    jobs: Mapping[tuple[str, JobState], int]  # by step and state; only those that occur
    deliveries: Mapping[tuple[str, DeliveryState], int]  # by destination and state; likewise
    quarantined: Mapping[QuarantineKind, int]  # files
    waiting_for_purged: int  # studies that images came for after retention had removed the others
    oldest_due_s: float  # how long the job that waits longest has been due; 0 where none is
    due: int = 0  # jobs that a worker could take up now
    quarantine_share: float = 0.0  # of the room for what was acknowledged; at 1 other content is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStanding:
    """What became of the objects that one destination should have, and of the last attempt to send one."""

    name: str
    arrived: int
    pending: int
    failed: int
    last_state: DeliveryState | None  # of the last object that was tried; None before the first
    last_status: int | None  # DIMSE status; None where no answer came
    last_detail: str
    last_at: datetime | None  # UTC
    waiting_s: float | None = None  # how long the oldest object waits that it did not take when it was tried
    taken_s: float | None = None  # since it took an object last


class CensusTaker:
    """Reads only.

    Parameters
    ----------
    quarantine : how much of what was acknowledged is kept in quarantine.
    """

    def __init__(self, database: Database, quarantine: QuarantineBounds) -> None:
        self._database = database
        self._quarantine = quarantine

    def answers(self) -> None:
        """Raises StoreUnavailable if the database does not answer, or is SQLite and its file is gone.

        An open connection goes on working on a deleted file, and everything written to it is lost at the end.
        """
        with self._database.reading() as connection:
            connection.execute(select(func.count()).select_from(studies)).scalar_one()
            url = connection.engine.url
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
            raise StoreUnavailable("the database's file is gone")

    def take(self) -> Census:
        """Raises StoreUnavailable."""
        with self._database.reading() as connection:
            by_state = _by_state(connection)
            due, oldest_due_s = _due(connection)
            return Census(
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

    def destinations(self) -> Sequence[DestinationStanding]:
        """Every destination that something was ever scheduled for, by name. Raises StoreUnavailable."""
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
                DestinationStanding(
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
    """How many jobs are due, and for how long the oldest; one that was left by its worker since it was."""
    left = case((jobs.c.state == JobState.RUNNING, jobs.c.lease_until), else_=jobs.c.not_before)
    number, since_s = connection.execute(select(func.count(), now_s() - func.min(left)).where(is_due())).one()
    return number, max(0.0, float(since_s or 0.0))


def _number_in(states: Sequence[DeliveryState]) -> Function[int]:
    return func.sum(case((deliveries.c.state.in_(states), 1), else_=0))
