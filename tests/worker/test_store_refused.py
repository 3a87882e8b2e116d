"""What the store refused is not entered later, and what it may have entered keeps its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select

from node.store.errors import StoreUnavailable
from node.store.files import ReceivedInstance
from node.store.instances import Receipt
from node.store.schema import instances
from node.store.store import Store
from tests.claiming import claim

Make = Callable[..., ReceivedInstance]


def files_of(store: Store, shelf: str) -> set[str]:
    return {
        path.relative_to(store.files.root).as_posix()
        for path in (store.files.root / shelf).rglob("*")
        if path.is_file()
    }


def rows(store: Store) -> dict[str, str]:
    """Path by SOP Instance UID."""
    with store.database.reading() as connection:
        found = connection.execute(select(instances.c.sop_instance_uid, instances.c.path)).all()
    return {row.sop_instance_uid: row.path for row in found}


@pytest.fixture
def away(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the database refuse the next transactions that write."""

    def refuse(times: int) -> None:
        really, left = store.database.writing, [times]

        def writing() -> AbstractContextManager[Connection]:
            if left[0]:
                left[0] -= 1
                raise StoreUnavailable("away")
            return really()

        monkeypatch.setattr(store.database, "writing", writing)

    return refuse


def test_a_refused_instance_gets_no_row_when_another_is_taken_in(
    store: Store, make_instance: Make, away: Callable[[int], None]
) -> None:
    away(1)
    with pytest.raises(StoreUnavailable):
        store.instances.receive(make_instance(1))
    assert store.instances.receive(make_instance(2)) is Receipt.STORED
    assert set(rows(store)) == {make_instance(2).sop_instance_uid}
    assert files_of(store, "instances") == set(rows(store).values())
    assert store.instances.receive(make_instance(1)) is Receipt.STORED  # as its sender was told to try


@contextmanager
def _silent_after_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next commit succeeds, and its answer is lost."""
    dialect = store.database._engine.dialect
    really, driver = dialect.do_commit, dialect.loaded_dbapi

    def commit(connection: Any) -> None:
        really(connection)
        raise driver.OperationalError("the connection is lost")

    with monkeypatch.context() as lost:
        lost.setattr(dialect, "do_commit", commit)
        yield


def test_an_instance_whose_commit_was_not_answered_keeps_the_file_of_its_row(
    store: Store, make_instance: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _silent_after_commit(store, monkeypatch), pytest.raises(StoreUnavailable):
        store.instances.receive(make_instance(1))
    assert files_of(store, "instances") == set(rows(store).values()) != set()
    assert store.instances.receive(make_instance(1)) is Receipt.ALREADY_HELD


def test_an_artefact_whose_commit_was_not_answered_can_be_read(
    store: Store, make_instance: Make, close_study: Callable[[Store], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.instances.receive(make_instance(1))
    lease = claim(store, close_study(store))
    with _silent_after_commit(store, monkeypatch), pytest.raises(StoreUnavailable):
        store.artefacts.put(lease, "result.json", b"{}", {})
    assert store.artefacts.get(lease.study_instance_uid, 1, "result.json") == b"{}"
