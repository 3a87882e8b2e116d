"""What befalls a node under fire: each a thing that happens in a hospital's server room."""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from node.reference.stand_in_pacs import StandInPacs
from tests.chaos.node_under_fire import NodeUnderFire, Part
from tests.chaos.second_worker import SecondWorker
from tests.waiting import LIMIT_S

_BLOCK = bytes(1 << 20)
_MEGABYTES_PER_STUDY = 16
_YOUNG_DEATHS = 3


@contextmanager
def small_disk(folder: Path, studies: int) -> Iterator[Path | None]:
    """A file system in memory that holds so many small studies; None where none can be mounted."""
    folder.mkdir()
    megabytes = 64 + _MEGABYTES_PER_STUDY * studies
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Fire:
    """The faults by name; each returns whether it could befall the node as it stood then."""

    def __init__(
        self, node: NodeUnderFire, pacs: StandInPacs, disk: Path | None, chance: random.Random
    ) -> None:
        self._node = node
        self._pacs = pacs
        self._disk = disk
        self._chance = chance
        self._second_worker = SecondWorker(node)
        self.problems: list[str] = []  # of faults that spread to what they should leave alone

    @property
    def faults(self) -> Mapping[str, Callable[[], bool]]:
        """All there are; a full disk only where there is a small one."""
        found: dict[str, Callable[[], bool]] = {
            f"kill -9 {part}": lambda part=part: self._kill(part)  # type: ignore[misc]
            for part in Part
        }
        found |= {
            "kill -9 the node": self._kill_node,
            "FLUSHALL": self._node.flush_broker,
            "kill -9 the reconcile process, young": self._kill_reconcile_young,
            "kill -9 a second worker": self._second_worker.kill_once_it_works,
            "PACS away": self._take_pacs_away,
            "PACS dead": self._have_pacs_die,
            "database locked": self._lock_database,
        }
        if self._disk is not None:
            found["disk full"] = self._fill_disk
        return found

    def _kill(self, part: Part) -> bool:
        there = self._node.find(part)
        if not there:
            return False
        try:
            self._chance.choice(there).kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def _kill_reconcile_young(self) -> bool:
        """Again and again as soon as it is there; the listeners must not notice."""
        listeners = self._node.find(Part.LISTENER)
        killed: set[psutil.Process] = set()
        deadline = time.monotonic() + LIMIT_S
        while len(killed) < _YOUNG_DEATHS and time.monotonic() < deadline:
            for process in set(self._node.find(Part.RECONCILE)) - killed:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                killed.add(process)
            time.sleep(0.05)
        if gone := [one for one in listeners if not one.is_running()]:
            self.problems.append(f"{len(gone)} listeners ended with the reconcile process")
        return len(killed) == _YOUNG_DEATHS and bool(listeners)

    def begin(self) -> None:
        """Start what faults befall besides the node."""
        self._second_worker.start()

    def end(self) -> list[str]:
        """End what faults have started. Returns what is wrong with that."""
        return self._second_worker.kill()

    def _kill_node(self) -> bool:
        self._node.kill()
        time.sleep(self._chance.uniform(0.0, 1.0))
        self._node.start()
        return True

    def _take_pacs_away(self) -> bool:
        self._pacs.__exit__(None, None, None)
        time.sleep(self._chance.uniform(1.0, 4.0))
        self._pacs.__enter__()  # on the port it had, with what it holds
        return True

    def _have_pacs_die(self) -> bool:
        """Its machine takes connections, and nobody answers."""
        self._pacs.__exit__(None, None, None)
        with socket.create_server(("127.0.0.1", self._pacs.port)):
            time.sleep(self._chance.uniform(1.0, 4.0))
        self._pacs.__enter__()
        return True

    def _lock_database(self) -> bool:
        with closing(sqlite3.connect(self._node.database, timeout=LIMIT_S, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            time.sleep(self._chance.uniform(1.0, 4.0))
            other.execute("ROLLBACK")
        return True

    def _fill_disk(self) -> bool:
        assert self._disk is not None
        filling = self._disk / "filling"
        try:
            with filling.open("wb", buffering=0) as file:
                while os.statvfs(self._disk).f_bavail and file.write(_BLOCK):
                    pass
        except OSError:
            pass  # full: what is wanted
        time.sleep(self._chance.uniform(1.0, 3.0))
        filling.unlink()
        return True
