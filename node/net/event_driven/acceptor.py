"""Associations that peers ask for, and their DIMSE messages out of fragments.

The threads sleep until a message, a release or an abort has come. A C-STORE-RQ is read here, all other
messages by pynetdicom.
"""

from __future__ import annotations

import hashlib
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.transport import RequestHandler

from node.checkpoint import ReactorCheckpoint
from node.net.encoding import StoreCommand, store_command, store_response
from node.net.event_driven.upper_layer import LOOK_S, EventDrivenProvider, EventDrivenSocket, data_primitive
from node.net.server import PynetdicomServer, StoreRequest, too_large

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


log = structlog.get_logger(__name__)


# Associations.


class _Association(Association):
    """An association whose thread sleeps until a message, a release or an abort has come.

    C-STORE is answered past pynetdicom's service class, which spends as long on the answer as on the reading.
    """

    def __init__(self, server: EventDrivenServer) -> None:
        super().__init__(server.ae, "acceptor")
        self.server = server
        self._reactor_checkpoint = ReactorCheckpoint(self)
        self._news = threading.Event()
        self.broken = False  # set by the provider: nothing that waits is served any more
        self._ended = False
        self.dul: EventDrivenProvider = EventDrivenProvider(
            self, longest_pdu=server.ae.maximum_pdu_size, notify_user=self._news.set
        )
        self.dimse: EventDrivenMessages = EventDrivenMessages(
            self, serve=self._serve, new_data_set=self._new_data_set, notify_user=self._news.set
        )
        self.acse_timeout = server.ae.acse_timeout  # of the new provider's timer
        self.network_timeout = server.ae.network_timeout

    def kill(self) -> None:
        """End the association's two threads."""
        self._ended = True
        self._news.set()
        super().kill()

    def run_reactor(self) -> None:
        """The association's thread, from the request to the end."""
        try:
            self.dul.start()
            request = self._await_request()
            if request is not None:
                self.requestor.primitive = request
                self.dul.name_peer()
                asked = self.dul.request
                if self.server.admit(self, asked.rejection if asked is not None else None):
                    self.acse.negotiate_association()
                    if self.is_established:
                        self._serve_until_ended()
        finally:
            self.kill()
            self.dimse.drop()
            connection: socket.socket | None = self.dul.socket.socket if self.dul.socket is not None else None
            if connection is not None:
                self.server.shutdown_request(connection)
            self.server.end_association(self)

    def _await_request(self) -> A_ASSOCIATE | None:
        """What the peer asks for; None where it goes away or keeps silent.

        pynetdicom waits for its whole timeout though the connection has closed; a TCP health check every
        second would keep dozens of threads waiting.
        """
        deadline = time.monotonic() + (self.acse_timeout or math.inf)
        while time.monotonic() < deadline:
            self._news.clear()
            primitive = self.dul.receive_pdu(wait=False)
            if primitive is not None:
                return primitive if isinstance(primitive, A_ASSOCIATE) else None
            if self.dul.over:
                return None
            self._news.wait(LOOK_S)
        self.log_no_request("no association was requested in time")
        return None

    def log_no_request(self, reason: str) -> None:
        """Log that a connection ends which never became an association."""
        self.server.refusals.tell("connection_refused", reason=reason, peer=self.requestor.address)

    def _serve_until_ended(self) -> None:
        """Serve until released, aborted or idle for too long.

        Between two messages the thread counts as paused, so that another thread may send a request of ours on
        the same association.
        """
        while not self._ended and not self.broken:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            if self.dimse.serve_next():
                continue
            if self._is_over():
                return
            self._is_paused = True
            self._news.wait(LOOK_S)
            self._news.clear()

    def _serve(self, message: Any, context_id: int) -> None:
        """Do what a message asks for and answer it. In whichever thread of the two."""
        if isinstance(message, StoreMessage):
            self._store(message, context_id)
        else:
            self._serve_request(message, context_id)

    def _new_data_set(self) -> ReceivedDataSet:
        return ReceivedDataSet(self.server.policy.limits.instance_bytes, self.server.budget)

    def _store(self, message: StoreMessage, context_id: int) -> None:
        command, dataset = message.command, message.received
        request = StoreRequest(
            association=self,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=str(self.dimse.context(context_id).transfer_syntax[0]),
            dataset=dataset.pieces,
            sha256=dataset.sha256,
            too_large=dataset.too_large,
        )
        status = self.server.on_store(request)
        if self.is_established:
            answer = store_response(
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                message_id=command.message_id,
                status=status,
            )
            self.dul.send_command(context_id, answer)

    def _is_over(self) -> bool:
        """Whether the association is over; ends it where the peer or the time says so."""
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            evt.trigger(self, evt.EVT_RELEASED, {})
        elif self.acse.is_aborted():
            self.dul.receive_pdu(wait=False)
            self.is_aborted = True
            self.is_established = False
            evt.trigger(self, evt.EVT_ABORTED, {})
        elif self.dul.idle_timer_expired():
            log.info("association_idle")
            self.abort()
        elif self.dul.is_alive():
            return False
        self.kill()
        return True


class _Handler(RequestHandler):
    """Makes an association of a connection."""

    server: EventDrivenServer

    def handle(self) -> None:
        association = _Association(self.server)
        patience_s = self.server.pdu_patience_s
        association.set_socket(EventDrivenSocket(association, self.request, patience_s=patience_s))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # pynetdicom copies them for each connection, a tenth of a second; negotiation only reads them.
        acceptor.supported_contexts = self.server.contexts
        association.requestor.address_info = self.remote
        for event in self.server.get_events():
            bound = self.server.get_handlers(event)
            for handler, arguments in [bound] if isinstance(event, evt.InterventionEvent) else bound:
                association.bind(event, handler, arguments)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()


class EventDrivenServer(PynetdicomServer):
    """Accepts connections like its base. The threads of the associations wake for events, and do not poll.

    It reads PDUs and C-STORE requests itself: it holds each to its announced length and to the limits, and
    serves what PS3.8 allows and pynetdicom does not read. Everything that the listener asks of this package
    is here.
    """

    handler_class = _Handler

    @cached_property
    def budget(self) -> MemoryBudget:
        """Of the data sets that all associations of this process hold."""
        return MemoryBudget(2 * self.policy.limits.instance_bytes)

    def loop_handlers(self) -> Sequence[Any]:
        """None: the associations themselves ask the policy, and store."""
        return ()
