"""What a peer may put into the messages that begin an association, and what it is answered (PS3.8 9.3)."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BytesIO
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.dsutils import decode
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from config.sections import Destination
from config.settings import Settings, load_settings
from node.dicom.result_headers import made_here
from node.net.scp import Listener
from node.net.sender import DicomSender, Requestor, why_not_established
from node.pipeline.ports import SendOutcome
from node.store.store import Store, open_store
from tests.net.conftest import Running
from tests.net.raw_peer import (
    ABORT,
    APPLICATION,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CLASS_UID,
    ECHO_CONTEXT,
    ECHO_ITEM,
    MAXIMUM_LENGTH,
    RawPeer,
    abstract,
    association_pdu,
    context_item,
    echo_request,
    echo_response,
    item,
    items_of,
    store_request,
    store_request_of,
    transfer,
)
from tests.waiting import LIMIT_S, wait_until

IMAGE_ITEM = context_item(3, abstract(CTImageStorage), transfer(ExplicitVRLittleEndian))
IDENTITY = (
    struct.pack(">BBH", 9, 1, 4) + b"name" + struct.pack(">H", 0)
)  # of a type that is not in the standard
ROLE = struct.pack(">H", len(StorageCommitmentPushModel)) + StorageCommitmentPushModel.encode()
COMMITMENT = context_item(5, abstract(StorageCommitmentPushModel), transfer(ImplicitVRLittleEndian))


@pytest.fixture(scope="module")
def settings(loops: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("negotiation") / "var"
    return load_settings(node={"port": 0}, storage={"root": str(root)})


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[Store]:
    with closing(open_store(settings.storage)) as opened:
        yield opened


@pytest.fixture(scope="module")
def listener(settings: Settings, store: Store) -> Iterator[Running]:
    """One for all of them, which is as it was before after each."""
    running = Listener(settings.node, store, made_here)
    yield Running(listener=running, port=running.start())
    running.stop()


def _user(*further: bytes) -> dict[str, bytes]:
    return {"user": MAXIMUM_LENGTH + CLASS_UID + b"".join(further)}


SERVED: Mapping[str, dict[str, Any]] = {
    "as most peers ask": {},
    "AE titles padded with NUL": {
        "called": b"OSTEONODE".ljust(16, b"\0"),
        "calling": b"RAW".ljust(16, b"\0"),
    },
    "an AE title that something follows after its NUL": {"calling": b"RAW\0\xffgarbage\1\2\3\4"},
    "AE titles of blanks": {"called": b" " * 16, "calling": b" " * 16},
    "AE titles of NUL": {"called": bytes(16), "calling": bytes(16)},
    "AE titles outside the default repertoire": {"calling": b"R\xc4NTGEN \\\x1b\x7f".ljust(16)},
    "an AE title of Chinese characters": {"called": "影像科一号机".encode("gbk").ljust(16)},
    "AE titles with leading blanks": {"called": b"OSTEONODE".rjust(16), "calling": b"RAW".rjust(16)},
    "AE titles of sixteen characters": {"called": b"A" * 16, "calling": b"B" * 16},
    "reserved bytes that are not zero": {"reserved": bytes(range(32))},
    "further bits of the protocol version": {"version": 0xFFFF},
    "the second version besides the first": {"version": 3},
    "an application context padded with NUL": {"application": item(0x10, b"1.2.840.10008.3.1.1.1\0")},
    "items in another order": {"application": ECHO_ITEM, "contexts": APPLICATION},
    "an unknown item": {"contexts": ECHO_ITEM + item(0x99, b"whatever")},
    "an unknown item without content": {"contexts": item(0x00, b"") + ECHO_ITEM},
    "an item of acceptances": {"contexts": ECHO_ITEM + item(0x21, bytes(4))},
    "a context with an unknown sub-item": {
        "contexts": context_item(
            ECHO_CONTEXT, item(0x77, b"?"), abstract(Verification), transfer(ImplicitVRLittleEndian)
        )
    },
    "UIDs padded with NUL and blanks": {
        "contexts": context_item(
            ECHO_CONTEXT, abstract(Verification + "\0"), transfer(f" {ImplicitVRLittleEndian}  ")
        )
    },
    "a usable transfer syntax behind unusable ones": {
        "contexts": context_item(
            ECHO_CONTEXT,
            abstract(Verification),
            transfer("1." * 40),
            transfer(""),
            transfer("ü"),
            transfer(ImplicitVRLittleEndian),
        )
    },
    "user information without content": {"user": b""},
    "no class UID": {"user": MAXIMUM_LENGTH},
    "a class UID that is none": {"user": MAXIMUM_LENGTH + item(0x52, b"vendor's own")},
    "a class UID over 64 characters": {"user": MAXIMUM_LENGTH + item(0x52, b"1." * 40 + b"1")},
    "no maximum length": {"user": CLASS_UID},
    "a maximum length of zero": {"user": item(0x51, bytes(4)) + CLASS_UID},
    "a maximum length of another size": {"user": item(0x51, b"\1\0") + CLASS_UID},
    "a maximum length that the least fragment fills": {"user": item(0x51, struct.pack(">L", 7)) + CLASS_UID},
    "the longest maximum length": {"user": item(0x51, b"\xff" * 4) + CLASS_UID},
    "a version name over 16 characters": _user(item(0x55, b"A_NAME_OF_MORE_THAN_16_CHARACTERS")),
    "a version name padded with NUL": _user(item(0x55, b"NAME".ljust(16, b"\0"))),
    "a version name of other characters": _user(item(0x55, "版本".encode())),
    "a version name without content": _user(item(0x55, b"")),
    "an unknown sub-item of user information": _user(item(0x60, b"new"), item(0x5F, b"")),
    "asynchronous operations": _user(item(0x53, struct.pack(">HH", 0, 8))),
    "asynchronous operations cut short": _user(item(0x53, b"\0")),
    "an unknown type of user identity": _user(item(0x58, IDENTITY)),
    "a user identity cut short": _user(item(0x58, b"\1")),
    "extended negotiation": _user(item(0x56, struct.pack(">H", 3) + b"1.2" + b"\1\1")),
    "extended negotiation cut short": _user(item(0x56, b"\xff\xff1.2"), item(0x57, b"\0")),
    "a role that is none": _user(item(0x54, ROLE + b"\2\7")),
    "neither role": _user(item(0x54, ROLE + b"\0\0")),
    "a role cut short": _user(item(0x54, ROLE)),
    "a role for no class": _user(item(0x54, b"\0\0\1\1")),
    "roles for a class twice": _user(*[item(0x54, ROLE + b"\1\1")] * 2),
    "more user information than a library reads": _user(
        *[item(0x54, struct.pack(">H", 5) + b"1.%03d" % n + b"\1\0") for n in range(300)]
    ),
    "two items of user information": {"contexts": ECHO_ITEM + item(0x50, CLASS_UID)},
}


@pytest.mark.parametrize("fields", SERVED.values(), ids=SERVED)
def test_what_the_standard_lets_a_peer_ask_is_served(
    listener: Any, fields: dict[str, Any], logged: Callable[[], str]
) -> None:
    with RawPeer(listener.port) as peer:
        request = association_pdu(**fields)
        peer.send(request)
        kind, body = peer.pdu()
        assert kind == ASSOCIATE_AC
        assert body[4:68] == request[10:74]  # titles and reserved bytes come back as they went
        assert struct.unpack_from(">H", body)[0] & 1
        assert _results(body) == {ECHO_CONTEXT: 0}
        peer.send(echo_request(5))
        assert _message(peer)[-10:] == struct.pack("<HHIH", 0, 0x0900, 2, 0)  # Status, Success
        peer.send(struct.pack(">BBLL", 5, 0, 4, 0))
        assert peer.pdu()[0] == 6
    assert "error" not in logged()


def _results(acceptance: bytes) -> dict[int, int]:
    """Of each presentation context, as an acceptance states them."""
    contexts = [value for kind, value in items_of(acceptance[68:]) if kind == 0x21]
    found = {value[0]: value[2] for value in contexts}
    assert len(found) == len(contexts), "one answer for each"
    assert all(items_of(value[4:])[0][0] == 0x40 for value in contexts)
    return found


def _message(peer: RawPeer) -> bytes:
    """The next message's command set, in as many PDUs as it comes."""
    content, last = b"", False
    while not last:
        kind, body = peer.pdu()
        assert kind == 0x04
        assert len(body) >= 7
        content += body[6:]
        last = bool(body[5] & 2)
    return content


