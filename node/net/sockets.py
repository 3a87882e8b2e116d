"""Socket options that both ends of an association want."""

from __future__ import annotations

import socket

from pynetdicom.events import Event


def send_at_once(event: Event) -> None:
    """Switch Nagle's algorithm off on a new connection.

    Each DIMSE message ends in a small PDU; with Nagle's algorithm it waits for a delayed acknowledgement of
    the one before, tens of milliseconds for every instance.
    """
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
