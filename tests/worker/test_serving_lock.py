"""One `serve` for one storage root: by real processes, one of which is killed, and between hosts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import Settings
from node.store import installation as serving
from node.store.installation import LOCK_FILE, AlreadyServed, ServingLock
from node.store.store import open_store
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# A `serve` whose children are none of this test's concern, which takes seconds of each.
SERVE = """
import sys
from config.settings import Settings
from node.processes import supervisor

class Nothing:
    def __init__(self, settings): pass
    def start(self, stop): print("started", flush=True)
    def look_after(self): pass
    def stop(self): pass

supervisor.Supervisor = Nothing
sys.exit(supervisor.serve(Settings.model_validate_json(sys.stdin.buffer.readline())))
"""


@pytest.fixture
def serve(make_settings: Callable[..., Settings]) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts `serve` on the one root."""
    settings = make_settings(log={"format": "json"})
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(settings.model_dump_json() + "\n")
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_up(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "started\n"


def test_a_second_serve_on_the_same_root_says_who_is_there_and_ends(
    serve: Callable[[], subprocess.Popen[str]], make_settings: Callable[..., Settings]
) -> None:
    first = serve()
    assert is_up(first)
    second = serve()
    said = second.communicate(timeout=LIMIT_S)[1]
    assert second.returncode == 1
    (told,) = [json.loads(line) for line in said.splitlines()]
    assert told["event"] == "node_not_started"
    for word in (f"process {first.pid} on {socket.gethostname()} since 2", str(make_settings().storage.root)):
        assert word in told["error"]
    open_store(make_settings().storage).close()  # a worker, or a command, is not kept out

    os.kill(first.pid, signal.SIGKILL)
    first.wait(LIMIT_S)
    third = serve()
    assert is_up(third)  # the lock died with its process
    third.terminate()
    assert third.wait(LIMIT_S) == 0
    assert (make_settings().storage.root / LOCK_FILE).read_text() == ""


@contextmanager
def held(root: Path, host: str) -> Iterator[ServingLock]:
    lock = ServingLock(root, host)
    assert lock.take(threading.Event(), lambda: None)
    yield lock
    lock.release()


@pytest.fixture
def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that keeps locks to each host, and quick signs of life."""
    monkeypatch.setattr(serving.fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(serving, "BEAT_S", 0.02)
    monkeypatch.setattr(serving, "_LOOK_S", 0.1)
    monkeypatch.setattr(serving, "SILENT_S", 1.0)


@pytest.mark.usefixtures("unshared")
def test_a_node_on_another_host_is_known_by_its_sign_where_locks_are_not_shared(tmp_path: Path) -> None:
    with held(tmp_path, "one"), pytest.raises(AlreadyServed, match=r"on one since 2"):
        ServingLock(tmp_path, "other").take(threading.Event(), lambda: None)
    with held(tmp_path, "other"):  # it was released
        pass


@pytest.mark.usefixtures("unshared")
def test_a_node_on_another_host_that_was_killed_is_waited_out(tmp_path: Path) -> None:
    with held(tmp_path, "one") as killed:
        killed._ended.set()  # no sign any more, and no release
        killed._beating.join()
        with held(tmp_path, "other") as lock:
            assert lock.lost is None


@pytest.mark.usefixtures("unshared")
def test_a_node_that_stood_still_gives_way_to_the_one_that_took_over(tmp_path: Path) -> None:
    gave_way = threading.Event()
    stood_still = ServingLock(tmp_path, "one")
    assert stood_still.take(threading.Event(), gave_way.set)
    (tmp_path / LOCK_FILE).write_text(json.dumps({"host": "other", "pid": 7, "since": "2026-01-01"}))
    assert gave_way.wait(LIMIT_S)
    assert "process 7 on other" in str(stood_still.lost)
    stood_still.release()
    assert "other" in (tmp_path / LOCK_FILE).read_text()  # which is not touched


@pytest.mark.usefixtures("unshared")
def test_waiting_for_another_host_ends_when_the_node_is_stopped(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(json.dumps({"host": "one", "pid": 7, "since": "2026-01-01"}))
    stop = threading.Event()
    stop.set()
    assert not ServingLock(tmp_path, "other").take(stop, lambda: None)
