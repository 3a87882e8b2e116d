"""A real PACS says what a study consists of and whose it is: what is missing is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from config.settings import Settings, load_settings
from node.dicom.result_headers import made_here
from node.dicom.uids import mint, to_bytes
from node.net.query import make_archive, make_watch
from node.net.scp import Listener
from node.net.sender import DicomSender, Requestor
from node.pipeline.ports import QueryResult, SendOutcome
from node.pipeline.study_watch import CompletenessWatch
from node.reference.spec import StudySpec
from node.reference.study import uid_of
from node.store.states import StudyState
from node.store.store import Store, open_store
from node.study_report import EncodedObject, ObjectKind
from tests.e2e.conftest import free_port, running_orthanc, storescu
from tests.made_studies import write_reference_study
from tests.waiting import wait_until

SPEC = StudySpec.reduced(seed=41, view=("L3", "L3"))
STUDY_UID = uid_of(SPEC, "study")
NAME = "Wang^XiaoDong=王^小东"
NEVER_S = 3600.0  # neither silence nor slices close a study here


@contextmanager
def receiving(settings: Settings) -> Iterator[tuple[Store, CompletenessWatch, int]]:
    """Listener and watch of a node, on a store of their own."""
    store = open_store(settings.storage)
    listener = Listener(settings.node, store, made_here)
    watch = make_watch(store, settings)
    try:
        yield store, watch, listener.start()
    finally:
        watch.shut()
        listener.stop()
        store.close()


def name_in_chinese(images: list[Path]) -> None:
    for path in images:
        dataset = dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName = "GB18030", NAME
        dcmwrite(path, dataset)


def sr_of(number: int, issued_at: datetime, offset: str, sop_class: str) -> Dataset:
    """As little of a report as an archive needs, with UIDs and times as the node makes them."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.StudyInstanceUID, dataset.Modality = sop_class, STUDY_UID, "SR"
    dataset.PatientID, dataset.PatientName, dataset.SeriesNumber = "4711", "Doe", number
    if offset:
        dataset.TimezoneOffsetFromUTC = offset
    mint([dataset], issued_at)
    return dataset


@pytest.mark.usefixtures("peers")
def test_orthanc_tells_which_reports_it_has_of_this_node(tmp_path: Path) -> None:
    port = free_port()
    settings = load_settings(
        node={"port": 0},
        destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}],
    )
    issued_at = datetime(2026, 3, 1, 11, tzinfo=UTC)
    first = sr_of(1, issued_at, "+0100", Comprehensive3DSRStorage)
    second = sr_of(2, issued_at + timedelta(days=1), "", ComprehensiveSRStorage)
    strange = sr_of(3, issued_at, "", Comprehensive3DSRStorage)
    strange.SeriesInstanceUID = "2.25.4711"  # another maker's
    reports = [
        EncodedObject(
            kind=ObjectKind.STRUCTURED_REPORT,
            file_name="report.dcm",
            sop_class_uid=str(one.SOPClassUID),
            sop_instance_uid=str(one.SOPInstanceUID),
            content=to_bytes(one),
        )
        for one in (first, second, strange)
    ]
    with running_orthanc(tmp_path / "pacs", dicom_port=port, node_port=free_port(), forwards=False):
        archive, pacs = make_archive(settings), settings.destinations[0]
        sent = DicomSender(Requestor(settings.node.ae_title)).send(pacs, reports)
        assert {one.outcome for one in sent} == {SendOutcome.SENT}
        found = archive.find_reports(pacs, STUDY_UID).matches
        assert archive.find_reports(pacs, "2.25.1") == QueryResult(matches={})
    assert found is not None
    assert set(found) == {first.SOPInstanceUID, second.SOPInstanceUID}
    told = found[first.SOPInstanceUID]
    assert (told.sop_class_uid, told.stated_at, told.offset) == (
        Comprehensive3DSRStorage,
        "20260301120000",
        "+0100",
    )
    assert found[second.SOPInstanceUID].sop_class_uid == ComprehensiveSRStorage
    assert found[second.SOPInstanceUID].stated_at == "20260302110000"


@pytest.mark.usefixtures("peers")
def test_orthanc_tells_what_is_missing_sends_it_and_closes_the_study_by_its_counts(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_reference_study(study, SPEC)
    images = sorted(study.glob("*.dcm"))
    name_in_chinese(images)
    port = free_port()
    rules = {"confirm_s": 0.5, "quiet_s": NEVER_S, "quiet_whole_s": NEVER_S, "fetch": True}
    settings = load_settings(
        node={"port": 0},
        storage={"root": str(tmp_path / "var")},
        completeness={**rules, "fetch_after_s": 2.0, "quiet_pauses": 0.0},
        destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}],
    )
    with (
        receiving(settings) as (store, watch, node_port),
        running_orthanc(tmp_path / "pacs", dicom_port=port, node_port=node_port, forwards=False) as orthanc,
    ):
        storescu(study, "PACS", port)
        (series,) = orthanc.series("CT")
        (series_uid, archive) = series["MainDicomTags"]["SeriesInstanceUID"], make_archive(settings)
        pacs = settings.destinations[0]
        assert archive.count_ct_images(pacs, STUDY_UID) == QueryResult(matches={series_uid: len(images)})
        assert archive.count_ct_images(pacs, "2.25.1") == QueryResult(matches={})
        who = archive.identify(pacs, STUDY_UID).matches or {}
        assert (who["PatientName"], who["PatientID"]) == (NAME, SPEC.patient_id)
        assert archive.identify(pacs, "2.25.1") == QueryResult(matches={})

        images[-1].rename(images[-1].with_suffix(".kept"))
        storescu(study, "OSTEONODE", node_port)
        missing = f"pacs holds {len(images)} images of 1 CT series, {len(images) - 1} arrived"
        wait_until(
            lambda: watch.close_studies() or missing in store.overview.list()[0].reason, "the missing one"
        )
        assert store.overview.list()[0].state == StudyState.RECEIVING
        wait_until(watch.close_studies, "Orthanc to send it, and the study to be closed")
        summary, detail = store.overview.list()[0], store.overview.show(STUDY_UID)
    assert summary.images == len(images)
    assert [job.closed_by for job in detail.jobs] == ["counts"]
    assert summary.reason == f"closed: pacs counts {len(images)} CT images, and all of them are here"
