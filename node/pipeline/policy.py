"""What happens when a step fails: the only place that decides between trying again and giving up.

A study that cannot be measured is no error: the steps turn that into findings and a refusal report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing
from config.findings import UnknownFinding
from config.settings import ConfigurationError
from node.dicom.errors import DicomError
from node.pipeline.measured_with import BasisChanged
from node.pipeline.ports import ArtefactMissing
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
    """What to do about an error that ended an attempt (1 is the first)."""
    if isinstance(error, LeaseLost):
        return Action.ABANDON
    if isinstance(error, (StoreUnavailable, BasisChanged)):
        return Action.WAIT
    if isinstance(error, _HOPELESS) or attempt >= max_attempts:
        return Action.SET_ASIDE
    return Action.ELSEWHERE if isinstance(error, _OF_THE_MACHINE) else Action.RETRY


def way_to_prove(
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
    """How long to wait after attempt number `attempt`; the last delay repeats."""
    return backoff_s[min(attempt, len(backoff_s)) - 1]
