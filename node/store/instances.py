"""Received instances, and the associations that bring them.

The bytes are stored first, then the row; only then may the listener answer Success.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from node.store.database import Database, DatabaseRows, Prepared, first, insert_unless_there, now_s
from node.store.errors import CommitUnknown, QuarantineFull
from node.store.files import ByteComparison, ContentComparison, FileStore, ReceivedInstance
from node.store.installation import Pseudonyms
from node.store.quarantine import OTHER_CONTENT, QuarantineBounds, acknowledged, enter_acknowledged, has_room
from node.store.schema import associations, instances, objects, studies
from node.store.states import CT_SOP_CLASSES, QuarantineKind, Reopening, StudyState
from node.store.study_lifecycle import note_growth

_NOW = now_s()  # made once: a row of each image holds it
_BY_UID = Prepared(
    lambda _dialect: select(
        instances.c.sha256,
        instances.c.path,
        instances.c.purged_at,
        instances.c.image_sha256,
        instances.c.identity_hmac,
    ).where(instances.c.sop_instance_uid == bindparam("uid"))
)


class Receipt(StrEnum):
    """What became of a received instance."""

    STORED = "stored"
    RESTORED = "stored again"  # its file was gone: purged, or lost
    ALREADY_HELD = "already held"  # the same content, however encoded
    HELD = "held for reconciliation"  # the same image under another identity
    QUARANTINED = "quarantined"  # another content under a known SOP Instance UID
    OWN = "own"  # made here; noted, not kept


class _HeldInstance(NamedTuple):
    """The stored instance under a SOP Instance UID; columns in the order of `_BY_UID`."""

    sha256: str
    path: str
    purged_at: float | None
    image_sha256: str | None
    identity_hmac: str | None


class _Difference(Enum):
    NEW = auto()
    SAME = auto()
    FILE_GONE = auto()  # the same content, but the stored file is gone
    OTHER_IDENTITY = auto()
    OTHER_CONTENT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """How a received instance differs from the stored one, and which one was stored then."""

    difference: _Difference
    held: tuple[str, str] | None  # sha256 and path
    differing: frozenset[str] = frozenset()


class Instances:
    """The received instances. Methods raise StoreUnavailable.

    Parameters
    ----------
    quarantine : bounds of what is kept of other content and other identities.
    """

    def __init__(
        self, database: Database, files: FileStore, pseudonyms: Pseudonyms, quarantine: QuarantineBounds
    ) -> None:
        self._database = database
        self._quarantine = quarantine
        self._pseudonyms = pseudonyms
        self._files = files

    def is_own(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object, by its SOP Instance UID."""
        with self._database.reading() as connection:
            known = select(objects.c.sop_instance_uid).where(objects.c.sop_instance_uid == sop_instance_uid)
            return connection.execute(known).first() is not None

    def note_own(self, instance: ReceivedInstance) -> Receipt:
        """Note that an own object came back. Its bytes are not kept, and its study does not change.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used.
        """
        with self._database.writing() as connection:
            _ensure_study(connection, instance.study_instance_uid)
            insert_unless_there(connection, instances, _row(instance, path="", own=True))
        return Receipt.OWN

    def receive(self, instance: ReceivedInstance, reader: ContentComparison | None = None) -> Receipt:
        """Store an instance durably. When this returns, Success may be answered.

        A new CT instance restarts the study's quiet time. If the study was closed, it begins the next
        generation. The first content under a SOP Instance UID stays. Another content goes to quarantine; if
        it is the same image under another identity, it waits there for a decision.

        Parameters
        ----------
        reader : compares contents whose bytes differ; without one, other bytes are another content.

        Raises
        ------
        StorageFull
            If the disk would fall below its watermark. Nothing was written.
        QuarantineFull
            If the instance belongs into quarantine, and that is full. Nothing was written.
        StoreUnavailable
            If it could not be stored. Nothing remains of it.
        """
        receipt = None
        while receipt is None:  # another association may bring the same UID at the same time
            receipt = self._receive(instance, reader or ByteComparison())
        return receipt

    def paths(self, study_instance_uid: str, *, ct_alone: bool = False) -> Sequence[Path]:
        """Part 10 files of a study as received, by SOP Instance UID.

        Parameters
        ----------
        ct_alone : only CT images.

        Returns
        -------
        Absolute paths. The node's own objects and purged instances are not among them.
        """
        wanted = (
            select(instances.c.path)
            .where(
                instances.c.study_instance_uid == study_instance_uid,
                instances.c.own.is_(False),
                instances.c.purged_at.is_(None),
            )
            .order_by(instances.c.sop_instance_uid)
        )
        if ct_alone:
            wanted = wanted.where(instances.c.sop_class_uid.in_(CT_SOP_CLASSES))
        with self._database.reading() as connection:
            return tuple(self._files.root / path for path in connection.execute(wanted).scalars())

    def called_ae_titles(self, study_instance_uid: str) -> frozenset[str]:
        """The AE titles under which the study's instances arrived."""
        wanted = select(instances.c.called_ae).where(
            instances.c.study_instance_uid == study_instance_uid, instances.c.own.is_(False)
        )
        with self._database.reading() as connection:
            return frozenset(connection.execute(wanted.distinct()).scalars())

    def _receive(self, instance: ReceivedInstance, reader: ContentComparison) -> Receipt | None:
        """None where the stored instance changed in the meantime."""
        row = self._database.first(_BY_UID, {"uid": instance.sop_instance_uid})
        comparison = self._compare(instance, _HeldInstance(*row) if row else None, reader)
        if comparison.difference is _Difference.SAME:
            return Receipt.ALREADY_HELD
        self._files.require_space(instance.size_bytes)
        if comparison.difference in (_Difference.OTHER_IDENTITY, _Difference.OTHER_CONTENT):
            self._require_quarantine(instance)
        path = self._files.write(
            "instances",
            instance.sha256,
            instance.content,
            suffix=".dcm",
            together=instance.study_instance_uid,
        )
        try:
            with self._database.writing() as connection:
                receipt = _enter(connection, instance, path, comparison, self._quarantine)
        except CommitUnknown:
            raise  # a row may name the file; `Orphans` removes it if none does
        except BaseException:
            self._files.remove(path)
            raise
        if receipt in (None, Receipt.ALREADY_HELD):
            self._files.remove(path)
        return receipt

    def _require_quarantine(self, instance: ReceivedInstance) -> None:
        with self._database.reading() as connection:
            if not has_room(connection, instance, self._quarantine):
                raise QuarantineFull(*acknowledged(connection))

    def _compare(
        self, instance: ReceivedInstance, known: _HeldInstance | None, reader: ContentComparison
    ) -> _Comparison:
        """Compare hashes first, and parse the data sets only where they differ."""
        if known is None:
            return _Comparison(difference=_Difference.NEW, held=None)
        held = known.sha256, known.path
        is_here = known.purged_at is None and self._files.holds(known.path)
        differing: frozenset[str] | None = None
        if known.sha256 == instance.sha256:
            differing = frozenset()
        elif is_here:
            differing = reader.identity_difference(self._files.root / known.path, instance.open())
        elif known.image_sha256 is not None:
            differing = self._difference_from(known, reader.fingerprint(instance.open()))
        if differing is None:
            return _Comparison(difference=_Difference.OTHER_CONTENT, held=held)
        if differing:
            return _Comparison(difference=_Difference.OTHER_IDENTITY, held=held, differing=differing)
        return _Comparison(difference=_Difference.SAME if is_here else _Difference.FILE_GONE, held=held)

    def _difference_from(self, known: _HeldInstance, came: tuple[str, str] | None) -> frozenset[str] | None:
        """As `ContentComparison.identity_difference`, from fingerprints."""
        if came is None or came[0] != known.image_sha256:
            return None
        same = self._pseudonyms.of(came[1]) == known.identity_hmac
        return frozenset() if same else frozenset({"identity"})