REJECTED: Mapping[str, tuple[bytes, bytes]] = {
    "a version without the first": (association_pdu(version=2), b"\0\1\2\2"),
    "no version": (association_pdu(version=0), b"\0\1\2\2"),
    "another application context": (association_pdu(application=item(0x10, b"1.2.3")), b"\0\1\1\2"),
    "an application context that is no UID": (association_pdu(application=item(0x10, b"\xff")), b"\0\1\1\2"),
    "no application context": (association_pdu(application=b""), b"\0\1\1\2"),
    "an item beyond the end": (association_pdu(item(0x99, b"1234")[:-2]), b"\0\1\2\1"),
    "half an item": (association_pdu(b"\x99\0"), b"\0\1\2\1"),
    "a sub-item beyond the end": (association_pdu(user=item(0x51, bytes(4))[:-1]), b"\0\1\2\1"),
    "a context without id": (association_pdu(contexts=item(0x20, b"\1")), b"\0\1\2\1"),
    "a context with a broken sub-item": (
        association_pdu(contexts=context_item(1, b"\x30\0\0\x09")),
        b"\0\1\2\1",
    ),
    "no room for any message": (association_pdu(user=item(0x51, b"\0\0\0\6")), b"\0\1\2\1"),
    "a request without items' place": (struct.pack(">BBL", 1, 0, 30) + bytes(30), b"\0\1\2\1"),
    "an empty request": (struct.pack(">BBL", 1, 0, 0), b"\0\1\2\1"),
}


