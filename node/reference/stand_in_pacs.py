"""A stand-in PACS on loopback: sends a study, and keeps what comes back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.sop_class import Verification

from node.checkpoint import make_pauses_sure

_KINDS: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.88.22": "SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
    "1.2.840.10008.5.1.4.1.1.7": "SC",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
}
_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700


class PacsError(Exception):
    """The peer accepts no association or stops answering."""


_ATTEMPTS = 3
_PATIENCE_S = 180.0  # a machine that renders, measures and receives at once may stall for half a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One object that came back.

    Attributes
    ----------
    kind : "SEG", "SR", "SC", "CT", else the name of the SOP class.
    path : of its file, as received.
    calling_ae_title : of the sender.
    """

    kind: str
    sop_instance_uid: str
    study_instance_uid: str
    path: Path
    calling_ae_title: str


class StandInPacs:
    """Accepts whatever it is sent by C-STORE and keeps it as received, one file an instance.

    Use as a context manager.

    Attributes
    ----------
    port : the one that is bound, once the context is entered.
    """

    def __init__(self, folder: Path, *, ae_title: str = "PACS", port: int = 0) -> None:
        self.ae_title = ae_title
        self.port = port
        self._folder = folder
        self._received: list[Received] = []
        self._numbered = 0
        self._arrived = threading.Condition()
        self._server: Any = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        entity = AE(self.ae_title)
        entity.maximum_pdu_size = 0
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        entity.add_supported_context(Verification)
        self._server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_CONN_OPEN, _without_delay)],
        )
        self.port = self._server.socket.getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def received(self, kind: str | None = None) -> tuple[Received, ...]:
        """What has come so far, in order.

        Parameters
        ----------
        kind : of the objects; None for all.
        """
        with self._arrived:
            return tuple(one for one in self._received if kind in (None, one.kind))

    def wait_for(self, enough: Callable[[Sequence[Received]], bool], timeout_s: float) -> bool:
        """Wait until enough objects have come.

        Parameters
        ----------
        enough : decides on all that have come so far.

        Returns
        -------
        Whether it became true within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        with self._arrived:
            while not enough(tuple(self._received)):
                if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                    return enough(tuple(self._received))
            return True

    def _store(self, event: Any) -> int:
        request = event.request
        uid = str(request.AffectedSOPInstanceUID)
        with self._arrived:  # associations run side by side
            self._numbered += 1
            path = self._folder / f"{self._numbered:04d}.dcm"
        try:
            meta = encode_file_meta(event.file_meta)
            path.write_bytes(b"\0" * 128 + b"DICM" + meta + request.DataSet.getvalue())
            header = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        except OSError:
            return _OUT_OF_RESOURCES
        sop_class = str(request.AffectedSOPClassUID)
        one = Received(
            kind=_KINDS.get(sop_class, UID(sop_class).name),
            sop_instance_uid=uid,
            study_instance_uid=str(header.get("StudyInstanceUID", "")),
            path=path,
            calling_ae_title=event.assoc.requestor.ae_title.strip(),
        )
        with self._arrived:
            self._received.append(one)
            self._arrived.notify_all()
        return _SUCCESS


def send_study(
    folder: Path,
    *,
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str = "PACS",
    sent: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[int, ...]:
    """Send every DICOM file (*.dcm) of a folder over one association, as long as that lasts.

    What was not answered is sent again over another, as a PACS does.

    Parameters
    ----------
    sent : called with (instances answered, instances in all) after each.

    Returns
    -------
    The DIMSE status of each instance, in the order of the file names.

    Raises
    ------
    PacsError
        If the peer accepts no association, or stops answering three times at one instance.
    """
    datasets = [dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    entity = AE(calling_ae_title)
    entity.dimse_timeout = entity.network_timeout = _PATIENCE_S
    for sop_class, syntax in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}:
        entity.add_requested_context(sop_class, syntax)
    statuses: list[int] = []
    tried = 0
    while tried == 0 or len(statuses) < len(datasets):
        association = entity.associate(
            host,
            port,
            ae_title=called_ae_title,
            max_pdu=131072,
            evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)],
        )
        if not association.is_established:
            raise PacsError(f"{called_ae_title} at {host}:{port} accepts no association")
        make_pauses_sure(association)
        answered = len(statuses)
        for status in _statuses(association, datasets[answered:]):
            statuses.append(status)
            sent(len(statuses), len(datasets))
        tried = 1 if len(statuses) > answered else tried + 1
        if len(statuses) < len(datasets) and tried == _ATTEMPTS:
            raise PacsError(f"{called_ae_title} stopped answering at instance {len(statuses) + 1}")
    return tuple(statuses)


def _statuses(association: Any, datasets: Sequence[Dataset]) -> Iterator[int]:
    """The status of each answer, until the peer stops answering."""
    try:
        for dataset in datasets:
            answer = association.send_c_store(dataset)
            if "Status" not in answer:
                return
            yield int(answer.Status)
    except RuntimeError:  # pynetdicom: the association has ended
        return
    finally:
        association.release()


def _without_delay(event: Any) -> None:
    """Small packets must not wait for an acknowledgement."""
    raw = event.assoc.dul.socket.socket
    if raw is not None:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
