"""Storage commitment that peers ask of this node: what it says it holds, and how it tells them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage
from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from structlog.testing import capture_logs

from config.sections import Peer
from config.settings import Settings
from node.dicom.result_headers import made_here
from node.net import commitment as reporting
from node.net.commitment import CommitmentReporter, CommitmentService
from node.net.scp import Listener
from node.net.sender import Requestor
from node.store.commitments import CommitmentRequest
from node.store.store import Store, open_store
from tests.waiting import LIMIT_S, wait_until

COMMITMENT = StorageCommitmentPushModel
HELD = "2.25.100.1.1"

# pynetdicom drops the socket of a failed connection without closing it; the garbage collector does at once.
drops_a_socket = pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore:Exception ignored in. <socket"
)


@dataclass
class Asker:
    """A peer that asks, and takes reports on the association of the question or on its own port."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)  # to answer reports with; then Success
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)  # a report, and its answer has left
    unanswered: bool = False

    def on_report(self, event: Any) -> tuple[int, None]:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.reports.append((event.event_type, event.event_information))
            self.unanswered = True
        return status, None

    def on_sent(self, event: Any) -> None:
        """Whoever releases the association before the answer has left breaks it off."""
        if self.unanswered and isinstance(event.pdu, P_DATA_TF):
            self.unanswered = False
            self.arrived.set()

    @property
    def handlers(self) -> list[tuple[Any, Any]]:
        return [(evt.EVT_N_EVENT_REPORT, self.on_report), (evt.EVT_PDU_SENT, self.on_sent)]

    def associate(self, port: int) -> Any:
        ae = AE("ASKER")
        ae.add_requested_context(COMMITMENT)
        association = ae.associate(
            "127.0.0.1",
            port,
            ae_title="OSTEONODE",
            evt_handlers=self.handlers,
        )
        assert association.is_established
        return association


def ask(
    association: Any,
    instances: Sequence[tuple[str, str]],
    transaction_uid: str = "2.25.700",
    action: int = 1,
    instance: str = StorageCommitmentPushModelInstance,
) -> int:
    question = Dataset()
    if transaction_uid:
        question.TransactionUID = transaction_uid
    items = []
    for sop_class, uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    question.ReferencedSOPSequence = items
    answer, _ = association.send_n_action(question, action, COMMITMENT, instance)
    return int(answer.Status)


@pytest.fixture
def asker() -> Iterator[Asker]:
    """Listens on its own port, too."""
    peer = Asker()
    ae = AE("ASKER")
    ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=peer.handlers)
    peer.port = int(server.server_address[1])
    yield peer
    ae.shutdown()


@dataclass
class NodeSide:
    port: int
    reporter: CommitmentReporter
    store: Store


@pytest.fixture
def start(loops: str, settings: Settings, store: Store) -> Iterator[Callable[..., NodeSide]]:
    listeners: list[Listener] = []

    def begin(peers: Sequence[Peer] = (), give_up_after_s: float = 3600.0) -> NodeSide:
        addresses = {peer.ae_title: peer for peer in peers}
        requestor = Requestor("OSTEONODE", connect_timeout_s=LIMIT_S, answer_timeout_s=LIMIT_S)
        reporter = CommitmentReporter(
            requestor,
            store.commitment_requests,
            addresses.get,
            backoff_s=(0.001,),
            give_up_after_s=give_up_after_s,
        )
        commitment = CommitmentService(
            store.commitment_transactions.record, store.commitment_requests, reporter
        )
        listener = Listener(settings.node, store, made_here, commitment=commitment)
        listeners.append(listener)
        return NodeSide(port=listener.start(), reporter=reporter, store=store)

    yield begin
    for listener in listeners:
        listener.stop()


@pytest.fixture
def holding(start: Callable[..., NodeSide], make_dataset: Callable[..., Dataset]) -> Callable[..., NodeSide]:
    """A node that holds one CT image, sent to it by C-STORE."""

    def begin(**options: Any) -> NodeSide:
        node = start(**options)
        ae = AE("ASKER")
        ae.add_requested_context(CTImageStorage)
        association = ae.associate("127.0.0.1", node.port, ae_title="OSTEONODE")
        assert association.send_c_store(make_dataset(1)).Status == 0x0000
        association.release()
        return node

    return begin


def peer_of(asker: Asker) -> Peer:
    return Peer(ae_title="ASKER", host="127.0.0.1", port=asker.port)


def told(node: NodeSide, asker: Asker) -> None:
    """Let the node report until the peer has a report."""

    def has_one() -> bool:
        if not asker.arrived.is_set():
            node.reporter.report_due()
        return asker.arrived.is_set()

    wait_until(has_one, "the peer has a report")


