"""Whether the node can do its work, by trying each part it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


def try_all(probes: Mapping[str, Probe]) -> Sequence[Check]:
    """Every probe's answer, in their order."""
    return tuple(_try(name, probe) for name, probe in probes.items())


def _try(name: str, probe: Probe) -> Check:
    try:
        return Check(name=name, ok=True, detail=probe())
    except NotReady as reason:
        return Check(name=name, ok=False, detail=str(reason))
