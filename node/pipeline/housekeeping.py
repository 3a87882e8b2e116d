"""Repeated work besides the steps: removal by retention, confirmed identities, and messages for due steps."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog

from config.sections import StorageSettings
from config.settings import Settings
from node.dicom import content_comparison
from node.dicom.content_comparison import canonical_value, identity_values
from node.logs import describe
from node.pipeline.artefacts import MANIFEST
from node.pipeline.ports import IdentitySource, Publisher, Step, StepMessage
from node.pipeline.study_watch import CompletenessWatch
from node.store.errors import ReconciliationIncomplete, StoreError, StoreUnavailable
from node.store.jobs import DueJob
from node.store.quarantine import HeldIdentity
from node.store.store import Store

log = structlog.get_logger(__name__)

Item = TypeVar("Item")

# An archive records its own corrections here; they are no part of the patient's identity.
_NOTES = frozenset({"OriginalAttributesSequence"})

_PAUSE_S = 60.0
_DAY_S = 86400.0
_SAFE_AGE_S = _DAY_S  # a row follows its file within seconds, or after a reconnection
_SEARCH_FOR_S = 1.0  # for files without a row, each time


def confirm_identities(store: Store, source: IdentitySource, stop: threading.Event | None = None) -> int:
    """Accept the new identity of images where the archive states it too.

    A study waits for an operator where the source does not answer, omits a differing attribute or states
    another value, where images would be left without the identity, or where the comparison fails.

    Parameters
    ----------
    stop : ends the work between two studies.

    Returns
    -------
    Number of studies.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    confirmed = 0
    for uid in _until(stop, store.identities.studies_waiting()):
        with _isolated("identity_not_compared", uid):
            confirmed += _confirm(store, source, uid)
    return confirmed


def _confirm(store: Store, source: IdentitySource, uid: str) -> bool:
    said = source.identity_of(uid)
    if said is None or not all(_confirms(said, one) for one in store.identities.waiting(uid)):
        return False
    try:
        images = store.identities.accept(uid)
    except ReconciliationIncomplete:
        return False  # the other images may still arrive
    log.info("identity_confirmed", study_instance_uid=uid, images=images)
    return True


def _confirms(said: Mapping[str, str], held: HeldIdentity) -> bool:
    """Whether the source states every differing attribute with the value of the waiting identity."""
    if held.in_force is None:
        return False  # the differing attributes are no longer known
    old, new = identity_values(held.in_force), identity_values(held.waiting)
    differing = {keyword for keyword in old.keys() | new.keys() if old.get(keyword) != new.get(keyword)}
    differing -= _NOTES
    return bool(differing) and all(
        keyword in said and canonical_value(keyword, said[keyword]) == new.get(keyword, "")
        for keyword in differing
    )


def purge_due(store: Store, settings: StorageSettings, stop: threading.Event | None = None) -> int:
    """Remove the images of finished studies that are too old, or for which the disk has no room.

    A study whose images cannot be removed is logged; the others go on.

    Parameters
    ----------
    stop : ends the work between two studies.

    Returns
    -------
    Number of images.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    if stuck := store.retention.remove_files():
        log.error("files_not_removed", files=stuck)
    removed = 0
    for uid, why in _until(stop, _studies_to_purge(store, settings)):
        with _isolated("images_not_purged", uid):
            images = store.retention.purge(uid, content_comparison)
            log.info("images_purged", study_instance_uid=uid, images=images, why=why)
            removed += images
    return removed


def _until(stop: threading.Event | None, due: Iterable[Item]) -> Iterator[Item]:
    for one in due:
        if stop is not None and stop.is_set():
            return
        yield one


@contextmanager
def _isolated(event: str, study_instance_uid: str) -> Iterator[None]:
    """Log what fails for one study; the others continue. Raises StoreUnavailable."""
    try:
        yield
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - one study's boundary: whatever is wrong is its own
        log.error(event, study_instance_uid=study_instance_uid, error=describe(error))


def remove_results_due(store: Store, settings: Settings, stop: threading.Event | None = None) -> int:
    """Remove results, and data that name patients, of studies that were delivered long enough ago.

    Nothing goes before the laboratory window (`clinical.max_age_days`) is over: a late value must find its
    study. The window is counted from the study's arrival, which follows its date.

    Parameters
    ----------
    stop : ends the work between two studies.

    Returns
    -------
    Number of files.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    storage, kept, removed = settings.storage, (MANIFEST,), 0

    def age_s(days: float) -> float:
        return max(days, settings.clinical.max_age_days) * _DAY_S

    if storage.retention_identity_days:
        due = store.retention.with_identity(for_s=age_s(storage.retention_identity_days), kept=kept)
        for uid in _until(stop, due):
            with _isolated("identity_not_removed", uid):
                files = store.retention.remove_identity(uid, content_comparison, kept=kept)
                log.info("identity_removed", study_instance_uid=uid, files=files)
                removed += files
    if storage.retention_results_days:
        due = store.retention.with_results(for_s=age_s(storage.retention_results_days), kept=kept)
        for uid in _until(stop, due):
            with _isolated("results_not_removed", uid):
                files = store.retention.remove_results(uid, kept=kept)
                log.info("results_removed", study_instance_uid=uid, files=files)
                removed += files
    return removed


