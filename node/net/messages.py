"""DIMSE messages out of the fragments that they come in; a C-STORE-RQ is read without the library's help."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import structlog
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from node.net.encoding import StoreCommand, store_command
from node.net.upper_layer import Fragment, data_primitive

if TYPE_CHECKING:
    from node.net.association import PromptAssociation

log = structlog.get_logger(__name__)

# Bits of the message control header (PS3.8 Annex E.2).
_COMMAND, _LAST = 0x01, 0x02


class ReceivedDataSet(BytesIO):
    """A data set in the pieces that it came in, hashed while the peer sends the next.

    The library asks for a BytesIO; that it holds nothing spares two copies of each image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes | memoryview] = []
        self._sha256 = hashlib.sha256()

    def add(self, piece: bytes | memoryview) -> None:
        self._sha256.update(piece)
        self.pieces.append(piece)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


def received_data_set(data_set: BytesIO) -> ReceivedDataSet:
    """The data set of a message, whoever of the two has put it together."""
    if isinstance(data_set, ReceivedDataSet):
        return data_set
    received = ReceivedDataSet()
    received.add(data_set.getvalue())
    return received


class PromptMessages(DIMSEServiceProvider):
    """Has a C-STORE served by the thread that read it, so that no other need be woken."""

    def __init__(self, association: PromptAssociation, tell_user: Callable[[], None]) -> None:
        super().__init__(association)
        self._association = association
        self._tell_user = tell_user
        self._serving = threading.Lock()
        self._storing: tuple[StoreCommand, ReceivedDataSet] | None = None  # while its data set comes

    def receive_primitive(self, primitive: P_DATA) -> None:
        self.receive_fragments(primitive.presentation_data_value_list)

    def receive_fragments(self, fragments: Sequence[Fragment]) -> None:
        """What a P-DATA brought. In the provider's thread."""
        for at, (context_id, value) in enumerate(fragments):
            if not self._took(context_id, value):
                self._leave_to_library(data_primitive(fragments[at:]))
                break
        while (message := self.peek_msg()[1]) is not None:
            if not (isinstance(message, C_STORE) and self.serve_next()):
                self._tell_user()
                return

    def _took(self, context_id: int, value: memoryview) -> bool:
        """Whether a fragment belongs to a C-STORE-RQ that is read here."""
        control = value[0]
        if self._storing is None:
            if self.message is not None or control & (_COMMAND | _LAST) != _COMMAND | _LAST:
                return False
            if context_id not in self._association._accepted_cx:
                return False
            command = store_command(bytes(value[1:]))
            if command is not None:
                self._storing = command, ReceivedDataSet()
            return command is not None
        command, data_set = self._storing
        if control & _COMMAND:
            log.warning("message_not_understood", error="a command amid a data set")
            self._storing = None
            self.dul.event_queue.put("Evt19")  # invalid PDU, which ends the association
            return True
        data_set.add(value[1:])
        if control & _LAST:
            self._storing = None
            self.msg_queue.put((context_id, _store_primitive(command, data_set)))
        return True

    def _leave_to_library(self, primitive: P_DATA) -> None:
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # noqa: BLE001 - the library takes every command set for a whole one
            log.warning("message_not_understood", error=type(error).__name__)
            self.dul.event_queue.put("Evt19")

    def serve_next(self) -> bool:
        """Serve the oldest message, unless the other thread is serving one. Whether there was one."""
        if not self._serving.acquire(blocking=False):
            return False
        try:
            context_id, message = self.get_msg(block=False)
            if message is None or context_id is None:
                return False
            self._association.serve(message, context_id)
        finally:
            self._serving.release()
        return True


def _store_primitive(command: StoreCommand, data_set: ReceivedDataSet) -> C_STORE:
    primitive = C_STORE()
    primitive.MessageID = command.message_id
    primitive.AffectedSOPClassUID = command.sop_class_uid
    primitive.AffectedSOPInstanceUID = command.sop_instance_uid
    primitive.Priority = command.priority
    primitive.DataSet = data_set
    return primitive
