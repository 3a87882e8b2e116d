"""A real node whose processes can be found by what they do, killed, and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import psutil
import redis

from tests.waiting import LIMIT_S

OSTEONODE = Path(sys.executable).with_name("osteonode")
AE_TITLE = "QCT"  # whatever is sent to it is declared to be QCT


class Part(StrEnum):
    """A process of the node, by what it does."""

    LISTENER = "one listener process"
    RECONCILE = "the reconcile process"
    LISTENERS = "the listener family"
    POOL = "a worker's pool process"
    WORKERS = "the workers' parent"
    BROKER = "redis-server"


class NodeUnderFire:
    """`osteonode serve` with quick settings, its store under `storage` and its log under `folder`."""

    def __init__(self, folder: Path, storage: Path, *, pacs_port: int, min_free_bytes: int) -> None:
        self.log = folder / "node.log"
        self.config = folder / "node.toml"
        self.port = _free_port()
        self.database = storage / "osteonode.sqlite3"
        self._temporary = tempfile.TemporaryDirectory(prefix="chaos-")  # short: Redis has its socket in it
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f"""
[node]
port = {self.port}
listeners = 2
[storage]
root = {json.dumps(str(storage))}
min_free_bytes = {min_free_bytes}
[completeness]
quiet_s = 1.0
poll_s = 0.2
[selection]
qct_ae_titles = ["{AE_TITLE}"]
[worker]
lease_s = 5.0
reconcile_s = 0.5
backoff_s = [0.5]
send_backoff_s = [0.5]
[web]
port = 0
[log]
format = "json"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
""",
            "utf-8",
        )

    def start(self) -> None:
        """Start the node, and wait until all of it is ready."""
        said_before = self._said_ready()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [OSTEONODE, "serve", "--config", self.config],
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": self._temporary.name},
            )
        deadline = time.monotonic() + LIMIT_S
        while self._said_ready() == said_before:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("the node does not become ready")
            time.sleep(0.2)

    def _said_ready(self) -> int:
        return self.log.read_text("utf-8").count('"node_ready"') if self.log.exists() else 0

    def find(self, part: Part) -> list[psutil.Process]:
        """The processes that are this part now: none while it is being started again."""
        family = {role: self._children_of(role) for role in ("listener", "workers")}
        match part:
            case Part.LISTENERS:
                return family["listener"]
            case Part.LISTENER:
                return [child for child in self._members(family) if _name(child).startswith("listener")]
            case Part.RECONCILE:
                return [child for child in self._members(family) if _name(child) == "reconcile"]
            case Part.WORKERS:
                return family["workers"]
            case Part.POOL:
                workers = [child for parent in family["workers"] for child in _children(parent)]
                return [child for worker in workers for child in _children(worker)]
            case Part.BROKER:
                return [child for child in self._family() if _name(child) == "redis-server"]

    @staticmethod
    def _members(family: Mapping[str, Sequence[psutil.Process]]) -> list[psutil.Process]:
        return [child for parent in family["listener"] for child in _children(parent)]

    def broker_url(self) -> str | None:
        """For Celery; None while the broker is being started again."""
        for server in self.find(Part.BROKER):
            with suppress(psutil.Error):
                return f"redis+socket://{server.cwd()}/redis.sock"
        return None

    def kill(self) -> None:
        """kill -9 of the node itself; its children are on its leash."""
        assert self._process is not None
        self._family()
        self._process.kill()
        self._process.wait()

    def flush_broker(self) -> bool:
        """FLUSHALL; whether there was a broker to tell."""
        for server in self.find(Part.BROKER):
            try:
                with redis.Redis(unix_socket_path=f"{server.cwd()}/redis.sock") as client:
                    client.flushall()
                    return True
            except (redis.RedisError, psutil.Error):
                continue
        return False

    def stop(self) -> list[str]:
        """Ask the node to stop. Returns what is wrong with its end: its status, and who outlived it."""
        if self._process is None:
            return []
        self._family()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        _, alive = psutil.wait_procs(list(self._seen), timeout=LIMIT_S)
        orphans = [" ".join(_command_line(process)) for process in alive]
        for process in alive:
            process.kill()
        self._temporary.cleanup()
        return [
            *([f"the node ended with status {status}"] if status else []),
            *(f"an orphan: {orphan}" for orphan in orphans),
        ]

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        try:
            family = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen.update(family)
        return family

    def _children_of(self, role: str) -> list[psutil.Process]:
        assert self._process is not None
        return [
            process
            for process in self._family()
            if (line := _command_line(process))[1:3] == ["-m", "node.processes.child"]
            and line[3].startswith(role)
            if _parent_pid(process) == self._process.pid  # its members bear the same command line
        ]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.NoSuchProcess:
        return []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def _parent_pid(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def _name(process: psutil.Process) -> str:
    """What the kernel calls it."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