def references(report: Dataset, keyword: str) -> list[tuple[str, str]]:
    return [(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in report.get(keyword, [])]


def test_what_is_held_is_committed_on_the_same_association(
    holding: Callable[..., NodeSide], asker: Asker
) -> None:
    node = holding()
    association = asker.associate(node.port)
    assert ask(association, [(CTImageStorage, HELD)]) == 0x0000
    assert asker.arrived.wait(LIMIT_S)
    association.release()
    ((event_type, report),) = asker.reports
    assert (event_type, report.TransactionUID) == (1, "2.25.700")
    assert references(report, "ReferencedSOPSequence") == [(CTImageStorage, HELD)]
    assert "FailedSOPSequence" not in report
    assert node.reporter.report_due() == 0  # told once


def test_only_what_is_held_under_its_class_is_committed(
    holding: Callable[..., NodeSide], asker: Asker
) -> None:
    node = holding()
    association = asker.associate(node.port)
    ask(association, [(CTImageStorage, HELD), (CTImageStorage, "2.25.404")])
    assert asker.arrived.wait(LIMIT_S)
    asker.arrived.clear()
    ask(association, [(EnhancedCTImageStorage, HELD)], "2.25.701")
    assert asker.arrived.wait(LIMIT_S)
    association.release()
    (first_type, first), (second_type, second) = asker.reports
    assert (first_type, second_type) == (2, 2)
    assert references(first, "ReferencedSOPSequence") == [(CTImageStorage, HELD)]
    assert [(one.ReferencedSOPInstanceUID, one.FailureReason) for one in first.FailedSOPSequence] == [
        ("2.25.404", 0x0112)
    ]
    assert [(one.ReferencedSOPInstanceUID, one.FailureReason) for one in second.FailedSOPSequence] == [
        (HELD, 0x0119)
    ]
    assert "ReferencedSOPSequence" not in second


def test_an_image_whose_file_is_gone_is_not_committed(holding: Callable[..., NodeSide], asker: Asker) -> None:
    node = holding()
    for path in node.store.instances.paths("2.25.100"):
        path.unlink()
    association = asker.associate(node.port)
    ask(association, [(CTImageStorage, HELD)])
    assert asker.arrived.wait(LIMIT_S)
    association.release()
    assert asker.reports[0][1].FailedSOPSequence[0].FailureReason == 0x0112


def test_a_peer_that_releases_at_once_is_told_at_its_address(
    holding: Callable[..., NodeSide], asker: Asker
) -> None:
    node = holding(peers=[peer_of(asker)])
    association = asker.associate(node.port)
    ask(association, [(CTImageStorage, HELD)])
    association.release()
    told(node, asker)
    assert references(asker.reports[0][1], "ReferencedSOPSequence") == [(CTImageStorage, HELD)]


def test_a_report_that_is_not_taken_is_repeated(holding: Callable[..., NodeSide], asker: Asker) -> None:
    node = holding(peers=[peer_of(asker)])
    asker.statuses = [0x0110, 0x0110]
    association = asker.associate(node.port)
    ask(association, [(CTImageStorage, HELD)])
    association.release()
    told(node, asker)
    assert len(asker.reports) == 1


def test_a_promise_outlives_the_process_that_made_it(
    holding: Callable[..., NodeSide], asker: Asker, settings: Settings
) -> None:
    node = holding()
    request = node.store.commitment_requests.enter(
        transaction_uid="2.25.700", calling_ae="ASKER", asked=[(CTImageStorage, HELD)], pause_s=0.0
    )
    assert request.held == ((CTImageStorage, HELD),)
    store = open_store(settings.storage)
    requestor = Requestor("OSTEONODE")
    after = CommitmentReporter(
        requestor, store.commitment_requests, lambda _: peer_of(asker), backoff_s=(1.0,), give_up_after_s=60.0
    )
    assert after.report_due() == 1
    store.close()
    assert asker.arrived.is_set()


@drops_a_socket
def test_a_peer_that_cannot_be_told_is_given_up_in_the_end(
    holding: Callable[..., NodeSide], asker: Asker, free_port: int
) -> None:
    away = Peer(ae_title="ASKER", host="127.0.0.1", port=free_port)
    for node in (holding(peers=[away], give_up_after_s=1e-6),):
        node.store.commitment_requests.enter(
            transaction_uid="2.25.700", calling_ae="ASKER", asked=[(CTImageStorage, HELD)], pause_s=0.0
        )
        assert node.reporter.report_due() == 1
        assert node.reporter.report_due() == 0


def test_a_peer_that_wants_tls_of_a_node_without_is_put_off_and_stops_no_other(
    holding: Callable[..., NodeSide], asker: Asker
) -> None:
    secretive = Peer(ae_title="SECRETIVE", host="127.0.0.1", port=asker.port, tls=True)
    node = holding(peers=[secretive, peer_of(asker)])
    for ae_title in ("SECRETIVE", "ASKER"):
        node.store.commitment_requests.enter(
            transaction_uid="2.25.700", calling_ae=ae_title, asked=[(CTImageStorage, HELD)], pause_s=0.0
        )
    assert node.reporter.report_due() == 2
    assert len(asker.reports) == 1


def test_a_promise_that_cannot_be_told_for_a_reason_nobody_foresaw_stops_no_other(
    holding: Callable[..., NodeSide], asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = holding(peers=[peer_of(asker)])
    for number in (700, 701):
        node.store.commitment_requests.enter(
            transaction_uid=f"2.25.{number}", calling_ae="ASKER", asked=[(CTImageStorage, HELD)], pause_s=0.0
        )
    real = reporting.report_of

    def fail_once(request: CommitmentRequest) -> Any:
        monkeypatch.setattr(reporting, "report_of", real)
        raise KeyError("what nobody foresaw")

    monkeypatch.setattr(reporting, "report_of", fail_once)
    assert node.reporter.report_due() == 2
    assert len(asker.reports) == 1
    asker.arrived.clear()
    told(node, asker)
    assert len(asker.reports) == 2


def test_a_report_that_fails_on_the_peer_s_own_association_is_told_elsewhere(
    holding: Callable[..., NodeSide], asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = holding(peers=[peer_of(asker)])
    request = node.store.commitment_requests.enter(
        transaction_uid="2.25.700", calling_ae="ASKER", asked=[(CTImageStorage, HELD)], pause_s=0.0
    )

    def fail(*_: object, **options: object) -> None:
        raise KeyError("what nobody foresaw")

    with monkeypatch.context() as broken, capture_logs() as noted:
        broken.setattr(reporting, "pause_reactor", fail)
        node.reporter.report_here(None, request, 0.0)  # in a thread of its own, whose death nobody would see
    assert [one["event"] for one in noted] == ["commitment_report_not_noted"]
    told(node, asker)


def test_a_peer_without_an_address_is_told_on_its_association_or_not_at_all(
    holding: Callable[..., NodeSide],
) -> None:
    node = holding()
    node.store.commitment_requests.enter(
        transaction_uid="2.25.700", calling_ae="NOBODY", asked=[(CTImageStorage, HELD)], pause_s=0.0
    )
    assert node.reporter.report_due() == 1
    assert node.reporter.report_due() == 0


def test_the_same_question_again_is_told_again_and_another_under_its_uid_is_refused(
    holding: Callable[..., NodeSide], asker: Asker
) -> None:
    node = holding()
    association = asker.associate(node.port)
    for _ in range(2):
        asker.arrived.clear()
        assert ask(association, [(CTImageStorage, HELD)]) == 0x0000
        assert asker.arrived.wait(LIMIT_S)
    assert ask(association, [(CTImageStorage, "2.25.404")]) == 0x0115
    association.release()
    assert len(asker.reports) == 2


def test_a_question_that_is_none_is_refused(holding: Callable[..., NodeSide], asker: Asker) -> None:
    node = holding()
    association = asker.associate(node.port)
    held = [(CTImageStorage, HELD)]
    assert ask(association, held, action=2) == 0x0123
    assert ask(association, held, instance="2.25.1") == 0x0112
    assert ask(association, held, transaction_uid="") == 0x0115
    assert ask(association, []) == 0x0115
    association.release()
    assert node.reporter.report_due() == 0
    assert asker.reports == []


def test_images_go_on_while_a_peer_waits_for_its_report(
    holding: Callable[..., NodeSide], asker: Asker, make_dataset: Callable[..., Dataset]
) -> None:
    """One association for storing and asking, as many modalities have it."""
    node = holding()
    ae = AE("ASKER")
    ae.add_requested_context(CTImageStorage)
    ae.add_requested_context(COMMITMENT)
    association = ae.associate(
        "127.0.0.1",
        node.port,
        ae_title="OSTEONODE",
        evt_handlers=asker.handlers,
    )
    assert ask(association, [(CTImageStorage, HELD)]) == 0x0000
    assert asker.arrived.wait(LIMIT_S)
    assert association.send_c_store(make_dataset(2)).Status == 0x0000
    asker.arrived.clear()
    assert ask(association, [(CTImageStorage, "2.25.100.1.2")], "2.25.701") == 0x0000
    assert asker.arrived.wait(LIMIT_S)
    association.release()
    assert [event_type for event_type, _ in asker.reports] == [1, 1]
