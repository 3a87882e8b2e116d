"""Several processes from one: the libraries are loaded once and shared by fork.

Loading them takes seconds of processor time and some hundred megabytes in each process. The parent starts no
thread, opens no connection and does no work, so that a fork breaks nothing.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import structlog

from node.logs import describe, name_process
from node.supervision import RestartPause, end_with_parent, set_process_name, status_at_end

log = structlog.get_logger(__name__)

_FORWARDED = (signal.SIGTERM, signal.SIGQUIT)
_HANDLED = (*_FORWARDED, signal.SIGCHLD)
_SAY_WAITING_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMember:
    """One process of a group.

    Attributes
    ----------
    work : gets a function to call once ready; returns the exit status.
    """

    name: str
    work: Callable[[Callable[[], None]], int]


@dataclass(slots=True, kw_only=True)
class _Running:
    """A member and its present process. Times by the monotonic clock."""

    member: GroupMember
    pid: int | None = None  # None while it waits to be forked again
    began: float = 0.0
    fork_at: float = 0.0
    was_ready: bool = False  # in any of its lives
    pause: RestartPause = field(default_factory=RestartPause)


class ProcessGroup:
    """Processes that are forked again when they die, after a longer pause each time one dies young.

    The death of one does not affect the others.
    """

    def __init__(self, members: Sequence[GroupMember]) -> None:
        self._running = [_Running(member=member) for member in members]
        self._stopping = False

    def run(self, on_ready: Callable[[], None], on_trouble: Callable[[str], None] = lambda _: None) -> int:
        """Work until SIGTERM or SIGQUIT, which the members get too. Returns the exit status.

        Parameters
        ----------
        on_ready : called once every member has been ready.
        on_trouble : told which member ended before it was ever ready. It is forked again nevertheless.
        """
        # The collector writes to every object that it looks at, and a page written to is shared no more.
        gc.collect()
        gc.freeze()
        reading, writing = os.pipe()
        with _signals_in_turn() as signals:
            told = False
            while not self._stopping or any(one.pid is not None for one in self._running):
                self._fork_due(signals, writing)
                readable, _, _ = select.select([signals, reading], [], [], self._until_next_fork_s())
                if reading in readable:
                    for index in os.read(reading, 256):
                        self._running[index].was_ready = True
                if signals in readable:
                    self._handle(os.read(signals, 256), on_trouble)
                if not told and not self._stopping and all(one.was_ready for one in self._running):
                    told = True
                    on_ready()
        return 0

    def _fork_due(self, signals: int, writing: int) -> None:
        now = time.monotonic()
        for index, one in enumerate(self._running):
            if one.pid is None and not self._stopping and now >= one.fork_at:
                one.began = now
                try:
                    one.pid = _fork(one.member, partial(_say, writing, index), signals)
                except OSError as error:  # no memory, or too many processes; the others are well
                    pause_s = one.pause.after(0.0)
                    log.error("member_not_forked", member=one.member.name, error=describe(error))
                    one.fork_at = now + pause_s

    def _until_next_fork_s(self) -> float | None:
        waiting = [one.fork_at for one in self._running if one.pid is None]
        return max(0.0, min(waiting) - time.monotonic()) if waiting and not self._stopping else None

    def _handle(self, numbers: bytes, on_trouble: Callable[[str], None]) -> None:
        for number in numbers:
            if number in _FORWARDED:
                self._stopping = True
                for one in self._running:
                    if one.pid is not None:  # not reaped yet, so the number is still its own
                        os.kill(one.pid, number)
        for one in self._running:
            if one.pid is not None and (status := _ended(one.pid)) is not None:
                one.pid = None
                if not self._stopping:
                    self._note_death(one, status, on_trouble)

    def _note_death(self, one: _Running, status: int, on_trouble: Callable[[str], None]) -> None:
        now = time.monotonic()
        pause_s = one.pause.after(now - one.began)
        one.fork_at = now + pause_s
        log.error("member_died", member=one.member.name, status=status, restart_in_s=pause_s)
        if not one.was_ready:
            on_trouble(f"failed {one.member.name}")


def run_before(member: GroupMember, on_trouble: Callable[[str], None]) -> int | None:
    """Have one process do what all others need, and wait for its end.

    Parameters
    ----------
    on_trouble : told "waiting" as long as that takes.

    Returns
    -------
    Its exit status; None if SIGTERM or SIGQUIT came, which it gets too.
    """
    stopping = False
    with _signals_in_turn() as signals:
        pid = _fork(member, lambda: None, signals)
        while (status := _ended(pid)) is None:
            readable, _, _ = select.select([signals], [], [], _SAY_WAITING_S)
            if not readable:
                on_trouble("waiting")
                continue
            for number in os.read(signals, 256):
                if number in _FORWARDED:
                    stopping = True
                    os.kill(pid, number)
    return None if stopping else status


@contextmanager
def _signals_in_turn() -> Iterator[int]:
    """Signals as bytes to be read, their numbers: each is handled between two steps, never within one.

    A signal that came between a fork and the note of its process would else not reach that process, and one
    between its end and the note of that a stranger with the same number.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _HANDLED}
    try:
        yield reading
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def _fork(member: GroupMember, say_ready: Callable[[], None], signals: int) -> int:
    """Begin a member's process. Raises OSError."""
    parent_pid = os.getpid()
    # In the child no handler of the parent may run, which would tell the parent of a signal to the child.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _live(member, parent_pid, say_ready, signals)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def _live(member: GroupMember, parent_pid: int, say_ready: Callable[[], None], signals: int) -> NoReturn:
    status = 1
    try:
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        os.close(signal.set_wakeup_fd(-1))
        os.close(signals)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        end_with_parent(parent_pid, signal.SIGKILL)
        name_process(member.name)
        set_process_name(member.name)
        status = status_at_end(member.work(say_ready))
    except Exception as error:  # noqa: BLE001 - the process's boundary
        log.error("process_failed", error=describe(error))
    finally:
        os._exit(status)  # what is above this frame belongs to the process that forked


def _ended(pid: int) -> int | None:
    """The exit status of a child that has ended, minus the signal's number where one ended it; else None."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _say(writing: int, index: int) -> None:
    os.write(writing, bytes([index]))
