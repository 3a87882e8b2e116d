"""The rejection note that goes with an amended report, where a destination is configured to get one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from config.sections import Destination
from config.settings import Settings, load_settings
from node.dicom.conformance import check_object
from node.dicom.destination_objects import encode_rejection_note
from node.dicom.encode import encode_report
from node.dicom.errors import ObjectInvalid
from node.dicom.result_headers import NOTE_DESCRIPTION, NOTE_SERIES
from node.dicom.uids import to_bytes
from node.net.query import DicomProver
from node.net.sender import DicomSender, Requestor
from node.pipeline.artefacts import MANIFEST, StoredArtefacts, store_objects
from node.pipeline.delivery import Delivered, deliver
from node.store.files import ReceivedInstance, sha256_of
from node.store.jobs import MadeObject
from node.store.schema import deliveries, studies
from node.store.states import DeliveryState, StudyState
from node.store.store import Store, open_store
from node.study_report import EncodedObject, ObjectKind, Report
from tests.claiming import claim
from tests.closing import close_due
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow

ISSUED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDY = "2.25.4"


@pytest.fixture(scope="module")
def generations(study: Any, variants: Mapping[str, Report]) -> list[tuple[EncodedObject, ...]]:
    """What three generations of one study send, each issued an hour after the one before."""
    report = variants["complete"]
    return [
        encode_report(
            replace(report, issued_at=report.issued_at + timedelta(hours=number)),
            study.series.headers,
            series=study.series,
            vertebrae=study.vertebrae,
            regions=study.regions,
        ).objects
        for number in range(3)
    ]


def report_of(objects: Sequence[EncodedObject]) -> EncodedObject:
    return next(one for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT)


@pytest.fixture(scope="module")
def note(generations: Sequence[tuple[EncodedObject, ...]]) -> EncodedObject:
    earlier, now, _ = generations
    return encode_rejection_note(report_of(now), earlier, issued_at=ISSUED_AT, file_name="note.dcm")


def rejected_by(content: bytes) -> list[str]:
    """SOP Instance UIDs in the note's content, and the same in its evidence."""
    dataset = dcmread(BytesIO(content))
    named = [
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in dataset.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]
    evident = [
        str(one.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]
    assert sorted(named) == sorted(evident)
    return named


def test_a_note_names_every_object_that_was_replaced_and_nothing_else(
    note: EncodedObject, generations: Sequence[tuple[EncodedObject, ...]]
) -> None:
    assert sorted(rejected_by(note.content)) == sorted(one.sop_instance_uid for one in generations[0])
    dataset = dcmread(BytesIO(note.content))
    title = dataset.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    assert (dataset.Modality, dataset.SeriesNumber) == ("KO", NOTE_SERIES)
    assert dataset.SeriesDescription == NOTE_DESCRIPTION
    of_series = {
        str(series.SeriesInstanceUID): {
            str(one.ReferencedSOPInstanceUID) for one in series.ReferencedSOPSequence
        }
        for series in dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    }
    for one in generations[0]:
        header = dcmread(BytesIO(one.content), stop_before_pixels=True)
        assert one.sop_instance_uid in of_series[str(header.SeriesInstanceUID)]


def test_a_note_has_no_error_by_dciodvfy_and_passes_the_gate(
    note: EncodedObject, dciodvfy: Path, tmp_path: Path
) -> None:
    check_object(note.content)
    path = tmp_path / "note.dcm"
    path.write_bytes(note.content)
    run = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if line.startswith("Error")] == []


def test_the_gate_stops_a_note_that_rejects_nothing(note: EncodedObject) -> None:
    dataset = dcmread(BytesIO(note.content))
    dataset.ConceptNameCodeSequence[0].CodeValue = "113000"
    with pytest.raises(ObjectInvalid, match="does not reject"):
        check_object(to_bytes(dataset))


def test_a_note_is_of_the_same_patient_and_study_and_is_the_same_bytes_each_time(
    note: EncodedObject, generations: Sequence[tuple[EncodedObject, ...]]
) -> None:
    earlier, now, _ = generations
    again = encode_rejection_note(report_of(now), earlier, issued_at=ISSUED_AT, file_name="note.dcm")
    assert again.content == note.content
    made, report = dcmread(BytesIO(note.content)), dcmread(BytesIO(report_of(now).content))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "Manufacturer"):
        assert made[keyword].value == report[keyword].value


@dataclass
class Pacs:
    port: int
    taken: list[Dataset] = field(default_factory=list)

    def destination(self, *, rejection_note: bool) -> Destination:
        return Destination(
            name=f"pacs {rejection_note}", ae_title="PACS", host="127.0.0.1", port=self.port,
            rejection_note=rejection_note,
        )  # fmt: skip

    def take(self) -> list[Dataset]:
        """What came since this was asked last, in its order."""
        came, self.taken[:] = list(self.taken), []
        return came


