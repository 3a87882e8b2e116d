"""Storage commitment and C-FIND asked of a PACS, over real associations in every order that occurs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from config.sections import Destination
from config.settings import Settings
from node.dicom.result_headers import made_here
from node.net.commitment import CommitmentReporter, CommitmentService
from node.net.query import DicomProver
from node.net.scp import Listener
from node.net.sender import Requestor
from node.net.status import outcome_of_action, verdict_of
from node.pipeline.ports import FindResult, SendOutcome
from node.store.commitments import ReportedInstance, ReportOutcome
from node.store.files import ReceivedInstance, sha256_of
from node.store.jobs import Lease, MadeObject
from node.store.states import CommitmentVerdict, DeliveryState, Proof
from node.store.store import Store, open_store
from node.study_report import EncodedObject, ObjectKind
from tests.claiming import claim
from tests.closing import close_due
from tests.waiting import LIMIT_S

COMMITMENT = StorageCommitmentPushModel
UIDS = ("2.25.31", "2.25.32")
STUDY_UID = "2.25.100"


@dataclass
class Ledger:
    """Where reports are recorded; knows the transactions that it is told."""

    known: set[str] = field(default_factory=set)
    reported: dict[str, Sequence[ReportedInstance]] = field(default_factory=dict)

    def record(self, transaction_uid: str, reported: Sequence[ReportedInstance]) -> ReportOutcome:
        if transaction_uid not in self.known:
            return ReportOutcome.UNKNOWN
        if transaction_uid in self.reported:
            return ReportOutcome.REPEATED
        self.reported[transaction_uid] = reported
        return ReportOutcome.RECORDED


@dataclass
class Pacs:
    """A commitment SCP by pynetdicom. `report` says when and how it reports; gets the N-ACTION event."""

    status: int = 0x0000
    report: Callable[[Any], None] = lambda event: None
    matches: Sequence[Dataset] = ()
    find_status: int = 0x0000
    asked: list[Dataset] = field(default_factory=list)
    queries: list[Dataset] = field(default_factory=list)

    def on_action(self, event: Any) -> tuple[int, None]:
        self.asked.append(event.action_information)
        self.report(event)
        return self.status, None

    def on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.queries.append(event.identifier)
        for match in self.matches:
            yield 0xFF00, match
        if self.find_status:
            yield self.find_status, None


@pytest.fixture
def start_pacs() -> Iterator[Callable[..., Destination]]:
    entities: list[AE] = []

    def start(
        pacs: Pacs,
        sop_classes: Sequence[UID] = (Verification, COMMITMENT, StudyRootQueryRetrieveInformationModelFind),
    ) -> Destination:
        ae = AE("PACS")
        entities.append(ae)
        for sop_class in sop_classes:
            ae.add_supported_context(sop_class)
        server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_N_ACTION, pacs.on_action), (evt.EVT_C_FIND, pacs.on_find)],
        )
        port = int(server.server_address[1])
        return Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)

    yield start
    for ae in entities:
        ae.shutdown()


@pytest.fixture
def objects(make_dataset: Any, as_bytes: Any) -> list[EncodedObject]:
    return [
        EncodedObject(
            kind=ObjectKind.PICTURE,
            file_name=f"{uid}.dcm",
            sop_class_uid=SecondaryCaptureImageStorage,
            sop_instance_uid=uid,
            content=as_bytes(make_dataset(SOPInstanceUID=uid, SOPClassUID=SecondaryCaptureImageStorage)),
        )
        for uid in UIDS
    ]


def prover(record: Callable[..., ReportOutcome]) -> DicomProver:
    return DicomProver(Requestor("OSTEONODE", connect_timeout_s=LIMIT_S, answer_timeout_s=LIMIT_S), record)


def event_information(transaction_uid: str, failed: dict[str, int] | None = None) -> Dataset:
    """A report about both objects, `failed` by their reasons."""
    failed = failed or {}
    information = Dataset()
    information.TransactionUID = transaction_uid
    committed, lost = [], []
    for uid in UIDS:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SecondaryCaptureImageStorage, uid
        if uid in failed:
            item.FailureReason = failed[uid]
        (lost if uid in failed else committed).append(item)
    if committed:
        information.ReferencedSOPSequence = committed
    if lost:
        information.FailedSOPSequence = lost
    return information


def send_report(association: Any, information: Dataset, event_type: int | None = None) -> int:
    kind = event_type or (2 if "FailedSOPSequence" in information else 1)
    answer, _ = association.send_n_event_report(
        information, kind, COMMITMENT, StorageCommitmentPushModelInstance
    )
    return int(answer.Status)


def test_the_question_names_every_object_by_class_and_instance(
    start_pacs: Callable[..., Destination], objects: list[EncodedObject]
) -> None:
    pacs = Pacs()
    with prover(Ledger().record).session(start_pacs(pacs)) as session:
        assert session.offered == {Proof.COMMITMENT, Proof.FIND}
        assert session.request_commitment("2.25.500", objects).outcome is SendOutcome.SENT
    (question,) = pacs.asked
    assert question.TransactionUID == "2.25.500"
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in question.ReferencedSOPSequence
    ] == [(SecondaryCaptureImageStorage, uid) for uid in UIDS]


def test_a_report_on_the_same_association_is_recorded(
    start_pacs: Callable[..., Destination], objects: list[EncodedObject]
) -> None:
    ledger, statuses = Ledger({"2.25.500"}), []

    def soon(event: Any) -> None:
        def send() -> None:
            time.sleep(0.1)
            statuses.append(send_report(event.assoc, event_information("2.25.500", {UIDS[1]: 0x0112})))

        threading.Thread(target=send).start()

    with prover(ledger.record).session(start_pacs(Pacs(report=soon))) as session:
        session.request_commitment("2.25.500", objects)
        session.wait(lambda: bool(statuses), LIMIT_S)
    assert statuses == [0x0000]
    assert [(one.sop_instance_uid, one.verdict) for one in ledger.reported["2.25.500"]] == [
        (UIDS[0], CommitmentVerdict.COMMITTED),
        (UIDS[1], CommitmentVerdict.MISSING),
    ]


def test_a_report_that_comes_before_the_answer_is_recorded(
    start_pacs: Callable[..., Destination], objects: list[EncodedObject]
) -> None:
    ledger, statuses = Ledger({"2.25.500"}), []
    at_once = Pacs(
        report=lambda event: statuses.append(send_report(event.assoc, event_information("2.25.500")))
    )
    with prover(ledger.record).session(start_pacs(at_once)) as session:
        assert session.request_commitment("2.25.500", objects).outcome is SendOutcome.SENT
        session.wait(lambda: True, LIMIT_S)
    assert statuses == [0x0000]
    assert set(ledger.reported) == {"2.25.500"}


def test_waiting_ends_when_the_peer_hangs_up(
    start_pacs: Callable[..., Destination], objects: list[EncodedObject]
) -> None:
    pacs = Pacs(report=lambda event: threading.Timer(0.1, event.assoc.abort).start())
    started = time.monotonic()
    with prover(Ledger().record).session(start_pacs(pacs)) as session:
        session.request_commitment("2.25.500", objects)
        session.wait(lambda: False, 2 * LIMIT_S)
    assert time.monotonic() - started < LIMIT_S


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(0x0110, SendOutcome.TRANSIENT), (0x0211, SendOutcome.PERMANENT), (0x0124, SendOutcome.PERMANENT)],
)
def test_a_refused_question_is_told_apart_by_its_status(
    start_pacs: Callable[..., Destination], objects: list[EncodedObject], status: int, outcome: SendOutcome
) -> None:
    with prover(Ledger().record).session(start_pacs(Pacs(status=status))) as session:
        answer = session.request_commitment("2.25.500", objects)
    assert (answer.outcome, answer.status) == (outcome, status)


def test_a_peer_that_offers_neither_is_told_from_one_that_accepts_nothing_yet(
    start_pacs: Callable[..., Destination],
) -> None:
    with prover(Ledger().record).session(start_pacs(Pacs(), [Verification])) as session:
        assert (session.offered, session.problem) == (frozenset(), "")
    with prover(Ledger().record).session(start_pacs(Pacs(), [SecondaryCaptureImageStorage])) as session:
        assert session.problem == "the peer accepts none of the SOP classes"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning", "ignore:Exception ignored in. <socket")
def test_a_peer_that_is_away_is_a_problem_and_no_exception(free_port: int) -> None:
    away = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port)
    with prover(Ledger().record).session(away) as session:
        assert session.problem == "no connection"


def _match(uid: str) -> Dataset:
    match = Dataset()
    match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", uid
    return match


@pytest.mark.parametrize(
    ("matches", "final", "sought"),
    [
        ((_match(UIDS[0]),), 0x0000, FindResult.FOUND),
        ((), 0x0000, FindResult.ABSENT),
        ((_match("2.25.1"), _match("2.25.2")), 0x0000, FindResult.ABSENT),  # a peer that matches nothing
        ((_match("2.25.1"), _match(UIDS[0])), 0x0000, FindResult.FOUND),
        ((), 0xA700, FindResult.UNKNOWN),
    ],
)
def test_a_query_at_image_level_finds_one_object(
    start_pacs: Callable[..., Destination],
    objects: list[EncodedObject],
    matches: Sequence[Dataset],
    final: int,
    sought: FindResult,
) -> None:
    pacs = Pacs(matches=matches, find_status=final)
    with prover(Ledger().record).session(start_pacs(pacs)) as session:
        assert session.find(objects[0]) is sought
    (query,) = pacs.queries
    assert (query.QueryRetrieveLevel, query.SOPInstanceUID) == ("IMAGE", UIDS[0])
    assert (query.StudyInstanceUID, query.SeriesInstanceUID) == ("2.25.100", "2.25.100.1")
    assert "PatientID" not in query


def test_a_peer_with_patient_root_alone_is_queried_in_it(
    start_pacs: Callable[..., Destination], objects: list[EncodedObject]
) -> None:
    pacs = Pacs(matches=[_match(UIDS[0])])
    destination = start_pacs(pacs, [Verification, PatientRootQueryRetrieveInformationModelFind])
    with prover(Ledger().record).session(destination) as session:
        assert session.offered == {Proof.FIND}
        assert session.find(objects[0]) is FindResult.FOUND
    assert pacs.queries[0].PatientID == "MRN-4711"


def service(record: Callable[..., ReportOutcome], store: Store) -> CommitmentService:
    reporter = CommitmentReporter(
        Requestor("OSTEONODE"),
        store.commitment_requests,
        lambda _: None,
        backoff_s=(1.0,),
        give_up_after_s=1.0,
    )
    return CommitmentService(record, store.commitment_requests, reporter)


@pytest.fixture
def listening(loops: str, settings: Settings, store: Store) -> Iterator[tuple[int, Ledger]]:
    ledger = Ledger({"2.25.500"})
    listener = Listener(settings.node, store, made_here, commitment=service(ledger.record, store))
    yield listener.start(), ledger
    listener.stop()


def sent_objects(store: Store, objects: Sequence[EncodedObject]) -> Lease:
    """A study whose results "pacs" has taken, and the lease of their delivery."""
    content = (b"header", b"pixels")
    store.instances.receive(
        ReceivedInstance(
            sop_instance_uid="2.25.1",
            series_instance_uid="2.25.2",
            study_instance_uid=STUDY_UID,
            sop_class_uid=CTImageStorage,
            transfer_syntax_uid=ImplicitVRLittleEndian,
            sha256=sha256_of(content[-1]),
            content=content,
            calling_ae="PACS",
            called_ae="OSTEONODE",
            association_id=None,
        )
    )
    (job,) = close_due(store, first_step="report", quiet_s=0, stale_s=20)
    made = [
        MadeObject(
            sop_instance_uid=one.sop_instance_uid,
            sop_class_uid=one.sop_class_uid,
            kind=one.kind.value,
            artefact=one.file_name,
            is_report=False,
        )
        for one in objects
    ]
    lease = claim(store, store.jobs.advance(claim(store, job), "deliver", made))
    store.deliveries.schedule(lease, ["pacs"])
    for delivery in store.deliveries.pending(lease):
        store.deliveries.settle(lease, delivery, DeliveryState.SENT, status=0, detail="")
    return lease


def open_to_report(port: int, *, with_role: bool = True) -> Any:
    ae = AE("PACS")
    ae.add_requested_context(COMMITMENT)
    roles = [build_role(COMMITMENT, scp_role=True)] if with_role else []
    association = ae.associate("127.0.0.1", port, ae_title="OSTEONODE", ext_neg=roles)
    assert association.is_established
    return association


@pytest.mark.parametrize("with_role", [True, False])
def test_a_report_on_an_association_of_the_peer_is_recorded(
    listening: tuple[int, Ledger], with_role: bool
) -> None:
    port, ledger = listening
    association = open_to_report(port, with_role=with_role)
    if with_role:
        assert [(context.as_scu, context.as_scp) for context in association.accepted_contexts] == [
            (False, True)
        ]
    assert send_report(association, event_information("2.25.500")) == 0x0000
    assert send_report(association, event_information("2.25.500")) == 0x0000  # it missed our answer
    association.release()
    assert len(ledger.reported["2.25.500"]) == 2


def test_a_report_that_cannot_be_meant_is_refused_and_changes_nothing(listening: tuple[int, Ledger]) -> None:
    port, ledger = listening
    association = open_to_report(port)
    assert send_report(association, event_information("2.25.404")) == 0x0115  # never asked
    assert send_report(association, event_information("2.25.500"), event_type=3) == 0x0113
    nameless = event_information("2.25.500")
    del nameless.TransactionUID
    assert send_report(association, nameless) == 0x0115
    association.release()
    assert ledger.reported == {}


def test_a_report_that_cannot_be_recorded_is_to_be_repeated(settings: Settings, store: Store) -> None:
    def broken(transaction_uid: str, reported: Sequence[ReportedInstance]) -> ReportOutcome:
        raise OSError("the disk is gone")

    listener = Listener(settings.node, store, made_here, commitment=service(broken, store))
    association = open_to_report(listener.start())
    assert send_report(association, event_information("2.25.500")) == 0x0110
    association.release()
    listener.stop()


def test_a_report_that_comes_after_a_restart_finds_its_transaction(
    settings: Settings, objects: list[EncodedObject], start_pacs: Callable[..., Destination]
) -> None:
    """The process that asked is gone, in the middle of its job; another one listens."""
    pacs = Pacs()
    with closing(open_store(settings.storage)) as before:
        lease = sent_objects(before, objects)
        before.commitment_transactions.begin(
            lease,
            transaction_uid="2.25.500",
            destination="pacs",
            asked=before.deliveries.unproven(lease),
            patience_s=600,
        )
        with prover(Ledger().record).session(start_pacs(pacs)) as session:
            assert session.request_commitment("2.25.500", objects).outcome is SendOutcome.SENT
    with closing(open_store(settings.storage)) as after:
        record = partial(after.commitment_transactions.record, ask_again_in_s=600.0)
        listener = Listener(settings.node, after, made_here, commitment=service(record, after))
        association = open_to_report(listener.start())
        assert send_report(association, event_information("2.25.500", {UIDS[1]: 0x0112})) == 0x0000
        association.release()
        listener.stop()
        shown = after.overview.show(STUDY_UID)
        assert [(row.state, row.proof) for row in shown.deliveries] == [
            ("committed", "commitment"),
            ("pending", ""),
        ]


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (0x0112, CommitmentVerdict.MISSING),
        (0x0110, CommitmentVerdict.TRANSIENT),
        (0x0213, CommitmentVerdict.TRANSIENT),
        (0x0131, CommitmentVerdict.TRANSIENT),
        (None, CommitmentVerdict.TRANSIENT),
        (0x0119, CommitmentVerdict.REFUSED),
        (0x0122, CommitmentVerdict.REFUSED),
    ],
)
def test_failure_reasons_are_read_as_the_standard_defines_them(
    reason: int | None, verdict: CommitmentVerdict
) -> None:
    assert verdict_of(reason) is verdict


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, SendOutcome.SENT),
        (0x0112, SendOutcome.TRANSIENT),
        (0x0213, SendOutcome.TRANSIENT),
        (0x0118, SendOutcome.PERMANENT),
        (0x0123, SendOutcome.PERMANENT),
    ],
)
def test_answers_to_the_question_are_read_as_the_standard_defines_them(
    status: int, outcome: SendOutcome
) -> None:
    assert outcome_of_action(status) is outcome