@pytest.mark.parametrize(("request_", "answer"), REJECTED.values(), ids=REJECTED)
def test_what_cannot_be_served_is_rejected_with_a_reason_of_table_9_21(
    listener: Any, request_: bytes, answer: bytes
) -> None:
    with RawPeer(listener.port) as peer:
        peer.send(request_)
        assert peer.pdu() == (ASSOCIATE_RJ, answer)
        assert peer.pdu() == (0, b"")
    with RawPeer(listener.port) as peer:
        assert peer.associate() == ASSOCIATE_AC


CONTEXTS: Mapping[str, tuple[bytes, dict[int, int]]] = {
    "no transfer syntax": (context_item(7, abstract(CTImageStorage)), {7: 4}),
    "transfer syntaxes that are no UIDs": (context_item(7, abstract(CTImageStorage), transfer("x")), {7: 4}),
    "a transfer syntax over 64 characters": (
        context_item(7, abstract(CTImageStorage), transfer("1." * 40 + "1")),
        {7: 4},
    ),
    "no abstract syntax": (context_item(7, transfer(ImplicitVRLittleEndian)), {7: 3}),
    "an empty abstract syntax": (context_item(7, abstract(""), transfer(ImplicitVRLittleEndian)), {7: 3}),
    "two abstract syntaxes": (
        context_item(7, abstract(CTImageStorage), abstract("1.2"), transfer(ImplicitVRLittleEndian)),
        {7: 3},
    ),
    "an abstract syntax that nobody knows": (
        context_item(7, abstract("1.2.3"), transfer(ImplicitVRLittleEndian)),
        {7: 3},
    ),
    "neither": (context_item(7), {7: 3}),
    "an even id": (context_item(8, abstract(CTImageStorage), transfer(ImplicitVRLittleEndian)), {8: 2}),
    "the id 0": (context_item(0, abstract(CTImageStorage), transfer(ImplicitVRLittleEndian)), {0: 2}),
    "one id for two": (
        context_item(7, abstract(CTImageStorage), transfer(ImplicitVRLittleEndian))
        + context_item(7, abstract(CTImageStorage), transfer(ExplicitVRLittleEndian)),
        {7: 2},
    ),
    "one context twice": (
        context_item(7, abstract(CTImageStorage), transfer(ImplicitVRLittleEndian)) * 2,
        {7: 0},
    ),
    "every id that there is": (
        b"".join(
            context_item(n, abstract(CTImageStorage), transfer(ImplicitVRLittleEndian))
            for n in range(5, 256, 2)
        ),
        dict.fromkeys(range(5, 256, 2), 0),
    ),
}


@pytest.mark.parametrize(("context", "results"), CONTEXTS.values(), ids=CONTEXTS)
def test_a_context_that_cannot_be_served_is_turned_down_and_the_rest_served(
    listener: Any, store: Store, make_dataset: Any, context: bytes, results: dict[int, int]
) -> None:
    study_uid = generate_uid()
    with RawPeer(listener.port) as peer:
        peer.send(association_pdu(contexts=context + ECHO_ITEM + IMAGE_ITEM))
        kind, body = peer.pdu()
        assert kind == ASSOCIATE_AC
        assert _results(body) == {ECHO_CONTEXT: 0, 3: 0, **results}
        peer.send(store_request(1, make_dataset(SOPInstanceUID=generate_uid(), StudyInstanceUID=study_uid)))
        assert peer.command().Status == 0x0000
    assert len(store.instances.paths(study_uid)) == 1


