"""Removal of what finished studies no longer need, and of files that no row names.

Images go first, results and identity later. Rows stay, and so does everything that waits or failed. Objects
that this node committed to by storage commitment stay too: their sender may have no other copy. Results go
only where every destination has proved that it holds them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Row, delete, func, literal_column, select, update

from node.store.database import Database, DatabaseRows, now_s
from node.store.errors import ResultsRemoved, StoreUnavailable, storage_error
from node.store.files import ContentComparison, FileStore
from node.store.installation import Pseudonyms
from node.store.schema import artefacts, deliveries, instances, jobs, objects, quarantine, scans, studies
from node.store.states import CT_SOP_CLASSES, FINISHED, UNFINISHED, DeliveryState, QuarantineKind, StudyState


class Retention(DatabaseRows):
    def __init__(self, database: Database, files: FileStore, pseudonyms: Pseudonyms) -> None:
        super().__init__(database)
        self._files = files
        self._pseudonyms = pseudonyms

    def finished(self, *, for_s: float = 0.0) -> Sequence[str]:
        """Studies whose images may be removed, the longest finished first.

        Parameters
        ----------
        for_s : minimum seconds since the last image came and the last job ended.
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

    def purge(self, study_instance_uid: str, reader: ContentComparison) -> int:
        """Remove the CT images of a study, if it is still finished.

        Fingerprints of their contents stay, so that the same images are recognised when they come again.

        Returns
        -------
        How many images were removed.
        """
        return self._purge(study_instance_uid, reader, _is_removable(), _is_finished())

    def with_results(self, *, for_s: float, kept: Sequence[str]) -> Sequence[str]:
        """Studies whose artefacts may be removed, the longest finished first.

        Parameters
        ----------
        for_s : minimum seconds since the last image came and the last job ended.
        kept : names of artefacts that stay.
        """
        mine = select(artefacts.c.name).where(
            artefacts.c.study_instance_uid == studies.c.study_instance_uid,
            artefacts.c.removed_at.is_(None),
            artefacts.c.name.not_in(kept),
        )
        return self._due(_is_proven() & mine.exists(), for_s)

    def remove_results(self, study_instance_uid: str, *, kept: Sequence[str]) -> int:
        """Remove the artefacts of a study, if all destinations are still proven to hold its objects.

        Rows of reports, objects and deliveries stay. Rows of artefacts record when the files were removed.

        Parameters
        ----------
        kept : names of artefacts that stay.

        Returns
        -------
        How many artefacts were removed.
        """
        with self._database.writing() as connection:
            if not _is_in_state(connection, study_instance_uid, _is_proven()):
                return 0
            removed = _remove_artefacts(connection, study_instance_uid, kept)
        self.remove_files()
        return removed

    def with_identity(self, *, for_s: float, kept: Sequence[str]) -> Sequence[str]:
        """Studies with data that name the patient or lead to the patient, the longest finished first.

        Studies without a CT image are among them: nothing will be measured of them.

        Parameters
        ----------
        for_s : minimum seconds since the last image came and the last job ended.
        kept : names of artefacts that stay.
        """
        of_study = studies.c.study_instance_uid
        held = select(instances.c.sop_instance_uid).where(
            instances.c.study_instance_uid == of_study, _is_kept()
        )
        measured = select(scans.c.study_instance_uid).where(scans.c.study_instance_uid == of_study)
        made = select(artefacts.c.name).where(
            artefacts.c.study_instance_uid == of_study,
            artefacts.c.removed_at.is_(None),
            artefacts.c.name.not_in(kept),
        )
        named = held.exists() | measured.exists() | made.exists()
        return self._due(_may_lose_identity() & named, for_s)

    def remove_identity(
        self, study_instance_uid: str, reader: ContentComparison, *, kept: Sequence[str]
    ) -> int:
        """Remove every received file, the artefacts, and the densities for follow-up.

        Quarantine stays: an operator has to discard it.

        Parameters
        ----------
        kept : names of artefacts that stay.

        Returns
        -------
        How many files were removed.
        """
        removed = self._purge(study_instance_uid, reader, _is_kept(), _may_lose_identity())
        with self._database.writing() as connection:
            if not _is_in_state(connection, study_instance_uid, _may_lose_identity()):
                return removed
            removed += _remove_artefacts(connection, study_instance_uid, kept)
            connection.execute(delete(scans).where(scans.c.study_instance_uid == study_instance_uid))
        self.remove_files()
        return removed

    def require_results(self, study_instance_uid: str) -> None:
        """Check that the results of a study's latest generation have not been removed.

        Raises
        ------
        ResultsRemoved
            If one of them was.
        """
        wanted = (
            select(func.max(artefacts.c.removed_at))
            .join(studies, studies.c.study_instance_uid == artefacts.c.study_instance_uid)
            .where(
                artefacts.c.study_instance_uid == study_instance_uid,
                artefacts.c.generation == studies.c.generation,
                studies.c.state != StudyState.NOT_APPLICABLE,  # nothing of it was ever sent
            )
        )
        with self._database.reading() as connection:
            removed_at = connection.execute(wanted).scalar()
        if removed_at is not None:
            raise ResultsRemoved(study_instance_uid, datetime.fromtimestamp(removed_at, UTC))

    def _due(self, which: ColumnElement[bool], for_s: float) -> Sequence[str]:
        before = now_s() - for_s
        of_study = studies.c.study_instance_uid
        ended = (
            select(func.max(jobs.c.updated_at)).where(jobs.c.study_instance_uid == of_study).scalar_subquery()
        )
        since = func.coalesce(ended, studies.c.last_received_at, studies.c.created_at)
        late = select(instances.c.sop_instance_uid).where(
            instances.c.study_instance_uid == of_study, _is_kept(), instances.c.received_at > before
        )
        wanted = select(of_study).where(which, since <= before, ~late.exists()).order_by(since, of_study)
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())

    def _purge(
        self,
        study_instance_uid: str,
        reader: ContentComparison,
        which: ColumnElement[bool],
        condition: ColumnElement[bool],
    ) -> int:
        going = self._rows_to_remove(study_instance_uid, which)
        marked = []
        for one in going:
            image, identity = reader.fingerprint(self._files.root / one.path) or (None, None)
            pseudonym = None if identity is None else self._pseudonyms.of(identity)
            marked.append((one, {"image_sha256": image, "identity_hmac": pseudonym}))
        removed = 0
        with self._database.writing() as connection:
            if not _is_in_state(connection, study_instance_uid, condition):
                return 0  # reopened meanwhile
            for one, fingerprints in marked:
                removed += connection.execute(
                    update(instances)
                    .where(instances.c.sop_instance_uid == one.sop_instance_uid, instances.c.path == one.path)
                    .values(purged_at=now_s(), **fingerprints)
                ).rowcount
        self.remove_files()
        return removed

    def remove_files(self) -> int:
        """Remove the files of purged instances and removed artefacts, also those of an interrupted call.

        Returns
        -------
        How many files could not be removed; the next call tries them again.
        """
        stuck = 0
        for table, removed_at in ((instances, instances.c.purged_at), (artefacts, artefacts.c.removed_at)):
            is_left = table.c.path != literal_column("''")  # no parameter, or the index is not used
            left = select(table.c.path).where(removed_at.is_not(None), is_left)
            with self._database.reading() as connection:
                paths = tuple(connection.execute(left).scalars())
            if not paths:
                continue
            gone = []
            for path in paths:
                try:
                    self._files.remove(path)
                except StoreUnavailable:  # a damaged folder, say: no reason to keep the others
                    stuck += 1
                else:
                    gone.append(path)
            with self._database.writing() as connection:
                for path in gone:
                    connection.execute(
                        update(table)
                        .where(table.c.path == path, removed_at.is_not(None), is_left)
                        .values(path="")
                    )
        return stuck

    def _rows_to_remove(self, study_instance_uid: str, which: ColumnElement[bool]) -> Sequence[Row[str, str]]:
        wanted = select(instances.c.sop_instance_uid, instances.c.path).where(
            instances.c.study_instance_uid == study_instance_uid, which
        )
        with self._database.reading() as connection:
            return connection.execute(wanted).all()


