"""DIMSE statuses. Only this module derives a status from an error, and an outcome from a status."""

from __future__ import annotations

from enum import IntEnum

from node.pipeline.ports import SendOutcome
from node.store.errors import QuarantineFull, StorageFull
from node.store.states import CommitmentVerdict


class Status(IntEnum):
    """What the listener may answer.

    Source: PS3.4 Table B.2-1 for C-STORE; PS3.7 Annex C for other messages.
    """

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    CLASS_INSTANCE_CONFLICT = 0x0119
    NO_SUCH_ACTION = 0x0123
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class ReceiveError(Exception):
    """Base of the faults of a received data set."""


class NotUnderstood(ReceiveError):
    """The data set cannot be parsed."""


class IdentifierMismatch(ReceiveError):
    """A UID is missing, is no UID, or differs from the one in the command."""


class LimitExceeded(ReceiveError):
    """The instance is larger than the site's limits."""


def status_for(error: BaseException) -> Status:
    """The status for a C-STORE that failed.

    Parameters
    ----------
    error : with which it failed.

    Source: PS3.4 Table B.2-1.
    """
    match error:
        case StorageFull() | QuarantineFull() | LimitExceeded():
            return Status.OUT_OF_RESOURCES
        case NotUnderstood():
            return Status.CANNOT_UNDERSTAND
        case IdentifierMismatch():
            return Status.DATA_SET_DOES_NOT_MATCH
        case _:
            return Status.PROCESSING_FAILURE


def outcome_of(status: int) -> SendOutcome:
    """What a peer's answer to our C-STORE means for another try.

    0000 is success; of B000, B006 and B007 the object is stored. A7xx (out of resources), 0110 (processing
    failure) and 0213 (resource limit) may pass. A9xx and Cxxx refuse the object itself. The other failures
    (SOP class not supported, not authorized, ...) stand until a person acts.

    Source: PS3.4 Table B.2-1; PS3.7 Annex C.
    """
    if status == 0x0000 or 0xB000 <= status <= 0xBFFF:
        return SendOutcome.SENT
    if status in {0x0110, 0x0213} or 0xA700 <= status <= 0xA7FF:
        return SendOutcome.TRANSIENT
    return SendOutcome.PERMANENT


def outcome_of_action(status: int) -> SendOutcome:
    """What a peer's answer to our N-ACTION for storage commitment means for another try.

    0000 and the warnings 0107 and 0116: the peer took the request. 0110, 0112 (a peer may look instances up
    before it answers), 0210, 0212 and 0213 may pass. The others (no such class or action, not authorized,
    unrecognized operation) say that it does not serve us.

    Source: PS3.7 Section 10.1.4.1.10 and Annex C.
    """
    if status in {0x0000, 0x0107, 0x0116}:
        return SendOutcome.SENT
    if status in {0x0110, 0x0112, 0x0210, 0x0212, 0x0213}:
        return SendOutcome.TRANSIENT
    return SendOutcome.PERMANENT


def verdict_of(reason: int | None) -> CommitmentVerdict:
    """What a Failure Reason (0008,1197) of a commitment report means for the delivery.

    0112: the peer does not hold the object. 0110 and 0213 may pass; a new Transaction UID cures 0131
    (duplicate Transaction UID). 0119 and 0122 refuse the object. Without a reason, which the standard does
    not allow, we ask again.

    Parameters
    ----------
    reason : None where the report states none.

    Source: PS3.3 Section C.14.1.1.
    """
    if reason == 0x0112:
        return CommitmentVerdict.MISSING
    if reason in {None, 0x0110, 0x0131, 0x0213}:
        return CommitmentVerdict.TRANSIENT
    return CommitmentVerdict.REFUSED
