"""Several workers out of one process: the image libraries are loaded once and shared by fork.

Loading them takes seconds of processor time and some hundred megabytes, for each worker that does it alone.
The process that forks starts no thread, opens no connection and runs no task, so nothing is torn by the fork.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import structlog

from config.settings import Settings
from node.leash import tie_to_parent
from node.pipeline.describe import describe
from node.pipeline.engine import settle_engine
from node.pipeline.ports import Step
from node.pipeline.steps import FUNCTIONS
from node.wiring.trying import try_features
from node.wiring.working import run_celery_worker

log = structlog.get_logger(__name__)

_YOUNG_S = 10.0  # a worker that dies so soon would die again: the supervisor waits longer each time
_FORWARDED = (signal.SIGTERM, signal.SIGQUIT)


class Workers:
    """One worker for each group of queues, forked again when it dies.

    Raises
    ------
    EngineUnavailable
        If the configured engine lacks what it needs.
    """

    def __init__(self, settings: Settings, groups: Sequence[Sequence[str]]) -> None:
        self._settings = settings
        self._groups = groups
        self._running: dict[int, tuple[Sequence[str], float]] = {}  # by process: its queues, when it began
        self._stopping = False
        self._engine = settle_engine(settings.segmentation)

    def run(self, on_ready: Callable[[str], None]) -> int:
        """Work until SIGTERM or SIGQUIT, which the workers get too. Returns the exit status.

        SIGTERM lets workers finish what is running; SIGQUIT ends them at once, and they give leases back.

        Parameters
        ----------
        on_ready : told the engine, in words, once every worker is ready.
        """
        failed = False
        reading, writing = os.pipe()
        for queues in self._groups:
            self._fork(queues, writing)
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        if self._all_ready(reading):
            on_ready(f"{self._engine.info.name} {self._engine.info.version}")
        while self._running:
            pid, status = os.waitpid(-1, 0)
            queues, began = self._running.pop(pid)
            if self._stopping:
                continue
            log.error("worker_died", queues=queues, status=os.waitstatus_to_exitcode(status))
            if time.monotonic() - began < _YOUNG_S:
                failed = True
                self._forward(signal.SIGQUIT)
            else:
                self._fork(queues, writing)
        return 1 if failed else 0

    def _all_ready(self, reading: int) -> bool:
        """Whether every worker says that it is ready, before one of them dies."""
        ready = 0
        while ready < len(self._groups):
            if select.select([reading], [], [], 0.05)[0]:
                ready += len(os.read(reading, 64))
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
        return True

    def _fork(self, queues: Sequence[str], writing: int) -> None:
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._work(queues, parent_pid, writing)
        self._running[pid] = (queues, time.monotonic())

    def _work(self, queues: Sequence[str], parent_pid: int, writing: int) -> NoReturn:
        status = 1
        try:
            for number in _FORWARDED:
                signal.signal(number, signal.SIG_DFL)
            tie_to_parent(parent_pid, signal.SIGKILL)
            structlog.contextvars.bind_contextvars(process=f"worker:{','.join(queues)}")

            def ready(_: str) -> None:
                os.write(writing, b".")

            status = run_celery_worker(
                self._settings,
                queues,
                ready,
                functions=FUNCTIONS,
                engine=lambda: self._engine,
                at_start=partial(try_features, self._settings) if Step.SCORE in queues else None,
            )
        except Exception as error:  # noqa: BLE001 - the process's boundary
            log.error("process_failed", error=describe(error))
        finally:
            os._exit(status)  # what is above this frame belongs to the process that forked

    def _forward(self, number: int, _frame: object = None) -> None:
        self._stopping = True
        for pid in self._running:
            os.kill(pid, number)
