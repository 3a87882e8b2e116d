"""Archives that are asked one after another, each left alone for a while when it does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from config.settings import Destination, Peer
from node.pipeline.completeness import backoff_s
from node.pipeline.ports import Archive

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the first archive that knows a study says of it."""

    archive: str
    images: Mapping[str, int]  # by CT series; empty: no archive has CT of the study


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    failures: int
    until_s: float


class ArchivesInTurn:
    """Threads may share one. A peer that failed is not asked by any of them until it has rested."""

    def __init__(
        self,
        archive: Archive,
        peers: Mapping[str, Peer | Destination],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archive = archive
        self._peers = peers
        self._clock = clock
        self._lock = threading.Lock()
        self._rests: dict[str, _Rest] = {}

    def __bool__(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._peers)

    def count(self, study_instance_uid: str) -> Told | None:
        """What the first archive says that has CT of the study; None where one was silent."""
        told, unheard = None, False
        for name, peer in self._peers.items():
            if self._rests_now(name):
                unheard = True
                continue
            counted = self._archive.count_ct_images(peer, study_instance_uid)
            self._note(name, failed=counted.images is None)
            if counted.images is None:
                log.warning("archive_does_not_count", archive=name, problem=counted.problem)
                unheard = True
                continue
            told = Told(archive=name, images=counted.images)
            if told.images:
                return told
        return None if unheard else told

    def _rests_now(self, name: str) -> bool:
        with self._lock:
            rest = self._rests.get(name)
        return rest is not None and self._clock() < rest.until_s

    def _note(self, name: str, *, failed: bool) -> None:
        with self._lock:
            failures = (self._rests[name].failures if name in self._rests else 0) + 1
            if failed:
                self._rests[name] = _Rest(failures=failures, until_s=self._clock() + backoff_s(failures))
            else:
                self._rests.pop(name, None)
