"""A family of processes: each is forked again by itself, and all are told to end, whenever the word comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.waiting import LIMIT_S, wait_until

pytestmark = pytest.mark.slow

FAMILY = """
import os, signal, sys, time
from pathlib import Path
from config.sections import LogSettings
from node import logs
from node.processes.process_group import GroupMember, ProcessGroup, run_before
logs.configure(LogSettings(level="INFO", format="json"))
folder = Path(sys.argv[1])

def live(name, ready):
    (folder / f"{name}-{os.getpid()}").touch()
    ready()
    while True:
        signal.pause()

def die_young(ready):
    births = folder / "births"
    with births.open("a") as file:
        file.write(".")
    if births.stat().st_size >= 3:
        live("steady", ready)
    ready()
    return 1

def never_ready(ready):
    raise RuntimeError("broken")

def say(line):
    print(line, flush=True)
"""
TWO = """
listener = GroupMember(name="listener", work=lambda ready: live("listener", ready))
family = ProcessGroup([listener, GroupMember(name="{work}", work={work})])
sys.exit(family.run(lambda: say("ready"), say))
"""


@contextmanager
def _running(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", FAMILY + program, str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _pids(folder: Path, name: str) -> set[int]:
    return {int(path.name.partition("-")[2]) for path in folder.glob(f"{name}-*")}


def test_a_member_that_dies_young_takes_no_other_along(tmp_path: Path) -> None:
    with _running(TWO.format(work="die_young"), tmp_path) as process:
        # In its third life: the others were short.
        wait_until(lambda: _pids(tmp_path, "steady"), process=process)
        assert _line(process) == "ready"
        (listener,) = _pids(tmp_path, "listener")
        assert psutil.Process(listener).ppid() == process.pid
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_who_waits_for_a_family_hears_of_a_member_that_was_never_ready(tmp_path: Path) -> None:
    with _running(TWO.format(work="never_ready"), tmp_path) as process:
        assert _line(process) == "failed never_ready"
        process.send_signal(signal.SIGQUIT)
        assert process.wait(LIMIT_S) == 0
    assert "RuntimeError" in (tmp_path / "log").read_text("utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_that_comes_between_a_fork_and_its_note_reaches_that_process_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    signalled_at_the_last_fork = f"""
fork, forks = os.fork, []
def fork_and_be_told():
    pid = fork()
    forks.append(pid)
    if pid and len(forks) == 3:  # the first two are the members as they begin
        os.kill(os.getpid(), {int(number)})
    return pid
os.fork = fork_and_be_told
"""
    with _running(signalled_at_the_last_fork + TWO.format(work="die_young"), tmp_path) as process:
        assert process.wait(LIMIT_S) == 0
    assert not any(psutil.pid_exists(pid) for pid in _pids(tmp_path, "listener") | _pids(tmp_path, "steady"))


def test_a_fork_that_fails_is_tried_again_and_nobody_else_is_troubled(tmp_path: Path) -> None:
    no_memory_at_first = """
fork, tries = os.fork, []
def fork_or_not():
    tries.append(1)
    if len(tries) == 2:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = fork_or_not
"""
    with _running(no_memory_at_first + TWO.format(work="die_young"), tmp_path) as process:
        wait_until(lambda: _pids(tmp_path, "steady"), process=process)
        assert len(_pids(tmp_path, "listener")) == 1
    assert "member_not_forked" in (tmp_path / "log").read_text("utf-8")


def test_what_must_come_first_is_waited_for_and_told_to_end(tmp_path: Path) -> None:
    program = """
first = GroupMember(name="first", work=lambda ready: live("first", ready))
print(run_before(first, say), flush=True)
"""
    with _running(program, tmp_path) as process:
        wait_until(lambda: _pids(tmp_path, "first"), process=process)
        process.send_signal(signal.SIGTERM)
        assert _line(process) == "None"
        assert process.wait(LIMIT_S) == 0
    assert not any(psutil.pid_exists(pid) for pid in _pids(tmp_path, "first"))


def test_the_status_of_what_must_come_first_is_given(tmp_path: Path) -> None:
    program = """
print(run_before(GroupMember(name="first", work=lambda ready: 7), say), flush=True)
print(run_before(GroupMember(name="first", work=never_ready), say), flush=True)
"""
    with _running(program, tmp_path) as process:
        assert [_line(process), _line(process)] == ["7", "1"]


def test_a_supervised_thread_that_fails_ends_its_process_which_is_forked_again(tmp_path: Path) -> None:
    program = """
from node.supervision import SupervisedThread
def work(ready):
    import threading
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    (folder / f"life-{os.getpid()}").touch()
    def fail_once():
        if len(list(folder.glob("life-*"))) == 1:
            raise KeyError("patient name")
        stop.wait()
    SupervisedThread(fail_once, name="housekeeping").start()
    ready()
    stop.wait()
    (folder / "orderly").touch()
    return 0
sys.exit(ProcessGroup([GroupMember(name="reconcile", work=work)]).run(lambda: say("ready")))
"""
    with _running(program, tmp_path) as process:
        wait_until(lambda: len(_pids(tmp_path, "life")) == 2, process=process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    assert (tmp_path / "orderly").exists()  # its owner closed what it had open
    log = (tmp_path / "log").read_text("utf-8")
    assert "patient name" not in log
    assert '"thread_failed"' in log
    assert '"housekeeping"' in log
    assert '"status": 1' in log


def test_a_process_that_does_not_end_in_good_order_is_ended(tmp_path: Path) -> None:
    program = """
from node import supervision
supervision._ORDERLY_END_WITHIN_S = 0.2
signal.signal(signal.SIGTERM, lambda *_: None)
supervision.SupervisedThread(lambda: [][0], name="housekeeping").start()
while True:
    signal.pause()
"""
    with _running(program, tmp_path) as process:
        assert process.wait(LIMIT_S) == 1
