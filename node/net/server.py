"""The listening socket: connections become associations, each in threads of its own."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from pynetdicom import AE, evt
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.net.access import AssociationPolicy, RefusalLog
from node.net.association import PromptAssociation, StoreRequest
from node.net.load import Seat
from node.net.messages import Room
from node.net.upper_layer import PromptSocket
from node.supervised_thread import SupervisedThread

log = structlog.get_logger(__name__)

_ACCEPT_LOOK_S = 0.2  # how soon accepting ends when it should
_STOP_S = 5.0  # for peers to take note that their associations are aborted
_STEP_BACK_S = 0.03  # that a process with fewer associations has to accept; Python gives each thread 0.005
_PDU_PATIENCE_S = 30.0  # from a PDU's first byte to its last


class _Handler(RequestHandler):
    """Makes an association of a connection."""

    server: Server

    def _create_association(self) -> PromptAssociation:
        association = PromptAssociation(self.ae, "acceptor")
        # By these two the library finds a server's associations.
        association._server = self.server
        association.client_address = self.client_address
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        association.set_socket(PromptSocket(association, self.request, patience_s=_PDU_PATIENCE_S))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # The library copies them for each connection, a tenth of a second; negotiation only reads them.
        acceptor.supported_contexts = self.server.contexts
        association.requestor.address_info = self.remote
        for event, bound in self.server._handlers.items():
            if isinstance(event, evt.InterventionEvent):
                if bound:
                    association.bind(event, *bound)
            else:
                for handler, arguments in bound:
                    association.bind(event, handler, arguments)
        return association


class Server(ThreadedAssociationServer):
    """Accepts from a socket that is listening already; TLS is agreed upon in the connection's own thread.

    Parameters
    ----------
    listening : as `listening_socket` makes it. Other processes may accept from it too.
    policy : says who may connect, and who may have an association.
    on_store : keeps an instance and gives the status to answer; never raises. In the association's thread.
    seat : this process's among those that accept from the socket.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        ae: AE,
        listening: socket.socket,
        policy: AssociationPolicy,
        on_store: Callable[[StoreRequest], int],
        *,
        seat: Seat,
        handlers: Sequence[Any],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._listening = listening
        self.policy = policy
        self.on_store = on_store
        self.room = Room(2 * policy.limits.instance_bytes)
        self._seat = seat
        self.refusals = RefusalLog()
        self._connections = 0  # that are served, or about to be
        self._counted: dict[
            str, list[int]
        ] = {}  # for each connection of an address, what is to be given back
        self._lock = threading.Lock()
        super().__init__(
            ae,
            listening.getsockname(),
            ae.ae_title,
            ae.supported_contexts,
            ssl_context=ssl_context,
            evt_handlers=list(handlers),
            request_handler=_Handler,
        )

    def start(self) -> None:
        """Accept in a thread of its own."""
        self.ae._servers.append(self)  # by which the library counts associations
        SupervisedThread(partial(self.serve_forever, _ACCEPT_LOOK_S), name="accept").start()

    def stop(self) -> None:
        """Accept no more, and abort what is open. Once is enough."""
        if self not in self.ae._servers:
            return
        self.shutdown()
        # One whose thread is just being started is not waited for: this process ends with it.
        open_still = [one for one in self.active_associations if one.is_alive()]
        for association in open_still:
            association.abort(block=False)
        deadline = time.monotonic() + _STOP_S
        for association in open_still:
            association.join(max(0.0, deadline - time.monotonic()))

    def server_bind(self) -> None:
        if self.socket is not None:
            self.socket.close()  # socketserver made one of its own
        self.socket = self._listening
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """It listens already."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, but let a process with fewer associations go first.

        Raises
        ------
        BlockingIOError
            If another was faster.
        """
        assert self.socket is not None, "a server that accepts has a socket"
        if self._seat.others_have_fewer:
            time.sleep(_STEP_BACK_S)
        return self.socket.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._note(+1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make the connection an association, whose own thread says when it is over."""
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - of TLS, or whatever a connection that breaks off leads to
            self.handle_error(request, client_address)
            self.shutdown_request(request)
            self.note_over(client_address)

    def note_over(self, client_address: Any) -> None:
        """That a connection is served no more."""
        address = client_address[0]
        with self._lock:
            slots = self._counted[address]
            slot = slots.pop()  # whichever: they are alike
            if not slots:
                del self._counted[address]
        self.policy.release((slot,))
        self._note(-1)

    def _note(self, change: int) -> None:
        with self._lock:
            self._connections += change
            self._seat.note(self._connections)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is served: not one more than its address may have, nor one too many in all."""
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

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            request.settimeout(self.ae.acse_timeout)
            request = self.ssl_context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        error = sys.exception()
        reason = getattr(error, "reason", None) or type(error).__name__  # of TLS: what was wrong with it
        self.refusals.tell("connection_refused", reason=str(reason), peer=client_address[0])

    def server_close(self) -> None:
        """Close this process's hold on the socket; others go on accepting from it."""
        self._listening.close()
