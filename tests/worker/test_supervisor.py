"""The node's processes as one thing: they start, are restarted, stop, and none outlives the node."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy import make_url

from config.settings import ConfigurationError, Settings
from node.processes.supervisor import Supervisor, worker
from tests.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import sys; from config.settings import Settings; from node.processes import supervisor\n"
    "{change}\n"
    "sys.exit(supervisor.serve(Settings.model_validate_json(sys.stdin.buffer.read())))"
)
NO_PROCESS_FOR_THE_FIRST_RESTARTS = """
popen, calls = supervisor.subprocess.Popen, []
def limited(*given, **options):
    calls.append(given)
    if len(calls) in (5, 6):  # the broker, three children, and then the restarts
        raise BlockingIOError(11, 'Resource temporarily unavailable')
    return popen(*given, **options)
supervisor.subprocess.Popen = limited
"""
ONE_WORKER = "supervisor.WORKER_QUEUES = 'select,segment,score,report,deliver'"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]


@dataclass
class Node:
    """`serve` as a process, with what it logs."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    _lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """The next log event of that name and fields."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event} {fields} among {self.events}") from None
            entry = json.loads(line)
            self.events.append(entry)
            if entry["event"] == event and fields.items() <= entry.items():
                return entry

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def start_node() -> Iterator[Callable[..., Node]]:
    started: list[subprocess.Popen[str]] = []

    def start(settings: Settings, change: str = "pass") -> Node:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(change=change)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(settings.model_dump_json())
        return Node(process)

    yield start
    for process in started:
        process.kill()
        process.wait(LIMIT_S)
        assert process.stderr is not None
        process.stderr.close()


def _echo(port: int) -> bool:
    ae = AE("PEER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port)
    if not association.is_established:
        return False
    answered = association.send_c_echo().Status == 0x0000
    association.release()
    return answered


def _open_to_others(root: Path) -> list[str]:
    """Files and folders that anybody but their owner may read or enter, while the node is at work."""
    found = [root.stat()]
    names = [str(root)]
    for path in root.rglob("*"):
        with suppress(FileNotFoundError):  # finished in the meantime, and named otherwise
            found.append(path.lstat())
            names.append(str(path))
    return [name for name, one in zip(names, found, strict=True) if one.st_mode & 0o077]


def _wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=LIMIT_S)
    assert alive == [], alive


def test_a_node_restarts_what_dies_and_stops_without_leaving_anything(
    make_settings: Callable[..., Settings], start_node: Callable[..., Node]
) -> None:
    settings = make_settings(log={"format": "json"})
    settings.storage.root.mkdir(mode=0o755)  # as an administrator makes it
    node = start_node(settings, NO_PROCESS_FOR_THE_FIRST_RESTARTS)
    ready = node.wait_for("node_ready")
    port = ready["port"]
    assert _echo(port)
    with urllib.request.urlopen(f"{ready['page']}readyz", timeout=LIMIT_S) as answer:
        assert answer.status == 200

    assert _open_to_others(settings.storage.root) == []

    listener = next(e["pid"] for e in node.events if e["event"] == "child_ready" and e["role"] == "listener")
    os.kill(listener, signal.SIGKILL)
    node.wait_for("child_died", role="listener")
    assert (
        "Resource temporarily unavailable" in node.wait_for("child_not_restarted", role="listener")["error"]
    )
    node.wait_for("child_not_restarted", role="listener")  # twice, and the node lives
    assert node.wait_for("child_ready", role="listener")["pid"] != listener
    assert _echo(port)  # on the port it had

    broker = next(e["pid"] for e in node.events if e["event"] == "broker_started")
    os.kill(broker, signal.SIGKILL)
    node.wait_for("child_died", role="broker")
    node.wait_for("broker_started")

    family = node.family()
    assert (
        len(family) >= 8
    )  # broker, listener, page, what forks the workers, two of them, a pool process each
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(LIMIT_S) == 0
    _wait_until_gone(family)


