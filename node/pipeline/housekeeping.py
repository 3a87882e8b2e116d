"""Once a minute: what is to go is removed, and identities that the archive confirms are put in force."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from config.settings import Settings, StorageSettings
from node.dicom import likeness
from node.pipeline.describe import describe
from node.pipeline.identities import confirm_identities
from node.pipeline.objects import MANIFEST
from node.pipeline.ports import IdentitySource
from node.store.errors import StoreError, StoreUnavailable
from node.store.store import Store

log = structlog.get_logger(__name__)

_PAUSE_S = 60.0
_DAY_S = 86400.0
_SAFE_AGE_S = _DAY_S  # a row follows its file within seconds, or after a reconnection
_LOOK_FOR_S = 1.0  # for files without a row, each time


def purge_due(store: Store, settings: StorageSettings, stop: threading.Event | None = None) -> int:
    """Remove the images of finished studies that are too old, or that the disk has no room for.

    Returns how many images went. Ends between two studies once `stop` is set. A study whose images cannot be
    removed is told in the log, and the others go on.

    Raises
    ------
    StoreUnavailable
    """
    if stuck := store.retention.sweep():
        log.error("files_not_removed", files=stuck)
    removed = 0
    for uid, why in _going(store, settings):
        if stop is not None and stop.is_set():
            break
        with _own_trouble("images_not_purged", uid):
            images = store.retention.purge(uid, likeness)
            log.info("images_purged", study_instance_uid=uid, images=images, why=why)
            removed += images
    return removed


@contextmanager
def _own_trouble(event: str, study_instance_uid: str) -> Iterator[None]:
    """What fails for one study is told in the log, and the others go on. Raises StoreUnavailable."""
    try:
        yield
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - one study's boundary: whatever is wrong is its own
        log.error(event, study_instance_uid=study_instance_uid, error=describe(error))


def remove_results_due(store: Store, settings: Settings, stop: threading.Event | None = None) -> int:
    """Remove results, and what names patients, of studies that were delivered long enough ago.

    Never before the laboratory window is closed: a value that comes late must find what it belongs to.
    A study comes after its date, so the window is counted from its coming.
    Returns how many files went. Ends between two studies once `stop` is set.

    Raises
    ------
    StoreUnavailable
    """
    storage, kept, removed = settings.storage, (MANIFEST,), 0

    def old_for_s(days: float) -> float:
        return max(days, settings.clinical.max_age_days) * _DAY_S

    if storage.retention_identity_days:
        for uid in store.retention.with_identity(for_s=old_for_s(storage.retention_identity_days), kept=kept):
            if stop is not None and stop.is_set():
                return removed
            with _own_trouble("identity_not_removed", uid):
                files = store.retention.remove_identity(uid, likeness, kept=kept)
                log.info("identity_removed", study_instance_uid=uid, files=files)
                removed += files
    if storage.retention_results_days:
        for uid in store.retention.with_results(for_s=old_for_s(storage.retention_results_days), kept=kept):
            if stop is not None and stop.is_set():
                return removed
            with _own_trouble("results_not_removed", uid):
                files = store.retention.remove_results(uid, kept=kept)
                log.info("results_removed", study_instance_uid=uid, files=files)
                removed += files
    return removed


def _going(store: Store, settings: StorageSettings) -> Iterator[tuple[str, str]]:
    """Studies, one after another, as long as there is a reason: what went before may have been enough."""
    if settings.retention_days:
        for uid in store.retention.finished(for_s=settings.retention_days * _DAY_S):
            yield uid, "age"
    if settings.purge_above_percent:
        for uid in store.retention.finished():
            if store.files.used_percent() <= settings.purge_above_percent:
                return
            yield uid, "space"


class OrphanSearch:
    """Has files without a row removed, once after each start and then once a day, a little at a time."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._next_at = clock()

    def go_on(self) -> None:
        """Raises StoreUnavailable."""
        if self._clock() < self._next_at:
            return
        found = self._store.orphans.look(older_than_s=_SAFE_AGE_S, for_s=_LOOK_FOR_S)
        if found is None:
            return
        self._next_at = self._clock() + _DAY_S
        if found.removed:
            log.info("files_without_rows_removed", files=found.removed)
        if found.left:  # of a restored database, whose files are newer
            log.error("files_without_rows", files=found.left)


def keep_house_forever(
    store: Store,
    settings: Settings,
    identities: IdentitySource,
    stop: threading.Event,
    on_round: Callable[[], None] = lambda: None,
) -> None:
    """Once a minute until `stop` is set. What one of the tasks meets keeps no other from its work.

    Parameters
    ----------
    on_round : called after each round; may raise StoreError.
    """
    orphans = OrphanSearch(store)
    tasks: tuple[Callable[[], object], ...] = (
        partial(confirm_identities, store, identities, stop),
        partial(purge_due, store, settings.storage, stop),
        partial(remove_results_due, store, settings, stop),
        orphans.go_on,
        on_round,
    )
    while not stop.wait(_PAUSE_S):
        for task in tasks:
            try:
                task()
            except StoreError as error:
                log.error("housekeeping_failed", error=describe(error))
