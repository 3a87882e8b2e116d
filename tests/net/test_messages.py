"""C-STORE-RQ as peers send them, and as none should: what is read here is what the library reads."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom.dsutils import decode, encode

from node.net.encoding import StoreCommand, store_command
from node.store.store import Store
from tests.net.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    CT_CONTEXT,
    ECHO_CONTEXT,
    RawPeer,
    echo_request,
    store_request_of,
)
from tests.waiting import wait_until

IMAGE = "2.25.100.1.1"


def command_set(**changed: Any) -> Dataset:
    found = Dataset()
    found.CommandGroupLength = 0
    found.AffectedSOPClassUID = CTImageStorage
    found.CommandField = 0x0001
    found.MessageID = 7
    found.Priority = 2
    found.CommandDataSetType = 0x0000
    found.AffectedSOPInstanceUID = IMAGE
    for keyword, value in changed.items():
        if value is None:
            delattr(found, keyword)
        else:
            setattr(found, keyword, value)
    return found


def encoded(**changed: Any) -> bytes:
    return bytes(encode(command_set(**changed), True, True))


def fragment(control: int, content: bytes) -> bytes:
    """A presentation data value."""
    return struct.pack(">LBB", 2 + len(content), CT_CONTEXT, control) + content


def pdu(*fragments: bytes) -> bytes:
    body = b"".join(fragments)
    return struct.pack(">BBL", 0x04, 0, len(body)) + body


def content(make_dataset: Callable[[int], Dataset], number: int = 1) -> tuple[str, bytes]:
    dataset = make_dataset(number)
    return str(dataset.SOPInstanceUID), bytes(encode(dataset, False, True))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"CommandGroupLength": None},
        {"MessageID": 65535, "Priority": 0},
        {"AffectedSOPInstanceUID": "2.25." + "9" * 59},
        {"CommandDataSetType": 0x0102},
        {"MoveOriginatorApplicationEntityTitle": "MOVER", "MoveOriginatorMessageID": 3},
    ],
)
def test_a_store_request_says_what_the_library_reads_in_it(changed: dict[str, Any]) -> None:
    bytes_sent = encoded(**changed)
    theirs = decode(BytesIO(bytes_sent), True, True)
    assert store_command(bytes_sent) == StoreCommand(
        message_id=theirs.MessageID,
        priority=theirs.Priority,
        sop_class_uid=str(theirs.AffectedSOPClassUID),
        sop_instance_uid=str(theirs.AffectedSOPInstanceUID),
    )


@pytest.mark.parametrize(
    "odd",
    [
        encoded(CommandField=0x0030),  # C-ECHO-RQ
        encoded(CommandField=0x8001, Status=0),  # an answer
        encoded(MessageID=None),
        encoded()[:-1],
        encoded() + b"\0",
        encoded(AffectedSOPInstanceUID="").replace(b"\x00\x10\x00\x00\x00\x00", b"\x00\x10\xff\xff\xff\xff"),
        b"",
    ],
)
def test_anything_else_is_left_to_the_library(odd: bytes) -> None:
    assert store_command(odd) is None


def _with_uid(uid: bytes) -> bytes:
    """A request for an instance whose UID the library would not encode."""
    begun = encoded(AffectedSOPInstanceUID=None)
    return begun + struct.pack("<HHI", 0, 0x1000, len(uid)) + uid


ODD = {
    "a UID over 64 characters": (_with_uid(b"2.25." + b"1" * 61), 0xA900, ""),
    "a UID of a thousand characters": (_with_uid(b"2." * 500), 0xA900, ""),
    "a UID with a letter": (_with_uid(b"2.25.100.x.1"), 0xA900, ""),
    "a UID that is no text": (_with_uid(b"\xff\xfe\0\1"), 0xA900, ""),
    "a UID of blanks": (_with_uid(b"    "), 0xA900, ""),
    "no UID": (encoded(AffectedSOPInstanceUID=None), 0xA900, ""),
    "no class": (encoded(AffectedSOPClassUID=None), 0xA900, IMAGE),
    "another instance": (_with_uid(b"2.25.3"), 0xA900, "2.25.3"),
    "a UID padded with blanks": (_with_uid(IMAGE.encode() + b"  "), 0x0000, IMAGE),
    "a priority that there is not": (encoded(Priority=3), 0x0000, IMAGE),
    "no priority": (encoded(Priority=None), 0x0000, IMAGE),
    "an element of an answer": (encoded(ErrorComment="what is this"), 0x0000, IMAGE),
    "an originator that is no AE title": (
        encoded() + struct.pack("<HHI", 0, 0x1030, 20) + b"\xff" * 20,
        0x0000,
        IMAGE,
    ),
}


@pytest.mark.parametrize(("command", "status", "asked"), ODD.values(), ids=ODD)
def test_an_odd_store_request_costs_its_own_instance_at_most(
    listener: Any, store: Store, make_dataset: Any, command: bytes, status: int, asked: str
) -> None:
    sent = content(make_dataset)[1]
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(pdu(fragment(0x03, command), fragment(0x02, sent)))
        _, answer = peer.pdu()
        said = decode(BytesIO(answer[6:]), True, True)
        assert (said.Status, said.MessageIDBeingRespondedTo) == (status, 7)
        assert said.get("AffectedSOPInstanceUID") == (asked or None)
        uid, following = content(make_dataset, 2)
        peer.send(store_request_of(8, uid, following))
        assert peer.command().Status == 0x0000
    assert len(store.instances.paths("2.25.100")) == (2 if status == 0 else 1)


def test_a_store_request_without_data_set_is_answered(listener: Any, make_dataset: Any) -> None:
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(pdu(fragment(0x03, encoded(CommandDataSetType=0x0101))))
        assert peer.command().Status in (0xA900, 0xC000)
        peer.send(store_request_of(8, *content(make_dataset)))
        assert peer.command().Status == 0x0000


def test_two_messages_in_one_pdu_are_answered_whoever_reads_them(listener: Any, make_dataset: Any) -> None:
    echo = echo_request(3)[6 + 6 :]  # the command set alone
    uid, sent = content(make_dataset)
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        piece = struct.pack(">LBB", 2 + len(echo), ECHO_CONTEXT, 3) + echo
        peer.send(
            pdu(piece, fragment(0x03, encoded(AffectedSOPInstanceUID=uid)), fragment(0x02, sent), piece)
        )
        answers = [peer.command().MessageIDBeingRespondedTo for _ in range(3)]
    assert answers == [3, 7, 3]


@pytest.mark.parametrize("in_one_pdu", [True, False])
@pytest.mark.parametrize("command_pieces", [1, 2])  # two are put together
@pytest.mark.parametrize("piece_bytes", [7, 1000, 1 << 20])
def test_an_image_is_kept_as_sent_however_it_is_cut(
    listener: Any, store: Store, make_dataset: Any, in_one_pdu: bool, command_pieces: int, piece_bytes: int
) -> None:
    uid, sent = content(make_dataset)
    command = encoded(AffectedSOPInstanceUID=uid)
    cut = len(command) if command_pieces == 1 else 20
    fragments = [fragment(0x01, command[:cut])] * (command_pieces - 1)
    fragments.append(fragment(0x03, command if command_pieces == 1 else command[cut:]))
    pieces = [sent[at : at + piece_bytes] for at in range(0, len(sent), piece_bytes)]
    fragments += [fragment(0x00, piece) for piece in pieces[:-1]] + [fragment(0x02, pieces[-1])]
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(pdu(*fragments) if in_one_pdu else b"".join(pdu(one) for one in fragments))
        answer = peer.command()
    assert (answer.Status, answer.AffectedSOPInstanceUID) == (0x0000, uid)
    (path,) = store.instances.paths("2.25.100")
    assert path.read_bytes().endswith(sent)


def test_a_store_request_on_a_context_that_was_not_accepted_ends_its_association_and_both_threads(
    listener: Any, make_dataset: Any
) -> None:
    uid, sent = content(make_dataset)
    before = threading.active_count()
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        message = pdu(fragment(0x03, encoded(AffectedSOPInstanceUID=uid)), fragment(0x02, sent))
        peer.send(message.replace(bytes((CT_CONTEXT, 3)), bytes((99, 3)), 1))
        assert peer.pdu()[0] == ABORT
    wait_until(lambda: threading.active_count() <= before, "the association's threads have ended")


def test_two_images_in_one_pdu_are_both_kept(listener: Any, store: Store, make_dataset: Any) -> None:
    both = [content(make_dataset, number) for number in (1, 2)]
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(
            pdu(
                *(
                    one
                    for number, (uid, sent) in enumerate(both, start=1)
                    for one in (
                        fragment(0x03, encoded(MessageID=number, AffectedSOPInstanceUID=uid)),
                        fragment(0x02, sent),
                    )
                )
            )
        )
        answers = [peer.command() for _ in both]
    assert [one.MessageIDBeingRespondedTo for one in answers] == [
        1,
        2,
    ]
    assert len(store.instances.paths("2.25.100")) == 2


def test_a_command_amid_a_data_set_ends_the_association_and_nothing_is_kept(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    uid, sent = content(make_dataset)
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        begin = pdu(fragment(0x03, encoded(AffectedSOPInstanceUID=uid)), fragment(0x00, sent[:100]))
        peer.send(begin + pdu(fragment(0x03, encoded(MessageID=8))))
        assert peer.pdu()[0] == ABORT
    assert store.instances.paths("2.25.100") == ()


def test_the_data_set_is_hashed_whoever_puts_it_together(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    """Once by a plain request, once by one that the library reads: known again by its hash."""
    uid, sent = content(make_dataset)
    command = encoded(AffectedSOPInstanceUID=uid)
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(store_request_of(1, uid, sent))
        assert peer.command().Status == 0x0000
        peer.send(pdu(fragment(0x01, command[:20]), fragment(0x03, command[20:]), fragment(0x02, sent)))
        assert peer.command().Status == 0x0000
    assert len(store.instances.paths("2.25.100")) == 1
    assert store.overview.show("2.25.100").quarantined == 0
