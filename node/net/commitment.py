"""Storage commitment (PS3.4 Annex J): its messages, reports to peers, and the listener's service."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any

import structlog
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pynetdicom import build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from config.settings import ConfigurationError, Settings
from node.checkpoint import pause_reactor, resume_reactor
from node.dicom.header_text import holds_items, items_of
from node.logs import describe
from node.net.sender import Address, Requestor, why_not_established
from node.net.status import Status, verdict_of
from node.pipeline.policy import delay_s, in_words
from node.store.commitments import CommitmentRequest, CommitmentRequests, ReportedInstance, ReportOutcome
from node.store.errors import StoreError, TransactionInUse
from node.store.states import CommitmentVerdict
from node.store.store import Store

log = structlog.get_logger(__name__)

REQUEST_ACTION = 1  # PS3.4 Table J.3-1, Action Type ID
_UID = re.compile(r"[0-9.]{1,64}")

# Records a report durably, or raises StoreError.
RecordReport = Callable[[str, Sequence[ReportedInstance]], ReportOutcome]


class EventType(IntEnum):
    """PS3.4 Table J.3-2."""

    COMMITTED = 1
    FAILURES_EXIST = 2


class MessageInvalid(Exception):
    """A request or report lacks what the standard requires."""


def referenced(instances: Iterable[tuple[str, str]]) -> list[Dataset]:
    """Items of a Referenced SOP Sequence.

    Parameters
    ----------
    instances : (SOP Class UID, SOP Instance UID) of each.
    """
    items = []
    for sop_class_uid, sop_instance_uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        items.append(item)
    return items


def uid_in(dataset: Dataset, keyword: str) -> str:
    """A UID of a message. Raises MessageInvalid where it is missing or malformed."""
    value = str(dataset.get(keyword) or "")
    if not _UID.fullmatch(value):
        raise MessageInvalid(f"{keyword} is missing or not a UID")
    return value


def references_in(dataset: Dataset, keyword: str) -> list[tuple[str, str, Dataset]]:
    """The references in a sequence of a message.

    Returns
    -------
    (SOP Class UID, SOP Instance UID, item) of each item.

    Raises
    ------
    MessageInvalid
        If the element is no sequence, or an item lacks a UID.
    """
    if keyword in dataset and not holds_items(dataset, Tag(keyword)):
        raise MessageInvalid(f"{keyword} is not a sequence")
    return [
        (uid_in(item, "ReferencedSOPClassUID"), uid_in(item, "ReferencedSOPInstanceUID"), item)
        for item in items_of(dataset, keyword)
    ]


def read_report(information: Dataset) -> tuple[str, tuple[ReportedInstance, ...]]:
    """Read the Event Information of an N-EVENT-REPORT (PS3.4 Table J.3-2).

    Returns
    -------
    Its Transaction UID, and each reported instance, failures last.

    Raises
    ------
    MessageInvalid
        If a UID is missing or malformed.
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
                detail=f"accepted, but not committed: {told}",
            )
        )
    return uid_in(information, "TransactionUID"), tuple(reported)


