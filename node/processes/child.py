"""The entry of a supervised process: ``python -m node.processes.child ROLE PARENT_PID READY_FD``, settings
on stdin.

Settings come through a pipe because they may hold a database password, which has no place in a command line.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import structlog

from config.settings import Settings
from node import logs
from node.logs import describe
from node.supervision import end_with_parent, status_at_end

log = structlog.get_logger(__name__)

Say = Callable[[str], None]


def main() -> int:
    role, parent_pid, ready_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Without its supervisor a worker would finish half an hour of work that nobody waits for. Every state of
    # this process can be left at once: what is not yet recorded is done again.
    end_with_parent(parent_pid, signal.SIGKILL)
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    logs.configure(settings.log)
    logs.name_process(role)

    def say(line: str) -> None:
        with suppress(BrokenPipeError):  # the parent listens until the first "ready"
            os.write(ready_fd, f"{line}\n".encode())

    try:
        return status_at_end(run(role, settings, lambda what: say(f"ready {what}"), say))
    except Exception as error:  # noqa: BLE001 - the process's boundary: the parent sees the status and restarts
        log.error("process_failed", error=describe(error))
        return 1


def run(role: str, settings: Settings, ready: Say, say: Say) -> int:
    """Run a role to its end. Imports are local: no process loads what it does not need.

    Parameters
    ----------
    role : "listener"; "workers:QUEUE,QUEUE;QUEUE...", with one worker for each group; or "page:ENGINE".
    ready : called once, with what the parent waits for: a port, or the engine.
    say : called with "waiting" while something outside the node is awaited, and with "failed NAME" for a
        process that ended before it was ready.

    Returns
    -------
    The exit status.

    Raises
    ------
    ValueError
        If there is no such role.
    """
    name, _, argument = role.partition(":")
    match name:
        case "listener":
            from node.processes.listener import run_listeners  # noqa: PLC0415

            return run_listeners(settings, ready, say)
        case "workers":
            from node.processes.worker import Workers  # noqa: PLC0415

            return Workers(settings, [group.split(",") for group in argument.split(";")]).run(ready, say)
        case "page":
            from node.processes.page import run_page  # noqa: PLC0415

            return run_page(settings, argument, ready, _stop_on_sigterm())
        case _:
            raise ValueError(f"no such role: {role}")


def _stop_on_sigterm() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    sys.exit(main())
