"""Taking instances in: bytes first, then the row, and only then may the listener answer Success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, RowMapping, select, update

from node.store.database import Database, insert_unless_there, now_s
from node.store.files import FileStore
from node.store.schema import instances, jobs, objects, quarantine, studies
from node.store.states import CT_SOP_CLASSES, UNFINISHED, JobState, StudyState


class Receipt(StrEnum):
    """What became of a received instance."""

    STORED = "stored"
    ALREADY_HELD = "already held"  # the same instance, byte for byte
    QUARANTINED = "quarantined"  # another content under a known SOP Instance UID
    OWN = "own"  # made here; noted, not kept


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One C-STORE, as it came."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str  # of the data set, without the file header
    content: tuple[bytes, ...]  # a Part 10 file, in pieces: header, data set as received
    calling_ae: str
    called_ae: str
    association_id: int | None

    @property
    def size_bytes(self) -> int:
        return sum(len(chunk) for chunk in self.content)

    @property
    def is_ct(self) -> bool:
        return self.sop_class_uid in CT_SOP_CLASSES


class Instances:
    """Everything that was received."""

    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files

    def is_own(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object and knows it by its UID."""
        with self._database.reading() as connection:
            known = select(objects.c.sop_instance_uid).where(objects.c.sop_instance_uid == sop_instance_uid)
            return connection.execute(known).first() is not None

    def note_own(self, instance: ReceivedInstance) -> Receipt:
        """Remember that an own object came back. Its bytes are not kept; the study does not notice."""
        with self._database.writing() as connection:
            _ensure_study(connection, instance.study_instance_uid)
            insert_unless_there(connection, instances, _row(instance, path="", own=True))
        return Receipt.OWN

    def receive(self, instance: ReceivedInstance) -> Receipt:
        """Keep an instance durably. When this returns, Success may be answered.

        A new CT instance sets the study's quiet time anew and, if the study was closed, begins its next
        generation. The first content under a SOP Instance UID stays; another goes to quarantine.

        Raises
        ------
        StorageFull
            If the disk would fall below its watermark; not a byte was written.
        StoreUnavailable
            If it could not be kept; nothing is left behind.
        """
        known = self._known(instance.sop_instance_uid)
        if known is not None and known["sha256"] == instance.sha256 and self._files.holds(known["path"]):
            return Receipt.ALREADY_HELD
        self._files.require_space(instance.size_bytes)
        path = self._files.write("instances", instance.sha256, instance.content, suffix=".dcm")
        try:
            receipt = self._enter(instance, path)
        except BaseException:
            self._files.remove(path)
            raise
        if receipt is Receipt.ALREADY_HELD:
            self._files.remove(path)
        return receipt

    def paths(self, study_instance_uid: str) -> Sequence[Path]:
        """Part 10 files of a study, as received; the node's own objects are not among them."""
        wanted = (
            select(instances.c.path)
            .where(instances.c.study_instance_uid == study_instance_uid, instances.c.own.is_(False))
            .order_by(instances.c.sop_instance_uid)
        )
        with self._database.reading() as connection:
            return tuple(self._files.root / path for path in connection.execute(wanted).scalars())

    def called_ae_titles(self, study_instance_uid: str) -> frozenset[str]:
        """The AE titles under which the study's instances arrived."""
        wanted = select(instances.c.called_ae).where(
            instances.c.study_instance_uid == study_instance_uid, instances.c.own.is_(False)
        )
        with self._database.reading() as connection:
            return frozenset(connection.execute(wanted.distinct()).scalars())

    def _known(self, sop_instance_uid: str) -> RowMapping | None:
        with self._database.reading() as connection:
            return _find(connection, sop_instance_uid)

    def _enter(self, instance: ReceivedInstance, path: str) -> Receipt:
        with self._database.writing() as connection:
            _ensure_study(connection, instance.study_instance_uid)
            if insert_unless_there(connection, instances, _row(instance, path=path, own=False)):
                if instance.is_ct:
                    _note_new_image(connection, instance.study_instance_uid)
                return Receipt.STORED
            known = _find(connection, instance.sop_instance_uid)
            assert known is not None, "a conflicting row cannot vanish: instances are never deleted"
            if known["sha256"] != instance.sha256:
                entered = insert_unless_there(connection, quarantine, _quarantined(instance, path))
                return Receipt.QUARANTINED if entered else Receipt.ALREADY_HELD
            if self._files.holds(known["path"]):
                return Receipt.ALREADY_HELD
            # The row outlived its file: this copy takes the place.
            connection.execute(
                update(instances)
                .where(instances.c.sop_instance_uid == instance.sop_instance_uid)
                .values(path=path)
            )
            return Receipt.STORED


def _find(connection: Connection, sop_instance_uid: str) -> RowMapping | None:
    wanted = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
    return connection.execute(wanted).mappings().first()


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
        "received_at": now_s(),
        "calling_ae": instance.calling_ae,
        "called_ae": instance.called_ae,
        "association_id": instance.association_id,
        "own": own,
    }


def _quarantined(instance: ReceivedInstance, path: str) -> dict[str, object]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "sha256": instance.sha256,
        "path": path,
        "size_bytes": instance.size_bytes,
        "received_at": now_s(),
        "calling_ae": instance.calling_ae,
        "called_ae": instance.called_ae,
        "reason": "another content under a SOP Instance UID that is already held",
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
            "created_at": now_s(),
        },
    )


def _note_new_image(connection: Connection, study_instance_uid: str) -> None:
    """Restart the quiet time; reopen a closed study as its next generation.

    A job that has no answer yet is superseded. One whose objects are made keeps going until its delivery has
    settled, for the PACS may hold half of them; the next generation waits for it (see `Studies.close_due`).
    """
    mine = studies.c.study_instance_uid == study_instance_uid
    reopened = connection.execute(
        update(studies)
        .where(mine, studies.c.state != StudyState.RECEIVING)
        .values(
            state=StudyState.RECEIVING,
            generation=studies.c.generation + 1,
            reason="images arrived after the study was closed",
        )
    ).rowcount
    connection.execute(update(studies).where(mine).values(last_received_at=now_s()))
    if not reopened:
        return
    answered = (
        select(objects.c.sop_instance_uid)
        .where(
            objects.c.study_instance_uid == jobs.c.study_instance_uid,
            objects.c.generation == jobs.c.generation,
        )
        .exists()
    )
    connection.execute(
        update(jobs)
        .where(jobs.c.study_instance_uid == study_instance_uid, jobs.c.state.in_(UNFINISHED), ~answered)
        .values(
            state=JobState.SUPERSEDED,
            token=jobs.c.token + 1,
            lease_owner=None,
            lease_until=None,
            updated_at=now_s(),
        )
    )