def answer_report(event: evt.Event, record: RecordReport) -> tuple[int, None]:
    """Record an N-EVENT-REPORT, and answer it. Handles EVT_N_EVENT_REPORT on any association.

    Returns
    -------
    Success for a report that is recorded, now or earlier; else a failure, upon which the peer may report
    again.
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


# ---- reports to peers (N-EVENT-REPORT), until they take them

_HOLD_S = 300.0  # longer than one attempt can take
_ANSWER_HERE_S = 10.0  # on the peer's association: it may be releasing it
_STILL_WITHIN_S = 2.0


class CommitmentReporter:
    """Reports on requests: on the association of the request, else on one to the peer's address.

    Parameters
    ----------
    requests : what peers asked this node to commit.
    address_of : gives the address of an AE title; None where none is configured.
    backoff_s : waits after a failed attempt; the last repeats.
    give_up_after_s : counted from the request.
    """

    def __init__(
        self,
        requestor: Requestor,
        requests: CommitmentRequests,
        address_of: Callable[[str], Address | None],
        *,
        backoff_s: Sequence[float],
        give_up_after_s: float,
    ) -> None:
        self._requestor = requestor
        self._requests = requests
        self._address_of = address_of
        self._backoff_s = backoff_s
        self._give_up_after_s = give_up_after_s

    def report_here(self, association: Any, request: CommitmentRequest, after_s: float) -> None:
        """Report on the request's association, if that is open after `after_s`; else leave the report due."""
        time.sleep(after_s)
        try:
            failure = self._report_here(association, request)
            if failure is None:
                self._requests.mark_reported(request)
                self._log(request, "same association")
            else:
                self._requests.postpone(request, failure, 0.0)
        except Exception as error:  # noqa: BLE001 - one request's boundary: it stays due
            log.warning("commitment_report_not_noted", error=describe(error))

    def report_due(self) -> int:
        """Report on all due requests, over associations that this node asks for.

        Returns
        -------
        How many were due.

        Raises
        ------
        StoreError
            If the database fails. What fails at a peer is postponed.
        """
        due = self._requests.claim_due(_HOLD_S)
        for request in due:
            try:
                self._report(request)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - one request's boundary: the others go on
                log.error("commitment_report_failed", calling_ae=request.calling_ae, error=describe(error))
                self._postpone_or_give_up(request, describe(error))
        return len(due)

    def _report(self, request: CommitmentRequest) -> None:
        address = self._address_of(request.calling_ae)
        if address is None:
            self._give_up(request, "the peer left, and [[peers]] names no address of it", reason="no address")
            return
        failure = self._report_elsewhere(address, request)
        if failure is None:
            self._requests.mark_reported(request)
            self._log(request, "own association")
        else:
            self._postpone_or_give_up(request, failure)

    def _postpone_or_give_up(self, request: CommitmentRequest, failure: str) -> None:
        if request.age_s >= self._give_up_after_s:
            self._give_up(request, failure, reason=failure)
        else:
            self._requests.postpone(request, failure, delay_s(self._backoff_s, request.attempts + 1))

    def _give_up(self, request: CommitmentRequest, detail: str, *, reason: str) -> None:
        self._requests.give_up(request, detail)
        log.warning("commitment_report_given_up", calling_ae=request.calling_ae, reason=reason)

    def report_forever(
        self, stop: threading.Event, pause_s: float, on_round: Callable[[], None] = lambda: None
    ) -> None:
        """Report what is due every `pause_s`, until `stop` is set.

        Parameters
        ----------
        on_round : called after each round; may raise StoreError.
        """
        while not stop.wait(pause_s):
            try:
                self.report_due()
                on_round()
            except StoreError as error:
                log.error("commitment_reports_failed", error=describe(error))

    def _report_here(self, association: Any, request: CommitmentRequest) -> str | None:
        if not pause_reactor(association, within_s=_STILL_WITHIN_S):
            return "the peer left"
        association.dimse_timeout = _ANSWER_HERE_S
        try:
            return _send_report(association, request)
        finally:
            resume_reactor(association)

    def _report_elsewhere(self, address: Address, request: CommitmentRequest) -> str | None:
        ae = self._requestor.entity()
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        try:
            association = self._requestor.associate(ae, address, negotiation=[role])
        except (ConfigurationError, OSError) as error:  # TLS without certificates, or with unreadable ones
            return describe(error)
        if not association.is_established:
            return why_not_established(association)[1]
        try:
            return _send_report(association, request)
        finally:
            if association.is_established:
                association.release()

    def _log(self, request: CommitmentRequest, where: str) -> None:
        log.info(
            "commitment_report_told",
            transaction_uid=request.transaction_uid,
            calling_ae=request.calling_ae,
            where=where,
        )


def report_of(request: CommitmentRequest) -> tuple[EventType, Dataset]:
    """Event Type ID and Event Information of the report on a request (PS3.4 Table J.3-2)."""
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    if request.held:
        information.ReferencedSOPSequence = Items(referenced(request.held))
    failed = []
    for references, reason in (
        (request.missing, Status.NO_SUCH_INSTANCE),
        (request.conflicting, Status.CLASS_INSTANCE_CONFLICT),
    ):
        for item in referenced(references):
            item.FailureReason = int(reason)
            failed.append(item)
    if failed:
        information.FailedSOPSequence = Items(failed)
    return EventType.FAILURES_EXIST if failed else EventType.COMMITTED, information


