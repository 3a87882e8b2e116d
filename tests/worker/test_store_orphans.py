"""Files that no row names are removed, and no other file is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.pipeline.housekeeping import OrphanSearch
from node.store import retention as orphans
from node.store.files import ReceivedInstance, sha256_of
from node.store.instances import Receipt
from node.store.jobs import DueJob
from node.store.retention import OrphanRound
from node.store.store import Store
from tests.claiming import claim

Make = Callable[..., ReceivedInstance]
DAY_S = 86400.0
SHELVES = ("instances", "artefacts", "quarantine")


def files(store: Store) -> set[str]:
    return {
        path.relative_to(store.files.root).as_posix()
        for shelf in SHELVES
        for path in (store.files.root / shelf).rglob("*")
        if path.is_file()
    }


def grow_old(store: Store, days: float = 2) -> None:
    then = time.time() - days * DAY_S
    for path in files(store):
        os.utime(store.files.root / path, (then, then))


def look(store: Store) -> OrphanRound:
    found = store.orphans.search(older_than_s=DAY_S, for_s=60)
    assert found is not None
    return found


def leave(store: Store, number: int, shelf: str = "instances") -> str:
    content = b"%d" % number
    return store.files.write(shelf, sha256_of(content), (content,), suffix=".dcm", together="2.25.77")


def test_what_a_killed_listener_left_is_removed_when_it_is_old(
    sqlite_store: Store, make_instance: Make
) -> None:
    store = sqlite_store
    assert store.instances.receive(make_instance(1)) is Receipt.STORED
    kept = files(store)
    child = os.fork()
    if child == 0:
        store.database.writing = lambda: os._exit(9)  # type: ignore[method-assign]
        try:
            store.instances.receive(make_instance(2))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(files(store) - kept) == 1
    assert look(store) == OrphanRound(removed=0, left=0)  # its row may be on the way
    grow_old(store)
    assert look(store) == OrphanRound(removed=1, left=0)
    assert files(store) == kept
    assert store.instances.receive(make_instance(2)) is Receipt.STORED


def test_no_file_that_any_row_names_is_removed_however_old(
    store: Store, make_instance: Make, close_study: Callable[[Store], DueJob]
) -> None:
    store.instances.receive(make_instance(1))
    store.instances.receive(make_instance(1, content=(b"header", b"other content")))
    store.quarantine.keep_undecodable(make_instance(3, content=(b"no", b"data set")), "why")
    store.artefacts.put(claim(store, close_study(store)), "result.json", b"{}", {})
    moved = make_instance(4, study_instance_uid="2.25.5", series_instance_uid="2.25.6")
    store.instances.receive(moved)
    # As an older version laid files out, which did not keep those of a study together.
    (path,) = store.instances.paths("2.25.5")
    elsewhere = Path("instances") / ("00" if path.parent.name != "00" else "01") / path.name
    (store.files.root / elsewhere).parent.mkdir(exist_ok=True)
    path.rename(store.files.root / elsewhere)
    with store.database.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE instances SET path = '{elsewhere}' WHERE study_instance_uid = '2.25.5'"
        )
    named = files(store)
    assert len(named) == 5
    for number, shelf in enumerate(SHELVES):
        leave(store, number, shelf)
    unfinished = store.files.root / elsewhere.with_name(".half.dcm.part")
    unfinished.write_bytes(b"half")
    grow_old(store)
    assert look(store) == OrphanRound(removed=4, left=0)
    assert files(store) == named


def test_many_files_without_rows_are_left_alone_for_the_database_may_be_an_older_copy(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "_MOST", 3)
    for number in range(4):
        leave(sqlite_store, number)
    grow_old(sqlite_store)
    with capture_logs() as told:
        OrphanSearch(sqlite_store).continue_search()
    assert told == [{"event": "files_without_rows", "files": 4, "log_level": "error"}]
    assert len(files(sqlite_store)) == 4


def test_a_large_store_is_looked_at_in_short_turns_and_then_left_alone_for_a_day(
    sqlite_store: Store, make_instance: Make
) -> None:
    for number in range(6):
        sqlite_store.instances.receive(make_instance(number, study_instance_uid=f"2.25.{number}"))
    leave(sqlite_store, 1)
    grow_old(sqlite_store)
    turns = 0
    while sqlite_store.orphans.search(older_than_s=DAY_S, for_s=0) is None:
        turns += 1
    assert turns >= 5
    assert len(files(sqlite_store)) == 6
    now = [0.0]
    search = OrphanSearch(sqlite_store, clock=lambda: now[0])
    search.continue_search()
    leave(sqlite_store, 1)
    grow_old(sqlite_store)
    search.continue_search()
    assert len(files(sqlite_store)) == 7
    now[0] = 1.01 * DAY_S
    search.continue_search()
    assert len(files(sqlite_store)) == 6