@contextmanager
def pacs() -> Iterator[Pacs]:
    found = Pacs(port=0)

    def store(event: Any) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        found.taken.append(dataset)
        return 0x0000

    ae = AE("PACS")
    for sop_class in (
        Verification, Comprehensive3DSRStorage, SegmentationStorage, SecondaryCaptureImageStorage,
        KeyObjectSelectionDocumentStorage,
    ):  # fmt: skip
        ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    found.port = int(server.server_address[1])
    yield found
    ae.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(storage={"root": str(tmp_path / "var")})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.storage)
    yield opened
    opened.close()


def _arrive(store: Store, number: int) -> None:
    content = (b"header", f"pixels {number}".encode())
    store.instances.receive(
        ReceivedInstance(
            sop_instance_uid=f"2.25.2{number}",
            series_instance_uid="2.25.3",
            study_instance_uid=STUDY,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=sha256_of(content[-1]),
            content=content,
            calling_ae="PACS",
            called_ae="OSTEONODE",
            association_id=None,
        )
    )


@pytest.fixture
def deliver_next(
    store: Store, settings: Settings, generations: Sequence[tuple[EncodedObject, ...]]
) -> Callable[..., None]:
    """Another image arrives, and the next generation goes to the destinations."""
    number = 0

    def run(*destinations: Destination, rounds: int = 1) -> None:
        nonlocal number
        _arrive(store, number)
        objects = generations[number]
        number += 1
        (job,) = close_due(store, first_step="report", quiet_s=0, stale_s=20)
        held = claim(store, job)
        store.reports.issue(held)
        store_objects(StoredArtefacts(store, held, {}), objects)
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
        lease = claim(store, store.jobs.advance(held, "deliver", made))
        requestor = Requestor("OSTEONODE", connect_timeout_s=LIMIT_S, answer_timeout_s=LIMIT_S)
        for _ in range(rounds):
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
            assert isinstance(outcome, Delivered)
            assert outcome.state is StudyState.SENT
        store.jobs.finish(lease, StudyState.SENT, "")

    return run


def test_the_note_follows_the_amended_report_and_goes_only_where_it_is_wanted(
    deliver_next: Callable[..., None], generations: Sequence[tuple[EncodedObject, ...]]
) -> None:
    with pacs() as wanting, pacs() as other:
        destinations = wanting.destination(rejection_note=True), other.destination(rejection_note=False)
        deliver_next(*destinations)
        assert [one.Modality for one in wanting.take()] == ["SEG", "SR", "OT", "OT", "OT", "OT"]
        other.take()
        deliver_next(*destinations)
        *objects, sent = wanting.take()
        assert [one.Modality for one in objects] == ["SEG", "SR", "OT", "OT", "OT", "OT"]
        assert sent.Modality == "KO"
        assert sorted(rejected_by(to_bytes(sent))) == sorted(one.sop_instance_uid for one in generations[0])
        assert "KO" not in {one.Modality for one in other.take()}


def test_each_note_names_what_the_one_before_did_not(
    deliver_next: Callable[..., None], generations: Sequence[tuple[EncodedObject, ...]]
) -> None:
    with pacs() as found:
        destination = found.destination(rejection_note=True)
        for _ in range(3):
            deliver_next(destination)
        notes = [one for one in found.take() if one.Modality == "KO"]
        assert [sorted(rejected_by(to_bytes(one))) for one in notes] == [
            sorted(one.sop_instance_uid for one in earlier) for earlier in generations[:2]
        ]


def test_a_note_names_what_retention_has_removed_meanwhile(
    deliver_next: Callable[..., None], generations: Sequence[tuple[EncodedObject, ...]], store: Store
) -> None:
    with pacs() as found:
        destination = found.destination(rejection_note=True)
        deliver_next(destination)
        with store.database.writing() as connection:  # this archive proves nothing
            connection.execute(deliveries.update().values(state=DeliveryState.COMMITTED))
            connection.execute(studies.update().values(state=StudyState.DELIVERED))
        assert store.retention.remove_results(STUDY, kept=[MANIFEST]) == len(generations[0])
        with store.database.writing() as connection:
            connection.execute(deliveries.update().values(state=DeliveryState.SENT))
        assert found.take()
        deliver_next(destination)
        (sent,) = [one for one in found.take() if one.Modality == "KO"]
    assert sorted(rejected_by(to_bytes(sent))) == sorted(one.sop_instance_uid for one in generations[0])
    series = {
        str(dcmread(BytesIO(one.content), stop_before_pixels=True).SeriesInstanceUID)
        for one in generations[0]
    }
    named = sent.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {str(one.SeriesInstanceUID) for one in named} == series


def test_a_destination_that_has_nothing_of_before_gets_no_note(deliver_next: Callable[..., None]) -> None:
    with pacs() as first, pacs() as later:
        deliver_next(first.destination(rejection_note=False))
        deliver_next(later.destination(rejection_note=True))
        assert {one.Modality for one in later.take()} == {"SEG", "SR", "OT"}


def test_a_note_that_was_taken_is_not_sent_again(deliver_next: Callable[..., None]) -> None:
    with pacs() as found:
        destination = found.destination(rejection_note=True)
        deliver_next(destination)
        deliver_next(destination, rounds=3)
        assert [one.Modality for one in found.take()].count("KO") == 1
