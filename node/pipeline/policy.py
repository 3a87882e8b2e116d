"""What happens when a step fails: the only place that decides between trying again and giving up.

A study that cannot be measured is no error: the steps turn that into findings and a refusal report.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing
from config.findings import UnknownFinding
from config.settings import ConfigurationError
from node.dicom.errors import DicomError
from node.pipeline.ports import ArtefactMissing
from node.store.errors import LeaseLost
from scoring.errors import ModelCardInvalid
from segmentation.errors import EngineUnavailable, MaskNotUsable


class Action(StrEnum):
    RETRY = "retry"
    SET_ASIDE = "set aside"  # the same bytes and settings would fail again: a person must look
    ABANDON = "abandon"  # somebody else has the job now


# Another try without a change of settings, software or input gives the same error.
_HOPELESS = (
    ArtefactMissing,
    CatalogEntryInvalid,
    CatalogEntryMissing,
    ConfigurationError,
    DicomError,
    EngineUnavailable,
    MaskNotUsable,
    ModelCardInvalid,
    UnknownFinding,
)


def decide(error: BaseException, *, attempt: int, max_attempts: int) -> Action:
    """What to do about an error that ended an attempt (1 is the first)."""
    if isinstance(error, LeaseLost):
        return Action.ABANDON
    if isinstance(error, _HOPELESS) or attempt >= max_attempts:
        return Action.SET_ASIDE
    return Action.RETRY


def delay_s(backoff_s: Sequence[float], attempt: int) -> float:
    """How long to wait after attempt number `attempt`; the last delay repeats."""
    return backoff_s[min(attempt, len(backoff_s)) - 1]