def test_an_answer_is_cut_into_pieces_that_the_peer_takes(listener: Any, make_dataset: Any) -> None:
    with RawPeer(listener.port) as peer:
        peer.send(association_pdu(contexts=IMAGE_ITEM, user=item(0x51, struct.pack(">L", 20)) + CLASS_UID))
        assert peer.pdu()[0] == ASSOCIATE_AC
        peer.send(store_request(1, make_dataset(SOPInstanceUID=generate_uid(), StudyInstanceUID="2.25.9")))
        pieces = []
        while not pieces or not pieces[-1][5] & 2:
            pieces.append(peer.pdu()[1])
    assert max(map(len, pieces)) <= 20
    answer = decode(BytesIO(b"".join(one[6:] for one in pieces)), True, True)
    assert answer.Status == 0x0000


def test_no_context_at_all_is_answered_and_the_listener_goes_on(listener: Any) -> None:
    with RawPeer(listener.port) as peer:
        peer.send(association_pdu(contexts=b""))
        kind, body = peer.pdu()
        assert (kind, _results(body)) == (ASSOCIATE_AC, {})


def test_a_role_is_agreed_on_beside_items_that_nobody_knows(listener: Any) -> None:
    with RawPeer(listener.port) as peer:
        peer.send(association_pdu(contexts=COMMITMENT, **_user(item(0x61, b"?"), item(0x54, ROLE + b"\0\1"))))
        kind, body = peer.pdu()
        assert kind == ASSOCIATE_AC
    assert _results(body) in ({5: 0}, {5: 3})  # this listener may offer no commitment


@pytest.mark.parametrize(
    ("calling", "kept_as"),
    [(b"  CT 1\0rest", "CT 1"), (b"\tQ\xc4CT\\\r\n", "?Q?CT???"), (b"", "?")],
    ids=["followed by rubbish", "outside the repertoire", "blank"],
)
def test_an_ae_title_is_kept_as_it_can_be_read(
    listener: Any, store: Store, calling: bytes, kept_as: str
) -> None:
    before = len(store.quarantine.list())
    with RawPeer(listener.port) as peer:
        peer.send(association_pdu(contexts=IMAGE_ITEM, calling=calling.ljust(16)))
        assert peer.pdu()[0] == ASSOCIATE_AC
        peer.send(store_request_of(1, generate_uid(), b"no data set"))
        assert peer.command().Status == 0xC000
    kept = sorted(store.quarantine.list(), key=lambda one: one.received_at)
    assert len(kept) == before + 1
    assert kept[-1].calling_ae == kept_as


# ---- what peers answer to this node's own requests


ACCEPTED = item(0x21, bytes((1, 0, 0, 0)) + transfer(ImplicitVRLittleEndian))


def _accepting(*items: bytes, contexts: bytes = ACCEPTED, **fields: Any) -> bytes:
    return association_pdu(*items, kind=ASSOCIATE_AC, contexts=contexts, **fields)


@contextmanager
def _peer_that_answers(answer: bytes) -> Iterator[Destination]:
    """A peer that accepts, or does not, with exactly these bytes, and answers C-ECHO."""

    def serve() -> None:
        connection, _ = listening.accept()
        with RawPeer(0, connection) as peer:
            connection.settimeout(LIMIT_S)
            peer.pdu()
            peer.send(answer)
            while (kind := peer.pdu()[0]) not in (0, ABORT):
                peer.send(echo_response(1) if kind == 0x04 else struct.pack(">BBLL", 6, 0, 4, 0))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=listening.getsockname()[1])
        thread.join(LIMIT_S)
        assert not thread.is_alive()


