"""The upper layer of an association: PDUs, without looking for them a thousand times a second.

pynetdicom 3.0's two threads of an association each sleep a millisecond between two looks at their queues, and
it reads from the socket in pieces of 4 KiB. For one C-STORE after another that takes longer than the storing,
and a hundred idle associations keep a core busy. These classes and those of node.net.association take the
places of its loops and of its reading; state machine, negotiation and the other service classes stay the
library's. tests/net/test_associations.py holds what they rely on.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket
from structlog.contextvars import bind_contextvars

from node.logs import describe
from node.net.negotiation import REQUEST, AssociationRequest, answered, plain_answer, read_request

log = structlog.get_logger(__name__)

# Of the state machine (PS3.8 Tables 9-2 and 9-5): no connection, messages come and go, about to close.
IDLE, _TRANSFER, _CLOSING = "Sta1", "Sta6", "Sta13"
LOOK_S = 0.5  # timers and flags are looked at this often where nothing happens
# PS3.8 Table 9-11: the length that we announce is that of the P-DATA's own part, after six bytes of header.
_HEADER = struct.Struct(">BBL")
_FRAGMENT = struct.Struct(">LB")
_P_DATA = 0x04
_PDU_KINDS = range(0x01, 0x08)
_COMMAND, _LAST_OF_COMMAND = b"\x01", b"\x03"  # message control headers (PS3.8 Annex E.2)
_LONGEST_CONTROL_PDU = 1 << 20  # of any PDU but P-DATA: an A-ASSOCIATE-RQ with 128 contexts has some 30 KiB

Fragment = tuple[int, memoryview]  # context id, control header with the fragment of a message


class PromptQueue(queue.Queue[Any]):
    """A queue that tells somebody of each item."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def _put(self, item: Any) -> None:
        super()._put(item)
        self._tell()


class PromptSocket(AssociationSocket):
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
        # The kernel waits for the whole of a PDU, which spares dozens of calls. Of sending too: a peer that
        # does not read is cut off as well.
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
            self.event_queue.put("Evt17")
            return False

    def glance(self, nr_bytes: int) -> bytearray | None:
        """The next so many bytes as `recv`, if the first of them has come; None if not.

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
        """Exactly so many bytes, or fewer where the peer closed the connection.

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


class _DataPdu(P_DATA_TF):
    """A received P-DATA-TF PDU whose fragments are looked at where they lie, and not copied again."""

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        super().__init__()
        self._received = fragments

    def to_primitive(self) -> P_DATA:
        return data_primitive(self._received)


def data_primitive(fragments: Iterable[Fragment]) -> P_DATA:
    """The library's word for presentation data values."""
    primitive = P_DATA()
    primitive.presentation_data_value_list = []
    primitive.presentation_data_value_list.extend(fragments)  # the setter takes bytes alone
    return primitive