def _send_report(association: Any, request: CommitmentRequest) -> str | None:
    """Send the report. None where the peer took it, else the reason why not."""
    event_type, information = report_of(request)
    try:
        answer, _ = association.send_n_event_report(
            information, int(event_type), StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError):  # pynetdicom: the association has ended, or has no context for it
        return "the peer left, or does not accept the class"
    if "Status" not in answer:
        return "no answer to the report"
    status = int(answer.Status)
    return None if status == Status.SUCCESS else f"the report was answered {in_words(status)}"


# ---- the listener's service

# A peer that releases at once wants the report on an association of its own; one that stays gets it here.
_STAYS_AFTER_S = 0.25
_PAUSE_S = 30.0  # before another process reports, should this one end meanwhile


class CommitmentService:
    """The listener's storage commitment: requests of peers (N-ACTION), and their reports (N-EVENT-REPORT).

    Parameters
    ----------
    record : records a report about what this node asked a destination to commit.
    requests : what peers ask this node to commit.
    reporter : reports on it.
    """

    def __init__(
        self, record: RecordReport, requests: CommitmentRequests, reporter: CommitmentReporter
    ) -> None:
        self._record = record
        self._requests = requests
        self._reporter = reporter

    def support(self, ae: Any) -> None:
        """Accept the class with either role.

        A peer that reports proposes itself as SCP (PS3.4 Section J.3.3). One that asks is SCU. One that
        proposes no role may do either.
        """
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def handlers(self) -> list[tuple[Any, ...]]:
        """pynetdicom's event handlers of the service."""
        return [
            (evt.EVT_N_EVENT_REPORT, answer_report, [self._record]),
            (evt.EVT_N_ACTION, self._answer_question),
        ]

    def _answer_question(self, event: evt.Event) -> tuple[int, None]:
        if event.action_type != REQUEST_ACTION:
            return int(Status.NO_SUCH_ACTION), None
        if event.request.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
            return int(Status.NO_SUCH_INSTANCE), None
        try:
            request = self._entered(event)
        except (MessageInvalid, TransactionInUse) as error:
            log.warning("commitment_refused", error=describe(error))
            return int(Status.INVALID_ARGUMENT_VALUE), None
        except Exception as error:  # noqa: BLE001 - the SCP's boundary: the peer may ask again
            log.error("commitment_not_judged", error=describe(error))
            return int(Status.PROCESSING_FAILURE), None
        log.info(
            "commitment_judged",
            transaction_uid=request.transaction_uid,
            calling_ae=request.calling_ae,
            held=len(request.held),
            missing=len(request.missing),
            conflicting=len(request.conflicting),
        )
        # In a thread of its own: the answer must leave before the report.
        threading.Thread(
            target=self._reporter.report_here,
            args=(event.assoc, request, _STAYS_AFTER_S),
            name="commitment-report",
            daemon=True,
        ).start()
        return int(Status.SUCCESS), None

    def _entered(self, event: evt.Event) -> CommitmentRequest:
        try:
            question = event.action_information
        except Exception as error:  # pydicom raises whatever broken bytes lead to
            raise MessageInvalid(f"the question cannot be parsed ({type(error).__name__})") from error
        transaction_uid = uid_in(question, "TransactionUID")
        asked = [(one, other) for one, other, _ in references_in(question, "ReferencedSOPSequence")]
        if not asked:
            raise MessageInvalid("no instance is referenced")
        return self._requests.enter(
            transaction_uid=transaction_uid,
            calling_ae=event.assoc.requestor.ae_title,
            asked=asked,
            pause_s=_PAUSE_S,
        )


# ---- bound to store and settings


def report_recorder(store: Store, settings: Settings) -> RecordReport:
    """Records reports. What a destination cannot commit for now is requested again after the patience."""
    return partial(store.commitment_transactions.record, ask_again_in_s=settings.worker.commitment_patience_s)


def make_reporter(store: Store, settings: Settings) -> CommitmentReporter:
    """The reporter on what peers asked this node to commit."""
    return CommitmentReporter(
        Requestor(settings.node.ae_title, tls=settings.tls),
        store.commitment_requests,
        settings.address_of,
        backoff_s=settings.worker.send_backoff_s,
        give_up_after_s=settings.worker.send_give_up_after_s,
    )
