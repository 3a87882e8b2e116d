"""When each report was issued, and what it amends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, case, select

from node.store.database import Database, now_s
from node.store.generations import reasons_since
from node.store.jobs import Lease, write_as_holder
from node.store.schema import deliveries, objects, reports
from node.store.states import ARRIVED, PROVEN, REPORT_KIND, Reopening


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedReport:
    issued_at: datetime  # UTC, whole seconds
    predecessor_uid: str | None
    predecessor_issued_at: datetime | None
    amendment_reason: str | None


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
        .join(
            objects,
            and_(
                objects.c.study_instance_uid == reports.c.study_instance_uid,
                objects.c.generation == reports.c.generation,
                objects.c.kind == REPORT_KIND,  # in whichever class a PACS got it
            ),
        )
        .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
        .where(
            reports.c.study_instance_uid == lease.study_instance_uid,
            reports.c.generation < lease.generation,
            deliveries.c.state.in_(ARRIVED),
        )
        .order_by(proven.desc(), reports.c.generation.desc())
        .limit(1)
    ).first()
