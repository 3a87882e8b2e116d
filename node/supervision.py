"""Threads and processes whose death is noticed, and children that die with their parent.

What ends unexpectedly is started again, later each time. Linux sends a chosen signal to a process whose
parent ends (PR_SET_PDEATHSIG). The setting survives exec, so this module can start any program so:
``python -m node.supervision PARENT_PID PROGRAM ARGUMENTS...``. "Parent" is the *thread* that started the
child: start children from one that lives as long as they should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_AFTER_S = 60.0  # what ran so long is started again at once
_ORDERLY_END_WITHIN_S = 20.0  # longer than a listener needs to abort its associations
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15


class RestartPause:
    """How long to wait before something is started again: twice as long each time it ended young."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    def after(self, lived_s: float) -> float:
        """Pause before the next start, 0.5 to 30 s.

        Parameters
        ----------
        lived_s : how long it ran; from 60 s on the pauses begin again with the shortest.
        """
        if lived_s >= _STEADY_AFTER_S:
            self._next_s = _FIRST_PAUSE_S
        pause_s = self._next_s
        self._next_s = min(2 * self._next_s, _LONGEST_PAUSE_S)
        return pause_s


class SupervisedThread:
    """Runs a function in a thread of its own. An unexpected exception ends the process, to be started again.

    A thread that dies leaves a process that looks alive and does half of its work. So the exception is logged
    and the process is told to stop, as by its supervisor; one that cannot is killed a little later.

    Parameters
    ----------
    work : runs until the process ends, or until its task is done.
    on_failure : called after the exception was logged; ends this process by default.
    """

    def __init__(
        self,
        work: Callable[[], None],
        *,
        name: str,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.failure: Exception | None = None
        self._work = work
        self._on_failure = on_failure or end_this_process
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - the thread's boundary: its process is started again
            from node.logs import describe  # noqa: PLC0415 - a program is started without the settings' models

            self.failure = error
            log.error("thread_failed", thread=self._thread.name, error=describe(error))
            self._on_failure()


_failed = threading.Event()  # of this process: forked ones begin before any thread of theirs


def end_this_process() -> None:
    """Stop this process in good order, as SIGTERM does, and after 20 s at once; see `status_at_end`."""
    _failed.set()
    kill = threading.Timer(_ORDERLY_END_WITHIN_S, os._exit, args=(1,))
    kill.daemon = True
    kill.start()
    os.kill(os.getpid(), signal.SIGTERM)


def status_at_end(status: int) -> int:
    """The exit status of this process: 1 if a supervised thread failed, whatever else went well."""
    return status or int(_failed.is_set())


def end_with_parent(parent_pid: int, with_signal: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send `with_signal` to this process when its parent ends.

    Exits at once if the parent, `parent_pid`, has ended already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit(0)


def set_process_name(name: str) -> None:
    """What `ps` and `top` call this process, by its first 15 bytes: forked ones bear one command line."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def with_parent_death_signal(program: Sequence[str]) -> list[str]:
    """The command line that runs `program` so that it ends when this process does."""
    return [sys.executable, "-m", "node.supervision", str(os.getpid()), *program]


def main() -> None:
    parent_pid, *program = sys.argv[1:]
    end_with_parent(int(parent_pid))
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