def _is_removable() -> ColumnElement[bool]:
    """CT images only. They take most of the space, and the absence of others could not be recognised."""
    return instances.c.sop_class_uid.in_(CT_SOP_CLASSES) & _is_kept()


def _is_kept() -> ColumnElement[bool]:
    """SQL condition on `instances`: the file is present."""
    return instances.c.own.is_(False) & instances.c.purged_at.is_(None)


def _is_in_state(connection: Connection, study_instance_uid: str, condition: ColumnElement[bool]) -> bool:
    wanted = select(studies.c.study_instance_uid).where(
        studies.c.study_instance_uid == study_instance_uid, condition
    )
    return connection.execute(wanted).first() is not None


def _remove_artefacts(connection: Connection, study_instance_uid: str, kept: Sequence[str]) -> int:
    return connection.execute(
        update(artefacts)
        .where(
            artefacts.c.study_instance_uid == study_instance_uid,
            artefacts.c.removed_at.is_(None),
            artefacts.c.name.not_in(kept),
        )
        .values(removed_at=now_s())
    ).rowcount


def _is_proven() -> ColumnElement[bool]:
    """Every destination has proved that it holds every object, or there was nothing to send.

    A destination that gave no better proof than its status may hold nothing: then this node is all there is.
    """
    of_study = objects.c.study_instance_uid == studies.c.study_instance_uid
    open_ones = (
        select(deliveries.c.sop_instance_uid)
        .join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .where(of_study, deliveries.c.state.in_((DeliveryState.PENDING, DeliveryState.SENT)))
        .exists()
    )
    promised = select(objects.c.sop_instance_uid).where(of_study, objects.c.promised_at.is_not(None)).exists()
    proven = studies.c.state.in_((StudyState.DELIVERED, StudyState.NOT_APPLICABLE))
    return proven & _is_finished() & ~open_ones & ~promised


