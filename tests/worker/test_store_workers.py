"""Who works: rows of workers on both databases, as others read them."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from node.store import schema
from node.store.database import now_s
from node.store.states import WorkerState
from node.store.store import Store
from node.store.workers import SILENT_AFTER_S, ResultBasis, Worker

pytestmark = pytest.mark.slow

HERE = ResultBasis(software="1.0 (numpy 2.2)", configuration_sha256="aa" * 32)
MANY = ("segment", "score")


def worker(
    pid: int, host: str = "one", queues: tuple[str, ...] = MANY, engine: str = "geometric 3"
) -> Worker:
    return Worker(worker_id=f"{host}:{pid}:{queues}", host=host, pid=pid, queues=queues, engine=engine)


def enter(
    store: Store, one: Worker, result_basis: ResultBasis = HERE, problem: str = "", *, lives: bool = True
) -> None:
    store.workers.enter(one, result_basis, problem, lambda _: lives)


def let_pass(store: Store, one: Worker, seconds: float) -> None:
    """As if the worker had last been heard of so long ago."""
    with store.database.writing() as connection:
        connection.execute(
            update(schema.workers)
            .where(schema.workers.c.worker_id == one.worker_id)
            .values(heartbeat_at=now_s() - seconds)
        )


def test_a_worker_is_listed_from_its_first_beat(store: Store) -> None:
    enter(store, worker(7))
    store.workers.beat(worker(7), HERE, "")
    (line,) = store.workers.list()
    assert (line.worker, line.result_basis) == (worker(7), HERE)
    assert (line.state, line.problem, line.differs) == (WorkerState.WORKING, "", "")
    assert line.heard_s < SILENT_AFTER_S


def test_a_worker_that_says_why_it_takes_no_work_is_shown_so_until_it_does(store: Store) -> None:
    enter(store, worker(7), problem="the share is not mounted")
    assert [(one.state, one.problem) for one in store.workers.list()] == [
        (WorkerState.REFUSING, "the share is not mounted")
    ]
    store.workers.beat(worker(7), HERE, "")
    assert store.workers.list()[0].state is WorkerState.WORKING


def test_a_worker_that_is_not_heard_of_is_silent_and_one_that_was_stopped_has_ended(store: Store) -> None:
    for pid in (7, 8):
        enter(store, worker(pid))
    let_pass(store, worker(7), SILENT_AFTER_S + 1)
    store.workers.end(worker(8).worker_id)
    store.workers.beat(worker(8), HERE, "")  # its process had not yet heard of it
    assert [one.state for one in store.workers.list()] == [WorkerState.SILENT, WorkerState.ENDED]


def test_a_worker_takes_the_place_of_one_of_its_host_whose_process_is_gone(store: Store) -> None:
    for one in (worker(7), worker(7, queues=("select",)), worker(7, host="two")):
        enter(store, one)
    enter(store, worker(8))
    assert len(store.workers.list()) == 4  # both processes live
    enter(store, worker(9), lives=False)
    assert {(one.worker.host, one.worker.pid, one.worker.queues) for one in store.workers.list()} == {
        ("one", 7, ("select",)),
        ("one", 9, MANY),
        ("two", 7, MANY),
    }


def test_a_worker_that_did_not_say_that_it_ended_is_counted_by_its_successor(store: Store) -> None:
    def gone(one: Worker) -> int:
        return store.workers.enter(one, HERE, "", lambda _: False)

    assert gone(worker(7)) == 0
    assert gone(worker(7)) == 1  # its pool process was killed, and another has taken its place
    assert gone(worker(8)) == 1
    store.workers.end(worker(8).worker_id)
    assert gone(worker(9)) == 0
    assert gone(worker(9, host="two")) == 0


@pytest.mark.parametrize(
    ("other", "engine", "word"),
    [
        (
            ResultBasis(software="1.0 (numpy 2.2)", configuration_sha256="bb" * 32),
            "geometric 3",
            "other configuration",
        ),
        (
            ResultBasis(software="1.1 (numpy 2.2)", configuration_sha256="aa" * 32),
            "geometric 3",
            "other software",
        ),
        (HERE, "totalsegmentator 2", "other engine"),
        (HERE, "", ""),
    ],
)
def test_a_worker_that_differs_from_most_is_told_by_what(
    store: Store, other: ResultBasis, engine: str, word: str
) -> None:
    enter(store, worker(3, engine=engine), other)
    enter(store, worker(7))
    enter(store, worker(8))
    assert [one.differs for one in store.workers.list()] == [word, "", ""]


def test_of_two_workers_that_differ_the_later_is_told(store: Store) -> None:
    enter(store, worker(7))
    enter(store, worker(3, host="two"), ResultBasis(software="2", configuration_sha256="bb" * 32))
    assert [one.differs for one in store.workers.list()] == ["", "other software and configuration"]
