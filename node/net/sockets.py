"""Sockets of associations. Imports no DICOM library: the process that binds the port does not load one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pynetdicom.events import Event

_BACKLOG = 128  # connections that wait to be accepted: a hundred peers may come at once


def send_at_once(event: Event) -> None:
    """Switch Nagle's algorithm off on a new connection. Handles EVT_CONN_OPEN.

    Each DIMSE message ends in a small PDU. With Nagle's algorithm it waits for the delayed acknowledgement of
    the PDU before, tens of milliseconds for every instance.
    """
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


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
