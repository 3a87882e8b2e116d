"""docs/conformance.md against a running listener, and against what the node itself asks of peers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.charset import python_encoding
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    CTImageStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UID_dictionary,
)
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, build_context, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from config.sections import Destination
from config.settings import Settings, load_settings
from node.dicom.ct.pixel_data import DECODERS
from node.dicom.destination_objects import SR_CLASSES
from node.dicom.result_headers import made_here
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.net.access import sender_context
from node.net.commitment import CommitmentReporter, CommitmentService
from node.net.query import DicomArchive, DicomProver
from node.net.scp import Listener
from node.net.sender import DicomSender, Requestor
from node.net.status import IdentifierMismatch, NotUnderstood, Status, status_for
from node.store.errors import StorageFull
from node.store.store import Store, open_store
from node.study_report import EncodedObject, ObjectKind
from tests.waiting import LIMIT_S

STATEMENT = (Path(__file__).parents[2] / "docs/conformance.md").read_text("utf-8")
MOST_CONTEXTS = 128  # PS3.8 Section 9.3.2.2: odd numbers of one byte
UNCOMPRESSED = {*DEFAULT_TRANSFER_SYNTAXES}


def table(first_heading: str) -> list[list[str]]:
    """The rows of the one table whose header line begins with that cell."""
    found = re.findall(
        rf"^\| {re.escape(first_heading)} \|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", STATEMENT, re.MULTILINE
    )
    assert len(found) == 1, (first_heading, len(found))
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[0].splitlines()]


def overview() -> dict[str, tuple[str, str]]:
    """UID -> (user, provider) of the table of services."""
    text = STATEMENT.partition("## 1 Overview")[2].partition("## 2 ")[0]
    rows = re.findall(r"^\| [^|]+ \| ([\d.]+) \| (\w*) \| (\w*) \|$", text, re.MULTILINE)
    assert len(rows) >= 10
    return {uid: (user, provider) for uid, user, provider in rows}


def storage_classes() -> set[str]:
    text = STATEMENT.partition("#### 4.2.3 Storage")[2].partition("| transfer syntax |")[0]
    return set(re.findall(r"^\| [^|]+ \| ([\d.]+) \|$", text, re.MULTILINE))


def _known_uids(*kinds: str) -> list[str]:
    """Of pydicom's dictionary, and what newer editions of the standard have besides."""
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind in kinds}
    return sorted(known | storage_classes() if "SOP Class" in kinds else known)


