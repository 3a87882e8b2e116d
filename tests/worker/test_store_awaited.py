"""A database that is away is waited for; one that refuses says why."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from config.settings import Settings
from node.store import database
from node.store import store as awaiting
from node.store.errors import DatabaseRefuses, StoreUnavailable
from node.store.store import await_store, open_store
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaiting, "_PAUSE_S", 0.05)
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.2)


def test_a_wrong_password_is_told_and_not_waited_for(
    make_settings: Callable[..., Settings], postgresql_server: str
) -> None:
    name = f"stranger_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql_server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        rules = Path(connection.execute("SHOW hba_file").fetchone()[0])  # type: ignore[index]
        before = rules.read_text("utf-8")
        rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{before}", "utf-8")
        connection.execute("SELECT pg_reload_conf()")
    url = make_url(postgresql_server).set(username=name, password="guessed")
    settings = make_settings(storage={"database_url": url.render_as_string(hide_password=False)})
    with (
        capture_logs() as told,
        pytest.raises(DatabaseRefuses, match="password authentication failed") as met,
    ):
        await_store(settings.storage)
    assert "guessed" not in f"{met.value} {told}"


def test_a_database_that_does_not_exist_is_told(
    make_settings: Callable[..., Settings], postgresql_server: str
) -> None:
    url = make_url(postgresql_server).set(database="absent").render_as_string(hide_password=False)
    with pytest.raises(DatabaseRefuses, match='database "absent" does not exist'):
        await_store(make_settings(storage={"database_url": url}).storage)


def test_a_folder_that_cannot_be_made_is_not_waited_for(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        await_store(make_settings(storage={"root": str(tmp_path / "file" / "var")}).storage)


def test_a_file_that_is_no_database_is_not_waited_for(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    (tmp_path / "other.sqlite3").write_bytes(b"no database at all" * 400)
    settings = make_settings(storage={"database_url": f"sqlite:///{tmp_path / 'other.sqlite3'}"})
    with pytest.raises(Exception, match=r"DatabaseError"):
        await_store(settings.storage)


def test_a_database_that_another_program_keeps_locked_is_waited_for(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings().storage
    open_store(settings).close()
    told: list[str] = []
    waiting = threading.Event()
    with closing(
        sqlite3.connect(settings.root / "osteonode.sqlite3", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")

        def note(event: str, **fields: object) -> None:
            told.append(event)
            waiting.set()

        def release() -> None:
            assert waiting.wait(LIMIT_S)
            other.execute("ROLLBACK")

        releasing = threading.Thread(target=release)
        releasing.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(awaiting.log, "warning", note, raising=False)
            await_store(settings)
        releasing.join()
    assert told == ["database_awaited"]
