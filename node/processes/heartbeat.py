"""Heartbeats of workers and services: rows in the database that show that a process is alive."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from config.catalog import CatalogEntryMissing
from config.sections import StorageSettings
from config.settings import Settings
from node.logs import describe
from node.pipeline.result_basis import result_basis
from node.store.database import Database
from node.store.errors import StoreError
from node.store.installation import require_root
from node.store.store import Store
from node.store.workers import HEARTBEAT_S, ResultBasis, ServiceHeartbeat, ServiceRows, Worker, WorkerRows
from node.supervision import status_at_end

log = structlog.get_logger(__name__)

_FIRST_TRIES_S = 1.0  # until it is listed: the node may still be making its tables
_UNKNOWN = ResultBasis(software="", configuration_sha256="")


class Heartbeat:
    """Heartbeat of a worker, from a thread of its pool process, so that both end together.

    The parent of the pool process opens no database: SQLite's connections do not survive a fork. The store is
    not opened either: a worker whose storage root is not mounted can still report that.
    """

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self._settings = settings
        self._worker = worker
        self._database: Database | None = None
        self._entered = False

    def begin(self) -> None:
        """Enter the worker's row, and renew it for as long as this process lives."""
        self._database = Database(self._settings.storage.resolved_database_url)
        self._beat(self._database)
        threading.Thread(
            target=self._beat_forever, args=(self._database,), name="heartbeat", daemon=True
        ).start()

    def _beat_forever(self, database: Database) -> None:
        never = threading.Event()
        while not never.wait(HEARTBEAT_S if self._entered else _FIRST_TRIES_S):
            self._beat(database)

    def _beat(self, database: Database) -> None:
        try:
            known, problem = self._standing(database)
            workers = WorkerRows(database)
            if self._entered:
                workers.beat(self._worker, known, problem)
            else:
                deaths = workers.enter(self._worker, known, problem, _lives)
                self._entered = True
                for _ in range(deaths):
                    ServiceRows(database).note_death(part_of(self._worker))
        except StoreError as error:
            log.warning("worker_not_listed", error=describe(error))
        except Exception as error:  # noqa: BLE001 - the thread's boundary: the next beat may succeed
            log.error("heartbeat_failed", error=describe(error))

    def _standing(self, database: Database) -> tuple[ResultBasis, str]:
        try:
            known = result_basis(self._settings)
        except CatalogEntryMissing as error:
            return _UNKNOWN, str(error)
        return known, root_problem(self._settings.storage, database)


def part_of(worker: Worker) -> str:
    """Name of a worker among the services."""
    return f"worker on {worker.host} for {', '.join(worker.queues)}"


def root_problem(settings: StorageSettings, database: Database) -> str:
    """Why no work can be taken: the storage root is absent, or belongs to another database.

    Returns
    -------
    "" where it is right.
    """
    try:
        require_root(settings.root.resolve(), database)
    except StoreError as error:
        return str(error)
    return ""


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and another user's
        return True
    return True


@contextmanager
def listed(
    store: Store, name: str, *, beats: bool = False, is_thread: bool = False
) -> Iterator[ServiceHeartbeat]:
    """List a service while the block runs; an exception or a kill counts as an unexpected end.

    Parameters
    ----------
    beats : whether the service calls the yielded heartbeat after each round of its work.
    is_thread : whether it is a thread of a process that is listed itself.

    Raises
    ------
    StoreError
        If the database cannot be used at the start.
    """
    store.parts.begin(name, beats=beats, is_thread=is_thread)
    yield ServiceHeartbeat(store.parts, name)
    if status_at_end(0) == 0:
        try:
            store.parts.end(name)
        except StoreError as error:
            log.warning("end_not_listed", part=name, error=describe(error))
