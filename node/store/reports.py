"""Reports and their predecessors, and the artefacts of each generation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, case, select
from sqlalchemy.dialects import postgresql, sqlite

from node.store.database import Database, DatabaseRows, now_s
from node.store.errors import ArtefactRemoved, CommitUnknown, NoSuchArtefact
from node.store.files import FileStore, sha256_of
from node.store.jobs import Lease, write_as_holder
from node.store.schema import artefacts, deliveries, instances, objects, reports
from node.store.states import ARRIVED, PROVEN, REPORT_KIND, Reopening
from node.store.study_lifecycle import reasons_since

_AT_ONCE = 500  # UIDs in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedReport:
    issued_at: datetime  # UTC, whole seconds
    predecessor_uid: str | None
    predecessor_issued_at: datetime | None
    amendment_reason: str | None
    predecessor_class_uid: str | None  # SOP class of one that only an archive knew; None: as it was made here


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecordedReport:
    """A report of this node that an archive holds, and of which the database has no record.

    Attributes
    ----------
    issued_at : aware; None where the archive does not say.
    """

    sop_instance_uid: str
    sop_class_uid: str
    issued_at: datetime | None


class Reports(DatabaseRows):
    def issued(self, lease: Lease) -> IssuedReport | None:
        """The issue of this generation; None before it is minted."""
        with self._database.reading() as connection:
            return _find_issue(connection, lease)

    def unrecorded_among(self, sop_instance_uids: Sequence[str]) -> frozenset[str]:
        """SOP Instance UIDs of which the database has no record that this node made them.

        Parameters
        ----------
        sop_instance_uids : those to look for.
        """
        found = set(sop_instance_uids)
        for start in range(0, len(sop_instance_uids), _AT_ONCE):
            known = select(objects.c.sop_instance_uid).where(
                objects.c.sop_instance_uid.in_(sop_instance_uids[start : start + _AT_ONCE])
            )
            with self._database.reading() as connection:
                found.difference_update(connection.execute(known).scalars())
        return frozenset(found)

    def returned_objects(self, study_instance_uid: str) -> Sequence[tuple[str, str, str]]:
        """Own objects that came back: SOP Class UID, Series Instance UID, SOP Instance UID."""
        wanted = select(
            instances.c.sop_class_uid, instances.c.series_instance_uid, instances.c.sop_instance_uid
        ).where(instances.c.study_instance_uid == study_instance_uid, instances.c.own)
        with self._database.reading() as connection:
            return tuple((row[0], row[1], row[2]) for row in connection.execute(wanted))

    def issue(self, lease: Lease, unrecorded: UnrecordedReport | None = None) -> IssuedReport:
        """Issue of this generation: made by the first call, and returned unchanged by every later one.

        Parameters
        ----------
        unrecorded : the report that this one amends, in place of the latest recorded one, which is older.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            known = _find_issue(connection, lease)
            if known is None:
                _mint(connection, lease, unrecorded)
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
        predecessor_class_uid=row.predecessor_class_uid,
    )


def _mint(connection: Connection, lease: Lease, unrecorded: UnrecordedReport | None) -> None:
    seconds = connection.execute(select(now_s())).scalar_one()
    predecessor = _predecessor(connection, lease)
    reasons = (
        reasons_since(connection, lease.study_instance_uid, predecessor.generation, lease.generation)
        if predecessor
        else ()
    )
    values = {
        "predecessor_uid": predecessor.sop_instance_uid if predecessor else None,
        "predecessor_issued_at": predecessor.issued_at if predecessor else None,
        "amendment_reason": "; ".join(reasons or (Reopening.IMAGES,)) if predecessor else None,
        "predecessor_class_uid": None,
    }
    if unrecorded is not None:
        values = {
            "predecessor_uid": unrecorded.sop_instance_uid,
            "predecessor_issued_at": unrecorded.issued_at.isoformat() if unrecorded.issued_at else None,
            "amendment_reason": "; ".join((*reasons, Reopening.UNRECORDED)),
            "predecessor_class_uid": unrecorded.sop_class_uid,
        }
    connection.execute(
        reports.insert().values(
            study_instance_uid=lease.study_instance_uid,
            generation=lease.generation,
            issued_at=datetime.fromtimestamp(int(seconds), UTC).isoformat(),
            **values,
        )
    )


def _predecessor(connection: Connection, lease: Lease) -> Row[Any, Any, Any] | None:
    """The latest earlier report at a PACS: one that is proven to be stored there, else one that it took."""
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


class ArtefactStore(DatabaseRows):
    """Intermediate results and finished objects, by study, generation and name."""

    def __init__(self, database: Database, files: FileStore) -> None:
        super().__init__(database)
        self._files = files

    def put(self, lease: Lease, name: str, content: bytes, parameters: Mapping[str, str]) -> None:
        """Store `content` durably under `name`, in place of the generation's earlier one of that name.

        Parameters
        ----------
        parameters : of the step that made it; stored as JSON.

        Raises
        ------
        LeaseLost
            If another worker took the job over; its artefact stays.
        StoreUnavailable
            If the file or its row cannot be written.
        """
        sha256 = sha256_of(content)
        path = self._files.write("artefacts", sha256, (content,))
        row = {
            "study_instance_uid": lease.study_instance_uid,
            "generation": lease.generation,
            "name": name,
            "step": lease.step,
            "sha256": sha256,
            "path": path,
            "size_bytes": len(content),
            "parameters": json.dumps(parameters, sort_keys=True),
            "written_at": now_s(),
            "removed_at": None,
        }
        key = ("study_instance_uid", "generation", "name")
        try:
            with self._database.writing() as connection:
                write_as_holder(connection, lease)
                replaced = connection.execute(
                    select(artefacts.c.path).where(*(artefacts.c[column] == row[column] for column in key))
                ).scalar()
                make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                changed = {column: value for column, value in row.items() if column not in key}
                connection.execute(
                    make(artefacts).values(**row).on_conflict_do_update(index_elements=key, set_=changed)
                )
        except CommitUnknown:
            raise  # a row may name the file; `Orphans` removes it if none does
        except BaseException:
            self._files.remove(path)
            raise
        if replaced is not None:
            self._files.remove(replaced)

    def get(self, study_instance_uid: str, generation: int, name: str) -> bytes:
        """Content of an artefact, checked against its SHA-256.

        Raises
        ------
        ArtefactRemoved
            If retention removed it.
        NoSuchArtefact
            If there is none, or its file is gone or altered.
        """
        wanted = select(artefacts.c.path, artefacts.c.sha256, artefacts.c.removed_at).where(
            artefacts.c.study_instance_uid == study_instance_uid,
            artefacts.c.generation == generation,
            artefacts.c.name == name,
        )
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        if row is None:
            raise NoSuchArtefact(name)
        if row.removed_at is not None:
            raise ArtefactRemoved(name, datetime.fromtimestamp(row.removed_at, UTC))
        try:
            content = self._files.read(row.path)
        except FileNotFoundError:
            raise NoSuchArtefact(f"{name}: its file is gone") from None
        if sha256_of(content) != row.sha256:
            raise NoSuchArtefact(f"{name}: its file was altered")
        return content

    def names(self, study_instance_uid: str, generation: int) -> Sequence[str]:
        """Names of the artefacts that retention has not removed, in their order."""
        wanted = (
            select(artefacts.c.name)
            .where(
                artefacts.c.study_instance_uid == study_instance_uid,
                artefacts.c.generation == generation,
                artefacts.c.removed_at.is_(None),
            )
            .order_by(artefacts.c.name)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())
