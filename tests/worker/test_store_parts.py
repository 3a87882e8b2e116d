"""What the store says of the parts of the node, of destinations and of what is due."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from node.pipeline.ports import SendOutcome
from node.pipeline.runner import run_step
from node.processes.heartbeat import listed
from node.store.database import now_s
from node.store.files import ReceivedInstance
from node.store.jobs import DueJob
from node.store.schema import deliveries, jobs, parts
from node.store.store import Store
from node.store.workers import PUBLISHING, ServiceHeartbeat
from tests.worker.bench import SR_UID, Bench, republish


def test_a_part_that_did_not_say_that_it_ended_died(store: Store) -> None:
    with pytest.raises(KeyError), listed(store, PUBLISHING, beats=True):
        raise KeyError
    for deaths in (1, 2):  # of the one by an exception, and of one that was killed
        store.parts.begin(PUBLISHING, beats=True)
        (part,) = store.parts.list()
        assert (part.deaths, part.has_ended) == (deaths, False)
        assert part.died_s is not None
        assert part.died_s < 60
    store.parts.end(PUBLISHING)
    with listed(store, PUBLISHING, beats=True):
        assert store.parts.list()[0].deaths == 2  # it ended in good order
    assert store.parts.list()[0].has_ended


def test_deaths_of_a_process_without_a_row_are_counted(store: Store) -> None:
    for deaths in (1, 2):
        store.parts.note_death("worker on a host " + "for a very long list of queues " * 3)
        (part,) = store.parts.list()
        assert (part.deaths, part.beats, part.has_ended) == (deaths, False, False)
        assert part.died_s is not None


def test_deaths_are_counted_anew_after_a_quiet_hour(store: Store) -> None:
    store.parts.begin(PUBLISHING)
    store.parts.begin(PUBLISHING)
    with store.database.writing() as connection:
        connection.execute(update(parts).values(died_at=now_s() - 4000.0))
    store.parts.begin(PUBLISHING)
    assert store.parts.list()[0].deaths == 1


def test_a_thread_does_not_count_its_process_s_death_again(store: Store) -> None:
    store.parts.begin("housekeeping", beats=True, is_thread=True)
    store.parts.begin("housekeeping", beats=True, is_thread=True)
    assert store.parts.list()[0].deaths == 0


def test_a_part_is_heard_of_after_each_round(store: Store) -> None:
    store.parts.begin(PUBLISHING, beats=True)
    with store.database.writing() as connection:
        connection.execute(update(parts).values(heard_at=now_s() - 600.0))
    assert store.parts.list()[0].heard_s >= 600
    ServiceHeartbeat(store.parts, PUBLISHING)()
    assert store.parts.list()[0].heard_s < 60


def test_a_step_whose_worker_fell_silent_is_due(
    store: Store,
    make_instance: Callable[..., ReceivedInstance],
    close_study: Callable[[Store], DueJob],
) -> None:
    store.instances.receive(make_instance())
    close_study(store)
    assert store.census.take().due == 1
    with store.database.writing() as connection:
        connection.execute(update(jobs).values(state="running", lease_until=now_s() - 100.0))
    census = store.census.take()
    assert census.due == 1
    assert 100 <= census.oldest_due_s < 200
    with store.database.writing() as connection:
        connection.execute(update(jobs).values(lease_until=now_s() + 100.0))
    census = store.census.take()
    assert (census.due, census.oldest_due_s) == (0, 0.0)


def test_how_long_a_destination_takes_nothing_is_known_from_deliveries(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(worker={"send_backoff_s": [3600.0]})
    bench.sender.outcomes[SR_UID] = [SendOutcome.TRANSIENT]
    bench.close()
    for _ in range(5):  # steps; the last of them waits for the PACS
        republish(bench.store, bench.queue)
        run_step(bench.queue.messages.pop(0), bench.dependencies)
        bench.queue.messages.clear()
    (pacs,) = bench.store.census.destinations()
    assert pacs.pending == 1
    assert pacs.taken_s is not None  # the other object
    with bench.store.database.writing() as connection:
        connection.execute(
            update(deliveries).values(pending_since=now_s() - 7200.0, sent_at=deliveries.c.sent_at - 3600.0)
        )
    (pacs,) = bench.store.census.destinations()
    assert pacs.waiting_s is not None
    assert 7200 <= pacs.waiting_s < 7300
    assert pacs.taken_s is not None
    assert 3600 <= pacs.taken_s < 3700
