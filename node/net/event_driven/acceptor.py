"""Associations that peers ask for. Their threads sleep until a message, a release or an abort has come."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import RequestHandler

from node.checkpoint import ReactorCheckpoint
from node.net.encoding import store_response
from node.net.event_driven.messages import EventDrivenMessages, MemoryBudget, ReceivedDataSet, StoreMessage
from node.net.event_driven.upper_layer import LOOK_S, EventDrivenProvider, EventDrivenSocket
from node.net.server import PynetdicomServer, StoreRequest

log = structlog.get_logger(__name__)


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
