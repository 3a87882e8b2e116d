"""Reconciliation: an image that came again under another identity waits for a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Row, delete, select, update

from node.store.database import Database, now_s
from node.store.errors import NothingToReconcile, ReconciliationIncomplete
from node.store.files import FileStore
from node.store.generations import note_growth
from node.store.schema import instances, quarantine
from node.store.states import CT_SOP_CLASSES, QuarantineKind, Reopening


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldIdentity:
    """One image, under the identity in force and under the one that waits."""

    sop_instance_uid: str
    in_force: Path | None  # None where retention removed it
    waiting: Path
    differing: str  # keywords of the attributes


class Identities:
    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files

    def waiting(self, study_instance_uid: str) -> Sequence[HeldIdentity]:
        """What waits for a decision: of each image the latest, by SOP Instance UID."""
        with self._database.reading() as connection:
            return tuple(
                HeldIdentity(
                    sop_instance_uid=row.sop_instance_uid,
                    in_force=self._files.root / row.old_path if row.old_path else None,
                    waiting=self._files.root / row.path,
                    differing=row.reason,
                )
                for row in _latest(_waiting(connection, study_instance_uid))
            )

    def studies_waiting(self) -> Sequence[str]:
        """Studies with something that waits."""
        wanted = (
            select(quarantine.c.study_instance_uid)
            .where(quarantine.c.kind == QuarantineKind.IDENTITY)
            .distinct()
            .order_by(quarantine.c.study_instance_uid)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())

    def accept(self, study_instance_uid: str) -> int:
        """Put the waiting identity in force: a new generation begins, and an amended report follows.

        What it replaces stays in quarantine. Returns the number of images.

        Raises
        ------
        NothingToReconcile
            If nothing waits.
        ReconciliationIncomplete
            If not every CT image of the study has come under it: half a study of each would be nobody's.
        """
        with self._database.writing() as connection:
            rows = _waiting(connection, study_instance_uid)
            if not rows:
                raise NothingToReconcile(study_instance_uid)
            latest = _latest(rows)
            images = _ct_images(connection, study_instance_uid)
            missing = images - {row.sop_instance_uid for row in latest}
            if missing:
                raise ReconciliationIncomplete(came=len(images) - len(missing), images=len(images))
            for row in latest:
                _exchange(connection, row)
            _close(connection, study_instance_uid, QuarantineKind.REPLACED)  # earlier corrections of the same
            note_growth(connection, study_instance_uid, Reopening.IDENTITY)
        return len(latest)

    def reject(self, study_instance_uid: str) -> int:
        """Keep the identity in force; the same content is ignored when it comes again.

        Returns the number of files.

        Raises
        ------
        NothingToReconcile
            If nothing waits.
        """
        with self._database.writing() as connection:
            rejected = _close(connection, study_instance_uid, QuarantineKind.REJECTED)
        if not rejected:
            raise NothingToReconcile(study_instance_uid)
        return rejected


def _waiting(connection: Connection, study_instance_uid: str) -> Sequence[Row[tuple[object, ...]]]:
    """Oldest first, each beside what it would replace."""
    wanted = (
        select(
            quarantine,
            instances.c.path.label("old_path"),
            instances.c.sha256.label("old_sha256"),
            instances.c.size_bytes.label("old_size_bytes"),
            instances.c.transfer_syntax_uid.label("old_transfer_syntax_uid"),
        )
        .join(instances, instances.c.sop_instance_uid == quarantine.c.sop_instance_uid)
        .where(
            quarantine.c.study_instance_uid == study_instance_uid,
            quarantine.c.kind == QuarantineKind.IDENTITY,
        )
        .order_by(quarantine.c.received_at, quarantine.c.quarantine_id)
    )
    return connection.execute(wanted).all()


def _latest(rows: Sequence[Row[tuple[object, ...]]]) -> Sequence[Row[tuple[object, ...]]]:
    by_uid = {row.sop_instance_uid: row for row in rows}
    return [by_uid[uid] for uid in sorted(by_uid)]


def _ct_images(connection: Connection, study_instance_uid: str) -> set[str]:
    wanted = select(instances.c.sop_instance_uid).where(
        instances.c.study_instance_uid == study_instance_uid,
        instances.c.sop_class_uid.in_(CT_SOP_CLASSES),
        instances.c.own.is_(False),
    )
    return set(connection.execute(wanted).scalars())


def _exchange(connection: Connection, row: Row[tuple[object, ...]]) -> None:
    """What waited is in force, and what was in force lies in quarantine."""
    connection.execute(
        update(instances)
        .where(instances.c.sop_instance_uid == row.sop_instance_uid)
        .values(
            path=row.path,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            transfer_syntax_uid=row.transfer_syntax_uid,
            received_at=now_s(),
            purged_at=None,
            image_sha256=None,
            identity_hmac=None,
        )
    )
    mine = quarantine.c.quarantine_id == row.quarantine_id
    if not row.old_path:  # purged: nothing is left of it
        connection.execute(delete(quarantine).where(mine))
        return
    connection.execute(
        update(quarantine)
        .where(mine)
        .values(
            path=row.old_path,
            sha256=row.old_sha256,
            size_bytes=row.old_size_bytes,
            transfer_syntax_uid=row.old_transfer_syntax_uid,
            kind=QuarantineKind.REPLACED,
        )
    )


def _close(connection: Connection, study_instance_uid: str, kind: QuarantineKind) -> int:
    """Nothing of the study waits any longer. Returns how much did."""
    return connection.execute(
        update(quarantine)
        .where(
            quarantine.c.study_instance_uid == study_instance_uid,
            quarantine.c.kind == QuarantineKind.IDENTITY,
        )
        .values(kind=kind)
    ).rowcount
