"""DIMSE messages out of the fragments that they come in; a C-STORE-RQ is read without the library's help."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
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
_LAST_OF_COMMAND = b"\x03"
_LONGEST_COMMAND = 1 << 16  # bytes of a command set; those of the standard have some hundreds
_LONGEST_OTHER = (
    1 << 26
)  # bytes of a message that is no C-STORE: a question about 100,000 instances has 15 MiB


class Room:
    """Bytes of data sets that a process holds in memory at once, of all associations together."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether there was room for so many more."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        with self._lock:
            self._left += count


class ReceivedDataSet:
    """A data set in the pieces that it came in, hashed while the peer sends the next.

    Of one that is too long, or for which there is no room, nothing is held.

    Attributes
    ----------
    size_bytes : of all that came.
    refused : why nothing is held; "" where all is.
    """

    def __init__(self, most_bytes: int, room: Room) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size_bytes = 0
        self.refused = ""
        self._most_bytes = most_bytes
        self._room = room
        self._held = 0
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()

    def add(self, piece: bytes | memoryview) -> None:
        with self._lock:
            self.size_bytes += len(piece)
            if self.refused:
                return
            if self.size_bytes > self._most_bytes:
                self.refused = f"more than {self._most_bytes} bytes (limits.instance_bytes)"
            elif not self._room.take(len(piece)):
                self.refused = "too many large instances at once: twice limits.instance_bytes are held"
            else:
                self._held += len(piece)
                self._sha256.update(piece)
                self.pieces.append(piece)
                return
        self.drop()

    def drop(self) -> None:
        """Hold nothing any more, whichever of an association's threads is adding."""
        with self._lock:
            self.refused = self.refused or "dropped"
            self.pieces = []
            self._room.give_back(self._held)
            self._held = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class StoreMessage(C_STORE):
    """A C-STORE-RQ that was read here. The library does not see its UIDs, which may be none."""

    def __init__(self, command: StoreCommand, data_set: ReceivedDataSet) -> None:
        super().__init__()
        self.MessageID = command.message_id
        self.command = command
        self.received = data_set


class PromptMessages(DIMSEServiceProvider):
    """Has a C-STORE served by the thread that read it, so that no other need be woken."""

    def __init__(self, association: PromptAssociation, tell_user: Callable[[], None]) -> None:
        super().__init__(association)
        self._association = association
        self._tell_user = tell_user
        self._serving = threading.Lock()
        self._command = b""  # what has come of a command set
        self._storing: tuple[StoreCommand, ReceivedDataSet] | None = None  # while its data set comes
        self._left_bytes = 0  # of a message that the library puts together

    def receive_primitive(self, primitive: P_DATA) -> None:
        self.receive_fragments(primitive.presentation_data_value_list)

    def receive_fragments(self, fragments: Sequence[Fragment]) -> None:
        """What a P-DATA brought. In the provider's thread."""
        for context_id, value in fragments:
            self._take(context_id, value)
        while (message := self.peek_msg()[1]) is not None:
            if not (isinstance(message, C_STORE) and self.serve_next()):
                self._tell_user()
                return

    def drop(self) -> None:
        """That the association is over: what has come and was not served is not held any more."""
        storing, self._storing = self._storing, None
        if storing is not None:
            storing[1].drop()
        while (message := self.get_msg(block=False)[1]) is not None:
            if isinstance(message, StoreMessage):
                message.received.drop()

    def _take(self, context_id: int, value: memoryview) -> None:
        control = value[0]
        if self._storing is not None:
            self._add(context_id, value)
        elif self.message is not None or not control & _COMMAND:
            self._leave_to_library(context_id, value)
        else:
            self._command += value[1:]
            if len(self._command) > _LONGEST_COMMAND:
                self._end_association("a command set without end")
            elif control & _LAST:
                command, self._command = self._command, b""
                self._begin(context_id, command)

    def _begin(self, context_id: int, encoded: bytes) -> None:
        """A command set has come as a whole."""
        command = store_command(encoded) if context_id in self._association._accepted_cx else None
        if command is None:
            self._leave_to_library(context_id, memoryview(_LAST_OF_COMMAND + encoded))
            return
        data_set = self._association.new_data_set()
        if command.has_data_set:
            self._storing = command, data_set
        else:
            self.msg_queue.put((context_id, StoreMessage(command, data_set)))

    def _add(self, context_id: int, value: memoryview) -> None:
        """A fragment of the data set that is to be stored."""
        storing = self._storing
        if storing is None:  # the association has ended meanwhile
            return
        command, data_set = storing
        if value[0] & _COMMAND:
            data_set.drop()
            self._storing = None
            self._end_association("a command amid a data set")
            return
        data_set.add(value[1:])
        if value[0] & _LAST:
            self._storing = None
            self.msg_queue.put((context_id, StoreMessage(command, data_set)))

    def _leave_to_library(self, context_id: int, value: memoryview) -> None:
        self._left_bytes += len(value)
        if self._left_bytes > _LONGEST_OTHER:
            self._end_association("a message that is too long")
            return
        try:
            super().receive_primitive(data_primitive([(context_id, value)]))
        except Exception as error:  # noqa: BLE001 - the library takes every command set for a whole one
            self._end_association(type(error).__name__)
        if self.message is None:
            self._left_bytes = 0

    def _end_association(self, error: str) -> None:
        log.warning("message_not_understood", error=error)
        self.dul.event_queue.put("Evt19")  # invalid PDU

    def serve_next(self) -> bool:
        """Serve the oldest message, unless the other thread is serving one. Whether there was one."""
        if not self._serving.acquire(blocking=False):
            return False
        try:
            context_id, message = self.get_msg(block=False)
            if message is None or context_id is None:
                return False
            try:
                self._association.serve(message, context_id)
            finally:
                if isinstance(message, StoreMessage):
                    message.received.drop()
        finally:
            self._serving.release()
        return True