def _may_lose_identity() -> ColumnElement[bool]:
    """SQL condition: as `_is_proven`, or no CT image was ever received and none is awaited."""
    no_image = (studies.c.state == StudyState.RECEIVING) & studies.c.last_received_at.is_(None)
    return _is_proven() | (no_image & _is_at_rest())


def _is_finished() -> ColumnElement[bool]:
    return studies.c.state.in_(FINISHED) & _is_at_rest()


def _is_at_rest() -> ColumnElement[bool]:
    """SQL condition: no running job, no identity that waits for a decision, no accepted commitment."""
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
    return ~at_work & ~undecided & ~promised


# Files that no row names.

_SHELVES = ("instances", "artefacts", "quarantine")
_AT_ONCE = 500  # paths or UIDs in one query
_MOST = 1000  # files of one round: a killed listener leaves one for each of its associations, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanRound:
    """Result of one complete search of the file store.

    Attributes
    ----------
    left : more than kills explain: the database may be older than the files.
    """

    removed: int
    left: int


class Orphans:
    """Search for files that no row names, one folder at a time, so that each call is short.

    A killed process leaves such files: between writing the file and its row, or when a commit's result stayed
    unknown. A restored older database lacks rows of files that are needed; so more files than kills can
    explain are reported and left. Not thread-safe.
    """

    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files
        self._folders: list[str] | None = None  # still to be looked at in this round
        self._found: list[str] = []

    def search(self, *, older_than_s: float, for_s: float) -> OrphanRound | None:
        """Search for about `for_s` seconds.

        Parameters
        ----------
        older_than_s : younger files may be about to get their row.
        for_s : seconds; at least one folder is searched.

        Returns
        -------
        None until a round through all folders is complete.

        Raises
        ------
        StoreUnavailable
            If the database or the file system cannot be used.
        """
        deadline = time.monotonic() + for_s
        try:
            if self._folders is None:
                self._folders, self._found = list(self._all_folders()), []
            while self._folders:
                folder = self._folders[-1]
                self._found += self._without_row(folder, self._old(folder, older_than_s))
                self._folders.pop()
                if time.monotonic() > deadline:
                    return None
            return self._finish()
        except OSError as error:
            raise storage_error(error) from error

    def _finish(self) -> OrphanRound:
        found, self._folders, self._found = self._found, None, []
        if len(found) > _MOST:
            return OrphanRound(removed=0, left=len(found))
        removed = 0
        for path in self._without(found, by_folder=None):  # asked again: a row may have moved meanwhile
            try:
                self._files.remove(path)
            except StoreUnavailable:
                continue  # the next round tries again
            removed += 1
        return OrphanRound(removed=removed, left=0)

    def _all_folders(self) -> Iterator[str]:
        for shelf in _SHELVES:
            root = self._files.root / shelf
            if root.is_dir():
                yield from (f"{shelf}/{one.name}" for one in os.scandir(root) if one.is_dir())

    def _old(self, folder: str, older_than_s: float) -> list[str]:
        before = time.time() - older_than_s
        with os.scandir(self._files.root / folder) as found:
            return [f"{folder}/{one.name}" for one in found if one.is_file() and _changed(one) < before]

    def _without_row(self, folder: str, paths: Sequence[str]) -> list[str]:
        return list(self._without(paths, by_folder=folder)) if paths else []

    def _without(self, paths: Sequence[str], *, by_folder: str | None) -> Iterator[str]:
        """Those that no row names.

        Parameters
        ----------
        by_folder : looks at the rows of the studies that have their files there first, which an index finds.
        """
        unnamed = set(paths)
        with self._database.reading() as connection:
            if by_folder is not None and by_folder.startswith("instances/"):
                for uids in _batches(_studies_in(connection, by_folder)):
                    mine = select(instances.c.path).where(instances.c.study_instance_uid.in_(uids))
                    unnamed.difference_update(connection.execute(mine).scalars())
            for table in (artefacts, quarantine, instances):
                for part in _batches(sorted(unnamed)):
                    named = select(table.c.path).where(table.c.path.in_(part))
                    unnamed.difference_update(connection.execute(named).scalars())
        yield from sorted(unnamed)


def _batches(whole: Iterable[str]) -> Iterator[list[str]]:
    one: list[str] = []
    for value in whole:
        one.append(value)
        if len(one) == _AT_ONCE:
            yield one
            one = []
    if one:
        yield one


def _changed(one: os.DirEntry[str]) -> float:
    try:
        return one.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:  # renamed or removed since it was listed
        return float("inf")


def _studies_in(connection: Connection, folder: str) -> list[str]:
    """Studies whose received files lie in this folder, which is named by a hash of the study's UID."""
    name = folder.rpartition("/")[2]
    return [
        uid
        for uid in connection.execute(select(studies.c.study_instance_uid)).scalars()
        if hashlib.sha256(uid.encode()).hexdigest().startswith(name)
    ]
