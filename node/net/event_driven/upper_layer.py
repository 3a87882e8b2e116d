"""The upper layer of an association whose thread wakes for a PDU, a primitive or a timer.

pynetdicom's thread sleeps a millisecond between two looks at its queues and at the socket, and reads in
pieces of 4 KiB. `EventDrivenProvider` takes the place of that loop. The state machine, the negotiation and
the service classes stay pynetdicom's.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
    PDU,
)
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket
from structlog.contextvars import bind_contextvars

from node.logs import describe
from node.net.event_driven.negotiation import ACCEPTANCE, REQUEST, AssociationRequest, answered, read_request

log = structlog.get_logger(__name__)

# States of the state machine (PS3.8 Tables 9-2 and 9-5): no connection, data transfer, about to close.
IDLE, _TRANSFER, _CLOSING = "Sta1", "Sta6", "Sta13"
LOOK_S = 0.5  # timers and flags are looked at this often where nothing happens
# PS3.8 Table 9-11: the length that we announce is that of the P-DATA's own part, after six bytes of header.
_HEADER = struct.Struct(">BBL")
_FRAGMENT = struct.Struct(">LB")
_P_DATA = 0x04
_CONNECTION_CLOSED, _DATA_CAME, _TIMER_EXPIRED, _INVALID_PDU = "Evt17", "Evt10", "Evt18", "Evt19"
# Classes and events of all other PDUs, by their type (PS3.8 Section 9.3.1 and Table 9-1).
_CONTROL_PDUS: Mapping[int, tuple[type[PDU], str]] = {
    0x01: (A_ASSOCIATE_RQ, "Evt6"),
    0x02: (A_ASSOCIATE_AC, "Evt3"),
    0x03: (A_ASSOCIATE_RJ, "Evt4"),
    0x05: (A_RELEASE_RQ, "Evt12"),
    0x06: (A_RELEASE_RP, "Evt13"),
    0x07: (A_ABORT_RQ, "Evt16"),
}
_COMMAND, _LAST_OF_COMMAND = b"\x01", b"\x03"  # message control headers (PS3.8 Annex E.2)
_LONGEST_CONTROL_PDU = 1 << 20  # bytes; an A-ASSOCIATE-RQ with 128 contexts has some 30 KiB

Fragment = tuple[int, memoryview]  # context id, control header with the fragment of a message


class NotifyingQueue(queue.Queue[Any]):
    """A queue that tells of each item.

    Parameters
    ----------
    notify : called after each `put`, in the thread that puts.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        super().__init__()
        self._notify = notify

    def _put(self, item: Any) -> None:
        super()._put(item)
        self._notify()


