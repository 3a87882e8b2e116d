"""A worker makes itself known: one row, written again every few seconds by its pool process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from config.catalog import CatalogEntryMissing
from config.settings import Settings
from node.pipeline.describe import describe
from node.pipeline.made_with import made_with
from node.store.errors import StoreError
from node.store.store import Store
from node.store.workers import HEARTBEAT_S, MadeWith, Worker

log = structlog.get_logger(__name__)

_UNKNOWN = MadeWith(software="", configuration_sha256="")


class Heartbeat:
    """Beats from a thread of the process that works, so that it falls silent with it.

    The parent of that process opens no database: SQLite's connections do not survive the forks it makes.

    Parameters
    ----------
    store : opens the store on first use.
    """

    def __init__(self, settings: Settings, worker: Worker, store: Callable[[], Store]) -> None:
        self._settings = settings
        self._worker = worker
        self._store = store
        self._entered = False

    def begin(self) -> None:
        """Enter the list, and stay in it for as long as this process lives."""
        self._beat()
        threading.Thread(target=self._beat_forever, name="heartbeat", daemon=True).start()

    def _beat_forever(self) -> None:
        never = threading.Event()
        while not never.wait(HEARTBEAT_S):
            self._beat()

    def _beat(self) -> None:
        try:
            known, problem = self._made_with()
            workers = self._store().workers
            if self._entered:
                workers.beat(self._worker, known, problem)
            else:
                workers.enter(self._worker, known, problem, _lives)
            self._entered = True
        except StoreError as error:
            log.warning("worker_not_listed", error=describe(error))
        except Exception as error:  # noqa: BLE001 - the thread's boundary: the next beat may succeed
            log.error("heartbeat_failed", error=describe(error))

    def _made_with(self) -> tuple[MadeWith, str]:
        try:
            return made_with(self._settings), ""
        except CatalogEntryMissing as error:
            return _UNKNOWN, str(error)


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and another user's
        return True
    return True
