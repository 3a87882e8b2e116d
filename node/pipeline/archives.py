"""Archives that are asked one after another, each left alone for a while when it does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import structlog

from config.settings import Destination, Peer
from node.pipeline.completeness import backoff_s
from node.pipeline.describe import describe
from node.pipeline.ports import Answer, Archive, Stated

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Generic[Stated]):
    """What the first archive that knows a study says of it."""

    archive: str
    stated: Mapping[str, Stated]  # empty: no archive knows the study


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    failures: int
    until_s: float
    problem: str


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

    def count(self, study_instance_uid: str) -> Told[int] | None:
        """CT images by series, as the first archive has them that has any; None where one was silent."""
        return self._ask(lambda peer: self._archive.count_ct_images(peer, study_instance_uid))

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        """As `IdentitySource`, by the first archive that knows the study."""
        told = self._ask(lambda peer: self._archive.identify(peer, study_instance_uid))
        return told.stated if told is not None and told.stated else None

    def send_again(self, archive: str, study_instance_uid: str, series: Sequence[str]) -> str:
        """As `Archive.send_again`, of the archive that is called so."""
        try:
            return self._archive.send_again(self._peers[archive], study_instance_uid, series)
        except Exception as error:  # noqa: BLE001 - as below
            return describe(error)

    def _ask(self, question: Callable[[Peer | Destination], Answer[Stated]]) -> Told[Stated] | None:
        """The first answer that says something; None where nothing is said and somebody was silent."""
        told, unheard = None, False
        for name, peer in self._peers.items():
            if self._rests_now(name):
                unheard = True
                continue
            answer = _answer(question, peer)
            self._note(name, answer)
            if answer.stated is None:
                unheard = True
                continue
            told = Told(archive=name, stated=answer.stated)
            if told.stated:
                return told
        return None if unheard else told

    def _rests_now(self, name: str) -> bool:
        with self._lock:
            rest = self._rests.get(name)
        return rest is not None and self._clock() < rest.until_s

    def _note(self, name: str, answer: Answer[Any]) -> None:
        """Have a peer rest that failed. Each problem is told once, not for every study."""
        with self._lock:
            before = self._rests.pop(name, None)
            if answer.stated is None:
                failures = before.failures + 1 if before else 1
                self._rests[name] = _Rest(
                    failures=failures, until_s=self._clock() + backoff_s(failures), problem=answer.problem
                )
        if answer.stated is None and (before is None or before.problem != answer.problem):
            log.warning("archive_does_not_tell", archive=name, problem=answer.problem)
        if answer.stated is not None and before is not None:
            log.info("archive_tells_again", archive=name)


def _answer(
    question: Callable[[Peer | Destination], Answer[Stated]], peer: Peer | Destination
) -> Answer[Stated]:
    try:
        return question(peer)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with an archive, studies go on without it
        return Answer(stated=None, problem=describe(error))
