"""A peer that speaks DICOM byte by byte, so that it can do what no library does."""

from __future__ import annotations

import socket
import struct
from io import BytesIO
from typing import Any

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_ECHO_RQ, C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AddressInformation

from tests.waiting import LIMIT_S

ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, ABORT = 0x02, 0x03, 0x04, 0x07
ECHO_CONTEXT, CT_CONTEXT = 1, 3


class RawPeer:
    """One connection to a listener."""

    timeout_s = LIMIT_S  # for each answer

    def __init__(
        self, port: int, connection: socket.socket | None = None, *, address: str = "127.0.0.1"
    ) -> None:
        """From an address of this machine: all that begin with 127 are."""
        self.socket = connection or socket.create_connection(
            ("127.0.0.1", port), timeout=self.timeout_s, source_address=(address, 0)
        )

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def associate(self, syntax: str = ExplicitVRLittleEndian) -> int:
        """Ask for an association; the type of the PDU that answers."""
        self.send(association_request(syntax=syntax))
        return self.pdu()[0]

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU: its type and what follows its header. (0, b"") where the connection closes."""
        header = self._read(6)
        if len(header) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", header)
        return kind, self._read(length)

    def command(self) -> Dataset:
        """The next message's command set; it has no data set."""
        kind, body = self.pdu()
        assert kind == P_DATA, f"PDU of type {kind}"
        return decode(BytesIO(body[6:]), True, True)

    def _read(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            piece = self.socket.recv(count - len(got))
            if not piece:
                break
            got += piece
        return got


def association_request(calling: str = "RAW", syntax: str = ExplicitVRLittleEndian) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "OSTEONODE"
    primitive.calling_presentation_address = AddressInformation("127.0.0.1", 1)
    primitive.called_presentation_address = AddressInformation("127.0.0.1", 2)
    echo, image = build_context(Verification), build_context(CTImageStorage, syntax)
    echo.context_id, image.context_id = ECHO_CONTEXT, CT_CONTEXT
    primitive.presentation_context_definition_list = [echo, image]
    length = MaximumLengthNotification()
    length.maximum_length_received = 16384
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "2.25.1"
    primitive.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def item(kind: int, value: bytes) -> bytes:
    """An item or sub-item (PS3.8 Section 9.3)."""
    return struct.pack(">BBH", kind, 0, len(value)) + value


def context_item(context_id: int, *subitems: bytes) -> bytes:
    """A presentation context that is asked for."""
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(subitems))


def abstract(uid: str) -> bytes:
    return item(0x30, uid.encode())


def transfer(uid: str) -> bytes:
    return item(0x40, uid.encode())


APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
ECHO_ITEM = context_item(ECHO_CONTEXT, abstract(Verification), transfer(ImplicitVRLittleEndian))
MAXIMUM_LENGTH, CLASS_UID = item(0x51, struct.pack(">L", 16384)), item(0x52, b"2.25.1")


def association_pdu(
    *items: bytes,
    kind: int = 0x01,
    version: int = 1,
    called: bytes = b"OSTEONODE".ljust(16),
    calling: bytes = b"RAW".ljust(16),
    reserved: bytes = bytes(32),
    application: bytes = APPLICATION,
    contexts: bytes = ECHO_ITEM,
    user: bytes = MAXIMUM_LENGTH + CLASS_UID,
) -> bytes:
    """An A-ASSOCIATE PDU byte by byte; `items` follow all the others."""
    body = struct.pack(">HH", version, 0) + called + calling + reserved
    body += application + contexts + item(0x50, user) + b"".join(items)
    return struct.pack(">BBL", kind, 0, len(body)) + body


def items_of(content: bytes) -> list[tuple[int, bytes]]:
    """Types and values of items."""
    found, at = [], 0
    while at < len(content):
        kind, _, length = struct.unpack_from(">BBH", content, at)
        found.append((kind, content[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def echo_request(message_id: int) -> bytes:
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = message_id, Verification
    message = C_ECHO_RQ()
    message.primitive_to_message(request)
    return _pdus(message, ECHO_CONTEXT)


def echo_response(message_id: int) -> bytes:
    response = C_ECHO()
    response.MessageIDBeingRespondedTo, response.AffectedSOPClassUID = message_id, Verification
    response.Status = 0x0000
    message = C_ECHO_RSP()
    message.primitive_to_message(response)
    return _pdus(message, ECHO_CONTEXT)


def store_request(message_id: int, dataset: Dataset) -> bytes:
    content = encode(dataset, False, True)
    assert content is not None
    return store_request_of(message_id, dataset.SOPInstanceUID, content, dataset.SOPClassUID)


def store_request_of(
    message_id: int, sop_instance_uid: str, content: bytes, sop_class_uid: str = CTImageStorage
) -> bytes:
    """With a data set as it is, whatever it is."""
    request = C_STORE()
    request.MessageID, request.Priority = message_id, 2
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.DataSet = BytesIO(content)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return _pdus(message, CT_CONTEXT)


def library_store_response(**fields: Any) -> bytes:
    """As the library encodes the answer to a C-STORE: the command set."""
    response = C_STORE()
    for keyword, value in fields.items():
        setattr(response, keyword, value)
    message = C_STORE_RSP()
    message.primitive_to_message(response)
    return bytes(encode(message.command_set, True, True))


def _pdus(message: Any, context_id: int) -> bytes:
    return b"".join(bytes(P_DATA_TF(one).encode()) for one in message.encode_msg(context_id, 16384))
