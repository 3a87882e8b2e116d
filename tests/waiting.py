"""Waiting for events: one limit for all tests, so that none fails because the machine is busy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LIMIT_S = float(os.environ.get("OSTEONODE_TEST_WAIT_S", "180"))
"""How long a test waits at most for what must come: [s]. A longer wait is a failure."""

HANGS_AFTER_S = 5 * LIMIT_S
"""How long one test may take at most: [s]. pytest ends what takes longer, and shows where it stands."""


def wait_until(
    condition: Callable[[], Any],
    what: object = "",
    *,
    process: subprocess.Popen[Any] | None = None,
    every_s: float = 0.02,
) -> Any:
    """Look again and again until the condition holds.

    Parameters
    ----------
    condition : gives something true once it holds.
    what : what is waited for, told where it does not come.
    process : must live until then; who waits for what a dead process would do waits in vain.
    every_s : pause between two looks [s].

    Returns
    -------
    The first true value of the condition.

    Raises
    ------
    AssertionError
        If the condition does not hold within `LIMIT_S`, or the process has ended.
    """
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        ended = process is not None and process.poll() is not None
        assert not ended or condition(), f"the process has ended that was to do this: {what}"
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s in vain: {what}"
        time.sleep(every_s)
    return found


def holds_for(condition: Callable[[], Any], seconds: float, what: object = "") -> None:
    """Look for so many seconds, and raise AssertionError as soon as the condition does not hold."""
    deadline = time.monotonic() + seconds
    while True:
        assert condition(), what
        if time.monotonic() >= deadline:
            return
        time.sleep(0.02)


def wait_for_port(port: int, process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until somebody listens on a port of this machine; `process` must live until then."""

    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT_S):
            return True
        return False

    wait_until(listens, f"somebody listens on port {port}", process=process)


def stop(process: subprocess.Popen[Any]) -> None:
    """Tell a process to end, and kill it where it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
