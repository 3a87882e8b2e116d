"""A child that dies with its parent, however the parent dies.

Linux sends a chosen signal to a process whose parent ends (PR_SET_PDEATHSIG). The setting survives exec, so
this module can start any program so: ``python -m node.parent_death_signal PARENT_PID PROGRAM
ARGUMENTS...``.

"Parent" is the *thread* that started the child: start children from one that lives as long as they should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15


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
    return [sys.executable, "-m", "node.parent_death_signal", str(os.getpid()), *program]


def main() -> None:
    parent_pid, *program = sys.argv[1:]
    end_with_parent(int(parent_pid))
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
