"""When each report was issued, and what became of its objects at each destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, select, update

from node.store.database import Database, insert_unless_there, now_s
from node.store.generations import reasons_since
from node.store.jobs import Lease, write_as_holder
from node.store.schema import deliveries, objects, reports
from node.store.states import ARRIVED, PROVEN, DeliveryState, Reopening


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedReport:
    issued_at: datetime  # UTC, whole seconds
    predecessor_uid: str | None
    predecessor_issued_at: datetime | None
    amendment_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDelivery:
    """An object that a destination has not taken yet."""

    sop_instance_uid: str
    sop_class_uid: str
    kind: str
    artefact: str
    destination: str
    attempts: int
    pending_for_s: float
    due_in_s: float  # <= 0: now


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTally:
    """How many objects of a generation stand where."""

    arrived: int
    pending: int
    failed: int


class Reports:
    def __init__(self, database: Database) -> None:
        self._database = database

    def issue(self, lease: Lease) -> IssuedReport:
        """The issue of this generation: minted by the first call, given back unchanged by every later one."""
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            known = _find_issue(connection, lease)
            if known is None:
                _mint(connection, lease)
                known = _find_issue(connection, lease)
        assert known is not None, "a row that was just inserted"
        return known

    def schedule(self, lease: Lease, destinations: Sequence[str]) -> None:
        """Make sure that every object of the generation has a delivery to every destination."""
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            for uid in connection.execute(select(objects.c.sop_instance_uid).where(_of(lease))).scalars():
                for destination in destinations:
                    insert_unless_there(
                        connection,
                        deliveries,
                        {
                            "sop_instance_uid": uid,
                            "destination": destination,
                            "state": DeliveryState.PENDING,
                            "attempts": 0,
                            "pending_since": now_s(),
                            "not_before": now_s(),
                            "detail": "",
                            "updated_at": now_s(),
                        },
                    )

    def pending(self, lease: Lease) -> Sequence[PendingDelivery]:
        """What the destinations of this generation still lack."""
        wanted = (
            select(
                objects.c.sop_instance_uid,
                objects.c.sop_class_uid,
                objects.c.kind,
                objects.c.artefact,
                deliveries.c.destination,
                deliveries.c.attempts,
                (now_s() - deliveries.c.pending_since).label("pending_for_s"),
                (deliveries.c.not_before - now_s()).label("due_in_s"),
            )
            .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(_of(lease), deliveries.c.state == DeliveryState.PENDING)
            .order_by(deliveries.c.destination, objects.c.artefact)
        )
        with self._database.reading() as connection:
            return tuple(PendingDelivery(**row) for row in connection.execute(wanted).mappings())

    def settle(
        self,
        lease: Lease,
        delivery: PendingDelivery,
        state: DeliveryState,
        *,
        status: int | None,
        detail: str,
        retry_in_s: float = 0.0,
    ) -> None:
        """Record what one attempt came to. Raises LeaseLost if the caller no longer holds the job."""
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.sop_instance_uid == delivery.sop_instance_uid,
                    deliveries.c.destination == delivery.destination,
                )
                .values(
                    state=state,
                    attempts=delivery.attempts + 1,
                    not_before=now_s() + retry_in_s,
                    status=status,
                    detail=detail[:500],
                    updated_at=now_s(),
                )
            )

    def tally(self, lease: Lease) -> DeliveryTally:
        counted = (
            select(deliveries.c.state, func.count().label("objects"))
            .join(objects, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(_of(lease))
            .group_by(deliveries.c.state)
        )
        with self._database.reading() as connection:
            counts = {row.state: row.objects for row in connection.execute(counted)}
        return DeliveryTally(
            arrived=sum(counts.get(state, 0) for state in ARRIVED),
            pending=counts.get(DeliveryState.PENDING, 0),
            failed=counts.get(DeliveryState.FAILED, 0),
        )


def _of(lease: Lease) -> ColumnElement[bool]:
    return (objects.c.study_instance_uid == lease.study_instance_uid) & (
        objects.c.generation == lease.generation
    )


def _find_issue(connection: Connection, lease: Lease) -> IssuedReport | None:
    row = connection.execute(
        select(reports).where(
            reports.c.study_instance_uid == lease.study_instance_uid,
            reports.c.generation == lease.generation,
        )
    ).first()
    if row is None:
        return None
    return IssuedReport(
        issued_at=datetime.fromisoformat(row.issued_at),
        predecessor_uid=row.predecessor_uid,
        predecessor_issued_at=(
            datetime.fromisoformat(row.predecessor_issued_at) if row.predecessor_issued_at else None
        ),
        amendment_reason=row.amendment_reason,
    )


def _mint(connection: Connection, lease: Lease) -> None:
    seconds = connection.execute(select(now_s())).scalar_one()
    predecessor = _predecessor(connection, lease)
    reasons = (
        reasons_since(connection, lease.study_instance_uid, predecessor.generation, lease.generation)
        if predecessor
        else ()
    )
    connection.execute(
        reports.insert().values(
            study_instance_uid=lease.study_instance_uid,
            generation=lease.generation,
            issued_at=datetime.fromtimestamp(int(seconds), UTC).isoformat(),
            predecessor_uid=predecessor.sop_instance_uid if predecessor else None,
            predecessor_issued_at=predecessor.issued_at if predecessor else None,
            amendment_reason="; ".join(reasons or (Reopening.IMAGES,)) if predecessor else None,
        )
    )


def _predecessor(connection: Connection, lease: Lease) -> Row[Any, Any, Any] | None:
    """The latest earlier report that a PACS has: proven to have where any is, else said to have taken."""
    proven = case((deliveries.c.state.in_(PROVEN), 1), else_=0)
    return connection.execute(
        select(reports.c.sop_instance_uid, reports.c.generation, reports.c.issued_at)
        .join(deliveries, deliveries.c.sop_instance_uid == reports.c.sop_instance_uid)
        .where(
            reports.c.study_instance_uid == lease.study_instance_uid,
            reports.c.generation < lease.generation,
            deliveries.c.state.in_(ARRIVED),
        )
        .order_by(proven.desc(), reports.c.generation.desc())
        .limit(1)
    ).first()
