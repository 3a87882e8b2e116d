"""Storage commitment at the listener: questions of peers, and reports about what this node asked of them."""

from __future__ import annotations

import threading
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from node.net.commitment import (
    REQUEST_ACTION,
    MessageInvalid,
    RecordReport,
    answer_report,
    references_in,
    uid_in,
)
from node.net.reporting import Reporter
from node.net.status import Status
from node.pipeline.describe import describe
from node.store.errors import TransactionInUse
from node.store.promises import CommitmentRequest, CommitmentRequests

log = structlog.get_logger(__name__)

# A peer that releases at once wants the report on an association of its own; one that stays gets it here.
_STAYS_AFTER_S = 0.25
_PAUSE_S = 30.0  # before the request is told elsewhere, should this process end meanwhile


class CommitmentService:
    """What the listener offers besides storage.

    Parameters
    ----------
    record : takes in a report about what this node asked a destination to commit.
    requests : what this node is asked to commit.
    reporter : tells it.
    """

    def __init__(self, record: RecordReport, requests: CommitmentRequests, reporter: Reporter) -> None:
        self._record = record
        self._requests = requests
        self._reporter = reporter

    def support(self, ae: Any) -> None:
        """Accept the class with either role.

        A peer that reports proposes itself as SCP (PS3.4 Section J.3.3), one that asks is SCU, and one that
        proposes no role may do either.
        """
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def handlers(self) -> list[tuple[Any, ...]]:
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
