"""Tells peers what this node holds of what they asked it to commit: N-EVENT-REPORT, until they take it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from config.settings import ConfigurationError
from node.net.commitment import EventType, referenced
from node.net.requesting import Address, Requestor, why_not_established
from node.net.status import Status
from node.pipeline.describe import describe
from node.pipeline.dimse import in_words
from node.pipeline.policy import delay_s
from node.store.errors import StoreError
from node.store.promises import CommitmentRequest, CommitmentRequests

log = structlog.get_logger(__name__)

_HOLD_S = 300.0  # longer than one attempt can take
_ANSWER_HERE_S = 10.0  # on the peer's association: it may be releasing it
_STILL_WITHIN_S = 2.0


class Reporter:
    """Tells each request on the association on which it was asked for, else on one to the peer's address.

    Parameters
    ----------
    address_of : of a peer's AE title; None where it is not configured.
    backoff_s : waits after a failed attempt; the last repeats.
    give_up_after_s : after the question.
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
        """Tell it on the association of the question, if that is open after so long; else leave it due."""
        time.sleep(after_s)
        try:
            failure = self._tell_here(association, request)
            if failure is None:
                self._requests.mark_reported(request)
                self._log(request, "same association")
            else:
                self._requests.put_off(request, failure, 0.0)
        except Exception as error:  # noqa: BLE001 - one request's boundary: it stays due, and is told again
            log.warning("commitment_report_not_noted", error=describe(error))

    def report_due(self) -> int:
        """Tell whatever is due, on associations of this node's own. Returns how many requests it was.

        Raises
        ------
        StoreError
        """
        due = self._requests.claim_due(_HOLD_S)
        for request in due:
            try:
                self._report(request)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - one request's boundary: the others go on
                log.error("commitment_report_failed", calling_ae=request.calling_ae, error=describe(error))
                self._put_off_or_give_up(request, describe(error))
        return len(due)

    def _report(self, request: CommitmentRequest) -> None:
        address = self._address_of(request.calling_ae)
        if address is None:
            self._give_up(request, "the peer left, and [[peers]] names no address of it", reason="no address")
            return
        failure = self._tell_there(address, request)
        if failure is None:
            self._requests.mark_reported(request)
            self._log(request, "own association")
        else:
            self._put_off_or_give_up(request, failure)

    def _put_off_or_give_up(self, request: CommitmentRequest, failure: str) -> None:
        if request.age_s >= self._give_up_after_s:
            self._give_up(request, failure, reason=failure)
        else:
            self._requests.put_off(request, failure, delay_s(self._backoff_s, request.attempts + 1))

    def _give_up(self, request: CommitmentRequest, detail: str, *, reason: str) -> None:
        self._requests.give_up(request, detail)
        log.warning("commitment_report_given_up", calling_ae=request.calling_ae, reason=reason)

    def report_forever(
        self, stop: threading.Event, pause_s: float, on_round: Callable[[], None] = lambda: None
    ) -> None:
        """Tell what is due until `stop` is set.

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

    def _tell_here(self, association: Any, request: CommitmentRequest) -> str | None:
        if not _hold_still(association):
            return "the peer left"
        association.dimse_timeout = _ANSWER_HERE_S
        try:
            return _tell(association, request)
        finally:
            association._reactor_checkpoint.set()

    def _tell_there(self, address: Address, request: CommitmentRequest) -> str | None:
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
            return _tell(association, request)
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
    """Event Type ID and Event Information (PS3.4 Table J.3-2)."""
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


def _tell(association: Any, request: CommitmentRequest) -> str | None:
    """None once the peer has taken the report, else why it did not, in this node's words."""
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


def _hold_still(association: Any) -> bool:
    """Have an acceptor's thread rest between two messages; False where the association is over.

    pynetdicom does so itself before it sends, but waits for ever for a thread that has ended.
    """
    association._reactor_checkpoint.clear()
    deadline = time.monotonic() + _STILL_WITHIN_S
    while association.is_established and time.monotonic() < deadline:
        if association._is_paused:
            return True
        time.sleep(0.005)
    association._reactor_checkpoint.set()
    return False
