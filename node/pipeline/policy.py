"""What happens when a step fails: the only place that decides between trying again and giving up.

A study that cannot be measured is no error: the steps turn that into findings and a refusal report.
"""

from __future__ import annotations

import traceback
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
_OWN_PACKAGES = frozenset({"node", "config", "scoring", "segmentation"})


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


def describe(error: BaseException) -> str:
    """An error for logs and operators, without patient data.

    Messages of this project's own errors are written to be shown. Those of libraries may quote what they
    read (pydicom quotes values), so only their type and the place where they arose are told.
    """
    name = type(error).__name__
    if _is_own(type(error).__module__):
        return f"{name}: {error}"
    told = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{name}{told}{_place(error)}"


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_PACKAGES


def _place(error: BaseException) -> str:
    """Where in this project's code the error passed last, else where it arose."""
    places = [
        (str(frame.f_globals.get("__name__", "")), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [place for place in places if _is_own(place[0])]
    if not places:
        return ""
    module, line = (own or places)[-1]
    return f" at {module}:{line}"
