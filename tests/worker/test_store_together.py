"""Rows of several threads in one transaction: one commit, and no thread pays for another's mistake."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from node.store.database import Database, GroupCommit
from node.store.errors import StoreError, StoreUnavailable

THREADS = 6


class Wrong(Exception):
    """What one thread's work raises."""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/rows.sqlite3")
    with made.writing() as connection:
        connection.execute(text("CREATE TABLE rows (number INTEGER PRIMARY KEY)"))
    return made


def entering(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO rows VALUES (:number)"), {"number": number})
        return number

    return work


def kept(database: Database) -> list[int]:
    with database.reading() as connection:
        return list(connection.execute(text("SELECT number FROM rows ORDER BY number")).scalars())


def at_once(database: Database, works: list[Callable[[Connection], int]]) -> tuple[list[object], int]:
    """What each thread got, or met, where all came while another wrote; and how often was committed."""
    together, commits, here = GroupCommit(database), [], threading.Semaphore(0)
    event.listen(database._engine, "commit", lambda _: commits.append(1))

    def attempt(work: Callable[[Connection], int]) -> object:
        here.release()
        try:
            return together.run(work)
        except Exception as error:  # noqa: BLE001 - looked at by the caller
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        with database.writing():
            futures = [pool.submit(attempt, work) for work in works]
            for _ in works:
                here.acquire()
            while len(together._waiting) < len(works):
                pass
        answers = [one.result() for one in futures]
    return answers, len(commits) - 1


def test_those_who_come_while_another_writes_share_one_commit(database: Database) -> None:
    answers, commits = at_once(database, [entering(number) for number in range(THREADS)])
    assert answers == list(range(THREADS))
    assert kept(database) == list(range(THREADS))
    assert commits == 1


def test_one_that_fails_fails_alone(database: Database) -> None:
    def wrong(connection: Connection) -> int:
        entering(100)(connection)
        raise Wrong

    works = [entering(1), wrong, entering(2), entering(1), entering(3)]
    answers, _ = at_once(database, works)
    assert isinstance(answers[1], Wrong)
    assert [answers[2], answers[4]] == [2, 3]
    assert sorted(isinstance(one, StoreError) for one in (answers[0], answers[3])) == [
        False,
        True,
    ]  # two of 1
    assert kept(database) == [1, 2, 3]


def test_a_database_that_does_not_answer_is_asked_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away() -> None:
        asked.append(1)
        raise StoreUnavailable("away")

    monkeypatch.setattr(database, "writing", away)
    with pytest.raises(StoreUnavailable):
        GroupCommit(database).run(entering(1))
    assert len(asked) == 1
