"""A part of `serve` is listed while it is there, so that page and metrics notice where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from node.pipeline.describe import describe
from node.store.errors import StoreError
from node.store.parts import Beat
from node.store.store import Store
from node.supervision import status_at_end

log = structlog.get_logger(__name__)


@contextmanager
def listed(store: Store, name: str, *, beats: bool = False, is_thread: bool = False) -> Iterator[Beat]:
    """List a part while the block runs. One that ends by an exception, or is killed, has not ended in order.

    Parameters
    ----------
    beats : whether it calls what this gives, after each round of its work.
    is_thread : of a process that is listed itself.

    Raises
    ------
    StoreError
    """
    store.parts.begin(name, beats=beats, is_thread=is_thread)
    yield Beat(store.parts, name)
    if status_at_end(0) == 0:
        try:
            store.parts.end(name)
        except StoreError as error:
            log.warning("end_not_listed", part=name, error=describe(error))
