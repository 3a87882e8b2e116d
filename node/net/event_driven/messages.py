"""DIMSE messages out of their fragments. A C-STORE-RQ is read here, all others by pynetdicom."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from node.net.encoding import StoreCommand, store_command
from node.net.event_driven.upper_layer import data_primitive
from node.net.server import too_large

log = structlog.get_logger(__name__)

# Bits of the message control header (PS3.8 Annex E.2).
_COMMAND, _LAST = 0x01, 0x02
_LAST_OF_COMMAND = b"\x03"
_LONGEST_COMMAND = 1 << 16  # bytes of a command set; those of the standard have some hundreds
_LONGEST_OTHER = (
    1 << 26
)  # bytes of a message that is no C-STORE: a question about 100,000 instances has 15 MiB


class MemoryBudget:
    """Bounds the bytes of data sets that a process holds in memory, of all associations together.

    Parameters
    ----------
    most_bytes : that are held at once.
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take `count` bytes, if there is room for them.

        Returns
        -------
        Whether there was.
        """
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        """Give `count` bytes back."""
        with self._lock:
            self._left += count


class ReceivedDataSet:
    """A data set in the pieces that it came in, hashed while the peer sends the next.

    Of one that is too large, or for which there is no room, nothing is held.

    Attributes
    ----------
    size_bytes : of all that came.
    too_large : why nothing is held; "" where all is.
    """

    def __init__(self, most_bytes: int, budget: MemoryBudget) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size_bytes = 0
        self.too_large = ""
        self._most_bytes = most_bytes
        self._budget = budget
        self._held = 0
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()

    def add(self, piece: bytes | memoryview) -> None:
        """Append a piece, if there is room for it."""
        with self._lock:
            self.size_bytes += len(piece)
            if self.too_large:
                return
            if self.size_bytes > self._most_bytes:
                self.too_large = too_large(self._most_bytes)
            elif not self._budget.take(len(piece)):
                self.too_large = "too many large instances at once: twice limits.instance_bytes are held"
            else:
                self._held += len(piece)
                self._sha256.update(piece)
                self.pieces.append(piece)
                return
        self.drop()

    def drop(self) -> None:
        """Hold nothing any more. From any thread."""
        with self._lock:
            self.too_large = self.too_large or "dropped"
            self.pieces = []
            self._budget.give_back(self._held)
            self._held = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class StoreMessage(C_STORE):
    """A C-STORE-RQ that was read here. pynetdicom does not see its UIDs, which may be no UIDs.

    Parameters
    ----------
    command : its command set.
    data_set : its data set.
    """

    def __init__(self, command: StoreCommand, data_set: ReceivedDataSet) -> None:
        super().__init__()
        self.MessageID = command.message_id
        self.command = command
        self.received = data_set


class EventDrivenMessages(DIMSEServiceProvider):
    """Has a C-STORE served by the thread that read it, so that no other need be woken.

    Parameters
    ----------
    serve : does what a message asks for in a context, and answers it.
    new_data_set : makes an empty one for what is to be stored.
    notify_user : called when a message waits for the association's own thread.
    """

    def __init__(
        self,
        association: Association,
        *,
        serve: Callable[[Any, int], None],
        new_data_set: Callable[[], ReceivedDataSet],
        notify_user: Callable[[], None],
    ) -> None:
        super().__init__(association)
        self._serve = serve
        self._new_data_set = new_data_set
        self._notify_user = notify_user
        self._serving = threading.Lock()
        self._command = b""  # what has come of a command set
        self._storing: tuple[StoreCommand, ReceivedDataSet] | None = None  # while its data set comes
        self._left_bytes = 0  # of a message that pynetdicom puts together
        self._context_by_id: dict[int, Any] = {}

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of a P-DATA. In the provider's thread.

        Parameters
        ----------
        primitive : whose values are `Fragment`.
        """
        for context_id, value in primitive.presentation_data_value_list:
            self._take(context_id, value)
        while (message := self.peek_msg()[1]) is not None:
            # Over any other pynetdicom may end the association, and would then wait for this very thread.
            # Before the association's own thread knows that it is established, no answer would be sent.
            mine = isinstance(message, StoreMessage) and self.assoc.is_established
            if not (mine and self.serve_next()):
                self._notify_user()
                return

    def drop(self) -> None:
        """Hold no longer what was not served. When the association is over."""
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
            self._leave_to_pynetdicom(context_id, value)
        else:
            self._command += value[1:]
            if len(self._command) > _LONGEST_COMMAND:
                self._end_association("a command set without end")
            elif control & _LAST:
                command, self._command = self._command, b""
                self._begin(context_id, command)

    def context(self, context_id: int) -> Any:
        """Find an accepted presentation context.

        Returns
        -------
        pynetdicom's context; None where no accepted one has the id.
        """
        if not self._context_by_id:  # they never change once they are agreed upon
            self._context_by_id = {one.context_id: one for one in self.assoc.accepted_contexts}
        return self._context_by_id.get(context_id)

    def _begin(self, context_id: int, encoded: bytes) -> None:
        """A command set has come as a whole."""
        command = store_command(encoded) if self.context(context_id) is not None else None
        if command is None:
            self._leave_to_pynetdicom(context_id, memoryview(_LAST_OF_COMMAND + encoded))
            return
        data_set = self._new_data_set()
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

    def _leave_to_pynetdicom(self, context_id: int, value: memoryview) -> None:
        self._left_bytes += len(value)
        if self._left_bytes > _LONGEST_OTHER:
            self._end_association("a message that is too long")
            return
        try:
            super().receive_primitive(data_primitive([(context_id, value)]))
        except Exception as error:  # noqa: BLE001 - it takes every command set for a whole one
            self._end_association(type(error).__name__)
        if self.message is None:
            self._left_bytes = 0

    def _end_association(self, error: str) -> None:
        log.warning("message_not_understood", error=error)
        self.dul.event_queue.put("Evt19")  # invalid PDU

    def serve_next(self) -> bool:
        """Serve the oldest message, unless the other thread is serving one.

        Returns
        -------
        Whether there was one.
        """
        if not self._serving.acquire(blocking=False):
            return False
        try:
            context_id, message = self.get_msg(block=False)
            if message is None or context_id is None:
                return False
            try:
                self._serve(message, context_id)
            finally:
                if isinstance(message, StoreMessage):
                    message.received.drop()
        finally:
            self._serving.release()
        return True
