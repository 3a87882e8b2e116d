"""The sender against DCMTK's storescp and pynetdicom peers that answer badly."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, Verification

from config.sections import Destination, TlsSettings
from node.net.sender import DicomSender, Requestor
from node.net.status import outcome_of
from node.pipeline.ports import SendOutcome
from node.study_report import EncodedObject, ObjectKind
from tests.waiting import LIMIT_S, stop, wait_for_port

# pynetdicom drops the socket of a failed connection without closing it; the garbage collector does at once.
drops_a_socket = pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore:Exception ignored in. <socket"
)

# Patient enough for a peer on a busy machine; the tests of peers that hang bring an impatient sender.
SENDER = DicomSender(Requestor("OSTEONODE", connect_timeout_s=LIMIT_S, answer_timeout_s=LIMIT_S))


def _pacs(port: int) -> Destination:
    return Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)


@pytest.fixture
def make_object(make_dataset: Any, as_bytes: Any) -> Callable[..., EncodedObject]:
    def make(number: int = 1, sop_class: UID = CTImageStorage) -> EncodedObject:
        dataset = make_dataset(number, SOPClassUID=sop_class)
        return EncodedObject(
            kind=ObjectKind.PICTURE,
            file_name=f"{number}.dcm",
            sop_class_uid=sop_class,
            sop_instance_uid=dataset.SOPInstanceUID,
            content=as_bytes(dataset),
        )

    return make


@pytest.fixture
def make_peer() -> Iterator[Callable[..., int]]:
    """A pynetdicom SCP that answers C-STORE with the given statuses in turn; gives its port."""
    servers: list[Any] = []

    def make(
        *statuses: int,
        sop_classes: tuple[UID, ...] = (CTImageStorage, Verification),
        syntax: UID | None = None,
        called_ae: str | None = None,
        before_answer: Callable[[Any], None] = lambda event: None,
    ) -> int:
        answers = iter(statuses)

        def answer(event: Any) -> int:
            before_answer(event)
            return next(answers)

        ae = AE(called_ae or "PACS")
        ae.require_called_aet = called_ae is not None
        for sop_class in sop_classes:
            ae.add_supported_context(sop_class, *([syntax] if syntax else []))
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
        servers.append(ae)
        return int(server.server_address[1])

    yield make
    for ae in servers:
        ae.shutdown()


@pytest.fixture
def storescp(tmp_path: Path, free_port: int) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp, which writes what it receives bit by bit."""
    folder = tmp_path / "received"
    folder.mkdir()
    server = subprocess.Popen(
        ["/usr/bin/storescp", "+B", "-od", folder, str(free_port)],
        env={**os.environ, "TCP_NODELAY": "1"},
        stderr=subprocess.DEVNULL,
    )
    wait_for_port(free_port, server)
    yield free_port, folder
    stop(server)


def test_dcmtk_receives_the_bytes_that_are_stored(
    storescp: tuple[int, Path], make_object: Callable[..., EncodedObject]
) -> None:
    port, folder = storescp
    objects = [make_object(number) for number in range(1, 4)]
    results = SENDER.send(_pacs(port), objects)
    assert [result.outcome for result in results] == [SendOutcome.SENT] * 3
    assert [result.sop_instance_uid for result in results] == [one.sop_instance_uid for one in objects]
    received = [path.read_bytes() for path in folder.iterdir()]
    for one in objects:
        dataset = one.content[one.content.index(b"\x08\x00\x16\x00UI") :]  # from SOP Class UID on
        assert any(content.endswith(dataset) for content in received)