ANSWERS: Mapping[str, bytes] = {
    "as most peers answer": _accepting(),
    "unknown items": _accepting(item(0x99, b"new"), item(0x00, b"")),
    "unknown user information": _accepting(user=MAXIMUM_LENGTH + item(0x6F, b"new") + CLASS_UID),
    "a long version name": _accepting(user=MAXIMUM_LENGTH + item(0x55, b"A_NAME_OF_MORE_THAN_16_CHARACTERS")),
    "a version name padded with NUL": _accepting(user=MAXIMUM_LENGTH + item(0x55, b"NAME".ljust(16, b"\0"))),
    "no user information to speak of": _accepting(user=b""),
    "an answer to user identity": _accepting(user=MAXIMUM_LENGTH + item(0x59, b"\0\2ok")),
    "a small maximum length": _accepting(user=item(0x51, b"\0\0\0\x40")),
    "other titles": _accepting(called=bytes(16), calling=b"\xff" * 16),
    "another version": _accepting(version=2),
    "a result for a context that was not asked for": _accepting(
        contexts=item(0x21, bytes((1, 0, 0, 0)) + transfer(ImplicitVRLittleEndian))
        + item(0x21, bytes((4, 0, 9, 0)))
        + item(0x21, bytes((201, 0, 0, 0)))
    ),
    "a syntax padded with NUL": _accepting(
        contexts=item(0x21, bytes((1, 0, 0, 0)) + transfer(ImplicitVRLittleEndian + "\0"))
    ),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_the_standard_lets_a_peer_answer_is_understood(answer: bytes) -> None:
    with _peer_that_answers(answer) as destination:
        echo = DicomSender(Requestor("OSTEONODE", answer_timeout_s=LIMIT_S)).echo(destination)
    assert echo.answered, echo.detail


TURNED_DOWN: Mapping[str, tuple[bytes, SendOutcome, str]] = {
    "a reason of the table": (b"\0\1\1\7", SendOutcome.PERMANENT, "rejected: Called AE title not recognised"),
    "a reason that the table reserves": (b"\0\1\1\x0a", SendOutcome.PERMANENT, "rejected: No reason given"),
    "a source that there is not": (b"\0\2\x09\1", SendOutcome.TRANSIENT, "for now: No reason given"),
    "a result that there is not": (b"\0\x05\1\1", SendOutcome.TRANSIENT, "for now: No reason given"),
}


@pytest.mark.parametrize(("body", "outcome", "words"), TURNED_DOWN.values(), ids=TURNED_DOWN)
def test_a_rejection_is_understood_whatever_its_numbers(
    body: bytes, outcome: SendOutcome, words: str
) -> None:
    with _peer_that_answers(struct.pack(">BBL", 3, 0, 4) + body) as destination:
        requestor = Requestor("OSTEONODE", answer_timeout_s=LIMIT_S)
        ae = requestor.entity()
        ae.add_requested_context(Verification)
        told, detail = why_not_established(requestor.associate(ae, destination))
    assert told is outcome
    assert words.lower() in detail.lower()


def test_a_rejection_that_came_before_anybody_looked_is_read() -> None:
    def look_late(event: evt.Event) -> None:
        """The association's thread goes on when its provider has read the answer and closed."""
        connection = event.assoc.dul.socket
        wait_until(lambda: not (event.assoc.dul.to_user_queue.empty() or connection._is_connected))

    with _peer_that_answers(struct.pack(">BBL", 3, 0, 4) + b"\0\1\1\7") as destination:
        requestor = Requestor("OSTEONODE", answer_timeout_s=LIMIT_S)
        ae = requestor.entity()
        ae.add_requested_context(Verification)
        association = requestor.associate(ae, destination, handlers=[(evt.EVT_REQUESTED, look_late)])
        told, detail = why_not_established(association)
    assert (told, "Called AE title not recognised" in detail) == (SendOutcome.PERMANENT, True)


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack(">BBL", 7, 0, 4) + b"\0\0\5\x63",
        _accepting(contexts=item(0x21, bytes((1, 0, 7, 0)))),
        _accepting(contexts=item(0x21, bytes((1, 0, 0, 0)))),
        _accepting(contexts=b""),
        _accepting(item(0x99, b"1234")[:-2]),
        _accepting(user=item(0x51, b"\0\0\0\1")),
        struct.pack(">BBL", 2, 0, 3) + b"abc",
        struct.pack(">BBL", 3, 0, 1) + b"\0",
    ],
    ids=[
        "an abort of no known source",
        "a result that there is not",
        "accepted without a syntax",
        "no context",
        "an item beyond the end",
        "no room for any message",
        "half an acceptance",
        "half a rejection",
    ],
)
def test_an_answer_that_serves_nothing_is_told_within_the_time_and_may_be_tried_again(answer: bytes) -> None:
    with _peer_that_answers(answer) as destination:
        echo = DicomSender(Requestor("OSTEONODE", answer_timeout_s=LIMIT_S)).echo(destination)
    assert not echo.answered
    assert echo.detail
