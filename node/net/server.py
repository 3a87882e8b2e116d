"""The listening socket: connections become associations, each in threads of its own."""

from __future__ import annotations

import hashlib
import math
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer
from typing import Any

import structlog
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer
from structlog.contextvars import bind_contextvars

from node.net.access import AssociationPolicy, RefusalLog, Rejection
from node.supervision import SupervisedThread

log = structlog.get_logger(__name__)

_BACKLOG = 128  # connections that wait to be accepted: a hundred peers may come at once
_ACCEPT_LOOK_S = 0.2  # how soon accepting ends when it should
_STOP_S = 5.0  # for peers to take note that their associations are aborted


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, before anybody accepts from it.

    Raises
    ------
    OSError
        If the address cannot be bound.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)  # of several processes that wake for one connection, one gets it
    except OSError:
        made.close()
        raise
    return made


def send_at_once(event: evt.Event) -> None:
    """Switch Nagle's algorithm off on a new connection. Handles EVT_CONN_OPEN.

    Each DIMSE message ends in a small PDU. With Nagle's algorithm it waits for the delayed acknowledgement of
    the PDU before, tens of milliseconds for every instance.
    """
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ with its data set.

    Parameters
    ----------
    association : pynetdicom's, or one derived from it.
    sop_class_uid, sop_instance_uid : as the command states them; they may be no UIDs.
    dataset : as the peer encoded it, in pieces.
    sha256 : of the data set.
    too_large : why the data set is not here; "" where it is.
    """

    association: Any
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: Sequence[bytes | memoryview]
    sha256: str
    too_large: str = ""


@dataclass(slots=True, kw_only=True)
class _OpenAssociation:
    """What is to be given back when an association has ended."""

    client_address: Any
    began_s: float  # by the monotonic clock
    slots: tuple[int, ...] = ()


class PynetdicomServer(ThreadedAssociationServer):
    """Accepts from a socket that listens already. pynetdicom's own loops serve the associations.

    It uses pynetdicom's public interface alone. TLS is agreed upon in the connection's own thread.

    Parameters
    ----------
    listening : as `listening_socket` makes it. Other processes may accept from it too.
    policy : says who may connect, and who may have an association.
    on_store : keeps an instance and gives the status to answer; never raises. In a thread of the association.
    handlers : pynetdicom's event handlers.
    """

    daemon_threads = True
    block_on_close = False
    handler_class: type[RequestHandler] = RequestHandler  # makes an association of a connection
    pdu_patience_s = 30.0  # for the rest of a PDU that has begun, and for a peer to read

    def __init__(
        self,
        ae: AE,
        listening: socket.socket,
        policy: AssociationPolicy,
        on_store: Callable[[StoreRequest], int],
        *,
        handlers: Sequence[Any],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._listening = listening
        self.policy = policy
        self.on_store = on_store
        self.refusals = RefusalLog()
        self._connections = 0  # that are served, or about to be
        self._counted: dict[str, list[int]] = {}  # slots of the connections of each address
        self._associations: dict[Any, _OpenAssociation] = {}
        self._lock = threading.Lock()
        self._stopped = False
        super().__init__(
            ae,
            listening.getsockname(),
            ae.ae_title,
            ae.supported_contexts,
            ssl_context=ssl_context,
            evt_handlers=[*handlers, (evt.EVT_CONN_OPEN, self._note_association), *self.loop_handlers()],
            request_handler=self.handler_class,
        )

    def loop_handlers(self) -> Sequence[Any]:
        """Event handlers by which pynetdicom's loops ask the policy, and store.

        Returns
        -------
        (event, handler) of each, as pynetdicom takes them.
        """
        return [(evt.EVT_REQUESTED, self._admit), (evt.EVT_C_STORE, self._store)]

    def start(self) -> None:
        """Accept in a thread of its own."""
        SupervisedThread(partial(self.serve_forever, _ACCEPT_LOOK_S), name="accept").start()

    def stop(self) -> None:
        """Accept no more, and abort open associations. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        BaseServer.shutdown(self)
        self.server_close()
        # One whose thread is just being started is not waited for: this process ends with it.
        still_open = [one for one in list(self._associations) if one.is_alive()]
        for association in still_open:
            association.abort(block=False)
        deadline = time.monotonic() + _STOP_S
        for association in still_open:
            association.join(max(0.0, deadline - time.monotonic()))
        self._end_associations()

    def server_bind(self) -> None:
        """Take the socket that listens already, in place of the one that socketserver made."""
        if self.socket is not None:
            self.socket.close()
        self.socket = self._listening
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """It listens already."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; TLS is agreed upon later, in the connection's own thread.

        Raises
        ------
        BlockingIOError
            If another process was faster.
        """
        assert self.socket is not None, "a server that accepts has a socket"
        return self.socket.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._count(+1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make the connection an association."""
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - of TLS, or whatever a connection that breaks off leads to
            self.handle_error(request, client_address)
            self.shutdown_request(request)
            self._end_connection(client_address)

    def end_association(self, association: Any) -> None:
        """Give back what an association had taken. A second call does nothing.

        Parameters
        ----------
        association : whose threads have ended, or are about to.
        """
        with self._lock:
            ended = self._associations.pop(association, None)
        if ended is not None:
            self.policy.release(ended.slots)
            self._end_connection(ended.client_address)

    def _end_connection(self, client_address: Any) -> None:
        address = client_address[0]
        with self._lock:
            slots = self._counted[address]
            slot = slots.pop()  # whichever: they are alike
            if not slots:
                del self._counted[address]
        self.policy.release((slot,))
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._connections += change

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is served, and counts it if so.

        Returns
        -------
        False where the policy does not accept the address, or there are too many connections, of this address
        or in all. The log says so.
        """
        address = client_address[0]
        if not self.policy.accepts_address(address, here=request.getsockname()[0]):
            return self._turn_away(address, "address outside access.networks")
        # Those that have not asked for an association yet are counted too.
        if self._connections >= 2 * self.policy.rules.max_associations:
            return self._turn_away(address, "more than twice access.max_associations connections")
        slot = self.policy.count_connection(address)
        if slot is None:
            return self._turn_away(address, "more than access.max_connections_per_peer connections")
        with self._lock:
            self._counted.setdefault(address, []).append(slot)
        return True

    def _turn_away(self, address: str, reason: str) -> bool:
        self.refusals.tell("connection_refused", reason=reason, peer=address)
        return False

    def service_actions(self) -> None:
        """Several times a second, in the thread that accepts."""
        super().service_actions()
        self.refusals.tell_repeated()
        self._end_associations()

    def _end_associations(self) -> None:
        """End those that last too long, and give back what those had taken whose thread has ended."""
        latest = time.monotonic() - self.policy.rules.association_s
        for association, opened in list(self._associations.items()):
            if association.ident is not None and not association.is_alive():
                self.end_association(association)
            elif opened.began_s < latest and association.is_established:
                opened.began_s = math.inf  # once is enough
                log.warning("association_too_long", peer=opened.client_address[0])
                association.abort(block=False)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            request.settimeout(self.ae.acse_timeout)
            request = self.ssl_context.wrap_socket(request, server_side=True)
        request.settimeout(self.pdu_patience_s)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        error = sys.exception()
        reason = getattr(error, "reason", None) or type(error).__name__  # of TLS: what was wrong with it
        self.refusals.tell("connection_refused", reason=str(reason), peer=client_address[0])

    def server_close(self) -> None:
        """Close this process's hold on the socket; others go on accepting from it."""
        self._listening.close()

    # ---- what an association asks, in its own thread

    def admit(self, association: Any, rejection: Rejection | None = None) -> bool:
        """Judge an association request by the policy, and reject it where the policy does.

        Parameters
        ----------
        association : that has received its request.
        rejection : why it cannot be served, if that is known already.

        Returns
        -------
        Whether the association may go on.
        """
        requestor = association.requestor
        asked = {
            "calling": requestor.primitive.calling_ae_title,
            "called": requestor.primitive.called_ae_title,
        }
        admitted = rejection or self.policy.admit(
            **asked, address=requestor.address, here=association.acceptor.address
        )
        if not isinstance(admitted, Rejection):
            self._associations[association].slots = admitted
            return True
        self.refusals.tell(
            "association_refused",
            reason=admitted.text,
            peer=requestor.address,
            calling_ae=asked["calling"],
            called_ae=asked["called"],
        )
        association.acse.send_reject(admitted.result, admitted.source, admitted.reason)
        evt.trigger(association, evt.EVT_REJECTED, {})
        return False

    def _note_association(self, event: evt.Event) -> None:
        with self._lock:
            self._associations[event.assoc] = _OpenAssociation(
                client_address=event.address, began_s=time.monotonic()
            )

    def _admit(self, event: evt.Event) -> None:
        association = event.assoc
        requested = association.requestor.primitive
        if not isinstance(requested, A_ASSOCIATE):  # the connection has closed
            return
        bind_contextvars(
            peer=association.requestor.address,
            calling_ae=requested.calling_ae_title,
            called_ae=requested.called_ae_title,
        )
        if not self.admit(association):
            association.is_rejected = True
            association.kill()  # returns when the rejection has been sent

    def _store(self, event: evt.Event) -> int:
        request, content = event.request, event.request.DataSet
        dataset = content.getvalue() if content is not None else b""
        most = self.policy.limits.instance_bytes
        return self.on_store(
            StoreRequest(
                association=event.assoc,
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                dataset=[dataset],
                sha256=hashlib.sha256(dataset).hexdigest(),
                too_large=too_large(most) if len(dataset) > most else "",
            )
        )


def too_large(most_bytes: int) -> str:
    """Why a data set of more than so many bytes is refused."""
    return f"more than {most_bytes} bytes (limits.instance_bytes)"