def _studies_to_purge(store: Store, settings: StorageSettings) -> Iterator[tuple[str, str]]:
    """Studies and the reason; the used space is measured again before each study."""
    if settings.retention_days:
        for uid in store.retention.finished(for_s=settings.retention_days * _DAY_S):
            yield uid, "age"
    if settings.purge_above_percent:
        for uid in store.retention.finished():
            if store.files.used_percent() <= settings.purge_above_percent:
                return
            yield uid, "space"


class OrphanSearch:
    """Removal of files without a row: after each start and then once a day, about a second at a time."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._next_at = clock()

    def continue_search(self) -> None:
        """Search for about a second, if a round is due.

        Raises
        ------
        StoreUnavailable
            If the database or the file system cannot be used.
        """
        if self._clock() < self._next_at:
            return
        found = self._store.orphans.search(older_than_s=_SAFE_AGE_S, for_s=_SEARCH_FOR_S)
        if found is None:
            return
        self._next_at = self._clock() + _DAY_S
        if found.removed:
            log.info("files_without_rows_removed", files=found.removed)
        if found.left:  # of a restored database, whose files are newer
            log.error("files_without_rows", files=found.left)


def run_housekeeping(
    store: Store,
    settings: Settings,
    identities: IdentitySource,
    stop: threading.Event,
    on_round: Callable[[], None] = lambda: None,
) -> None:
    """Run all tasks once a minute until `stop` is set. A task that fails does not prevent the others.

    Parameters
    ----------
    on_round : called after each round; may raise StoreError.
    """
    orphans = OrphanSearch(store)
    tasks: tuple[Callable[[], object], ...] = (
        partial(confirm_identities, store, identities, stop),
        partial(purge_due, store, settings.storage, stop),
        partial(remove_results_due, store, settings, stop),
        orphans.continue_search,
        on_round,
    )
    while not stop.wait(_PAUSE_S):
        for task in tasks:
            try:
                task()
            except StoreError as error:
                log.error("housekeeping_failed", error=describe(error))


# Due steps are published repeatedly from the database, which replaces messages that the broker lost.

# Waiting messages for each worker: some minutes of work. More would delay later messages that are urgent or
# come from another sender.
_MAX_FOR_EACH_WORKER = 4


def message_for(job: DueJob) -> StepMessage:
    return StepMessage(job_id=job.job_id, step=Step(job.step), generation=job.generation, urgent=job.urgent)


def max_waiting(workers: int) -> int:
    """Number of messages that may wait for this number of workers; without a worker, as for one."""
    return _MAX_FOR_EACH_WORKER * max(1, workers)


def has_room(store: Store, broker: Publisher, step: Step) -> bool:
    """Whether one more message for `step` may wait. If not, it is published later from the database.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    waiting = broker.waiting(step)
    return waiting is not None and waiting < max_waiting(store.workers.count_by_queue().get(step, 0))


class StepPublisher:
    """Publication of due steps, with a few minutes' work in the broker at a time."""

    def __init__(self, store: Store, broker: Publisher) -> None:
        self._store = store
        self._broker = broker
        self._sent: set[StepMessage] = set()  # published before and due at the last call

    def publish_due(self) -> int:
        """Publish due steps of which the broker has too few messages.

        A surplus message does no harm (its claim fails), and a missing one costs time. So the counts are
        compared, which keeps a queue from growing while its workers are busy. Steps that were not published
        before come first. An urgent one is published once in any case: it does not wait behind others.

        Returns
        -------
        Number of messages.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used.
        """
        workers = self._store.workers.count_by_queue()
        sent: set[StepMessage] = set()
        published = 0
        for step, due in self._due(max_waiting(max(workers.values(), default=0))).items():
            messages = due[: max_waiting(workers.get(step, 0))]
            waiting = self._broker.waiting(step)
            if waiting is None:  # each message would wait for its timeout, and delay the closing of studies
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
            except ValueError:  # of a later version of the node
                log.error("step_not_known", job_id=job.job_id, step=job.step)
                continue
            due[message.step].append(message)
        return due


def restart_stranded(store: Store, after_s: float) -> None:
    """Restart studies whose software or configuration no worker has any more.

    Parameters
    ----------
    after_s : seconds for which no such worker has been heard of.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    for job in store.bindings.restart_stranded(first_step=Step.SELECT, after_s=after_s):
        log.warning("study_begun_again", job_id=job.job_id, step=job.step, reason=job.reason)


def run_reconciliation(
    store: Store,
    broker: Publisher,
    watch: CompletenessWatch,
    settings: Settings,
    stop: threading.Event,
    *,
    on_round: Callable[[], None] = lambda: None,
) -> None:
    """Close complete studies and publish due steps, until `stop` is set.

    Parameters
    ----------
    on_round : called after each round; may raise StoreError.
    """
    publishing = StepPublisher(store, broker)
    pause_s = min(settings.completeness.poll_s, settings.worker.reconcile_s)
    while not watch.wait(stop, pause_s):
        try:
            watch.close_studies()
            restart_stranded(store, settings.worker.begin_again_s)
            publishing.publish_due()
            on_round()
        except StoreError as error:
            log.error("reconcile_failed", error=describe(error))
