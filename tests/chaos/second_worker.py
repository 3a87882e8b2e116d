"""`osteonode worker` beside a node: it shares database, files and broker with it, and nothing else."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing, suppress

import psutil

from tests.chaos.node_under_fire import OSTEONODE, NodeUnderFire
from tests.waiting import LIMIT_S


class SecondWorker:
    """Takes part in the work of a node until it is killed."""

    def __init__(self, node: NodeUnderFire) -> None:
        self._node = node
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start it, without waiting; False where there is no broker that it could listen to."""
        url = self._node.broker_url()
        if url is None:
            return False
        config = self._node.config.with_name("worker.toml")
        config.write_text(f'{self._node.config.read_text("utf-8")}\n[broker]\nurl = "{url}"\n', "utf-8")
        with self._node.log.with_name("worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [OSTEONODE, "worker", "--config", config], stdout=log, stderr=log, process_group=0
            )
        return True

    def kill_once_it_works(self) -> bool:
        """kill -9, once the node lists it; False as long as it does not."""
        if self._process is None or self._process.poll() is not None:
            self.start()
            return False
        if not self._is_listed(self._process.pid):
            return False
        self.kill()
        return True

    def kill(self) -> list[str]:
        """kill -9. Returns which of its processes outlived it."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            self._process.wait()
            _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
            for one in alive:
                one.kill()
            return [f"an orphan of the second worker: {one}" for one in alive]
        return []

    def _is_listed(self, pid: int) -> bool:
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self._node.database, timeout=LIMIT_S)) as database,
        ):
            found = database.execute("SELECT count(*) FROM workers WHERE pid = ?", (pid,)).fetchone()
            return bool(found[0])
        return False
