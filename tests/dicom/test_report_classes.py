"""The report in the SR class that a destination accepts: another instance, the same content, never two."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from config.sections import Destination
from config.settings import Settings, load_settings
from node.dicom.conformance import check_object
from node.dicom.destination_objects import SR_CLASSES, report_as
from node.dicom.encode import encode_report
from node.dicom.errors import ObjectInvalid
from node.dicom.uids import series_uid_of, to_bytes
from node.net.query import DicomProver
from node.net.sender import DicomSender, Requestor
from node.pipeline.artefacts import StoredArtefacts
from node.pipeline.delivery import Delivered, DeliveryPending, deliver
from node.store.files import ReceivedInstance, sha256_of
from node.store.jobs import MadeObject
from node.store.states import DeliveryState, StudyState
from node.store.store import Store, open_store
from node.study_report import EncodedObject, ObjectKind, Report
from tests.claiming import claim
from tests.closing import close_due
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow

ISSUED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LESSER = ("comprehensive", "enhanced")
VARIANTS = ("complete", "refused", "amended")


@pytest.fixture(scope="module")
def reports(study: Any, variants: Mapping[str, Report]) -> dict[str, tuple[EncodedObject, ...]]:
    """Segmentation and report, the latter in its first class."""
    return {
        name: tuple(
            one
            for one in encode_report(
                variants[name],
                study.series.headers,
                series=study.series,
                vertebrae=study.vertebrae,
                regions=study.regions,
            ).objects
            if one.kind is not ObjectKind.PICTURE
        )
        for name in VARIANTS
    }


def report_in(objects: Sequence[EncodedObject]) -> EncodedObject:
    (found,) = [one for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT]
    return found


def read(one: EncodedObject) -> Dataset:
    return dcmread(BytesIO(one.content))


@pytest.mark.parametrize("sr_class", LESSER)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_report_in_a_lesser_class_is_valid(
    reports: Mapping[str, tuple[EncodedObject, ...]],
    dciodvfy: Path,
    tmp_path: Path,
    variant: str,
    sr_class: str,
) -> None:
    made = report_as(report_in(reports[variant]), sr_class, issued_at=ISSUED_AT, predecessor_uid=None)
    check_object(made.content)
    path = tmp_path / made.file_name
    path.write_bytes(made.content)
    run = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if line.startswith("Error")] == []


def test_each_class_is_an_instance_of_its_own_with_the_same_content(
    reports: Mapping[str, tuple[EncodedObject, ...]],
) -> None:
    first = report_in(reports["complete"])
    made = [report_as(first, name, issued_at=ISSUED_AT, predecessor_uid=None) for name in LESSER]
    assert len({one.sop_instance_uid for one in (first, *made)}) == 3
    assert [one.sop_class_uid for one in made] == [ComprehensiveSRStorage, EnhancedSRStorage]
    for one in made:
        assert read(one).ContentSequence == read(first).ContentSequence
        assert read(one).SOPInstanceUID == one.sop_instance_uid
        assert read(one).SeriesInstanceUID == series_uid_of([one.sop_instance_uid])


@pytest.mark.parametrize("sr_class", LESSER)
def test_a_report_is_made_in_a_class_with_the_same_bytes_each_time(
    reports: Mapping[str, tuple[EncodedObject, ...]], sr_class: str
) -> None:
    first = report_in(reports["complete"])
    once, again = (report_as(first, sr_class, issued_at=ISSUED_AT, predecessor_uid=None) for _ in range(2))
    assert once == again


def test_an_amended_report_names_the_predecessor_in_its_own_class(
    reports: Mapping[str, tuple[EncodedObject, ...]],
) -> None:
    first = report_in(reports["amended"])
    made = report_as(first, "comprehensive", issued_at=ISSUED_AT, predecessor_uid="2.25.77")
    (before,) = read(made).PredecessorDocumentsSequence
    (series,) = before.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert (instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID) == (
        ComprehensiveSRStorage,
        "2.25.77",
    )
    assert series.SeriesInstanceUID == series_uid_of(["2.25.77"])
    unchanged = report_as(first, "comprehensive", issued_at=ISSUED_AT, predecessor_uid=None)
    assert read(unchanged).PredecessorDocumentsSequence == read(first).PredecessorDocumentsSequence


def test_coordinates_in_space_are_not_put_into_a_lesser_class(
    reports: Mapping[str, tuple[EncodedObject, ...]],
) -> None:
    first = report_in(reports["complete"])
    dataset = read(first)
    dataset.ContentSequence[-1].ContentSequence[0].ValueType = "SCOORD3D"
    spatial = replace(first, content=to_bytes(dataset))
    with pytest.raises(ObjectInvalid):
        report_as(spatial, "enhanced", issued_at=ISSUED_AT, predecessor_uid=None)


@contextmanager
def pacs(*sop_classes: UID, refuse: UID | None = None) -> Iterator[tuple[int, list[str]]]:
    """A PACS that accepts these classes, and stores none of `refuse`; gives its port and what it took."""
    taken: list[str] = []

    def store(event: Any) -> int:
        if event.request.AffectedSOPClassUID == refuse:
            return 0x0122
        taken.append(str(event.request.AffectedSOPClassUID))
        return 0x0000

    ae = AE("PACS")
    for sop_class in (Verification, *sop_classes):
        ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield int(server.server_address[1]), taken
    ae.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(storage={"root": str(tmp_path / "var")})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.storage)
    yield opened
    opened.close()


@pytest.fixture
def run(
    store: Store, settings: Settings, reports: Mapping[str, tuple[EncodedObject, ...]]
) -> Callable[..., Delivered | DeliveryPending]:
    """Deliver the complete report, again and again until nothing waits; leases are taken anew each time."""
    content = (b"header", b"pixels")
    store.instances.receive(
        ReceivedInstance(
            sop_instance_uid="2.25.2",
            series_instance_uid="2.25.3",
            study_instance_uid="2.25.4",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=sha256_of(content[-1]),
            content=content,
            calling_ae="PACS",
            called_ae="OSTEONODE",
            association_id=None,
        )
    )
    (job,) = close_due(store, first_step="report", quiet_s=0, stale_s=20)
    held = claim(store, job)
    store.reports.issue(held)
    objects = reports["complete"]
    for one in objects:
        StoredArtefacts(store, held, {}).put(one.file_name, one.content)
    made = [
        MadeObject(
            sop_instance_uid=one.sop_instance_uid,
            sop_class_uid=one.sop_class_uid,
            kind=one.kind.value,
            artefact=one.file_name,
            is_report=one.kind is ObjectKind.STRUCTURED_REPORT,
        )
        for one in objects
    ]
    job = store.jobs.advance(held, "deliver", made)
    lease = claim(store, job)

    def deliver_all(*destinations: Destination, rounds: int = 4) -> Delivered | DeliveryPending:
        requestor = Requestor("OSTEONODE", connect_timeout_s=LIMIT_S, answer_timeout_s=LIMIT_S)
        outcome: Delivered | DeliveryPending = DeliveryPending(reason="")
        for _ in range(rounds):
            if isinstance(outcome, Delivered):
                break
            outcome = deliver(
                store=store,
                lease=lease,
                artefacts=StoredArtefacts(store, lease, {}),
                objects=objects,
                destinations=destinations,
                sender=DicomSender(requestor),
                prover=DicomProver(
                    requestor,
                    lambda uid, reported: store.commitment_transactions.record(
                        uid, reported, ask_again_in_s=1.0
                    ),
                ),
                settings=settings.worker,
            )
        return outcome

    return deliver_all


def to(port: int, name: str = "pacs", **options: str) -> Destination:
    return Destination(name=name, ae_title="PACS", host="127.0.0.1", port=port, **options)  # type: ignore[arg-type]


def reports_at(store: Store, destination: str) -> list[tuple[str, str]]:
    rows = store.overview.show("2.25.4").deliveries
    return [
        (row.artefact, row.state)
        for row in rows
        if row.destination == destination and row.artefact.startswith("report")
    ]


@pytest.mark.parametrize(
    ("accepted", "file_name"),
    [
        ([Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage], "report.dcm"),
        ([ComprehensiveSRStorage, EnhancedSRStorage], "report-comprehensive.dcm"),
        ([EnhancedSRStorage], "report-enhanced.dcm"),
    ],
)
def test_a_destination_gets_the_richest_class_that_it_accepts_and_no_other(
    run: Callable[..., Any], store: Store, accepted: list[UID], file_name: str
) -> None:
    with pacs(SegmentationStorage, *accepted) as (port, taken):
        outcome = run(to(port))
    assert outcome.state is StudyState.SENT
    assert sorted(taken) == sorted([SegmentationStorage, accepted[0]])
    assert reports_at(store, "pacs") == [(file_name, DeliveryState.SENT)]


def test_a_class_that_is_accepted_and_then_refused_gives_way_as_well(
    run: Callable[..., Any], store: Store
) -> None:
    accepted = (SegmentationStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage)
    with pacs(*accepted, refuse=Comprehensive3DSRStorage) as (port, taken):
        run(to(port))
    assert sorted(taken) == sorted([SegmentationStorage, ComprehensiveSRStorage])
    assert reports_at(store, "pacs") == [("report-comprehensive.dcm", DeliveryState.SENT)]


def test_a_destination_without_any_of_the_classes_is_a_dead_letter(
    run: Callable[..., Any], store: Store
) -> None:
    with pacs(SegmentationStorage) as (port, _):
        outcome = run(to(port))
    assert outcome.state is StudyState.UNDELIVERED
    assert "the peer does not accept this SOP class" in outcome.reason
    assert reports_at(store, "pacs") == [("report.dcm", DeliveryState.FAILED)]


@pytest.mark.parametrize("sr_class", list(SR_CLASSES))
def test_a_class_that_a_site_names_is_sent_and_no_other(
    run: Callable[..., Any], store: Store, sr_class: str
) -> None:
    with pacs(SegmentationStorage, *SR_CLASSES.values()) as (port, taken):
        run(to(port, sr_class=sr_class))
    assert sorted(taken) == sorted([SegmentationStorage, SR_CLASSES[sr_class]])
    assert len(reports_at(store, "pacs")) == 1


def test_destinations_get_their_own_classes_beside_each_other(run: Callable[..., Any], store: Store) -> None:
    with (
        pacs(SegmentationStorage, Comprehensive3DSRStorage) as (first, _),
        pacs(SegmentationStorage, EnhancedSRStorage) as (second, _),
    ):
        outcome = run(to(first), to(second, name="archive"))
    assert outcome.state is StudyState.SENT
    assert reports_at(store, "pacs") == [("report.dcm", DeliveryState.SENT)]
    assert reports_at(store, "archive") == [("report-enhanced.dcm", DeliveryState.SENT)]


def test_a_class_named_after_a_refusal_takes_the_place_of_the_one_refused(
    run: Callable[..., Any], store: Store
) -> None:
    with pacs(SegmentationStorage, ComprehensiveSRStorage) as (port, taken):
        run(to(port, sr_class="comprehensive3d"))
        assert reports_at(store, "pacs") == [("report.dcm", DeliveryState.FAILED)]
        run(to(port, sr_class="comprehensive"))
    assert reports_at(store, "pacs") == [("report-comprehensive.dcm", DeliveryState.SENT)]
    assert taken.count(ComprehensiveSRStorage) == 1
