"""The sender: C-STORE of results to a PACS, and C-ECHO to try a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from config.sections import Destination, TlsSettings
from config.settings import ConfigurationError
from node.checkpoint import make_pauses_sure
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.net.access import sender_context
from node.net.event_driven.negotiation import read_answers_plainly, read_early_rejection
from node.net.server import send_at_once
from node.net.status import outcome_of
from node.pipeline.ports import SendOutcome, SendResult
from node.study_report import EncodedObject, ObjectKind

_CONNECT_TIMEOUT_S = 10.0
_ACSE_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 120.0  # a PACS may take its time to store a large segmentation
_MAX_PDU_BYTES = 131072
_REJECTED_PERMANENTLY = 1  # PS3.8 Table 9-21, Result


class Address(Protocol):
    """Where a peer listens, and under which AE title."""

    @property
    def ae_title(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def tls(self) -> bool: ...


class NoAssociation:
    """Takes the place of an association that could not be asked for, and says why."""

    is_established = False
    is_rejected = False
    accepted_contexts: tuple[Any, ...] = ()

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Requestor:
    """Asks peers for associations. Holds no connection between calls.

    Parameters
    ----------
    ae_title : the node's own.
    connect_timeout_s : for the TCP connection.
    answer_timeout_s : for each answer of the peer.
    tls : for peers that speak TLS.
    """

    def __init__(
        self,
        ae_title: str,
        *,
        connect_timeout_s: float = _CONNECT_TIMEOUT_S,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
        tls: TlsSettings | None = None,
    ) -> None:
        self._ae_title = ae_title
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s

    def entity(self) -> AE:
        """An application entity, to which presentation contexts are to be added."""
        ae = AE(self._ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = self._connect_timeout_s
        ae.acse_timeout = min(_ACSE_TIMEOUT_S, self._answer_timeout_s)
        ae.dimse_timeout = self._answer_timeout_s
        ae.network_timeout = self._answer_timeout_s
        return ae

    def associate(
        self,
        ae: AE,
        peer: Address,
        *,
        handlers: Sequence[tuple[Any, ...]] = (),
        negotiation: Sequence[Any] = (),
    ) -> Any:
        """Ask for an association. Never raises for a peer, nor for an unreadable TLS file.

        Parameters
        ----------
        ae : with the presentation contexts to ask for.
        handlers : pynetdicom's event handlers.
        negotiation : items of user information besides.

        Returns
        -------
        pynetdicom's association, or `NoAssociation`: established or not. See `why_not_established`.
        """
        try:
            tls = self._tls_to(peer)
        except ConfigurationError as error:
            return NoAssociation(str(error))
        association = ae.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            max_pdu=_MAX_PDU_BYTES,
            ext_neg=list(negotiation),
            tls_args=tls,
            evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once), (evt.EVT_CONN_OPEN, _read_plainly), *handlers],
        )
        if association.is_established:
            make_pauses_sure(association)
        else:
            read_early_rejection(association)
        return association

    def _tls_to(self, peer: Address) -> tuple[ssl.SSLContext, str] | None:
        if not peer.tls:
            return None
        if self._tls is None:
            raise ConfigurationError(f"{peer.ae_title} wants TLS, and no [tls] is given")
        return sender_context(self._tls), peer.host


def _read_plainly(event: evt.Event) -> None:
    read_answers_plainly(event.assoc)


def why_not_established(association: Any) -> tuple[SendOutcome, str]:
    """Whether another try may help, and the reason.

    A peer that accepts none of the contexts may be starting up, and is asked again. One that rejects
    permanently (PS3.8 Table 9-21) is not.

    Returns
    -------
    TRANSIENT or PERMANENT, and the reason in words.
    """
    if isinstance(association, NoAssociation):
        return SendOutcome.TRANSIENT, association.reason
    answer = association.acceptor.primitive
    if answer is None:
        return SendOutcome.TRANSIENT, "no connection"
    if association.is_rejected:
        if answer.result == _REJECTED_PERMANENTLY:
            return SendOutcome.PERMANENT, f"association rejected: {answer.reason_str}"
        return SendOutcome.TRANSIENT, f"association rejected for now: {answer.reason_str}"
    if not association.accepted_contexts:
        return SendOutcome.TRANSIENT, "the peer accepts none of the SOP classes"
    return SendOutcome.TRANSIENT, "association aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """The answer of a peer to C-ECHO."""

    answered: bool
    detail: str


class DicomSender:
    """Sends results to destinations by C-STORE.

    Parameters
    ----------
    requestor : asks for the associations.
    """

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
        """Send objects over one association. Never raises for a peer.

        Parameters
        ----------
        before_each : called before each C-STORE; what it raises ends the sending, and is raised.
        alternatives : SOP classes to offer beside those of the objects, for a report whose class is not
        accepted.

        Returns
        -------
        One result for each object, in order.
        """
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