class EventDrivenSocket(AssociationSocket):
    """Reads a PDU into one buffer, within a time that holds for the whole of it.

    Parameters
    ----------
    patience_s : from a PDU's first byte to its last. A peer that sends a byte a minute is cut off.
    """

    def __init__(self, association: Association, connection: socket.socket, *, patience_s: float) -> None:
        super().__init__(association, client_socket=connection)
        self._patience_s = patience_s
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(patience_s)
            return
        # The kernel waits for the whole of a PDU, which spares dozens of calls. It limits sending too: a peer
        # that does not read is cut off as well.
        connection.settimeout(None)
        limit = struct.pack("@ll", int(patience_s), int(patience_s % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    @property
    def ready(self) -> bool:
        """Whether something can be read. With poll, which knows no highest file descriptor."""
        connection = self.socket
        if connection is None:
            return False
        try:
            return _pending(connection) or bool(_readable([connection], 0.0))
        except (OSError, ValueError):  # closed meanwhile
            self.event_queue.put(_CONNECTION_CLOSED)
            return False

    def recv_if_ready(self, nr_bytes: int) -> bytearray | None:
        """The next bytes as `recv`, if the first of them has come; None if not.

        Raises
        ------
        OSError
            As `recv`.
        """
        connection = self.socket
        if connection is None or isinstance(connection, ssl.SSLSocket):
            return self.recv(nr_bytes) if self.ready else None
        try:
            begun = connection.recv(nr_bytes, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        missing = nr_bytes - len(begun)
        return bytearray(begun) + self.recv(missing) if begun and missing else bytearray(begun)

    def recv(self, nr_bytes: int) -> bytearray:
        """Receive exactly `nr_bytes`, or fewer where the peer closed the connection.

        Raises
        ------
        OSError
            If the connection broke; TimeoutError if the peer took too long.
        """
        connection = self.socket
        if connection is None:
            return bytearray()
        flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        buffer = bytearray(nr_bytes)
        deadline = time.monotonic() + self._patience_s
        got = 0
        with memoryview(buffer) as view:
            while got < nr_bytes:
                count = connection.recv_into(view[got:], 0, flags)
                if count == 0:
                    break
                got += count
                if got < nr_bytes and time.monotonic() > deadline:
                    raise TimeoutError("the rest of a PDU did not come")
        del buffer[got:]
        return buffer

    def send(self, bytestream: bytes) -> None:
        """Send a PDU; an acceptance completed by what pynetdicom leaves out of it."""
        request = self.assoc.dul.request
        if bytestream[0] == ACCEPTANCE and request is not None:
            bytestream = answered(bytes(bytestream), request)
        super().send(bytestream)


class _DataPdu(P_DATA_TF):
    """A received P-DATA-TF PDU. Its fragments stay views of the buffer that it was read into."""

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        super().__init__()
        self._received = fragments

    def to_primitive(self) -> P_DATA:
        return data_primitive(self._received)


def data_primitive(fragments: Iterable[Fragment]) -> P_DATA:
    """Wrap fragments in pynetdicom's primitive.

    Parameters
    ----------
    fragments : of one P-DATA, in order.
    """
    primitive = P_DATA()
    primitive.presentation_data_value_list = []
    primitive.presentation_data_value_list.extend(fragments)  # the setter takes bytes alone
    return primitive


def _fragments(body: bytearray) -> Iterator[Fragment]:
    """Presentation data values of a P-DATA-TF (PS3.8 Section 9.3.5.1).

    Raises
    ------
    ValueError
        If their lengths are not those of the PDU.
    """
    view, at = memoryview(body), 0
    while at < len(body):
        if len(body) - at < _FRAGMENT.size:
            raise ValueError("a presentation data value is cut off")
        length, context_id = _FRAGMENT.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):  # the context id and the control header are counted
            raise ValueError("a presentation data value has an impossible length")
        yield context_id, view[at + _FRAGMENT.size : end]
        at = end


class EventDrivenProvider(DULServiceProvider):
    """The upper layer of an association that a peer asked for. Its thread sleeps until something comes.

    Parameters
    ----------
    longest_pdu : bytes of a P-DATA-TF that are accepted; what was announced to the peer.
    notify_user : called when something waits for the association's own thread.
    """

    def __init__(
        self, association: Association, *, longest_pdu: int, notify_user: Callable[[], None]
    ) -> None:
        super().__init__(association)
        self._longest_pdu = longest_pdu
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self.to_provider_queue = NotifyingQueue(self.wake)
        self.to_user_queue = NotifyingQueue(notify_user)
        self._notify_user = notify_user
        self._ending = False
        self.over = False  # whether the connection was there and is not any more
        self.request: AssociationRequest | None = None  # what the peer asked for, once it has

    def wake(self) -> None:
        """Have the thread look at once. From any thread."""
        try:
            self._waker.send(b"\0")
        except OSError:  # full, so it wakes anyway; or closed, so it has ended
            return

    def send_command(self, context_id: int, command: bytes) -> None:
        """Send a message without data set.

        The provider's own thread sends it at once, unless the association's thread has queued something
        meanwhile: answers keep the order of requests.

        Parameters
        ----------
        context_id : of the presentation context.
        command : the encoded command set.
        """
        at_once = threading.current_thread() is self and self.to_provider_queue.empty()
        longest = self.assoc.requestor.maximum_length  # of the peer's PDUs; 0 for any
        room = longest - _FRAGMENT.size - 1 if longest else len(command)
        for begin in range(0, len(command), room):
            control = _LAST_OF_COMMAND if begin + room >= len(command) else _COMMAND
            primitive = P_DATA()
            primitive.presentation_data_value_list = [[context_id, control + command[begin : begin + room]]]
            if not at_once:
                self.send_pdu(primitive)
            elif self.socket is not None:
                self.socket.send(P_DATA_TF(primitive).encode())

    def name_peer(self) -> None:
        """Have every event that the thread logs from now on name the peer."""
        bind_contextvars(peer=self.assoc.requestor.address)
        if self.request is not None:
            bind_contextvars(calling_ae=self.request.calling, called_ae=self.request.called)

    def kill_dul(self) -> None:
        """Have the thread end. From any thread."""
        self._ending = True
        self.wake()

    def stop_dul(self) -> bool:
        """Have the thread end if there is no connection any more, and wait for it.

        Returns
        -------
        Whether there was none.
        """
        if self.state_machine.current_state != IDLE:
            return False
        self.kill_dul()
        if threading.current_thread() is not self:
            self.join()
        return True

    def run_reactor(self) -> None:
        """The thread: handle PDUs and primitives, wait for the next, and check the timers meanwhile."""
        self.name_peer()
        self._idle_timer.start()
        try:
            while not self._ending:
                if self.artim_timer.expired:
                    self.event_queue.put(_TIMER_EXPIRED)
                if not self._handle_next():
                    self._wait()
        except InvalidEventError:  # a peer that breaks off while it is answered, or keeps to no order
            log.warning("association_out_of_order", state=self.state_machine.current_state)
            self._abort()
        except Exception as error:  # noqa: BLE001 - whatever broke, the peer is told and the threads end
            log.error("association_broken", error=describe(error))
            self._abort()
        finally:
            self._woken.close()
            self._waker.close()
            self._notify_user()  # that there is nobody any more

    def _handle_next(self) -> bool:
        """Take a primitive of ours or a PDU of the peer's. Whether there was one, or an event to act on."""
        came = not self._process_recv_primitive() and self._read_if_ready()
        if came:
            self._idle_timer.restart()
        if self.event_queue.empty():
            return came
        self.state_machine.do_action(self.event_queue.get_nowait())
        if self.state_machine.current_state == IDLE:
            self.over = True
            self._notify_user()
        return True

    def _abort(self) -> None:
        """Tell the peer past the state machine, which may be what is broken."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00
        if self.socket is not None:
            self.socket.send(abort.encode())
        self.assoc.is_aborted = True
        self.assoc.is_established = False
        self.assoc.broken = True
        self._ending = True

    def _wait(self) -> None:
        connection = self.socket.socket if self.socket is not None else None
        watched = [self._woken] if connection is None else [self._woken, connection]
        try:
            ready = _readable(watched, max(0.0, min(LOOK_S, self.artim_timer.remaining)))
        except (OSError, ValueError):  # closed by the other thread: the next look meets it
            return
        if self._woken.fileno() in ready:
            self._woken.recv(4096)

    def _read_if_ready(self) -> bool:
        """Read a PDU, if one has begun to come. Whether that was so, or the connection is closed now."""
        if self.socket is None:
            return False
        if self._read_pdu(self.socket):
            return True
        if self.state_machine.current_state == _CLOSING:
            self.socket.close()
            return True
        return False

    def _read_pdu(self, connection: EventDrivenSocket) -> bool:
        """Read a PDU that has begun to come, and queue it with its event. Whether one had.

        One that is too long or of no type is not read on.
        """
        try:
            header = connection.recv_if_ready(_HEADER.size)
            if header is None:
                return False
            if len(header) < _HEADER.size:
                self.event_queue.put(_CONNECTION_CLOSED)
                return True
            kind, _, length = _HEADER.unpack(header)
            longest = self._longest_pdu if kind == _P_DATA else _LONGEST_CONTROL_PDU
            if (kind != _P_DATA and kind not in _CONTROL_PDUS) or length > longest:
                self._not_understood("no PDU, or one that is too long")
                return True
            body = connection.recv(length)
        except OSError as error:
            log.warning("association_lost", error=type(error).__name__)
            self.event_queue.put(_CONNECTION_CLOSED)
            return True
        if len(body) < length:
            self.event_queue.put(_CONNECTION_CLOSED)
        elif kind == _P_DATA:
            self._take_data(body)
        else:
            self._take_control(bytes(header + body))
        return True

    def _take_data(self, body: bytearray) -> None:
        """Past queue and state machine where messages come and go and nothing waits before them (DT-2)."""
        try:
            fragments = tuple(_fragments(body))
        except ValueError as error:
            self._not_understood(type(error).__name__)
            return
        if self.state_machine.current_state == _TRANSFER and self.event_queue.empty():
            self.assoc.dimse.receive_primitive(data_primitive(fragments))
        else:
            self._recv_pdu.put(_DataPdu(fragments))
            self.event_queue.put(_DATA_CAME)

    def _take_control(self, content: bytes) -> None:
        """Decode any other PDU before it is queued: the state machine cannot refuse one that is invalid."""
        if content[0] == REQUEST and self.request is None:
            self.request = read_request(content)
            self.name_peer()
            content = self.request.content
        kind, event = _CONTROL_PDUS[content[0]]
        try:
            pdu = kind()
            pdu.decode(content)
            pdu.to_primitive()
        except Exception as error:  # noqa: BLE001 - whatever the bytes lead to
            self._not_understood(type(error).__name__)
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _not_understood(self, error: str) -> None:
        if self.request is None:
            self.assoc.log_no_request("the received PDU is not an association request")
        else:
            log.warning("pdu_not_understood", error=error)
        self.event_queue.put(_INVALID_PDU)


def _readable(connections: Sequence[socket.socket], timeout_s: float) -> frozenset[int]:
    """File descriptors of those from which something, or their end, can be read."""
    poll = select.poll()
    for one in connections:
        poll.register(one, select.POLLIN)
    return frozenset(number for number, _ in poll.poll(timeout_s * 1000))


def _pending(connection: socket.socket) -> bool:
    """Whether TLS has decrypted more than was asked for; the socket itself does not show it."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
