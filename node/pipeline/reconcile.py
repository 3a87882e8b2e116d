"""The database's wishes, told to the broker again and again: whatever the broker lost, it learns anew."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

import structlog

from config.settings import Settings
from node.pipeline.describe import describe
from node.pipeline.ports import Publisher, Step, StepMessage
from node.pipeline.watch import CompletenessWatch
from node.store.errors import StoreError
from node.store.jobs import DueJob
from node.store.store import Store

log = structlog.get_logger(__name__)


# Messages that wait for each worker: some minutes of work. More would only stand before what is urgent, or
# of another sender, and comes later.
_MOST_FOR_EACH_WORKER = 4


def message_for(job: DueJob) -> StepMessage:
    return StepMessage(job_id=job.job_id, step=Step(job.step), generation=job.generation, urgent=job.urgent)


def most_waiting(workers: int) -> int:
    """How many messages may wait for so many workers. With none known there may be one all the same."""
    return _MOST_FOR_EACH_WORKER * max(1, workers)


def has_room(store: Store, broker: Publisher, step: Step) -> bool:
    """Whether one more message for `step` may wait; if not, the database will have it published in its turn.

    Raises
    ------
    StoreUnavailable
    """
    waiting = broker.waiting(step)
    return waiting is not None and waiting < most_waiting(store.workers.by_queue().get(step, 0))


class Publishing:
    """Keeps the broker informed of what is due, a few minutes' work at a time."""

    def __init__(self, store: Store, broker: Publisher) -> None:
        self._store = store
        self._broker = broker
        self._sent: set[StepMessage] = set()  # of what was due at the last look

    def publish_due(self) -> int:
        """Publish due steps of which the broker has too few messages. Returns how many messages went out.

        A message too many is harmless (its claim fails) and a message too few costs time, so no attempt is
        made to tell which one is missing; comparing counts keeps a queue from growing while its workers are
        busy. What was not published before goes first. An urgent one goes in any case, once: it does not
        wait behind the others.

        Raises
        ------
        StoreUnavailable
        """
        workers = self._store.workers.by_queue()
        sent: set[StepMessage] = set()
        published = 0
        for step, due in self._due(most_waiting(max(workers.values(), default=0))).items():
            messages = due[: most_waiting(workers.get(step, 0))]
            waiting = self._broker.waiting(step)
            if waiting is None:  # each message would cost its patience, while studies wait to be closed
                break
            fresh = [message for message in messages if message not in self._sent]
            ordered = fresh + [message for message in messages if message in self._sent]
            lacking = max(0, len(messages) - waiting)
            going = ordered[:lacking] + [one for one in fresh[lacking:] if one.urgent]
            for message in going:
                self._broker.publish(message)
            published += len(going)
            sent |= self._sent.intersection(messages).union(going)
        self._sent = sent
        return published

    def _due(self, most: int) -> Mapping[Step, list[StepMessage]]:
        due: defaultdict[Step, list[StepMessage]] = defaultdict(list)
        for job in self._store.jobs.due(most):
            try:
                message = message_for(job)
            except ValueError:  # of a later version; the others go on
                log.error("step_not_known", job_id=job.job_id, step=job.step)
                continue
            due[message.step].append(message)
        return due


def republish(store: Store, broker: Publisher) -> int:
    """As `Publishing.publish_due`, by one who has published nothing before."""
    return Publishing(store, broker).publish_due()


def begin_again(store: Store, after_s: float) -> None:
    """Take studies back to their first step whose configuration or software no worker has any more.

    Raises
    ------
    StoreUnavailable
    """
    for job in store.bindings.begin_again(first_step=Step.SELECT, after_s=after_s):
        log.warning("study_begun_again", job_id=job.job_id, step=job.step, reason=job.reason)


def reconcile_forever(
    store: Store,
    broker: Publisher,
    watch: CompletenessWatch,
    settings: Settings,
    stop: threading.Event,
    *,
    on_round: Callable[[], None] = lambda: None,
) -> None:
    """Close studies that are whole and republish, until `stop` is set.

    Parameters
    ----------
    on_round : called after each round; may raise StoreError.
    """
    publishing = Publishing(store, broker)
    pause_s = min(settings.completeness.poll_s, settings.worker.reconcile_s)
    while not watch.wait(stop, pause_s):
        try:
            watch.close_studies()
            begin_again(store, settings.worker.begin_again_s)
            publishing.publish_due()
            on_round()
        except StoreError as error:
            log.error("reconcile_failed", error=describe(error))
