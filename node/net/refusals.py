"""Refusals in the log: who was turned away and why, once a minute for each, however often he comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_MOST_KEPT = 1000  # addresses and titles whose repetitions are counted; the one told longest ago makes room


@dataclass(frozen=True, slots=True, kw_only=True)
class _Who:
    event: str
    reason: str
    peer: str
    calling_ae: str
    called_ae: str


@dataclass(slots=True)
class _Told:
    at: float
    since: int = 0  # how often it came after it was told


class RefusalLog:
    """Tells the first refusal of each kind at once, and those that follow within a minute as a number.

    Parameters
    ----------
    clock : seconds that never go back.
    """

    def __init__(self, *, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[_Who, _Told] = {}  # the one told longest ago first

    def tell(self, event: str, *, reason: str, peer: str, calling_ae: str = "", called_ae: str = "") -> None:
        """Log a refusal, or count it. AE titles are "" where none was stated."""
        who = _Who(event=event, reason=reason, peer=peer, calling_ae=calling_ae, called_ae=called_ae)
        self.tell_repeated()
        with self._lock:
            known = self._told.get(who)
            if known is not None:
                known.since += 1
                return
            if len(self._told) >= _MOST_KEPT:
                oldest = next(iter(self._told))
                self._log(oldest, self._told.pop(oldest).since)
            self._told[who] = _Told(self._clock())
        self._log(who, None)

    def tell_repeated(self) -> None:
        """Log what was counted for a minute. To be called now and then."""
        with self._lock:
            now = self._clock()
            due = [who for who, told in self._told.items() if now - told.at >= self._every_s]
            counts = [(who, self._told.pop(who).since) for who in due]
            self._told |= {who: _Told(now) for who, since in counts if since}
        for who, since in counts:
            self._log(who, since)

    def _log(self, who: _Who, repeated: int | None) -> None:
        if repeated == 0:
            return
        fields: dict[str, str | int] = {}
        if who.calling_ae:
            fields |= {"calling_ae": who.calling_ae, "called_ae": who.called_ae}
        if repeated is not None:
            fields["repeated"] = repeated
        log.warning(who.event, reason=who.reason, peer=who.peer, **fields)
