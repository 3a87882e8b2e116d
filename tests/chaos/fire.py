"""What befalls a node under fire: each a thing that happens in a hospital's server room."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from node.reference.pacs import StandInPacs
from tests.chaos.node_under_fire import NodeUnderFire, Part

_BLOCK = bytes(1 << 20)
_MEGABYTES_PER_STUDY = 16


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
            "PACS away": self._take_pacs_away,
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

    def _lock_database(self) -> bool:
        with closing(sqlite3.connect(self._node.database, timeout=10, isolation_level=None)) as other:
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