@pytest.fixture(scope="module")
def service(loops: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a listener with everything that it offers."""
    settings = load_settings(node={"port": 0}, storage={"root": str(tmp_path_factory.mktemp("node") / "var")})
    store = open_store(settings.storage)
    listener = Listener(settings.node, store, made_here, commitment=_commitment(store))
    yield listener.start()
    listener.stop()
    store.close()


def _commitment(store: Store) -> CommitmentService:
    reporter = CommitmentReporter(
        Requestor("OSTEONODE"),
        store.commitment_requests,
        lambda _: None,
        backoff_s=(1.0,),
        give_up_after_s=1.0,
    )
    return CommitmentService(store.commitment_transactions.record, store.commitment_requests, reporter)


def _accepted(port: int, contexts: Sequence[Any]) -> list[tuple[str, str]]:
    accepted = []
    for start in range(0, len(contexts), MOST_CONTEXTS):
        association = AE("TESTER").associate(
            "127.0.0.1", port, contexts=contexts[start : start + MOST_CONTEXTS]
        )
        assert association.is_established or association.is_aborted
        accepted += [
            (str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts
        ]
        if association.is_established:
            association.release()
    return accepted


def test_the_listener_accepts_the_classes_of_the_statement_and_no_other(service: int) -> None:
    every = _known_uids("SOP Class", "Meta SOP Class", "Service Class")
    contexts = [build_context(Verification), *(build_context(uid) for uid in every if uid != Verification)]
    documented = storage_classes() | {uid for uid, (_, provider) in overview().items() if provider == "yes"}
    assert {uid for uid, _ in _accepted(service, contexts)} == documented


@pytest.mark.parametrize("sop_class_uid", [CTImageStorage, SegmentationStorage, Comprehensive3DSRStorage])
def test_it_accepts_the_transfer_syntaxes_of_the_statement_and_no_other(
    service: int, sop_class_uid: UID
) -> None:
    every = _known_uids("Transfer Syntax")
    accepted = _accepted(service, [build_context(sop_class_uid, uid) for uid in every])
    assert {syntax for _, syntax in accepted} == {row[1] for row in table("transfer syntax")}


@pytest.mark.parametrize("sop_class_uid", [Verification, StorageCommitmentPushModel])
def test_what_is_no_storage_is_accepted_without_compression_alone(service: int, sop_class_uid: UID) -> None:
    every = _known_uids("Transfer Syntax")
    accepted = _accepted(service, [build_context(sop_class_uid, uid) for uid in every])
    assert {syntax for _, syntax in accepted} == UNCOMPRESSED


def test_the_syntaxes_in_which_pixels_are_read_are_those_with_a_decoder() -> None:
    assert {uid for _, uid, use in table("transfer syntax") if use == "read"} == {*DECODERS, *UNCOMPRESSED}


def test_of_several_syntaxes_the_first_of_the_statement_is_taken(service: int) -> None:
    in_order = [row[1] for row in table("transfer syntax")]
    for place in range(0, len(in_order), 4):
        proposed = in_order[: place - 1 if place else None : -1]
        ((_, taken),) = _accepted(service, [build_context(CTImageStorage, proposed)])
        assert taken == in_order[place]


def test_the_listener_names_itself_as_the_statement_does(service: int) -> None:
    association = AE("TESTER").associate("127.0.0.1", service, contexts=[build_context(Verification)])
    named = (association.acceptor.implementation_class_uid, association.acceptor.implementation_version_name)
    longest = association.acceptor.maximum_length
    association.release()
    stated = dict(re.findall(r"^\| (Implementation [^(|]+) \(held\) \| (\S+) \|$", STATEMENT, re.MULTILINE))
    assert named == (stated["Implementation class UID"], stated["Implementation version name"])
    assert named == (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)
    assert f"| Longest PDU received | {longest} bytes" in STATEMENT


def test_defaults_are_those_of_the_settings(settings: Settings) -> None:
    shipped = load_settings()
    for line in (
        f"| AE title, default | {shipped.node.ae_title} (",
        f"| Port, default | {shipped.node.port} (",
        f"| Longest PDU received | {shipped.access.max_pdu_bytes} bytes (",
        f"| Associations accepted at once | {shipped.access.max_associations} (`access.max_associations`), "
        f"{shipped.access.max_associations_per_peer} of one peer",
    ):
        assert line in STATEMENT, line


def test_statuses_are_those_that_the_listener_gives() -> None:
    given = {
        Status.SUCCESS,
        *(status_for(error) for error in (StorageFull(), NotUnderstood(), IdentifierMismatch(), OSError())),
    }
    assert {int(row[0].split()[0], 16) for row in table("status")} == set(map(int, given))


def test_character_sets_are_those_that_text_is_read_in() -> None:
    ((plain, extended),) = table("without code extensions")
    stated = {one.strip() for one in f"{plain}, {extended}".split(",")}
    # What the library reads besides: the empty term, and two spellings that the standard does not have.
    assert stated == set(python_encoding) - {"", "ISO 2022 58", "ISO 2022 GBK"}


def test_cipher_suites_are_those_that_are_offered(settings: Settings) -> None:
    offered = sender_context(settings.tls).get_ciphers()
    assert {row[0] for row in table("cipher suites of TLS 1.2 (held)")} == {
        one["name"] for one in offered if one["protocol"] != "TLSv1.3"
    }


@pytest.fixture
def peer() -> Iterator[tuple[Destination, list[Any]]]:
    """A peer that accepts whatever this node ever asks for, and the association requests that came."""
    requests: list[Any] = []
    ae = AE("PACS")
    for uid in overview():
        ae.add_supported_context(uid, scu_role=True, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_REQUESTED, lambda event: requests.append(event.assoc.requestor.primitive)),
            (evt.EVT_C_ECHO, lambda _: 0x0000),
            (evt.EVT_C_STORE, lambda _: 0x0000),
            (evt.EVT_C_FIND, lambda _: iter(())),
            (evt.EVT_C_MOVE, lambda _: iter((0,))),
            (evt.EVT_N_ACTION, lambda _: (0x0000, None)),
            (evt.EVT_N_EVENT_REPORT, lambda _: (0x0000, None)),
        ],
    )
    port = server.socket.getsockname()[1]
    yield Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port), requests
    server.shutdown()


def _objects(make_dataset: Callable[..., Any], as_bytes: Callable[..., bytes]) -> list[EncodedObject]:
    kinds = {
        SegmentationStorage: ObjectKind.SEGMENTATION,
        Comprehensive3DSRStorage: ObjectKind.STRUCTURED_REPORT,
        SecondaryCaptureImageStorage: ObjectKind.PICTURE,
        KeyObjectSelectionDocumentStorage: ObjectKind.REJECTION_NOTE,
    }
    made = []
    for number, (sop_class_uid, kind) in enumerate(kinds.items(), start=1):
        dataset = make_dataset(number, SOPClassUID=sop_class_uid)
        made.append(
            EncodedObject(
                kind=kind,
                file_name=f"{number}.dcm",
                sop_class_uid=str(sop_class_uid),
                sop_instance_uid=str(dataset.SOPInstanceUID),
                content=as_bytes(dataset),
            )
        )
    return made


def test_the_node_asks_peers_for_the_classes_of_the_statement_and_no_other(
    peer: tuple[Destination, list[Any]],
    store: Store,
    make_dataset: Callable[..., Any],
    as_bytes: Callable[..., bytes],
) -> None:
    destination, requests = peer
    requestor = Requestor("OSTEONODE", answer_timeout_s=LIMIT_S)
    objects = _objects(make_dataset, as_bytes)
    lesser = [uid for uid in SR_CLASSES.values() if uid != Comprehensive3DSRStorage]
    DicomSender(requestor).send(destination, objects, alternatives=lesser)
    DicomSender(requestor).echo(destination)
    with DicomProver(requestor, store.commitment_transactions.record).session(destination) as session:
        session.find(objects[0])
    archive = DicomArchive(requestor, fetcher=requestor, ae_title="OSTEONODE", timeout_s=LIMIT_S)
    archive.count_ct_images(destination, "2.25.1")
    archive.identify(destination, "2.25.1")
    archive.retrieve(destination, "2.25.1", ["2.25.2"])
    _report(requestor, store, destination)
    asked = {
        str(context.abstract_syntax)
        for one in requests
        for context in one.presentation_context_definition_list
    }
    assert asked == {uid for uid, (user, _) in overview().items() if user in {"yes", "option"}}
    for one in requests:
        assert one.implementation_class_uid == IMPLEMENTATION_CLASS_UID
        assert one.maximum_length_received == 131072


def _report(requestor: Requestor, store: Store, destination: Destination) -> None:
    store.commitment_requests.enter(
        transaction_uid="2.25.9", calling_ae="PACS", asked=[(str(CTImageStorage), "2.25.10")], pause_s=0.0
    )
    reporter = CommitmentReporter(
        requestor, store.commitment_requests, lambda _: destination, backoff_s=(1.0,), give_up_after_s=10.0
    )
    assert reporter.report_due() == 1


def test_what_is_sent_is_offered_as_it_was_made_and_in_the_default_syntax(
    peer: tuple[Destination, list[Any]], make_dataset: Callable[..., Any], as_bytes: Callable[..., bytes]
) -> None:
    destination, requests = peer
    DicomSender(Requestor("OSTEONODE")).send(destination, _objects(make_dataset, as_bytes))
    offered = [
        (str(context.abstract_syntax), [str(one) for one in context.transfer_syntax])
        for context in requests[0].presentation_context_definition_list
    ]
    assert sorted(offered) == sorted(
        (str(uid), [syntax])
        for uid in (
            SegmentationStorage,
            Comprehensive3DSRStorage,
            SecondaryCaptureImageStorage,
            KeyObjectSelectionDocumentStorage,
        )
        for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
    )
