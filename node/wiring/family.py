"""Several processes out of one: the libraries are loaded once and shared by fork.

Loading them takes seconds of processor time and some hundred megabytes, for each process that does it alone.
The process that forks starts no thread, opens no connection and does no work, so nothing is torn by the fork.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog

from node.leash import tie_to_parent
from node.logs import name_process
from node.pipeline.describe import describe

log = structlog.get_logger(__name__)

_YOUNG_S = 10.0  # a member that dies so soon would die again: the supervisor waits longer each time
_FORWARDED = (signal.SIGTERM, signal.SIGQUIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One process of a family."""

    name: str
    work: Callable[[Callable[[], None]], int]  # told what to call once ready; gives the exit status


class Family:
    """Members, each forked again when it dies."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._running: dict[int, tuple[Member, float]] = {}  # by process, with when it began
        self._stopping = False

    def run(self, on_ready: Callable[[], None]) -> int:
        """Work until SIGTERM or SIGQUIT, which the members get too. Returns the exit status.

        Parameters
        ----------
        on_ready : called once every member is ready.
        """
        failed = False
        # The collector writes to every object that it looks at, and a page written to is shared no more.
        gc.collect()
        gc.freeze()
        reading, writing = os.pipe()
        for member in self._members:
            self._fork(member, writing)
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        if self._all_ready(reading):
            on_ready()
        while self._running:
            pid, status = os.waitpid(-1, 0)
            member, began = self._running.pop(pid)
            if self._stopping:
                continue
            log.error("member_died", member=member.name, status=os.waitstatus_to_exitcode(status))
            if time.monotonic() - began < _YOUNG_S:
                failed = True
                self._forward(signal.SIGQUIT)
            else:
                self._fork(member, writing)
        return 1 if failed else 0

    def _all_ready(self, reading: int) -> bool:
        """Whether every member says that it is ready, before one of them dies."""
        ready = 0
        while ready < len(self._members):
            if select.select([reading], [], [], 0.05)[0]:
                ready += len(os.read(reading, 64))
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
        return True

    def _fork(self, member: Member, writing: int) -> None:
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(member, parent_pid, writing)
        self._running[pid] = (member, time.monotonic())

    def _forward(self, number: int, _frame: object = None) -> None:
        self._stopping = True
        for pid in self._running:
            os.kill(pid, number)


def _live(member: Member, parent_pid: int, writing: int) -> NoReturn:
    status = 1
    try:
        for number in _FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        tie_to_parent(parent_pid, signal.SIGKILL)
        name_process(member.name)
        status = member.work(lambda: _say(writing))
    except Exception as error:  # noqa: BLE001 - the process's boundary
        log.error("process_failed", error=describe(error))
    finally:
        os._exit(status)  # what is above this frame belongs to the process that forked


def _say(writing: int) -> None:
    os.write(writing, b".")