def _enter(
    connection: Connection,
    instance: ReceivedInstance,
    path: str,
    comparison: _Comparison,
    bounds: QuarantineBounds,
) -> Receipt | None:
    """Add the row of a written file; None where the stored instance changed in the meantime."""
    if comparison.held is None:
        _ensure_study(connection, instance.study_instance_uid)
        if not insert_unless_there(connection, instances, _row(instance, path=path, own=False)):
            return None
        _note_growth(connection, instance)
        return Receipt.STORED
    row = first(connection, _BY_UID, {"uid": instance.sop_instance_uid})
    assert row is not None, "rows of instances are never deleted"
    known = _HeldInstance(*row)
    if (known.sha256, known.path) != comparison.held:
        return None
    match comparison.difference:
        case _Difference.FILE_GONE:
            _restore(connection, instance, path)
            return Receipt.RESTORED
        case _Difference.OTHER_IDENTITY:
            keywords = ", ".join(sorted(comparison.differing))
            kind = QuarantineKind.IDENTITY
            entered = enter_acknowledged(connection, instance, path, kind, keywords, bounds=bounds)
            return Receipt.HELD if entered else Receipt.ALREADY_HELD
        case _:
            kind = QuarantineKind.CONTENT
            entered = enter_acknowledged(connection, instance, path, kind, OTHER_CONTENT, bounds=bounds)
            return Receipt.QUARANTINED if entered else Receipt.ALREADY_HELD


