"""DIMSE statuses of the Storage service: the one place that makes them of errors, and outcomes of them."""

from __future__ import annotations

from enum import IntEnum

from node.pipeline.ports import SendOutcome
from node.store.errors import StorageFull


class Status(IntEnum):
    """What the listener may answer to C-STORE: PS3.4 Table B.2-1, and PS3.7 Annex C for 0x0110."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class ReceiveError(Exception):
    """Base of what can be wrong with a received data set."""


class NotUnderstood(ReceiveError):
    """The data set cannot be parsed."""


class IdentifierMismatch(ReceiveError):
    """A UID is missing, is no UID, or differs from the one in the command."""


def status_for(error: BaseException) -> Status:
    """The answer to a C-STORE that failed with `error`."""
    match error:
        case StorageFull():
            return Status.OUT_OF_RESOURCES
        case NotUnderstood():
            return Status.CANNOT_UNDERSTAND
        case IdentifierMismatch():
            return Status.DATA_SET_DOES_NOT_MATCH
        case _:
            return Status.PROCESSING_FAILURE


def outcome_of(status: int) -> SendOutcome:
    """What a peer's answer to our C-STORE means for another try.

    PS3.4 Table B.2-1: 0000 success; B000, B006, B007 warnings, the object is stored; A7xx out of resources;
    A9xx and Cxxx refuse the object itself. PS3.7 Annex C: 0110 processing failure and 0213 resource limit
    may pass; the other failures (SOP class not supported, not authorized, ...) stand until a person acts.
    """
    if status == 0x0000 or 0xB000 <= status <= 0xBFFF:
        return SendOutcome.SENT
    if status in {0x0110, 0x0213} or 0xA700 <= status <= 0xA7FF:
        return SendOutcome.TRANSIENT
    return SendOutcome.PERMANENT