def _fragments(body: bytearray) -> Iterator[Fragment]:
    """Presentation data values of a P-DATA-TF: context id, and control header with fragment (PS3.8 9.3.5.1).

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


class PromptProvider(DULServiceProvider):
    """The upper layer of an association: reads and writes PDUs as soon as there is one.

    Parameters
    ----------
    longest_pdu : bytes of a P-DATA-TF that are accepted; what was announced to the peer.
    tell_user : called when a primitive waits for the association's own thread.
    """

    def __init__(self, association: Association, *, longest_pdu: int, tell_user: Callable[[], None]) -> None:
        super().__init__(association)
        self._longest_pdu = longest_pdu
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self.to_provider_queue = PromptQueue(self.wake)
        self.to_user_queue = PromptQueue(tell_user)
        self._tell_user = tell_user
        self.over = False  # whether the connection was there and is not any more
        self.request: AssociationRequest | None = None  # what the peer asked for, once it has

    def wake(self) -> None:
        """Have the loop look at once. From any thread."""
        try:
            self._waker.send(b"\0")
        except OSError:  # full, so it wakes anyway; or closed, so it has ended
            return

    def send_command(self, context_id: int, command: bytes) -> None:
        """Send a message without data set, at once where this is the provider's own thread.

        Not past what the association's own thread has queued meanwhile: answers keep the order of requests.
        """
        at_once = threading.current_thread() is self and self.to_provider_queue.empty()
        longest = self.assoc.requestor.maximum_length  # of the peer's PDUs; 0 for any
        room = longest - _FRAGMENT.size - 1 if longest else len(command)
        for begin in range(0, len(command), room):
            control = _LAST_OF_COMMAND if begin + room >= len(command) else _COMMAND
            primitive = P_DATA()
            primitive.presentation_data_value_list = [[context_id, control + command[begin : begin + room]]]
            if at_once:
                self._send(P_DATA_TF(primitive))
            else:
                self.send_pdu(primitive)

    def name_peer(self) -> None:
        """Have every event that the thread logs from now on say who the peer is."""
        bind_contextvars(peer=self.assoc.requestor.address)
        if self.request is not None:
            bind_contextvars(calling_ae=self.request.calling, called_ae=self.request.called)

    def kill_dul(self) -> None:
        super().kill_dul()
        self.wake()

    def _send(self, pdu: Any) -> None:
        """As the library's, but for what the library leaves out of an acceptance."""
        if isinstance(pdu, A_ASSOCIATE_AC) and self.request is not None and self.socket is not None:
            self.socket.send(answered(bytes(pdu.encode()), self.request))
        else:
            super()._send(pdu)

    def stop_dul(self) -> bool:
        if self.state_machine.current_state == IDLE:
            self.kill_dul()
        return bool(super().stop_dul())

    def run_reactor(self) -> None:
        """The thread: handle what was sent and what is to be sent, wait, and look at the timers meanwhile."""
        self.name_peer()
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                if self.artim_timer.expired:
                    self.event_queue.put("Evt18")
                if not self._handled():
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
            self._tell_user()  # that there is nobody any more

    def _handled(self) -> bool:
        """Take a primitive of ours or a PDU of the peer's; whether there was one, or an event to act on."""
        came = not self._process_recv_primitive() and self._is_transport_event()
        if came:
            self._idle_timer.restart()
        if self.event_queue.empty():
            return came
        self.state_machine.do_action(self.event_queue.get_nowait())
        if self.state_machine.current_state == IDLE:
            self.over = True
            self._tell_user()
        return True

    def _abort(self) -> None:
        """Tell the peer past the state machine, which may be what is broken."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00
        if self.socket is not None:
            self.socket.send(abort.encode())
        self.assoc.is_aborted = True
        self.assoc.is_established = False
        self.assoc._kill = True
        self._kill_thread = True

    def _wait(self) -> None:
        connection = self.socket.socket if self.socket is not None else None
        watched = [self._woken] if connection is None else [self._woken, connection]
        try:
            ready = _readable(watched, max(0.0, min(LOOK_S, self.artim_timer.remaining)))
        except (OSError, ValueError):  # closed by the other thread: the next look meets it
            return
        if self._woken.fileno() in ready:
            self._woken.recv(4096)

    def _is_transport_event(self) -> bool:
        """Read a PDU, if one has begun to come. Whether that was so, or the connection broke."""
        if self.socket is None or self.state_machine.current_state == _CLOSING:
            return bool(super()._is_transport_event())
        try:
            header = self.socket.glance(_HEADER.size)
        except OSError as error:
            self._lost(error)
            return True
        if header is not None:
            self._read_rest(header)
        return header is not None

    def _read_pdu_data(self) -> None:
        """As the library's, but for a limit and fewer copies."""
        assert self.socket is not None, "a PDU is read from a connection"
        try:
            header = self.socket.recv(_HEADER.size)
        except OSError as error:
            self._lost(error)
            return
        self._read_rest(header)

    def _read_rest(self, header: bytearray) -> None:
        """Read the PDU that a header begins, and act on a P-DATA or queue what it means."""
        assert self.socket is not None, "a PDU is read from a connection"
        if len(header) < _HEADER.size:
            self.event_queue.put("Evt17")  # transport connection closed
            return
        kind, _, length = _HEADER.unpack(header)
        if kind not in _PDU_KINDS or length > self._limit(kind):
            self._not_understood("no PDU, or one that is too long")
            return
        try:
            body = self.socket.recv(length)
        except OSError as error:
            self._lost(error)
            return
        if len(body) < length:
            self.event_queue.put("Evt17")
            return
        if kind == _P_DATA:
            self._take_data(body)
        else:
            self._take_control(header + body)

    def _take_data(self, body: bytearray) -> None:
        """Past queue and state machine where messages come and go and nothing waits before them (DT-2)."""
        try:
            fragments = tuple(_fragments(body))
        except ValueError as error:
            self._not_understood(type(error).__name__)
            return
        if self.state_machine.current_state == _TRANSFER and self.event_queue.empty():
            self.assoc.dimse.receive_fragments(fragments)
        else:
            self._recv_pdu.put(_DataPdu(fragments))
            self.event_queue.put("Evt10")

    def _take_control(self, content: bytearray) -> None:
        """Any other PDU, looked at for its meaning before the state machine, which cannot refuse it."""
        if content[0] == REQUEST and self.request is None:
            self.request = read_request(bytes(content))
            self.name_peer()
            content = bytearray(self.request.content)
        try:
            pdu, event = self._decode_pdu(content)
            pdu.to_primitive()
        except Exception as error:  # noqa: BLE001 - whatever the bytes lead to
            self._not_understood(type(error).__name__)
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _not_understood(self, error: str) -> None:
        if self.request is None:
            self.assoc.tell_refused("what came is no association request")
        else:
            log.warning("pdu_not_understood", error=error)
        self.event_queue.put("Evt19")  # unrecognised or invalid PDU

    def _lost(self, error: OSError) -> None:
        log.warning("association_lost", error=type(error).__name__)
        self.event_queue.put("Evt17")

    def _limit(self, kind: int) -> int:
        return self._longest_pdu if kind == _P_DATA else _LONGEST_CONTROL_PDU


def read_answers_plainly(association: Association) -> None:
    """Have the library read what a peer answers to a request of ours without what it cannot read."""
    provider = association.dul
    decode = provider._decode_pdu

    def decode_plain(content: bytearray) -> Any:
        return decode(bytearray(plain_answer(bytes(content))))

    provider._decode_pdu = decode_plain


def _readable(connections: Sequence[socket.socket], timeout_s: float) -> frozenset[int]:
    """File descriptors of those from which something, or their end, can be read."""
    poll = select.poll()
    for one in connections:
        poll.register(one, select.POLLIN)
    return frozenset(number for number, _ in poll.poll(timeout_s * 1000))


def _pending(connection: socket.socket) -> bool:
    """Whether TLS has decrypted more than was asked for; the socket itself does not show it."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