def _note_growth(connection: Connection, instance: ReceivedInstance) -> None:
    """Restart the quiet time or reopen the study, for CT images and measured segmentations only."""
    if instance.is_ct:
        note_growth(connection, instance.study_instance_uid, Reopening.IMAGES)
    elif instance.is_measured_mask:
        mine = studies.c.study_instance_uid == instance.study_instance_uid
        has_images = connection.execute(select(studies.c.last_received_at).where(mine)).scalar() is not None
        if has_images:
            note_growth(connection, instance.study_instance_uid, Reopening.SEGMENTATION)


def _restore(connection: Connection, instance: ReceivedInstance, path: str) -> None:
    """Replace the lost file by this copy, without reopening the study."""
    connection.execute(
        update(instances)
        .where(instances.c.sop_instance_uid == instance.sop_instance_uid)
        .values(
            path=path,
            sha256=instance.sha256,
            size_bytes=instance.size_bytes,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            association_id=instance.association_id,
            received_at=now_s(),
            purged_at=None,
            image_sha256=None,
            identity_hmac=None,
        )
    )
    connection.execute(
        update(studies)
        .where(
            studies.c.study_instance_uid == instance.study_instance_uid,
            studies.c.state == StudyState.RECEIVING,
            studies.c.last_received_at.is_not(None),
        )
        .values(last_received_at=now_s())
    )


def _row(instance: ReceivedInstance, *, path: str, own: bool) -> dict[str, object]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "sha256": instance.sha256,
        "path": path,
        "size_bytes": instance.size_bytes,
        "received_at": _NOW,
        "calling_ae": instance.calling_ae,
        "called_ae": instance.called_ae,
        "association_id": instance.association_id,
        "own": own,
    }


def _ensure_study(connection: Connection, study_instance_uid: str) -> None:
    insert_unless_there(
        connection,
        studies,
        {
            "study_instance_uid": study_instance_uid,
            "generation": 1,
            "state": StudyState.RECEIVING,
            "reason": "",
            "declared_qct": False,
            "created_at": _NOW,
        },
    )


class Associations(DatabaseRows):
    """Associations that brought an instance. One whose heartbeats stop counts as closed."""

    def open(self, *, peer: str, calling_ae: str, called_ae: str) -> int:
        """Record a new association.

        Returns
        -------
        Its number, for `beat` and `close`.
        """
        with self._database.writing() as connection:
            made = connection.execute(
                insert(associations)
                .values(
                    peer=peer,
                    calling_ae=calling_ae,
                    called_ae=called_ae,
                    opened_at=now_s(),
                    heartbeat_at=now_s(),
                )
                .returning(associations.c.association_id)
            )
            return int(made.scalar_one())

    def beat(self, association_ids: Collection[int]) -> None:
        """Record a heartbeat of associations that are still open."""
        with self._database.writing() as connection:
            connection.execute(
                update(associations)
                .where(associations.c.association_id.in_(association_ids))
                .values(heartbeat_at=now_s())
            )

    def close(self, association_id: int) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(associations)
                .where(associations.c.association_id == association_id)
                .values(closed_at=now_s())
            )
