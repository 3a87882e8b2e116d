"""Files that no row names: a process was killed between the two, or could not tell whether its row stands.

They are harmless and would stay for ever. Whoever removes them must not take files of rows that a restored,
older copy of the database lacks: more of them than kills can explain are left alone, and told.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from node.store.database import Database, storage_error
from node.store.errors import StoreUnavailable
from node.store.files import FileStore
from node.store.schema import artefacts, instances, quarantine, studies

_SHELVES = ("instances", "artefacts", "quarantine")
_AT_ONCE = 500  # paths or UIDs in one query
_MOST = 1000  # files of one round: a killed listener leaves one for each of its associations, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanRound:
    """What one whole look at the file store came to."""

    removed: int
    left: int  # more than kills explain: the database may be older than the files


class Orphans:
    """Looks at one folder after another, so that a large store is looked at in many short turns.

    Not for use from several threads.
    """

    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files
        self._folders: list[str] | None = None  # still to be looked at in this round
        self._found: list[str] = []

    def look(self, *, older_than_s: float, for_s: float) -> OrphanRound | None:
        """Go on looking for about so long; None while the round is not at its end.

        Parameters
        ----------
        older_than_s : younger files may be about to get their row.
        for_s : at least one folder is looked at.

        Raises
        ------
        StoreUnavailable
        """
        deadline = time.monotonic() + for_s
        try:
            if self._folders is None:
                self._folders, self._found = list(self._all_folders()), []
            while self._folders:
                folder = self._folders[-1]
                self._found += self._nameless(folder, self._old(folder, older_than_s))
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

    def _nameless(self, folder: str, paths: Sequence[str]) -> list[str]:
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
    """Studies whose received files lie in a folder of the shelf: it is named by a hash of theirs."""
    name = folder.rpartition("/")[2]
    return [
        uid
        for uid in connection.execute(select(studies.c.study_instance_uid)).scalars()
        if hashlib.sha256(uid.encode()).hexdigest().startswith(name)
    ]
