"""Tens of thousands of studies at once: every look ends, nobody waits for somebody else's backlog."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, event, select, text

from config.settings import Settings, load_settings
from node.pipeline.archives import ArchiveQueries
from node.pipeline.housekeeping import StepPublisher, has_room
from node.pipeline.ports import Step, StepMessage
from node.pipeline.runner import run_step
from node.pipeline.study_watch import CompletenessWatch
from node.processes.supervisor import EmbeddedRedis
from node.store.database import now_s
from node.store.files import ReceivedInstance
from node.store.jobs import DueJob
from node.store.states import StudyState
from node.store.store import Store
from node.store.workers import Worker
from node.worker import CeleryBroker, create_app
from tests.claiming import MEASURED_WITH, claim
from tests.waiting import LIMIT_S
from tests.worker.bench import Bench, Queue, republish
from tests.worker.conftest import CT
from tests.worker.test_completeness_watch import ScriptedArchive

pytestmark = pytest.mark.slow

MANY = 66_000  # PostgreSQL takes 65,535 parameters
FEW_PARAMETERS, MORE_THAN_FEW = 3_000, 3_100  # SQLite takes 250,000 as it is shipped: lowered, for speed

Make = Callable[..., ReceivedInstance]

_NUMBERS = {
    "postgresql": "SELECT generate_series(1, :number) AS i",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :number) "
    "SELECT i FROM n",
}
_STUDIES = """
INSERT INTO studies
    (study_instance_uid, generation, state, reason, declared_qct, created_at, last_received_at)
SELECT :prefix || CAST(i AS VARCHAR), 1, 'receiving', '', :no, CAST(:at AS FLOAT) + i * 1e-6, :at
FROM ({numbers}) AS numbers
"""
_INSTANCES = """
INSERT INTO instances (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid,
    transfer_syntax_uid, sha256, path, size_bytes, received_at, calling_ae, called_ae, own)
SELECT :prefix || CAST(i AS VARCHAR) || '.1', :prefix || CAST(i AS VARCHAR) || '.0',
    :prefix || CAST(i AS VARCHAR), :ct, '1.2.840.10008.1.2.1', '', '', 1, :at, :calling, :called, :no