def test_a_node_waits_for_a_database_that_is_away_and_says_so(
    make_settings: Callable[..., Settings], start_node: Callable[..., Node], postgresql_server: str
) -> None:
    database, port, page = _free_port(), _free_port(), _free_port()
    url = make_url(postgresql_server)
    settings = make_settings(
        log={"format": "json"},
        node={"port": port},
        web={"port": page},
        storage={"database_url": url.set(port=database).render_as_string(hide_password=False)},
    )
    node = start_node(settings, ONE_WORKER)
    assert "Connection refused" in node.wait_for("database_awaited")["reason"]
    assert node.wait_for("child_ready")["role"].startswith("workers:")
    assert node.wait_for("child_ready")["role"].startswith("page:")
    status, checks = _readiness(page)
    assert (status, checks["database"]["ok"]) == (503, False)
    with pytest.raises(ConnectionRefusedError):  # a PACS tries again later
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S).close()
    with _forwarding(database, int(url.port or 0)):
        node.wait_for("node_ready")
        assert _echo(port)
        assert _readiness(page)[0] == 200
        family = node.family()
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(LIMIT_S) == 0
    _wait_until_gone(family)


def test_a_node_that_waits_for_its_database_ends_when_it_is_told_to(
    make_settings: Callable[..., Settings], start_node: Callable[..., Node]
) -> None:
    url = f"postgresql+psycopg://osteonode@127.0.0.1:{_free_port()}/postgres"
    node = start_node(make_settings(log={"format": "json"}, storage={"database_url": url}), ONE_WORKER)
    node.wait_for("database_awaited")
    family = node.family()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(LIMIT_S) == 0
    _wait_until_gone(family)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _readiness(port: int) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=LIMIT_S)
    return answer.status_code, answer.json()["checks"]


@contextmanager
def _forwarding(port: int, to: int) -> Iterator[None]:
    """Whatever comes to one port goes to another, as if its server had just been started."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", to)) as other:
                back = threading.Thread(target=_pass_on, args=(other, self.request))
                back.start()
                _pass_on(self.request, other)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Forward) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def test_no_process_outlives_a_node_that_was_killed(
    make_settings: Callable[..., Settings], start_node: Callable[..., Node]
) -> None:
    node = start_node(make_settings(log={"format": "json"}), ONE_WORKER)
    node.wait_for("node_ready")
    family = node.family()
    assert any("redis-server" in process.name() for process in family)
    node.process.kill()
    _wait_until_gone(family)


def test_a_node_that_cannot_listen_ends_with_an_error_and_leaves_nothing(
    make_settings: Callable[..., Settings], start_node: Callable[..., Node]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as another:
        port = another.getsockname()[1]
        node = start_node(make_settings(log={"format": "json"}, node={"port": port}), ONE_WORKER)
        assert "OSError" in node.wait_for("process_failed")["error"]
        family = node.family()
        node.wait_for("node_not_started")
        assert node.process.wait(LIMIT_S) == 1
    _wait_until_gone(family)


def test_a_node_whose_root_cannot_be_used_says_so_and_ends(
    make_settings: Callable[..., Settings], start_node: Callable[..., Node], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    settings = make_settings(log={"format": "json"}, storage={"root": str(tmp_path / "file" / "var")})
    node = start_node(settings, ONE_WORKER)
    assert "StoreUnavailable" in node.wait_for("node_not_started")["error"]
    assert node.process.wait(LIMIT_S) == 1


def test_a_worker_by_itself_needs_a_broker_that_it_can_reach(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigurationError, match=r"broker\.url"):
        worker(make_settings(), ["segment"])


def test_a_configured_broker_is_used_and_none_is_started(make_settings: Callable[..., Settings]) -> None:
    supervisor = Supervisor(make_settings(broker={"url": "redis://redis:6379/0"}))
    assert supervisor.settings.broker.url == "redis://redis:6379/0"
    assert supervisor.pids == {}
