"""The sender: C-STORE of results to a PACS, and C-ECHO to try a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from config.settings import Destination
from node.net.requesting import Requestor, why_not_established
from node.net.status import outcome_of
from node.pipeline.ports import SendOutcome, SendResult
from node.report import EncodedObject, ObjectKind


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """The answer of a peer to C-ECHO."""

    answered: bool
    detail: str


class DicomSender:
    """Sends over associations that `requestor` asks for."""

    def __init__(self, requestor: Requestor) -> None:
        self._requestor = requestor

    def send(
        self,
        destination: Destination,
        objects: Sequence[EncodedObject],
        *,
        before_each: Callable[[], None] = lambda: None,
        alternatives: Sequence[str] = (),
    ) -> Sequence[SendResult]:
        """Send each object over one association; one result per object, in order."""
        ae = self._requestor.entity()
        datasets = [dcmread(BytesIO(one.content)) for one in objects]
        for dataset in datasets:
            _propose(ae, dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        reports = any(one.kind is ObjectKind.STRUCTURED_REPORT for one in objects)
        for sop_class_uid in alternatives if reports else ():
            _propose(ae, UID(sop_class_uid), ExplicitVRLittleEndian)
        association = self._requestor.associate(ae, destination)
        try:
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            instead = next((one for one in alternatives if one in accepted), None)
            return [
                _result(one, *outcome, instead)
                for one, outcome in zip(objects, _outcomes(association, datasets, before_each), strict=True)
            ]
        finally:
            if association.is_established:
                association.release()

    def echo(self, destination: Destination) -> EchoResult:
        """Try a destination with C-ECHO. Never raises for a peer."""
        ae = self._requestor.entity()
        ae.add_requested_context(Verification)
        association = self._requestor.associate(ae, destination)
        if not association.is_established:
            return EchoResult(answered=False, detail=why_not_established(association)[1])
        try:
            answer = association.send_c_echo()
        finally:
            association.release()
        if "Status" not in answer:
            return EchoResult(answered=False, detail="no answer to C-ECHO")
        return EchoResult(answered=answer.Status == 0x0000, detail=f"answered 0x{answer.Status:04X}")


_NOT_ACCEPTED = "the peer does not accept this SOP class"
_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 Annex C
_Outcome = tuple[SendOutcome, int | None, str]


def _propose(ae: AE, sop_class_uid: UID, own: UID) -> None:
    """Offer an object's class in its own syntax, and in Implicit VR Little Endian unless it is compressed.

    PS3.5 Section 10.1 obliges a sender to offer the default syntax for anything it holds uncompressed. Each
    goes into a context of its own, so that the choice is ours and bytes are kept where they can be.
    """
    syntaxes = [own] if own.is_compressed else [own, ImplicitVRLittleEndian]
    offered = {(one.abstract_syntax, one.transfer_syntax[0]) for one in ae.requested_contexts}
    for syntax in dict.fromkeys(syntaxes):
        if (sop_class_uid, syntax) not in offered:
            ae.add_requested_context(sop_class_uid, syntax)


def _outcomes(
    association: Any, datasets: Sequence[Dataset], before_each: Callable[[], None]
) -> Iterator[_Outcome]:
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    for number, dataset in enumerate(datasets, start=1):
        if not association.is_established:
            outcome, detail = why_not_established(association)
            yield outcome, None, detail
        elif dataset.SOPClassUID not in accepted:
            yield SendOutcome.PERMANENT, None, _NOT_ACCEPTED
        else:
            before_each()
            yield _store(association, dataset, number)


def _store(association: Any, dataset: Dataset, number: int) -> _Outcome:
    try:
        answer = association.send_c_store(dataset, msg_id=(number - 1) % 65535 + 1)
    except RuntimeError:  # pynetdicom: the association ended between the look and the sending
        return SendOutcome.TRANSIENT, None, "the association ended"
    except ValueError:  # pynetdicom: no accepted context fits, or the data set cannot be encoded
        return SendOutcome.PERMANENT, None, "the object cannot be sent in a syntax that the peer accepts"
    if "Status" not in answer:
        return SendOutcome.TRANSIENT, None, "no answer to C-STORE"
    status = int(answer.Status)
    return outcome_of(status), status, str(answer.get("ErrorComment", ""))


def _result(
    one: EncodedObject, outcome: SendOutcome, status: int | None, detail: str, instead: str | None
) -> SendResult:
    class_refused = status == _CLASS_NOT_SUPPORTED or detail == _NOT_ACCEPTED
    return SendResult(
        sop_instance_uid=one.sop_instance_uid,
        outcome=outcome,
        status=status,
        detail=detail,
        accepted_instead=(instead if class_refused and one.kind is ObjectKind.STRUCTURED_REPORT else None),
    )