FROM ({numbers}) AS numbers
"""


def receive_many(
    store: Store, number: int, *, calling: str = "PACS", called: str = "OSTEONODE", images: bool = True
) -> None:
    """Studies of one image each, which came a minute ago."""
    with store.database.writing() as connection:
        values = {
            "number": number,
            "prefix": f"2.25.{int(calling.encode().hex(), 16)}.",
            "at": connection.execute(select(now_s())).scalar_one() - 60.0,
            "no": False,
            "ct": CT,
            "calling": calling,
            "called": called,
        }
        for statement in (_STUDIES, _INSTANCES) if images else (_STUDIES,):
            whole = statement.format(numbers=_NUMBERS[connection.dialect.name])
            connection.execute(
                text(whole), {name: value for name, value in values.items() if f":{name}" in whole}
            )


def make_watch(store: Store, *urgent_titles: str, **rules: float) -> CompletenessWatch:
    quick = {"quiet_s": 1.0, "quiet_whole_s": 1.0, "confirm_s": 1.0} | rules
    return CompletenessWatch(
        store,
        load_settings(completeness=quick).completeness,
        ArchiveQueries(ScriptedArchive([]), {}),
        urgent_titles=urgent_titles,
    )


@pytest.fixture
def few_parameters() -> Iterator[None]:
    def lower(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, FEW_PARAMETERS)

    event.listen(Engine, "connect", lower)
    yield
    event.remove(Engine, "connect", lower)


def test_more_studies_than_a_statement_can_name_break_no_look(few_parameters: None, store: Store) -> None:
    with store.database.reading() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
    number = MORE_THAN_FEW if is_sqlite else MANY
    receive_many(store, number, images=False)
    watch = make_watch(store)
    assert len(watch.close_studies()) == 500  # one look's page
    assert watch.wait(Stop(), LIMIT_S) is False  # and the next follows at once
    assert len(watch.close_studies()) == 500
    watch.shut()
    if is_sqlite:
        assert len(store.studies.receiving(stale_s=20.0)) == number - 1000


class Stop:
    """An event that nobody waits for."""

    def wait(self, timeout: float) -> bool:
        raise AssertionError(f"waits for {timeout} s")

    def is_set(self) -> bool:
        return False


def test_a_look_closes_hundreds_of_studies_in_a_few_transactions(store: Store) -> None:
    receive_many(store, 300)
    watch, writing = make_watch(store), store.database.writing
    transactions = 0

    def counted() -> AbstractContextManager[Any]:
        nonlocal transactions
        transactions += 1
        return writing()

    store.database.writing = counted  # type: ignore[method-assign]
    assert len(watch.close_studies()) == 300
    watch.shut()
    assert transactions == 3


def test_studies_that_wait_are_all_looked_at_in_turn(store: Store) -> None:
    """Those that are not whole do not stand before those that are."""
    receive_many(store, 600, calling="FIRST")
    receive_many(store, 10, calling="LATER")
    with store.database.writing() as connection:
        connection.execute(
            text("UPDATE studies SET last_received_at = :now WHERE study_instance_uid LIKE :first"),
            {
                "now": connection.execute(select(now_s())).scalar_one() + 1000.0,  # images still come
                "first": f"2.25.{int(b'FIRST'.hex(), 16)}.%",
            },
        )
    watch = make_watch(store)
    closed = [len(watch.close_studies()) for _ in range(4)]
    watch.shut()
    assert closed == [0, 10, 0, 0]


def test_an_urgent_study_is_closed_at_the_first_look_and_goes_first(store: Store) -> None:
    receive_many(store, 700)
    receive_many(store, 1, calling="WARD", called="URGENT")
    watch = make_watch(store, "URGENT")
    closed = watch.close_studies()
    watch.shut()
    (urgent,) = [job for job in closed if job.urgent]
    assert len(closed) == 501
    assert store.jobs.due(1)[0].job_id == urgent.job_id
    following = store.jobs.advance(claim(store, urgent), "segment")
    assert following.urgent  # at every step
    assert claim(store, following).urgent


def close_all(store: Store) -> list[DueJob]:
    watch = make_watch(store)
    closed: list[DueJob] = []
    while found := watch.close_studies():
        closed += found
    watch.shut()
    return closed


def test_senders_take_turns_whatever_their_backlog(store: Store) -> None:
    receive_many(store, 40, calling="BUSY")
    receive_many(store, 2, calling="QUIET")
    sender_of = dict.fromkeys((job.job_id for job in close_all(store)), "")
    with store.database.reading() as connection:
        for job_id, calling_ae in connection.execute(text("SELECT job_id, calling_ae FROM jobs")):
            sender_of[job_id] = calling_ae
    first = [sender_of[job.job_id] for job in store.jobs.due(6)]
    assert first == ["BUSY", "QUIET", "BUSY", "QUIET", "BUSY", "BUSY"]
    assert len(store.jobs.due()) == 42


def test_no_more_is_published_than_workers_take_in_some_minutes(store: Store) -> None:
    receive_many(store, 50)
    close_all(store)
    queue = Queue()
    publishing = StepPublisher(store, queue)
    assert publishing.publish_due() == 4
    assert publishing.publish_due() == 0
    for pid in (1, 2, 3):
        worker = Worker(worker_id=str(pid), host="one", pid=pid, queues=("select", "score"), engine="")
        store.workers.enter(worker, MEASURED_WITH, "", lambda _: True)
    assert publishing.publish_due() == 8
    assert Counter(queue.messages).most_common(1)[0][1] == 1  # none of them twice
    assert not has_room(store, queue, Step.SELECT)
    queue.messages.clear()  # the broker was wiped
    assert publishing.publish_due() == 12


def test_an_urgent_study_is_published_although_enough_wait(store: Store, make_instance: Make) -> None:
    receive_many(store, 50)
    close_all(store)
    queue = Queue()
    publishing = StepPublisher(store, queue)
    publishing.publish_due()
    store.instances.receive(make_instance(called_ae="URGENT"))
    watch = make_watch(store, "URGENT", quiet_s=1e-6)
    while not (closed := watch.close_studies()):
        pass
    watch.shut()
    assert [publishing.publish_due(), publishing.publish_due()] == [1, 0]
    assert queue.messages[-1] == StepMessage(
        job_id=closed[0].job_id, step=Step.SELECT, generation=1, urgent=True
    )


def test_a_step_that_this_version_does_not_know_holds_no_other_up(store: Store) -> None:
    receive_many(store, 2)
    first, second = close_all(store)
    with store.database.writing() as connection:
        connection.execute(
            text("UPDATE jobs SET step = 'meditate' WHERE job_id = :job"), {"job": first.job_id}
        )
    queue = Queue()
    assert republish(store, queue) == 1
    assert queue.messages[0].job_id == second.job_id


def test_a_worker_leaves_the_next_step_to_its_turn_where_many_wait(bench: Bench) -> None:
    bench.close()
    republish(bench.store, bench.queue)
    message = bench.queue.messages.pop()
    waiting = [StepMessage(job_id=job, step=Step.SEGMENT, generation=1) for job in range(100, 104)]
    bench.queue.messages.extend(waiting)
    run_step(message, bench.dependencies)
    assert bench.queue.messages == waiting
    assert bench.summary.step == "segment"
    bench.queue.messages.clear()
    bench.work()
    assert bench.summary.state == StudyState.SENT


def test_an_urgent_message_overtakes_those_that_wait(
    broker: EmbeddedRedis, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(broker={"url": broker.url})
    celery = CeleryBroker(create_app(settings, lambda message: None))
    for job in (1, 2):
        celery.publish(StepMessage(job_id=job, step=Step.SCORE, generation=1))
    celery.publish(StepMessage(job_id=3, step=Step.SCORE, generation=1, urgent=True))
    assert celery.waiting(Step.SCORE) == 3
    taken: list[int] = []
    app = create_app(settings, lambda message: None)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("score")
        for _ in range(3):
            message = queue.get(timeout=LIMIT_S)
            taken.append(message.payload[0][0])
            message.ack()
        queue.close()
    assert taken == [3, 1, 2]
    with redis.Redis(unix_socket_path=str(broker.socket)) as client:
        assert client.llen("score") == client.llen("score:9") == 0