def test_each_object_has_its_own_status(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    port = make_peer(0x0000, 0xA700, 0xA900, 0xB000, 0xC001)
    results = SENDER.send(_pacs(port), [make_object(number) for number in range(1, 6)])
    assert [(result.status, result.outcome) for result in results] == [
        (0x0000, SendOutcome.SENT),
        (0xA700, SendOutcome.TRANSIENT),
        (0xA900, SendOutcome.PERMANENT),
        (0xB000, SendOutcome.SENT),
        (0xC001, SendOutcome.PERMANENT),
    ]


@drops_a_socket
def test_a_peer_that_is_not_there_may_come_back(
    free_port: int, make_object: Callable[..., EncodedObject]
) -> None:
    (result,) = SENDER.send(_pacs(free_port), [make_object()])
    assert (result.outcome, result.status, result.detail) == (SendOutcome.TRANSIENT, None, "no connection")


def test_a_peer_that_does_not_know_us_is_not_asked_again(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    (result,) = SENDER.send(_pacs(make_peer(called_ae="SOMEONE")), [make_object()])
    assert result.outcome is SendOutcome.PERMANENT
    assert "AE title not recognised" in result.detail


def test_a_class_that_the_peer_does_not_take_spares_the_others(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    objects = [make_object(1, ComprehensiveSRStorage), make_object(2)]
    results = SENDER.send(_pacs(make_peer(0x0000)), objects)
    assert [result.outcome for result in results] == [SendOutcome.PERMANENT, SendOutcome.SENT]


def test_a_peer_that_takes_none_of_the_classes_may_be_starting_up(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    (result,) = SENDER.send(_pacs(make_peer()), [make_object(1, ComprehensiveSRStorage)])
    assert (result.outcome, result.detail) == (
        SendOutcome.TRANSIENT,
        "the peer accepts none of the SOP classes",
    )


def test_a_peer_that_speaks_only_implicit_little_endian_is_served(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    (result,) = SENDER.send(_pacs(make_peer(0x0000, syntax=ImplicitVRLittleEndian)), [make_object()])
    assert result.outcome is SendOutcome.SENT


def test_a_peer_that_hangs_up_half_way_gets_the_rest_later(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    seen = []

    def hang_up_on_second(event: Any) -> None:
        seen.append(event)
        if len(seen) == 2:
            event.assoc.abort()

    port = make_peer(0x0000, 0x0000, before_answer=hang_up_on_second)
    sender = DicomSender(Requestor("OSTEONODE", answer_timeout_s=8.0))
    results = sender.send(_pacs(port), [make_object(number) for number in range(1, 4)])
    assert [result.outcome for result in results] == [
        SendOutcome.SENT,
        SendOutcome.TRANSIENT,
        SendOutcome.TRANSIENT,
    ]


def test_a_peer_that_never_answers_is_left(make_object: Callable[..., EncodedObject]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        impatient = DicomSender(Requestor("OSTEONODE", connect_timeout_s=0.5, answer_timeout_s=0.3))
        (result,) = impatient.send(_pacs(mute.getsockname()[1]), [make_object()])
    assert result.outcome is SendOutcome.TRANSIENT


def test_the_check_before_each_object_stops_the_sending(
    make_peer: Callable[..., int], make_object: Callable[..., EncodedObject]
) -> None:
    calls = threading.Semaphore(1)

    class Fenced(Exception):
        pass

    def check() -> None:
        if not calls.acquire(blocking=False):
            raise Fenced

    received = []
    port = make_peer(0x0000, 0x0000, before_answer=received.append)
    with pytest.raises(Fenced):
        SENDER.send(_pacs(port), [make_object(1), make_object(2)], before_each=check)
    assert len(received) == 1


@drops_a_socket
def test_echo_tells_an_answer_from_silence(make_peer: Callable[..., int], free_port: int) -> None:
    assert SENDER.echo(_pacs(make_peer())).answered
    silent = SENDER.echo(_pacs(free_port))
    assert (silent.answered, silent.detail) == (False, "no connection")


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, SendOutcome.SENT),
        (0xB006, SendOutcome.SENT),
        (0x0110, SendOutcome.TRANSIENT),
        (0xA701, SendOutcome.TRANSIENT),
        (0x0122, SendOutcome.PERMANENT),
        (0x0124, SendOutcome.PERMANENT),
        (0xA900, SendOutcome.PERMANENT),
        (0xC000, SendOutcome.PERMANENT),
    ],
)
def test_statuses_are_read_as_the_standard_defines_them(status: int, outcome: SendOutcome) -> None:
    assert outcome_of(status) is outcome


@pytest.mark.parametrize("tls", [True, False], ids=["files that are not there", "no [tls] at all"])
def test_tls_files_that_cannot_be_read_cost_their_destination_alone(make_object, make_peer, tmp_path, tls):
    """The reason stands with that destination, to be tried again; those after it get what is theirs."""
    files = TlsSettings(certificate=str(tmp_path / "none.pem"), key="", ca="", require_peer_certificate=False)
    sender = DicomSender(Requestor("OSTEONODE", connect_timeout_s=LIMIT_S, tls=files if tls else None))
    port = make_peer(0x0000)
    encrypted = _pacs(port).model_copy(update={"name": "safe", "tls": True})
    told = "No such file" if tls else "wants TLS"
    (failed,) = sender.send(encrypted, [make_object()])
    assert (failed.outcome, failed.status) == (SendOutcome.TRANSIENT, None)
    assert told in failed.detail
    answer = sender.echo(encrypted)
    assert not answer.answered
    assert told in answer.detail
    (sent,) = sender.send(_pacs(port), [make_object()])
    assert sent.outcome is SendOutcome.SENT
