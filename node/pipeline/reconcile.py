"""The database's wishes, told to the broker again and again: whatever the broker lost, it learns anew."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Protocol

import structlog

from config.settings import Settings
from node.pipeline.describe import describe
from node.pipeline.ports import Publisher, Step, StepMessage
from node.pipeline.watch import CompletenessWatch
from node.store.errors import StoreError
from node.store.jobs import DueJob
from node.store.store import Store

log = structlog.get_logger(__name__)


def message_for(job: DueJob) -> StepMessage:
    return StepMessage(job_id=job.job_id, step=Step(job.step), generation=job.generation)


class Broker(Publisher, Protocol):
    """A broker that can tell how much it still holds."""

    def waiting(self, step: Step) -> int | None:
        """How many messages for `step` no worker has taken yet; None where the broker does not answer."""
        ...


def republish(store: Store, broker: Broker) -> int:
    """Publish every due step of which the broker has too few messages. Returns how many messages went out.

    A message too many is harmless (its claim fails) and a message too few costs time, so no attempt is made
    to tell which one is missing; comparing counts keeps a queue from growing while its workers are busy.
    """
    due: defaultdict[Step, list[StepMessage]] = defaultdict(list)
    for job in store.jobs.due():
        message = message_for(job)
        due[message.step].append(message)
    published = 0
    for step, messages in due.items():
        waiting = broker.waiting(step)
        if waiting is None:  # each message would cost its patience, while studies wait to be closed
            break
        if waiting < len(messages):
            for message in messages:
                broker.publish(message)
            published += len(messages)
    return published


def begin_again(store: Store, after_s: float) -> None:
    """Take studies back to their first step whose configuration or software no worker has any more.

    Raises
    ------
    StoreUnavailable
    """
    for job in store.bindings.begin_again(first_step=Step.SELECT, after_s=after_s):
        log.warning("study_begun_again", job_id=job.job_id, step=job.step, reason=job.reason)


def retry_study(store: Store, study_instance_uid: str) -> None:
    """A person asks for another try; `reconcile` of the running node takes it from there.

    Raises
    ------
    NoSuchStudy, NothingToRetry
    """
    job = store.studies.retry(study_instance_uid, first_step=Step.SELECT)
    log.info("retry_requested", job_id=job.job_id, step=job.step)


def reconcile_forever(
    store: Store, broker: Broker, watch: CompletenessWatch, settings: Settings, stop: threading.Event
) -> None:
    """Close studies that are whole and republish, until `stop` is set."""
    pause_s = min(settings.completeness.poll_s, settings.worker.reconcile_s)
    while not watch.wait(stop, pause_s):
        try:
            watch.close_studies()
            begin_again(store, settings.worker.begin_again_s)
            republish(store, broker)
        except StoreError as error:
            log.error("reconcile_failed", error=describe(error))
