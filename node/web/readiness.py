"""Whether the node can receive and do its work, by trying each part it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Without these nothing can be received. Without the others studies wait, or are reported with less.
NEEDED_TO_RECEIVE = frozenset({"database", "disk", "listener"})

Probe = Callable[[], str]
"""Tries one part of the node: gives what it found in a few words, or raises `NotReady`."""


class NotReady(Exception):
    """A part that the node needs does not work now; the message says why, without patient data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How one part stands."""

    name: str
    ok: bool
    detail: str

    @property
    def stops_reception(self) -> bool:
        return not self.ok and self.name in NEEDED_TO_RECEIVE


def try_all(probes: Mapping[str, Probe]) -> Sequence[Check]:
    """Every probe's answer, in their order."""
    return tuple(_try(name, probe) for name, probe in probes.items())


def _try(name: str, probe: Probe) -> Check:
    try:
        return Check(name=name, ok=True, detail=probe())
    except NotReady as reason:
        return Check(name=name, ok=False, detail=str(reason))
