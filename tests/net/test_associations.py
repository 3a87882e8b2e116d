"""Associations as they should not be: slow, many, broken, or gone before they began."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.net.encoding import file_header, store_response
from node.net.event_driven.upper_layer import EventDrivenProvider
from node.net.server import PynetdicomServer
from node.store.store import Store
from tests.net.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CT_CONTEXT,
    RawPeer,
    association_request,
    echo_request,
    library_store_response,
    store_request,
)
from tests.waiting import wait_until

Dcmtk = Callable[..., Any]
LOCAL_LIMIT_EXCEEDED = bytes((0, 2, 3, 2))  # transient, by the presentation provider (PS3.8 Table 9-21)


def _alive(listener: Any, dcmtk: Dcmtk) -> bool:
    return dcmtk("echoscu", "-aec", "OSTEONODE", "127.0.0.1", listener.port).returncode == 0


@pytest.mark.parametrize("instance_uid", ["1.2.3", "1.2.34", "2.25." + "9" * 59])
def test_the_file_header_is_the_one_that_the_library_writes(instance_uid: str) -> None:
    meta = create_file_meta(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=instance_uid,
        transfer_syntax=ExplicitVRLittleEndian,
        implementation_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
    )
    mine = file_header(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=instance_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    assert mine == b"\0" * 128 + b"DICM" + encode_file_meta(meta)


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xC000])
@pytest.mark.parametrize("instance_uid", ["1.2.3", "1.2.34"])
def test_the_answer_to_c_store_is_the_one_that_the_library_gives(status: int, instance_uid: str) -> None:
    theirs = library_store_response(
        MessageIDBeingRespondedTo=65535,
        AffectedSOPClassUID=CTImageStorage,
        AffectedSOPInstanceUID=instance_uid,
        Status=status,
    )
    mine = store_response(
        sop_class_uid=CTImageStorage, sop_instance_uid=instance_uid, message_id=65535, status=status
    )
    assert mine == theirs


def test_messages_that_come_at_once_are_answered_in_their_order(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        kinds = [echo_request, store_request, store_request, echo_request, store_request] * 4
        requests = [
            kind(number, make_dataset(number)) if kind is store_request else kind(number)
            for number, kind in enumerate(kinds, start=1)
        ]
        peer.send(b"".join(requests))
        answers = [peer.command() for _ in requests]
    assert [one.MessageIDBeingRespondedTo for one in answers] == list(range(1, len(requests) + 1))
    assert {one.Status for one in answers} == {0x0000}
    assert len(store.instances.paths("2.25.100")) == 12


def test_an_answer_that_waits_to_be_sent_is_not_overtaken(
    listener: Any, make_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, answer = EventDrivenProvider._read_pdu, Association._serve_request

    def read_late(provider: EventDrivenProvider, connection: Any) -> bool:
        time.sleep(0.03)
        return read(provider, connection)

    def answer_late(*request: Any) -> None:
        time.sleep(0.045)  # the C-ECHO: while the second PDU of the C-STORE after it is read
        answer(*request)

    monkeypatch.setattr(EventDrivenProvider, "_read_pdu", read_late)
    monkeypatch.setattr(Association, "_serve_request", answer_late)
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(b"".join(echo_request(n) + store_request(n + 1, make_dataset(n)) for n in range(1, 20, 2)))
        answers = [peer.command().MessageIDBeingRespondedTo for _ in range(20)]
    assert answers == list(range(1, 21))


def test_a_hundred_associations_are_served_at_once_and_one_more_is_told_to_come_later(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    peers = [RawPeer(listener.port, address=f"127.0.0.{2 + number // 25}") for number in range(100)]
    try:
        for peer in peers:
            peer.send(association_request())
        assert {peer.pdu()[0] for peer in peers} == {ASSOCIATE_AC}
        with RawPeer(listener.port) as one_more:
            one_more.send(association_request())
            assert one_more.pdu() == (ASSOCIATE_RJ, LOCAL_LIMIT_EXCEEDED)
        for number, peer in enumerate(peers, start=1):
            peer.send(store_request(1, make_dataset(number)))
        assert {peer.command().Status for peer in peers} == {0x0000}
    finally:
        for peer in peers:
            peer.socket.close()
    assert len(store.instances.paths("2.25.100")) == 100


def test_connections_that_ask_for_nothing_leave_nothing_behind(listener: Any, dcmtk: Dcmtk) -> None:
    before = threading.active_count()
    for _ in range(300):  # as a load balancer does that looks whether the port is open
        RawPeer(listener.port).socket.close()
    wait_until(lambda: threading.active_count() <= before, "no thread is left over")
    assert _alive(listener, dcmtk)


def test_a_peer_that_sends_too_slowly_is_cut_off(
    listener: Any, dcmtk: Dcmtk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PynetdicomServer, "pdu_patience_s", 1.0)
    with RawPeer(listener.port) as slow:
        request = association_request()
        slow.send(request[:20])
        for number in range(20, 100):  # each byte in time, the whole never
            time.sleep(0.05)
            try:
                slow.send(request[number : number + 1])
            except OSError:
                break
        else:
            pytest.fail("it may send as slowly as it likes")
    assert _alive(listener, dcmtk)


@pytest.mark.parametrize("kind", [0x01, 0x04])
def test_a_pdu_longer_than_announced_is_not_waited_for(listener: Any, dcmtk: Dcmtk, kind: int) -> None:
    with RawPeer(listener.port) as peer:
        if kind == 0x04:
            assert peer.associate() == ASSOCIATE_AC
        peer.send(struct.pack(">BBL", kind, 0, 0xFFFF_FFF0))
        assert peer.pdu()[0] == ABORT
    assert _alive(listener, dcmtk)


@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        struct.pack(">LBB", 1, CT_CONTEXT, 3),
        struct.pack(">LBB", 4096, CT_CONTEXT, 3),
        struct.pack(">LBB", 0xFFFF_FFFF, CT_CONTEXT, 3),
    ],
    ids=["cut off", "too short", "longer than its PDU", "as long as can be"],
)
def test_a_fragment_of_an_impossible_length_ends_the_association(
    listener: Any, dcmtk: Dcmtk, body: bytes
) -> None:
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(struct.pack(">BBL", 0x04, 0, len(body)) + body)
        assert peer.pdu()[0] == ABORT
    assert _alive(listener, dcmtk)


def test_an_abort_without_meaning_is_understood_as_one_and_nothing_breaks(
    listener: Any, dcmtk: Dcmtk, logged: Callable[[], str]
) -> None:
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(struct.pack(">BBLBBBB", ABORT, 0, 4, 0, 0, 4, 0))  # there are sources 0 to 2 (PS3.8 9.3.8)
        assert peer.pdu()[0] in (0, ABORT)
    assert _alive(listener, dcmtk)
    text = logged()
    assert "pdu_not_understood" in text
    assert "association_broken" not in text


def test_a_command_that_there_is_not_ends_the_association_and_nothing_breaks(
    listener: Any, dcmtk: Dcmtk, logged: Callable[[], str]
) -> None:
    command_field = b"\0\0\x00\x01\x02\0\0\0"
    request = echo_request(1)
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(request.replace(command_field + b"\x30\0", command_field + b"\x77\x77"))
        assert peer.pdu()[0] == ABORT
    assert _alive(listener, dcmtk)
    text = logged()
    assert "message_not_understood" in text
    assert "association_broken" not in text


def test_an_image_that_is_broken_off_is_not_kept(
    listener: Any, store: Store, make_dataset: Any, dcmtk: Dcmtk
) -> None:
    whole = store_request(1, make_dataset(PixelData=b"\1\2" * 40000, Rows=200, Columns=200))
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(whole[: len(whole) // 2])
    assert _alive(listener, dcmtk)
    assert store.overview.list() == ()
