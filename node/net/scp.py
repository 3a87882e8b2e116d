"""The listener: C-ECHO, and C-STORE of anything a PACS may send along."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Literal

import structlog
from pydicom import Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

from config.sections import AccessSettings, LimitSettings, NodeSettings
from config.settings import load_settings
from node.dicom import content_comparison
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.logs import describe
from node.net.access import AssociationPolicy, AssociationSlots, access_rules
from node.net.commitment import CommitmentService
from node.net.encoding import (
    DataSetTruncated,
    DataSetUnreadable,
    DeflatedStreamInvalid,
    Encoding,
    InflatedTooLarge,
    before_pixels,
    file_header,
    find_values,
    inflated,
)
from node.net.event_driven.acceptor import EventDrivenServer
from node.net.server import PynetdicomServer, StoreRequest, listening_socket, send_at_once
from node.net.status import IdentifierMismatch, LimitExceeded, NotUnderstood, Status, status_for
from node.store.errors import StoreError
from node.store.files import ReceivedInstance
from node.store.instances import Receipt
from node.store.states import CT_SOP_CLASSES
from node.store.store import Store
from node.supervision import SupervisedThread

log = structlog.get_logger(__name__)
_config.LOG_HANDLER_LEVEL = "none"  # else the library words every PDU for a log of its own

HEARTBEAT_S = 5.0
_ACSE_TIMEOUT_S = 30.0
_DEFLATED_HEADER_BYTES = 1 << 24  # that a deflated data set may hold before its pixel data
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")  # PS3.5 9.1, but that leading zeros occur in the wild
# In the order in which one is taken out of several: explicit first, which keeps the VR of private attributes.
_TRANSFER_SYNTAXES = [
    ExplicitVRLittleEndian,
    *(one for one in ALL_TRANSFER_SYNTAXES if one != ExplicitVRLittleEndian),
]

# All that is read of a CT instance on arrival; the rest stays as it came.
_IDENTIFIERS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
_SIZES = ["NumberOfFrames", "Rows", "Columns"]
_IDENTIFIER_TAGS = frozenset(int(Tag(keyword)) for keyword in _IDENTIFIERS)
_READ = {int(Tag(keyword)): keyword for keyword in (*_IDENTIFIERS, *_SIZES)}


@dataclass(slots=True, kw_only=True)
class _OpenAssociation:
    association_id: int
    instances: int = 0


class Listener:
    """Keeps each received instance durably before it answers Success.

    Parameters
    ----------
    made_here : whether this node made an object, from its data set without pixels.
    measured_from : whether studies are measured from an object, a segmentation; likewise.
    commitment : storage commitment; offered where it is given.
    policy : who may have an association; by default the shipped rules, which reject nobody.
    tls : of the port; None for plain DICOM.
    """

    def __init__(
        self,
        settings: NodeSettings,
        store: Store,
        made_here: Callable[[Dataset], bool],
        measured_from: Callable[[Dataset], bool] = lambda _: False,
        *,
        commitment: CommitmentService | None = None,
        policy: AssociationPolicy | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._made_here = made_here
        self._measured_from = measured_from
        self._lock = threading.Lock()
        self._open: dict[Any, _OpenAssociation] = {}
        self._stop = threading.Event()
        self._heart = SupervisedThread(self._beat_forever, name="association-heartbeat")
        self._policy = policy or AssociationPolicy(
            access_rules(load_settings()), AssociationSlots(store.files.root / "associations")
        )
        self._tls = tls
        self._ae = _application_entity(settings.ae_title, self._policy.rules)
        self._further_handlers: list[tuple[Any, ...]] = []
        if commitment is not None:
            commitment.support(self._ae)
            self._further_handlers = commitment.handlers()
        self._server: Any = None

    def start(self, listening: socket.socket | None = None) -> int:
        """Listen, and return the port, which the settings leave open where they say 0.

        Parameters
        ----------
        listening : a socket that listens already, if another process made it.

        Raises
        ------
        OSError
            If the address cannot be bound.
        """
        serve = EventDrivenServer if self._policy.rules.event_driven else PynetdicomServer
        self._server = serve(
            self._ae,
            listening or listening_socket(self._settings.host, self._settings.port),
            self._policy,
            self._answer_store,
            handlers=[
                (evt.EVT_CONN_OPEN, send_at_once),
                (evt.EVT_C_ECHO, _answer_echo),
                (evt.EVT_CONN_CLOSE, self._note_closed),
                *self._further_handlers,
            ],
            ssl_context=self._tls,
        )
        self._server.start()
        self._heart.start()
        port = int(self._server.server_address[1])
        log.info("listening", ae_title=self._settings.ae_title, host=self._settings.host, port=port)
        return port

    def stop(self) -> None:
        """Stop listening, and abort open associations."""
        self._stop.set()
        if self._server is not None:
            self._server.stop()
            self._heart.join()
        for association in list(self._open):
            self._close(association)

    def _answer_store(self, request: StoreRequest) -> int:
        try:
            instance, own = self._received(request)
            receipt = (
                self._store.instances.note_own(instance)
                if own
                else self._store.instances.receive(instance, content_comparison)
            )
        except Exception as error:  # noqa: BLE001 - the SCP's boundary: status_for decides about every error
            status = status_for(error)
            log.warning("instance_refused", status=f"0x{status:04X}", error=describe(error))
            if isinstance(error, NotUnderstood):
                self._keep_undecodable(request, str(error))
            return int(status)
        if receipt in (Receipt.QUARANTINED, Receipt.HELD):
            log.warning(
                "instance_quarantined", sop_instance_uid=instance.sop_instance_uid, receipt=receipt.value
            )
        else:
            log.debug("instance_received", sop_instance_uid=instance.sop_instance_uid, receipt=receipt.value)
        return int(Status.SUCCESS)

    def _keep_undecodable(self, request: StoreRequest, reason: str) -> None:
        """Keep the bytes of a refused instance in quarantine where there is room, for a person to look at."""
        uid = request.sop_instance_uid
        instance = ReceivedInstance(
            sop_instance_uid=uid if _UID.fullmatch(uid) else "",
            series_instance_uid="",
            study_instance_uid="",
            sop_class_uid=request.sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            sha256=request.sha256,
            content=(_file_header(request), *request.dataset),
            calling_ae=request.association.requestor.ae_title,
            called_ae=request.association.requestor.primitive.called_ae_title,
            association_id=None,
        )
        try:
            self._store.quarantine.keep_undecodable(instance, reason)
        except StoreError as error:
            log.warning("undecodable_not_kept", error=describe(error))

    def _received(self, request: StoreRequest) -> tuple[ReceivedInstance, bool]:
        """The received instance, and whether this node made it. Raises ReceiveError or StoreError."""
        association = request.association
        if request.too_large:
            raise LimitExceeded(request.too_large)
        for of, uid in (("Class", request.sop_class_uid), ("Instance", request.sop_instance_uid)):
            if not _UID.fullmatch(uid):
                raise IdentifierMismatch(f"the SOP {of} UID of the command is missing or not a UID")
        file_head = _file_header(request)
        is_ct = request.sop_class_uid in CT_SOP_CLASSES
        header = Dataset()  # of a CT image nobody asks for more than its identifiers
        limits = self._policy.limits
        values = _values(request, limits)
        if values is None or not is_ct:
            header = _parse(request, limits, brief=is_ct)
        if values is None:
            values = {keyword: str(header.get(keyword) or "") for keyword in _READ.values()}
        sop_class_uid = _uid(values, "SOPClassUID")
        sop_instance_uid = _uid(values, "SOPInstanceUID")
        if sop_class_uid != request.sop_class_uid:
            raise IdentifierMismatch("the SOP Class UID differs from that of the command")
        if sop_instance_uid != request.sop_instance_uid:
            raise IdentifierMismatch("the SOP Instance UID differs from that of the command")
        if is_ct:
            _require_within(values, limits)
        instance = ReceivedInstance(
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=_uid(values, "SeriesInstanceUID"),
            study_instance_uid=_uid(values, "StudyInstanceUID"),
            sop_class_uid=sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            sha256=request.sha256,
            content=(file_head, *request.dataset),
            calling_ae=association.requestor.ae_title,
            called_ae=association.requestor.primitive.called_ae_title,
            association_id=self._association_id(association),
            is_measured_mask=not is_ct and self._measured_from(header),
        )
        return instance, not is_ct and self._is_own(instance, header)

    def _is_own(self, instance: ReceivedInstance, header: Dataset) -> bool:
        return self._store.instances.is_own(instance.sop_instance_uid) or self._made_here(header)

    def _association_id(self, association: Any) -> int:
        """The association's row, inserted with its first instance."""
        with self._lock:
            known = self._open.get(association)
            if known is None:
                known = _OpenAssociation(
                    association_id=self._store.associations.open(
                        peer=association.requestor.address,
                        calling_ae=association.requestor.ae_title,
                        called_ae=association.requestor.primitive.called_ae_title,
                    )
                )
                self._open[association] = known
            known.instances += 1
            return known.association_id

    def _note_closed(self, event: evt.Event) -> None:
        self._close(event.assoc)

    def _close(self, association: Any) -> None:
        with self._lock:
            known = self._open.pop(association, None)
        if known is None:
            return
        log.info("association_closed", association_id=known.association_id, instances=known.instances)
        try:
            self._store.associations.close(known.association_id)
        except StoreError as error:  # its heartbeat stops, which closes it too
            log.warning("association_not_closed", error=describe(error))

    def _beat_forever(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            for association in [one for one in list(self._open) if not one.is_alive()]:
                self._close(association)
            with self._lock:
                beating = [one.association_id for one in self._open.values()]
            try:
                if beating:
                    self._store.associations.beat(beating)
            except StoreError as error:
                log.warning("heartbeat_failed", error=describe(error))


def _application_entity(ae_title: str, rules: AccessSettings) -> AE:
    ae = AE(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_associations = 3 * rules.max_associations  # the policy counts, over all processes
    ae.maximum_pdu_size = rules.max_pdu_bytes
    ae.acse_timeout = _ACSE_TIMEOUT_S
    ae.network_timeout = rules.idle_s
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, _TRANSFER_SYNTAXES)
    return ae


def _answer_echo(event: evt.Event) -> int:  # noqa: ARG001 - pynetdicom's signature
    return int(Status.SUCCESS)


def _file_header(request: StoreRequest) -> bytes:
    return file_header(
        sop_class_uid=request.sop_class_uid,
        sop_instance_uid=request.sop_instance_uid,
        transfer_syntax_uid=request.transfer_syntax_uid,
    )


def _parse(request: StoreRequest, limits: LimitSettings, *, brief: bool) -> Dataset:
    """The header of a received file: the elements that are read on arrival, or all but the pixels.

    Raises
    ------
    NotUnderstood
    LimitExceeded
        If it is deflated, and inflates to more than the limit.
    """
    wanted = list(_READ.values()) if brief else None
    header, dataset = _file_header(request), request.dataset
    try:
        if UID(request.transfer_syntax_uid).is_deflated:
            header = _file_header(replace(request, transfer_syntax_uid=ExplicitVRLittleEndian))
            dataset = [_inflated_header(dataset, limits)]
        content = BytesIO(b"".join((header, *dataset)))
        parsed = dcmread(content, stop_before_pixels=True, specific_tags=wanted)
        for keyword in _READ.values():
            parsed.get(keyword)  # pydicom decodes values when they are asked for
    except LimitExceeded:
        raise
    except Exception as error:  # pydicom raises whatever broken bytes lead to
        raise NotUnderstood(f"the data set cannot be parsed ({type(error).__name__})") from error
    return parsed


def _inflated_header(dataset: Sequence[bytes | memoryview], limits: LimitSettings) -> bytes:
    """A deflated data set up to its pixels. All of it is inflated once; the rest is dropped.

    pydicom never gets the deflated bytes: it takes minutes over what a few of them inflate to.
    """
    pieces = inflated(dataset, limits.instance_bytes)
    try:
        header = before_pixels(pieces, _encoding(ExplicitVRLittleEndian), _DEFLATED_HEADER_BYTES)
        deque(pieces, maxlen=0)
    except InflatedTooLarge as error:
        raise LimitExceeded(_INFLATES_TO_TOO_MUCH) from error
    return header


def _values(request: StoreRequest, limits: LimitSettings) -> Mapping[str, str] | None:
    """Identifiers and sizes by keyword; None where pydicom has to read them.

    pydicom takes ten times as long, and takes a value that is cut off for a whole one.

    Raises
    ------
    NotUnderstood
        If the data set ends before its identifiers are complete.
    LimitExceeded
        If the data set is deflated, and inflates to more than the limit.
    """
    syntax = UID(request.transfer_syntax_uid)
    deflated = syntax.is_deflated
    pieces = inflated(request.dataset, limits.instance_bytes) if deflated else iter(request.dataset)
    try:
        # A deflated one to its end: for what it holds in all, and for whoever reads it later.
        found = find_values(pieces, _encoding(syntax), _IDENTIFIER_TAGS, further=_READ, to_the_end=deflated)
        values = {keyword: found.get(tag, b"") for tag, keyword in _READ.items()}
        order: Literal["little", "big"] = "little" if syntax.is_little_endian else "big"
        texts = {
            keyword: str(int.from_bytes(value, order))
            if keyword in ("Rows", "Columns")
            else value.rstrip(b"\0 ").decode("ascii")
            for keyword, value in values.items()
        }
    except InflatedTooLarge as error:
        raise LimitExceeded(_INFLATES_TO_TOO_MUCH) from error
    except DataSetTruncated as error:
        raise NotUnderstood("the data set breaks off before its identifiers are there") from error
    except (DataSetUnreadable, DeflatedStreamInvalid, UnicodeDecodeError):
        return None  # pydicom says what is wrong with it
    return texts if all(texts[keyword] for keyword in _IDENTIFIERS) else None


_INFLATES_TO_TOO_MUCH = "the data set inflates to more than limits.instance_bytes, or its header to 16 MiB"


def _encoding(syntax: UID) -> Encoding:
    return Encoding(explicit=not syntax.is_implicit_VR, little_endian=syntax.is_little_endian)


def _require_within(values: Mapping[str, str], limits: LimitSettings) -> None:
    """Raise LimitExceeded for an image whose matrix or frames are above the limits."""
    for keywords, most, setting in (
        (("Rows", "Columns"), limits.matrix, "limits.matrix"),
        (("NumberOfFrames",), limits.frames, "limits.frames"),
    ):
        for keyword in keywords:
            stated = values[keyword].strip()
            if stated.isdecimal() and int(stated[:12]) > most:
                raise LimitExceeded(f"{keyword} is more than {most} ({setting})")


def _uid(values: Mapping[str, str], keyword: str) -> str:
    value = values[keyword]
    if not _UID.fullmatch(value):
        raise IdentifierMismatch(f"{keyword} is missing or not a UID")
    return value
