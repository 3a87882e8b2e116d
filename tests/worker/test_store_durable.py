"""Files and turns: what is written is there, whichever way it was written and whoever else writes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from node.store import files as durable
from node.store.database import Database
from tests.waiting import LIMIT_S

SIZES = [0, 1, 4095, 4096, 4097, 524_288 + 7, (2 << 20) - 1, 2 << 20, (2 << 20) + 1]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_what_was_written(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    durable.write_durably(tmp_path / "file", (content[:100], content[100:]))
    assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_images_go_past_the_page_cache_where_the_file_system_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.close(os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system knows no direct writing")
    monkeypatch.setattr(durable, "_write_through_cache", _must_not_be_called)
    durable.write_durably(tmp_path / "file", (b"x" * 524_288,))
    assert (tmp_path / "file").stat().st_size == 524_288


def _must_not_be_called(path: Path, chunks: object) -> None:
    raise AssertionError(f"{path} went through the cache")


def test_a_file_system_without_direct_writing_serves_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_open(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(durable.os, "open", refuse)
    durable.write_durably(tmp_path / "file", (b"abc" * 2000,))
    assert (tmp_path / "file").read_bytes() == b"abc" * 2000


def test_a_short_direct_write_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(durable.os, "write", lambda file, content: real_write(file, content[:4096]))
    durable.write_durably(tmp_path / "file", (b"abc" * 200_000,))
    assert (tmp_path / "file").read_bytes() == b"abc" * 200_000


HOLDER = """
import signal, sys
from node.store.database import Database
with Database(sys.argv[1]).writing() as connection:
    print("holds", flush=True)
    signal.pause()
"""


def test_a_writer_that_is_killed_gives_its_turn_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'database.sqlite3'}"
    database = Database(url)
    with subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        holder.send_signal(signal.SIGKILL)
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    database.close()


COUNTER = """
import sys
from sqlalchemy import text
from node.store.database import Database
database = Database(sys.argv[1])
for _ in range(100):
    with database.writing() as connection:
        connection.execute(text("UPDATE t SET a = a + 1"))
"""


def test_writers_of_several_processes_lose_nothing_to_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'database.sqlite3'}"
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (0)"))
    counters = [subprocess.Popen([sys.executable, "-c", COUNTER, url]) for _ in range(3)]
    assert [one.wait(LIMIT_S) for one in counters] == [0, 0, 0]
    with database.reading() as connection:
        assert connection.execute(text("SELECT a FROM t")).scalar() == 300
    database.close()
