"""A listener under fuzz, and what must hold of it after each case.

It answers C-ECHO; no thread and no file descriptor is left over; nothing was logged as an error and no thread
ended in an exception; what it answered Success to is on disk.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import structlog
from pynetdicom.dsutils import decode
from structlog.testing import LogCapture

from config.settings import load_settings
from node import logs
from node.dicom.result_headers import made_here
from node.net.access import association_policy
from node.net.scp import Listener
from node.store.store import open_store
from tests.fuzz.cases import MOST_BYTES
from tests.net.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    P_DATA,
    RawPeer,
    echo_request,
    store_request_of,
)
from tests.waiting import LIMIT_S, wait_until

_POOLED_DESCRIPTORS = 24  # of database connections that are made when they are needed, and kept
_RELEASE_REQUEST = struct.pack(">BBLL", 0x05, 0, 4, 0)
_SUCCESS = 0x0000
_STORE_RESPONSE = 0x8001
_UID_IN_META = re.compile(rb"\x02\x00\x03\x00UI..([0-9.]+)")


class Target:
    """One listener with its store.

    Attributes
    ----------
    seen : how often what happened: statuses answered, kinds of PDU, endings of connections.
    """

    def __init__(self, root: Path) -> None:
        settings = load_settings(
            node={"port": 0}, storage={"root": str(root)}, limits={"instance_bytes": MOST_BYTES}
        )
        self.seen: Counter[str] = Counter()
        self._root = root
        self._store = open_store(settings.storage)
        policy = association_policy(settings)
        self._listener = Listener(settings.node, self._store, made_here, policy=policy)
        self._port = self._listener.start()
        self._log = LogCapture()
        self._broken: list[str] = []
        self._files: set[Path] = set()
        self._kept: dict[str, Path] = {}
        logs.configure(settings.log)  # as a node does it: what it lets libraries say counts, and no more
        structlog.configure(processors=[self._log], wrapper_class=structlog.BoundLogger)
        self._handler = _Remembering(self._broken)
        logging.getLogger().addHandler(self._handler)
        self._hook, threading.excepthook = threading.excepthook, self._note_broken_thread
        self._echo()
        threads, descriptors = self._left()
        self._at_rest = threads, descriptors + _POOLED_DESCRIPTORS

    def close(self) -> None:
        threading.excepthook = self._hook
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()
        self._store.close()

    def send(self, *pieces: bytes) -> None:
        """Send bytes as they are, read what comes back, hang up; then look whether all is well."""
        with RawPeer(self._port) as peer:
            peer.socket.settimeout(LIMIT_S)
            try:
                for piece in pieces:
                    peer.send(piece)
                peer.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.seen["hung up on us"] += 1
            self._hear(peer)
        self.look()

    def ask(self, request: bytes) -> None:
        """Ask for an association: it is accepted or rejected, and never ended without a word."""
        with RawPeer(self._port) as peer:
            peer.socket.settimeout(LIMIT_S)
            peer.send(request)
            kind, body = peer.pdu()
            assert kind in (ASSOCIATE_AC, ASSOCIATE_RJ), f"answered by a PDU of type {kind}"
            self.seen[f"association: {'accepted' if kind == ASSOCIATE_AC else body[1:].hex()}"] += 1
            if kind == ASSOCIATE_AC:
                assert body[4:68] == request[10:74]
                peer.send(_RELEASE_REQUEST)
            self._hear(peer)
        self.look()

    def store(self, content: bytes, instance_uid: str, syntax: str) -> int | None:
        """Send a data set as it is; the status that is answered, None where there is none."""
        with RawPeer(self._port) as peer:
            assert peer.associate(syntax) == ASSOCIATE_AC
            peer.send(store_request_of(1, instance_uid, content))
            kind, body = peer.pdu()
            status = self._note_answer(body) if kind == P_DATA else None
            peer.send(_RELEASE_REQUEST)
            self._hear(peer)
        self.look()
        return status

    def kept(self, instance_uid: str) -> Path:
        """The file of an instance that was kept."""
        return self._kept[instance_uid]

    def look(self) -> None:
        """Raise AssertionError unless the listener is as it was before."""
        self._echo()
        wait_until(lambda: not self._lingers(), "no thread or file descriptor is left over", every_s=0.002)
        assert not self._broken, self._broken
        errors = [one for one in self._log.entries if one["log_level"] in ("error", "critical")]
        assert not errors, errors
        for one in self._log.entries:
            if one["log_level"] == "warning":
                self.seen[f"log: {one['event']}"] += 1
        self._log.entries.clear()

    def _lingers(self) -> bool:
        return any(now > before for now, before in zip(self._left(), self._at_rest, strict=True))

    def _left(self) -> tuple[int, int]:
        """Threads and file descriptors."""
        return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - proc is not a folder

    def _echo(self) -> None:
        with RawPeer(self._port) as peer:
            assert peer.associate() == ASSOCIATE_AC
            peer.send(echo_request(7))
            answer = peer.command()
            assert (answer.Status, answer.MessageIDBeingRespondedTo) == (_SUCCESS, 7)
            peer.send(_RELEASE_REQUEST)
            peer.pdu()

    def _hear(self, peer: RawPeer) -> None:
        """Every answer until the listener hangs up, which it must."""
        while True:
            try:
                kind, body = peer.pdu()
            except ConnectionError:
                kind, body = 0, b""
            if kind == 0:
                return
            self.seen[f"answer: PDU {kind}"] += 1
            if kind == P_DATA:
                self._note_answer(body)
            if kind == ABORT:
                return

    def _note_answer(self, body: bytes) -> int | None:
        answer = decode(BytesIO(body[6:]), True, True)
        status = int(answer.Status)
        if answer.CommandField == _STORE_RESPONSE:
            self.seen[f"C-STORE: 0x{status:04X}"] += 1
            if status == _SUCCESS:
                uid = str(answer.AffectedSOPInstanceUID)
                assert self._is_kept(uid), f"answered Success, and it is not on disk: {uid}"
        return status

    def _is_kept(self, uid: str) -> bool:
        if uid not in self._kept:
            found = [path for path in self._root.rglob("*") if path not in self._files and path.is_file()]
            self._files |= set(found)
            self._kept |= {_uid_of(path): path for path in found}
        return uid in self._kept

    def _note_broken_thread(self, what: threading.ExceptHookArgs) -> None:
        self._broken.append(f"{what.thread}: {what.exc_type.__name__}: {what.exc_value}")


class _Remembering(logging.Handler):
    """Remembers what libraries log with an exception."""

    def __init__(self, broken: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._broken = broken

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._broken.append(f"{record.name}: {record.getMessage()}")


@contextmanager
def running_target(root: Path) -> Iterator[Target]:
    target = Target(root)
    try:
        yield target
    finally:
        target.close()


def _uid_of(path: Path) -> str:
    """Of a Part 10 file, from its meta information; "" for other files."""
    with path.open("rb") as file:
        found = _UID_IN_META.search(file.read(600), 132)
    return found[1].decode() if found else ""
