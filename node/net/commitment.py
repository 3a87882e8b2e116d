"""Storage commitment (PS3.4 Annex J): what its messages say, and the answer to a report of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

import structlog
from pydicom import Dataset
from pydicom.tag import Tag
from pynetdicom import evt

from node.dicom.sequences import holds_items, items_of
from node.net.status import Status, verdict_of
from node.pipeline.describe import describe
from node.pipeline.dimse import in_words
from node.store.states import CommitmentVerdict
from node.store.transactions import ReportedInstance, ReportOutcome

log = structlog.get_logger(__name__)

REQUEST_ACTION = 1  # PS3.4 Table J.3-1, Action Type ID
_UID = re.compile(r"[0-9.]{1,64}")

# Takes a report in durably, or raises StoreError.
RecordReport = Callable[[str, Sequence[ReportedInstance]], ReportOutcome]


class EventType(IntEnum):
    """PS3.4 Table J.3-2."""

    COMMITTED = 1
    FAILURES_EXIST = 2


class MessageInvalid(Exception):
    """A request or report that lacks what the standard requires of it."""


def referenced(instances: Iterable[tuple[str, str]]) -> list[Dataset]:
    """Items of a Referenced SOP Sequence, of (SOP Class UID, SOP Instance UID)."""
    items = []
    for sop_class_uid, sop_instance_uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        items.append(item)
    return items


def uid_in(dataset: Dataset, keyword: str) -> str:
    """Raises MessageInvalid."""
    value = str(dataset.get(keyword) or "")
    if not _UID.fullmatch(value):
        raise MessageInvalid(f"{keyword} is missing or is no UID")
    return value


def references_in(dataset: Dataset, keyword: str) -> list[tuple[str, str, Dataset]]:
    """(SOP Class UID, SOP Instance UID, item) of each item of a sequence. Raises MessageInvalid."""
    if keyword in dataset and not holds_items(dataset, Tag(keyword)):
        raise MessageInvalid(f"{keyword} is no sequence")
    return [
        (uid_in(item, "ReferencedSOPClassUID"), uid_in(item, "ReferencedSOPInstanceUID"), item)
        for item in items_of(dataset, keyword)
    ]


def read_report(information: Dataset) -> tuple[str, tuple[ReportedInstance, ...]]:
    """The Transaction UID of a report, and what it says of each instance: its failures last.

    Raises
    ------
    MessageInvalid
    """
    reported = [
        ReportedInstance(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            verdict=CommitmentVerdict.COMMITTED,
            reason=None,
            detail="",
        )
        for sop_class_uid, sop_instance_uid, _ in references_in(information, "ReferencedSOPSequence")
    ]
    for sop_class_uid, sop_instance_uid, item in references_in(information, "FailedSOPSequence"):
        given = item.get("FailureReason")
        reason = None if given is None else int(given)
        told = "no reason given" if reason is None else in_words(reason)
        reported.append(
            ReportedInstance(
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                verdict=verdict_of(reason),
                reason=reason,
                detail=f"taken, but not committed: {told}",
            )
        )
    return uid_in(information, "TransactionUID"), tuple(reported)


def answer_report(event: evt.Event, record: RecordReport) -> tuple[int, None]:
    """Answer N-EVENT-REPORT, on whichever association it came.

    Success once it is recorded, and again for one that was recorded before: the peer need not repeat it.
    """
    try:
        kind = event.event_type
        if kind not in set(EventType):
            return int(Status.NO_SUCH_EVENT_TYPE), None
        transaction_uid, reported = read_report(event.event_information)
        receipt = record(transaction_uid, reported)
    except MessageInvalid as error:
        log.warning("commitment_report_refused", error=str(error))
        return int(Status.INVALID_ARGUMENT_VALUE), None
    except Exception as error:  # noqa: BLE001 - the SCP's boundary: the peer may report again
        log.error("commitment_report_not_recorded", error=describe(error))
        return int(Status.PROCESSING_FAILURE), None
    committed = sum(one.verdict is CommitmentVerdict.COMMITTED for one in reported)
    log.info(
        "commitment_reported",
        transaction_uid=transaction_uid,
        receipt=receipt.value,
        committed=committed,
        failed=len(reported) - committed,
    )
    if receipt is ReportOutcome.UNKNOWN:
        return int(Status.INVALID_ARGUMENT_VALUE), None
    return int(Status.SUCCESS), None
