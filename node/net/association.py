"""Associations that peers ask for: their threads sleep until a message, a release or an abort has come."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from node.checkpoint import Checkpoint
from node.net.access import Rejection
from node.net.encoding import store_response
from node.net.messages import PromptMessages, ReceivedDataSet, StoreMessage
from node.net.upper_layer import LOOK_S, PromptProvider

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ with its data set."""

    association: PromptAssociation
    sop_class_uid: str  # both as the command says, and no UIDs where that has none
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: Sequence[bytes | memoryview]  # as encoded by the peer, in pieces
    sha256: str  # of the data set
    refused: str = ""  # why the data set is not here, where it was too long to be held


class PromptAssociation(Association):
    """An association whose thread sleeps until a message, a release or an abort has come.

    C-STORE is answered past the library's service class, which spends as long on the answer as on the
    reading: by the server's `on_store`, which gives the status.
    """

    def __init__(self, ae: Any, mode: str) -> None:
        super().__init__(ae, mode)
        self._reactor_checkpoint = Checkpoint(self)
        self._news = threading.Event()
        self._began = time.monotonic()
        self.client_address: Any = None  # set by whoever accepted the connection
        self.dul: PromptProvider = PromptProvider(
            self, longest_pdu=ae.maximum_pdu_size, tell_user=self._news.set
        )
        self.dimse: PromptMessages = PromptMessages(self, self._news.set)
        self.acse_timeout = ae.acse_timeout  # of the new provider's timer
        self.network_timeout = ae.network_timeout

    def kill(self) -> None:
        self._news.set()
        super().kill()

    def run_reactor(self) -> None:
        """The thread of an association that a peer asked for, from its request to its end."""
        try:
            self.dul.start()
            self._started_dul = True
            self._dul_ready.wait()
            request = self._request()
            if request is not None:
                self.requestor.primitive = request
                self.dul.name_peer()
                self._serve_admitted()
        finally:
            self.kill()
            self.dimse.drop()
            connection = self.dul.socket.socket if self.dul.socket is not None else None
            if connection is not None:
                self._server.shutdown_request(connection)
            self._server.note_over(self.client_address)

    def _serve_admitted(self) -> None:
        """Serve the association, if its peer may have one."""
        requestor = self.requestor
        asked = self.dul.request
        entered: Rejection | tuple[int, ...]
        if asked is not None and asked.rejection is not None:
            entered = asked.rejection
        else:
            entered = self._server.policy.admit(
                calling=requestor.primitive.calling_ae_title,
                called=requestor.primitive.called_ae_title,
                address=requestor.address,
                here=self.acceptor.address,
            )
        if isinstance(entered, Rejection):
            self._server.refusals.tell(
                "association_refused",
                reason=entered.text,
                peer=requestor.address,
                calling_ae=requestor.primitive.calling_ae_title,
                called_ae=requestor.primitive.called_ae_title,
            )
            self.acse.send_reject(entered.result, entered.source, entered.reason)
            evt.trigger(self, evt.EVT_REJECTED, {})
            return
        try:
            self.acse.negotiate_association()
            if self.is_established:
                self._run_reactor()
        finally:
            self._server.policy.release(entered)

    def _request(self) -> A_ASSOCIATE | None:
        """What the peer asks for; None where it goes away or keeps silent.

        The library waits for its whole timeout though the connection has closed; a TCP health check every
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
        self.tell_refused("no association was asked for in time")
        return None

    def tell_refused(self, reason: str) -> None:
        """That a connection ends which never became an association."""
        self._server.refusals.tell("connection_refused", reason=reason, peer=self.requestor.address)

    def _run_reactor(self) -> None:
        """Serve until released, aborted or idle for too long.

        Between two messages the thread counts as paused, so that a handler of another thread may send a
        request of ours on the same association.
        """
        while not self._kill:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            if self.dimse.serve_next():
                continue
            if self._ended():
                return
            self._is_paused = True
            self._news.wait(LOOK_S)
            self._news.clear()

    def serve(self, message: Any, context_id: int) -> None:
        """Do what a message asks for and answer it. In whichever thread of the two."""
        context = self._accepted_cx.get(context_id)
        if isinstance(message, StoreMessage) and context and not self._sent_release:
            self._store(message, context_id, str(context.transfer_syntax[0]))
        else:
            self._serve_request(message, context_id)

    def new_data_set(self) -> ReceivedDataSet:
        """An empty one for what is to be stored."""
        return ReceivedDataSet(self._server.policy.limits.instance_bytes, self._server.room)

    def _store(self, message: StoreMessage, context_id: int, transfer_syntax_uid: str) -> None:
        command, dataset = message.command, message.received
        request = StoreRequest(
            association=self,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            dataset=dataset.pieces,
            sha256=dataset.sha256,
            refused=dataset.refused,
        )
        status = self._server.on_store(request)
        if self.is_established:
            answer = store_response(
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                message_id=command.message_id,
                status=status,
            )
            self.dul.send_command(context_id, answer)

    def _ended(self) -> bool:
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
        elif time.monotonic() - self._began > self._server.policy.rules.association_s:
            log.warning("association_too_long")
            self.abort()
        elif self.dul.is_alive():
            return False
        self.kill()
        return True
