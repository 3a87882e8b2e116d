"""Removing the images of studies that are finished. Rows and artefacts stay, and all that waits or failed.

What this node has committed to by storage commitment stays, too: its sender may have nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Row, func, literal_column, select, update

from node.store.content import ContentReader
from node.store.database import Database, now_s
from node.store.files import FileStore
from node.store.installation import Pseudonyms
from node.store.schema import instances, jobs, quarantine, studies
from node.store.states import CT_SOP_CLASSES, FINISHED, UNFINISHED, QuarantineKind


class Retention:
    def __init__(self, database: Database, files: FileStore, pseudonyms: Pseudonyms) -> None:
        self._database = database
        self._files = files
        self._pseudonyms = pseudonyms

    def finished(self, *, for_s: float = 0.0) -> Sequence[str]:
        """Studies whose images may go: the longest finished first.

        Parameters
        ----------
        for_s : how long since the last image came and the last job ended, at least.
        """
        before = now_s() - for_s
        ended = (
            select(func.max(jobs.c.updated_at))
            .where(jobs.c.study_instance_uid == studies.c.study_instance_uid)
            .scalar_subquery()
        )
        since = func.coalesce(ended, studies.c.last_received_at)
        mine = select(instances.c.sop_instance_uid).where(
            instances.c.study_instance_uid == studies.c.study_instance_uid, _is_removable()
        )
        wanted = (
            select(studies.c.study_instance_uid)
            .where(
                _is_finished(),
                since <= before,
                mine.exists(),
                ~mine.where(instances.c.received_at > before).exists(),
            )
            .order_by(since, studies.c.study_instance_uid)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())

    def purge(self, study_instance_uid: str, reader: ContentReader) -> int:
        """Remove the images of a study, if it is finished still. Returns how many.

        What they said is kept as fingerprints, by which they are known when they come again.
        """
        going = self._going(study_instance_uid)
        marked = []
        for one in going:
            image, identity = reader.fingerprint(self._files.root / one.path) or (None, None)
            pseudonym = None if identity is None else self._pseudonyms.of(identity)
            marked.append((one, {"image_sha256": image, "identity_hmac": pseudonym}))
        removed = 0
        with self._database.writing() as connection:
            finished = select(studies.c.study_instance_uid).where(
                studies.c.study_instance_uid == study_instance_uid, _is_finished()
            )
            if connection.execute(finished).first() is None:
                return 0  # reopened meanwhile
            for one, fingerprints in marked:
                removed += connection.execute(
                    update(instances)
                    .where(instances.c.sop_instance_uid == one.sop_instance_uid, instances.c.path == one.path)
                    .values(purged_at=now_s(), **fingerprints)
                ).rowcount
        self.sweep()
        return removed

    def sweep(self) -> None:
        """Remove the files of rows that say so: also those that a stop left behind."""
        is_left = instances.c.path != literal_column("''")  # no parameter, or the index is not used
        left = select(instances.c.path).where(instances.c.purged_at.is_not(None), is_left)
        with self._database.reading() as connection:
            paths = tuple(connection.execute(left).scalars())
        if not paths:
            return
        for path in paths:
            self._files.remove(path)
        with self._database.writing() as connection:
            for path in paths:
                connection.execute(
                    update(instances)
                    .where(instances.c.path == path, instances.c.purged_at.is_not(None))
                    .values(path="")
                )

    def _going(self, study_instance_uid: str) -> Sequence[Row[str, str]]:
        wanted = select(instances.c.sop_instance_uid, instances.c.path).where(
            instances.c.study_instance_uid == study_instance_uid, _is_removable()
        )
        with self._database.reading() as connection:
            return connection.execute(wanted).all()


def _is_removable() -> ColumnElement[bool]:
    """CT images alone: they fill the disk, and a study that lacks them is known to lack something."""
    return (
        instances.c.sop_class_uid.in_(CT_SOP_CLASSES)
        & instances.c.own.is_(False)
        & instances.c.purged_at.is_(None)
    )


def _is_finished() -> ColumnElement[bool]:
    at_work = (
        select(jobs.c.job_id)
        .where(jobs.c.study_instance_uid == studies.c.study_instance_uid, jobs.c.state.in_(UNFINISHED))
        .exists()
    )
    undecided = (
        select(quarantine.c.quarantine_id)
        .where(
            quarantine.c.study_instance_uid == studies.c.study_instance_uid,
            quarantine.c.kind == QuarantineKind.IDENTITY,
        )
        .exists()
    )
    asked_for = instances.alias()  # apart from those that the query around this may be about
    promised = (
        select(asked_for.c.sop_instance_uid)
        .where(
            asked_for.c.study_instance_uid == studies.c.study_instance_uid,
            asked_for.c.promised_at.is_not(None),
        )
        .exists()
    )
    return studies.c.state.in_(FINISHED) & ~at_work & ~undecided & ~promised
