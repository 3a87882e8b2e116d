"""What a destination holds: storage commitment asked of it, and C-FIND."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import structlog
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pynetdicom import evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from config.settings import Destination
from node.net.commitment import REQUEST_ACTION, RecordReport, answer_report, referenced
from node.net.requesting import Requestor, why_not_established
from node.net.status import outcome_of_action
from node.pipeline.dimse import in_words
from node.pipeline.ports import FindResult, QueryResult, SendOutcome
from node.report import EncodedObject
from node.store.states import Proof

log = structlog.get_logger(__name__)

_LOOK_S = 0.05
_PENDING = {0xFF00, 0xFF01}  # PS3.4 Table C.4-1
_FIND_MODELS = (StudyRootQueryRetrieveInformationModelFind, PatientRootQueryRetrieveInformationModelFind)
_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class DicomProver:
    """Asks destinations over associations that `requestor` asks for.

    Parameters
    ----------
    record : takes in a report of storage commitment that comes on the association of the question, before the
        answer or after it. One that comes on an association of the destination's own goes to the listener.
    """

    def __init__(self, requestor: Requestor, record: RecordReport) -> None:
        self._requestor = requestor
        self._record = record

    @contextmanager
    def session(self, destination: Destination) -> Iterator[_Session]:
        ae = self._requestor.entity()
        # Verification is there to tell a peer that offers neither from one that accepts nothing yet: every
        # acceptor has it (PS3.4 Annex A).
        for abstract_syntax in (Verification, StorageCommitmentPushModel, *_FIND_MODELS):
            ae.add_requested_context(abstract_syntax)
        association = self._requestor.associate(
            ae, destination, handlers=[(evt.EVT_N_EVENT_REPORT, answer_report, [self._record])]
        )
        try:
            yield _Session(association)
        finally:
            if association.is_established:
                association.release()


class _Session:
    def __init__(self, association: Any) -> None:
        self._association = association
        self._accepted = {context.abstract_syntax for context in association.accepted_contexts}

    @property
    def offered(self) -> frozenset[Proof]:
        offered = set()
        if StorageCommitmentPushModel in self._accepted:
            offered.add(Proof.COMMITMENT)
        if self._accepted.intersection(_FIND_MODELS):
            offered.add(Proof.FIND)
        return frozenset(offered)

    @property
    def problem(self) -> str:
        return "" if self._association.is_established else why_not_established(self._association)[1]

    def ask(self, transaction_uid: str, objects: Sequence[EncodedObject]) -> QueryResult:
        question = Dataset()
        question.TransactionUID = transaction_uid
        question.ReferencedSOPSequence = Items(
            referenced((one.sop_class_uid, one.sop_instance_uid) for one in objects)
        )
        try:
            answer, _ = self._association.send_n_action(
                question, REQUEST_ACTION, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        except RuntimeError:  # pynetdicom: the association has ended
            answer = Dataset()
        if "Status" not in answer:
            return QueryResult(
                outcome=SendOutcome.TRANSIENT, status=None, detail="no answer to the question for commitment"
            )
        status = int(answer.Status)
        return QueryResult(
            outcome=outcome_of_action(status),
            status=status,
            detail=f"storage commitment refused: {in_words(status)}",
        )

    def wait(self, over: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not over() and self._association.is_established and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def find(self, one: EncodedObject) -> FindResult:
        model = next(model for model in _FIND_MODELS if model in self._accepted)
        sought = dcmread(BytesIO(one.content), stop_before_pixels=True, specific_tags=list(_KEYS))
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        for keyword in _KEYS:
            if keyword != "PatientID" or model == PatientRootQueryRetrieveInformationModelFind:
                setattr(query, keyword, sought.get(keyword, ""))
        found, last = False, None
        try:
            for answer, match in self._association.send_c_find(query, model):
                last = answer.get("Status")
                # A peer that does not match on this key answers with everything it has.
                if last in _PENDING and match is not None:
                    found = found or str(match.get("SOPInstanceUID", "")) == one.sop_instance_uid
        except (RuntimeError, ValueError):  # pynetdicom: the association has ended
            return FindResult.UNKNOWN
        if found:
            return FindResult.FOUND
        return FindResult.ABSENT if last == 0x0000 else FindResult.UNKNOWN
