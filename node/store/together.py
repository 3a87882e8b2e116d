"""One commit for what several threads write at once: the disk takes as long for ten rows as for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from node.store.database import Database
from node.store.errors import CommitUnknown

_Result = TypeVar("_Result")


@dataclass(slots=True, eq=False)
class _Ticket:
    """One thread's part of a transaction, and its result."""

    work: Callable[[Connection], Any]
    done: bool = False
    result: Any = None
    error: Exception | None = None

    def run_alone(self, database: Database) -> None:
        try:
            with database.writing() as connection:
                self.result = self.work(connection)
        except Exception as error:  # noqa: BLE001 - it is the caller's, and raised there
            self.error = error
        self.done = True


class GroupCommit:
    """Runs the writes of several threads in one transaction.

    A thread that arrives while another waits for the write lock joins that thread's transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leading = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []

    def run(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in a transaction, and return its result once the transaction is committed.

        Parameters
        ----------
        work : may run twice, where another thread's part failed; only the last run counts.

        Raises
        ------
        StoreUnavailable
            As `Database.writing`. Nothing of `work` is committed then (with `CommitUnknown`: perhaps).
        Exception
            What `work` raises. The other threads' parts are committed without it.
        """
        mine = _Ticket(work)
        with self._lock:
            self._waiting.append(mine)
        try:
            with self._leading:
                if not mine.done:
                    self._lead(mine)
        finally:
            self._withdraw(
                mine
            )  # who is told of a failure takes back what it came with: nobody may do it later
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[no-any-return]

    def _lead(self, mine: _Ticket) -> None:
        together = [mine]
        try:
            with self._database.writing() as connection:
                together = self._taken(mine)
                results = [one.work(connection) for one in together]
        except Exception as error:  # noqa: BLE001 - it is the caller's, and raised there
            if together == [mine] or isinstance(error, CommitUnknown):
                # A transaction that may have been committed is nobody's to repeat.
                for one in together:
                    one.error, one.done = error, True
                return
            for one in together:
                one.run_alone(self._database)
            return
        for one, result in zip(together, results, strict=True):
            one.result, one.done = result, True

    def _withdraw(self, mine: _Ticket) -> None:
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)

    def _taken(self, mine: _Ticket) -> list[_Ticket]:
        with self._lock:
            others = [one for one in self._waiting if one is not mine]
            self._waiting = []
        return [mine, *others]
