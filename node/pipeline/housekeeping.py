"""Once a minute: images that are to go are removed, identities that the archive confirms are put in force."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import structlog

from config.settings import StorageSettings
from node.dicom import likeness
from node.pipeline.describe import describe
from node.pipeline.identities import confirm_identities
from node.pipeline.ports import IdentitySource
from node.store.errors import StoreError
from node.store.store import Store

log = structlog.get_logger(__name__)

_PAUSE_S = 60.0
_DAY_S = 86400.0


def purge_due(store: Store, settings: StorageSettings, stop: threading.Event | None = None) -> int:
    """Remove the images of finished studies that are too old, or that the disk has no room for.

    Returns how many images went. Ends between two studies once `stop` is set.

    Raises
    ------
    StoreUnavailable
    """
    store.retention.sweep()
    removed = 0
    for uid, why in _going(store, settings):
        if stop is not None and stop.is_set():
            break
        images = store.retention.purge(uid, likeness)
        log.info("images_purged", study_instance_uid=uid, images=images, why=why)
        removed += images
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


def keep_house_forever(
    store: Store, settings: StorageSettings, identities: IdentitySource, stop: threading.Event
) -> None:
    """Once a minute until `stop` is set."""
    while not stop.wait(_PAUSE_S):
        try:
            confirm_identities(store, identities, stop)
            purge_due(store, settings, stop)
        except StoreError as error:
            log.error("housekeeping_failed", error=describe(error))
