"""Quarantine, and the reconciliation of images that came again under another identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Row, delete, func, select, update

from node.store.database import Database, DatabaseRows, insert_unless_there, now_s
from node.store.errors import CommitUnknown, NothingToReconcile, QuarantineFull, ReconciliationIncomplete
from node.store.files import FileStore, ReceivedInstance
from node.store.schema import instances, quarantine, studies
from node.store.states import CT_SOP_CLASSES, QuarantineKind, Reopening
from node.store.study_lifecycle import note_growth

OTHER_CONTENT = "another content under a SOP Instance UID that is already held"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedInstance:
    """One file in quarantine.

    Attributes
    ----------
    study_instance_uid : "" where it could not be read, as the next.
    received_at : UTC.
    """

    kind: QuarantineKind
    study_instance_uid: str
    sop_instance_uid: str
    received_at: datetime
    calling_ae: str
    size_bytes: int
    reason: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineLine:
    """Files of one study that lie in quarantine for the same reason.

    Attributes
    ----------
    study_instance_uid : "" where it could not be read.
    study_is_held : what lies here alone makes no study.
    latest_at : UTC.
    """

    kind: QuarantineKind
    study_instance_uid: str
    study_is_held: bool
    reason: str
    calling_ae: str
    files: int
    size_bytes: int
    latest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineBounds:
    """Limits of number and size for one kind of quarantined files."""

    instances: int
    size_bytes: int

    def share(self, instances: int, size_bytes: int) -> float:
        """How full the quarantine is.

        Parameters
        ----------
        instances, size_bytes : files in it, and their size.

        Returns
        -------
        The larger of the two shares; above 1 where a bound is exceeded.
        """
        return max(instances / max(1, self.instances), size_bytes / max(1, self.size_bytes))


class Quarantine(DatabaseRows):
    """
    Parameters
    ----------
    bounds : of what could not be decoded, of which the oldest makes room for the latest.
    """

    def __init__(self, database: Database, files: FileStore, bounds: QuarantineBounds) -> None:
        super().__init__(database)
        self._files = files
        self._bounds = bounds

    def list(
        self, study_instance_uid: str | None = None, *, limit: int | None = None
    ) -> Sequence[QuarantinedInstance]:
        """Files in quarantine, the latest first.

        Parameters
        ----------
        study_instance_uid : of one study; None for all.
        limit : at most so many.
        """
        wanted = select(quarantine).order_by(quarantine.c.received_at.desc()).limit(limit)
        if study_instance_uid is not None:
            wanted = wanted.where(quarantine.c.study_instance_uid == study_instance_uid)
        with self._database.reading() as connection:
            return tuple(
                QuarantinedInstance(
                    kind=QuarantineKind(row.kind),
                    study_instance_uid=row.study_instance_uid,
                    sop_instance_uid=row.sop_instance_uid,
                    received_at=datetime.fromtimestamp(row.received_at, UTC),
                    calling_ae=row.calling_ae,
                    size_bytes=row.size_bytes,
                    reason=row.reason,
                    path=self._files.root / row.path,
                )
                for row in connection.execute(wanted)
            )

    def lines(self, *, limit: int | None = None) -> Sequence[QuarantineLine]:
        """Quarantined files grouped by study and reason, the latest first."""
        with self._database.reading() as connection:
            return quarantine_lines(connection, limit=limit)

    def discard(self, study_instance_uid: str) -> int:
        """Remove the files of a study, but those that wait for a decision and undecodable ones.

        Returns
        -------
        How many were removed.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used, or a file cannot be removed.
        """
        decided = quarantine.c.kind.in_(
            (QuarantineKind.CONTENT, QuarantineKind.REJECTED, QuarantineKind.REPLACED)
        )
        with self._database.writing() as connection:
            paths = tuple(
                connection.execute(
                    delete(quarantine)
                    .where(quarantine.c.study_instance_uid == study_instance_uid, decided)
                    .returning(quarantine.c.path)
                ).scalars()
            )
        for path in paths:
            self._files.remove(path)
        return len(paths)

    def keep_undecodable(self, instance: ReceivedInstance, reason: str) -> None:
        """Keep bytes that are no data set, within the bounds. The same bytes are kept once.

        Raises
        ------
        StoreUnavailable
            If they could not be kept (`StorageFull` under the watermark); nothing is left behind.
        """
        if instance.size_bytes > self._bounds.size_bytes or not self._bounds.instances:
            return
        self._files.require_space(instance.size_bytes)
        path = self._files.write("quarantine", instance.sha256, instance.content, suffix=".dcm")
        try:
            with self._database.writing() as connection:
                entered = enter(connection, instance, path, QuarantineKind.UNDECODABLE, reason)
                leaving = _beyond(connection, self._bounds)
        except CommitUnknown:
            raise  # a row may name the file; `Orphans` removes it if none does
        except BaseException:
            self._files.remove(path)
            raise
        for gone in leaving if entered else (path,):
            self._files.remove(gone)


def quarantine_lines(
    connection: Connection, study_instance_uid: str | None = None, *, limit: int | None = None
) -> tuple[QuarantineLine, ...]:
    """Of one study, or of all."""
    alike = (
        quarantine.c.kind,
        quarantine.c.study_instance_uid,
        quarantine.c.reason,
        quarantine.c.calling_ae,
    )
    latest = func.max(quarantine.c.received_at)
    wanted = (
        select(
            *alike,
            func.count().label("files"),
            func.sum(quarantine.c.size_bytes).label("size_bytes"),
            latest.label("latest_at"),
            func.max(studies.c.study_instance_uid).label("held_uid"),
        )
        .outerjoin(studies, studies.c.study_instance_uid == quarantine.c.study_instance_uid)
        .group_by(*alike)
        .order_by(latest.desc())
        .limit(limit)
    )
    if study_instance_uid is not None:
        wanted = wanted.where(quarantine.c.study_instance_uid == study_instance_uid)
    return tuple(
        QuarantineLine(
            kind=QuarantineKind(row.kind),
            study_instance_uid=row.study_instance_uid,
            study_is_held=row.held_uid is not None,
            reason=row.reason,
            calling_ae=row.calling_ae,
            files=row.files,
            size_bytes=int(row.size_bytes),
            latest_at=datetime.fromtimestamp(row.latest_at, UTC),
        )
        for row in connection.execute(wanted)
    )


def acknowledged(connection: Connection) -> tuple[int, int]:
    """Files and bytes in quarantine that were acknowledged to their sender: all but undecodable ones.

    Returns
    -------
    (files, bytes).
    """
    counted = select(func.count(), func.coalesce(func.sum(quarantine.c.size_bytes), 0)).where(
        quarantine.c.kind != QuarantineKind.UNDECODABLE
    )
    files, size_bytes = connection.execute(counted).one()
    return int(files), int(size_bytes)


def enter_acknowledged(
    connection: Connection,
    instance: ReceivedInstance,
    path: str,
    kind: QuarantineKind,
    reason: str,
    *,
    bounds: QuarantineBounds,
) -> bool:
    """As `enter`, for an instance that will be acknowledged to its sender.

    Raises
    ------
    QuarantineFull
        If it were one too many. What lies there already stays acknowledged.
    """
    entered = enter(connection, instance, path, kind, reason)
    if entered:
        files, size_bytes = acknowledged(connection)
        if files > bounds.instances or size_bytes > bounds.size_bytes:
            raise QuarantineFull(files - 1, size_bytes - instance.size_bytes)
    return entered


def has_room(connection: Connection, instance: ReceivedInstance, bounds: QuarantineBounds) -> bool:
    """Whether `enter_acknowledged` would accept the instance; to be called before anything is written.

    Parameters
    ----------
    bounds : of what was acknowledged.
    """
    mine = (quarantine.c.sop_instance_uid == instance.sop_instance_uid) & (
        quarantine.c.sha256 == instance.sha256
    )
    if connection.execute(select(quarantine.c.quarantine_id).where(mine)).first() is not None:
        return True
    files, size_bytes = acknowledged(connection)
    return files < bounds.instances and size_bytes + instance.size_bytes <= bounds.size_bytes


def enter(
    connection: Connection, instance: ReceivedInstance, path: str, kind: QuarantineKind, reason: str
) -> bool:
    """Add a row unless the same bytes under the same UID are in quarantine already.

    An identity that was replaced waits again when it comes again. A rejected identity stays rejected.

    Parameters
    ----------
    path : of the stored file, relative to the root.
    reason : in words.

    Returns
    -------
    False if the row existed.
    """
    entered = insert_unless_there(
        connection,
        quarantine,
        {
            "sop_instance_uid": instance.sop_instance_uid,
            "study_instance_uid": instance.study_instance_uid,
            "sha256": instance.sha256,
            "path": path,
            "size_bytes": instance.size_bytes,
            "received_at": now_s(),
            "calling_ae": instance.calling_ae,
            "called_ae": instance.called_ae,
            "reason": reason,
            "kind": kind,
            "transfer_syntax_uid": instance.transfer_syntax_uid,
        },
    )
    if not entered and kind is QuarantineKind.IDENTITY:
        connection.execute(
            update(quarantine)
            .where(
                quarantine.c.sop_instance_uid == instance.sop_instance_uid,
                quarantine.c.sha256 == instance.sha256,
                quarantine.c.kind == QuarantineKind.REPLACED,
            )
            .values(kind=kind, reason=reason, received_at=now_s())
        )
    return entered


def _beyond(connection: Connection, bounds: QuarantineBounds) -> tuple[str, ...]:
    """Remove the rows of the oldest undecodable files beyond the bounds; gives the paths."""
    newer = func.row_number().over(order_by=quarantine.c.quarantine_id.desc())
    size = func.sum(quarantine.c.size_bytes).over(order_by=quarantine.c.quarantine_id.desc())
    ranked = (
        select(quarantine.c.quarantine_id, newer.label("place"), size.label("total_bytes"))
        .where(quarantine.c.kind == QuarantineKind.UNDECODABLE)
        .subquery()
    )
    beyond = select(ranked.c.quarantine_id).where(
        (ranked.c.place > bounds.instances) | (ranked.c.total_bytes > bounds.size_bytes)
    )
    return tuple(
        connection.execute(
            delete(quarantine).where(quarantine.c.quarantine_id.in_(beyond)).returning(quarantine.c.path)
        ).scalars()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldIdentity:
    """One image, under the identity in force and under the one that waits.

    Attributes
    ----------
    in_force : None where retention removed it.
    differing : keywords of the attributes.
    """

    sop_instance_uid: str
    in_force: Path | None
    waiting: Path
    differing: str


class Identities(DatabaseRows):
    """Decisions about images that came again under another identity."""

    def __init__(self, database: Database, files: FileStore) -> None:
        super().__init__(database)
        self._files = files

    def waiting(self, study_instance_uid: str) -> Sequence[HeldIdentity]:
        """The identities that wait for a decision: of each image the latest, by SOP Instance UID."""
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
        """Study Instance UIDs of studies with an identity that waits, in their order."""
        wanted = (
            select(quarantine.c.study_instance_uid)
            .where(quarantine.c.kind == QuarantineKind.IDENTITY)
            .distinct()
            .order_by(quarantine.c.study_instance_uid)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())

    def accept(self, study_instance_uid: str) -> int:
        """Put the waiting identity in force. A new generation begins, and an amended report follows.

        The identity that it replaces stays in quarantine.

        Returns
        -------
        Number of images.

        Raises
        ------
        NothingToReconcile
            If no identity waits.
        ReconciliationIncomplete
            If a CT image of the study has not come under it: the study would have two identities.
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

        Returns
        -------
        Number of files that waited.

        Raises
        ------
        NothingToReconcile
            If no identity waits.
        """
        with self._database.writing() as connection:
            rejected = _close(connection, study_instance_uid, QuarantineKind.REJECTED)
        if not rejected:
            raise NothingToReconcile(study_instance_uid)
        return rejected


def _waiting(connection: Connection, study_instance_uid: str) -> Sequence[Row[tuple[object, ...]]]:
    """Waiting images, oldest first, each with the stored image that it would replace."""
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
    """Exchange the stored image and the waiting one."""
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
    """End the waiting of all images of the study. Returns their number."""
    return connection.execute(
        update(quarantine)
        .where(
            quarantine.c.study_instance_uid == study_instance_uid,
            quarantine.c.kind == QuarantineKind.IDENTITY,
        )
        .values(kind=kind)
    ).rowcount
