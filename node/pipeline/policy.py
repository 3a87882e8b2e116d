"""What happens after a failed attempt or a lost worker. Only this module decides to retry or to give up.

A study that cannot be measured is no error: the steps turn that into findings and a refusal report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing
from config.findings import UnknownFinding
from config.settings import ConfigurationError
from node.dicom.errors import DicomError
from node.pipeline.ports import ArtefactMissing
from node.pipeline.result_basis import BasisChanged
from node.store.errors import LeaseLost, StoreUnavailable
from node.store.states import Proof
from scoring.errors import ModelCardInvalid
from segmentation.errors import EngineUnavailable, MaskNotUsable


class Action(StrEnum):
    RETRY = "retry"
    ELSEWHERE = "retry elsewhere"  # a file that the database knows was not found: another machine may see it
    WAIT = "wait"  # nothing is wrong with the study: the store has no room, or does not answer
    SET_ASIDE = "set aside"  # the same bytes and settings would fail again: a person must look
    ABANDON = "abandon"  # somebody else has the job now


# Another try without a change of settings, software or input gives the same error.
_HOPELESS = (
    CatalogEntryInvalid,
    CatalogEntryMissing,
    ConfigurationError,
    DicomError,
    EngineUnavailable,
    MaskNotUsable,
    ModelCardInvalid,
    UnknownFinding,
)

# What one machine lacks another may have: its share is not mounted, or a disk is failing.
_OF_THE_MACHINE = (ArtefactMissing, OSError)


def decide(error: BaseException, *, attempt: int, max_attempts: int) -> Action:
    """Action after an error that ended an attempt.

    Parameters
    ----------
    attempt : number of that attempt, from 1.
    max_attempts : after this many attempts the study is set aside.
    """
    if isinstance(error, LeaseLost):
        return Action.ABANDON
    if isinstance(error, (StoreUnavailable, BasisChanged)):
        return Action.WAIT
    if isinstance(error, _HOPELESS) or attempt >= max_attempts:
        return Action.SET_ASIDE
    return Action.ELSEWHERE if isinstance(error, _OF_THE_MACHINE) else Action.RETRY


def reason_to_give_up(*, attempt: int, max_attempts: int) -> str | None:
    """Reason to set a study aside before an attempt begins; None: begin it.

    An attempt that fails ends in `decide`. Attempts beyond `max_attempts` exist only because the workers of
    earlier ones died before they recorded a result.

    Parameters
    ----------
    attempt : number of the attempt that would begin, from 1.
    max_attempts : as for `decide`.
    """
    if attempt <= max_attempts:
        return None
    return f"the worker was lost {attempt - 1} times in this step"


def choose_proof(
    wish: str, offered: Collection[Proof], *, unanswered: bool, proof: str, proved_before: bool
) -> Proof | None:
    """How to show that a destination holds an object that it took; None: not now.

    Parameters
    ----------
    wish : "auto", "commitment" or "find": `proof` of the destination's settings.
    offered : what the destination accepts at this moment.
    unanswered : whether the destination took the latest question for a commitment and kept silent, as one
        that cannot reach this node does.
    proof : COMMITMENT once the destination has answered for this object: its no is not outvoted by C-FIND.
    proved_before : whether the destination ever proved an object. It then is not believed to offer nothing.
    """
    if wish != "auto":
        return Proof(wish) if wish in offered else None
    if Proof.COMMITMENT in offered:
        silent = unanswered and proof != Proof.COMMITMENT
        return Proof.FIND if silent and Proof.FIND in offered else Proof.COMMITMENT
    if proof == Proof.COMMITMENT:
        return None
    if Proof.FIND in offered:
        return Proof.FIND
    return None if proved_before else Proof.STATUS


def delay_s(backoff_s: Sequence[float], attempt: int) -> float:
    """Seconds to wait after attempt number `attempt` (from 1); the last delay repeats."""
    return backoff_s[min(attempt, len(backoff_s)) - 1]


# PS3.7 Annex C; PS3.3 C.14 Failure Reason uses the same numbers.
_GENERAL = {
    0x0000: "success",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such object instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    0x0115: "invalid argument value",
    0x0117: "invalid object instance",
    0x0118: "no such SOP class",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0123: "no such action",
    0x0124: "not authorized",
    0x0131: "duplicate transaction UID",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
}
# PS3.4 Table B.2-1, of the Storage service.
_STORAGE = {
    0xA700: "out of resources",
    0xA900: "the data set does not match its SOP class",
    0xB000: "stored, with coerced elements",
    0xB006: "stored, with elements discarded",
    0xB007: "stored, though the data set does not match its SOP class",
    0xC000: "cannot understand the object",
}


def in_words(status: int) -> str:
    """DIMSE status with its number, such as "0x0122, SOP class not supported".

    Source: PS3.7 Annex C; PS3.4 Table B.2-1.
    """
    family = status & 0xFF00 if status >= 0xA000 else status
    if family in range(0xC000, 0xD000):
        family = 0xC000
    known = _GENERAL.get(status) or _STORAGE.get(status) or _STORAGE.get(family)
    return f"0x{status:04X}, {known}" if known else f"0x{status:04X}"
