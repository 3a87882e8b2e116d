"""An archive that is asked who the patient is, in place of an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from config.sections import Destination, Peer
from node.dicom import content_comparison as likeness
from node.pipeline.archives import ArchiveQueries
from node.pipeline.housekeeping import confirm_identities
from node.pipeline.ports import QueryResult
from node.store.files import ReceivedInstance, sha256_of
from node.store.instances import Receipt
from node.store.store import Store

STUDY = "2.25.300"
NEW = {"PatientID": "MRN-2", "PatientName": "Wang^XiaoDong=王^小东"}


@dataclass
class Archive:
    """Says what it is told to say."""

    said: Mapping[str, str] | None

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        assert study_instance_uid == STUDY
        return self.said


def _image(number: int, **identity: Any) -> ReceivedInstance:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "GB18030"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{STUDY}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    dataset.PatientID, dataset.PatientName = "MRN-1", "Wang^XiaoDong=汪^小东"
    dataset.AccessionNumber = "A1"
    for keyword, value in identity.items():
        setattr(dataset, keyword, value)
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return ReceivedInstance(
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid=dataset.SeriesInstanceUID,
        study_instance_uid=STUDY,
        sop_class_uid=CTImageStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        sha256=sha256_of(buffer.getvalue()),
        content=(buffer.getvalue(),),
        calling_ae="PACS",
        called_ae="OSTEONODE",
        association_id=None,
    )


@pytest.fixture
def come(sqlite_store: Store) -> Callable[..., Receipt]:
    return lambda number, **identity: sqlite_store.instances.receive(_image(number, **identity), likeness)


Come = Callable[..., Receipt]


def _in_force(store: Store) -> set[str]:
    return {likeness.identity_values(path)["PatientID"] for path in store.instances.paths(STUDY)}


def test_what_the_archive_says_too_is_put_in_force(sqlite_store: Store, come: Come) -> None:
    come(1), come(2), come(1, **NEW), come(2, **NEW)
    said = {**NEW, "PatientName": "Wang^XiaoDong^^=王^小东^=", "AccessionNumber": "whatever"}
    assert confirm_identities(sqlite_store, Archive(said)) == 1
    assert _in_force(sqlite_store) == {"MRN-2"}
    assert confirm_identities(sqlite_store, Archive(said)) == 0


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"PatientID": "MRN-2"},
        {**NEW, "PatientID": "MRN-1"},
        {**NEW, "PatientName": "Wang^XiaoDong=汪^小东"},
    ],
    ids=["no answer", "nothing stated", "a part alone", "the old id", "the old name"],
)
def test_anything_else_is_left_to_a_person(
    sqlite_store: Store, come: Come, said: Mapping[str, str] | None
) -> None:
    come(1), come(1, **NEW)
    assert confirm_identities(sqlite_store, Archive(said)) == 0
    assert _in_force(sqlite_store) == {"MRN-1"}
    assert sqlite_store.identities.studies_waiting() == (STUDY,)


def test_half_a_study_waits_for_the_rest(sqlite_store: Store, come: Come) -> None:
    come(1), come(2), come(1, **NEW)
    assert confirm_identities(sqlite_store, Archive(NEW)) == 0
    come(2, **NEW)
    assert confirm_identities(sqlite_store, Archive(NEW)) == 1


def test_a_value_that_was_taken_away_must_be_stated_as_empty(sqlite_store: Store, come: Come) -> None:
    come(1), come(1, AccessionNumber="")
    assert confirm_identities(sqlite_store, Archive({})) == 0
    assert confirm_identities(sqlite_store, Archive({"AccessionNumber": ""})) == 1


def test_without_an_archive_a_person_decides(sqlite_store: Store, come: Come) -> None:
    come(1), come(1, **NEW)
    assert confirm_identities(sqlite_store, ArchiveQueries(ScriptedArchive({}), {})) == 0
    assert sqlite_store.identities.accept(STUDY) == 1


@dataclass
class ScriptedArchive:
    """Answers by AE title."""

    answers: Mapping[str, QueryResult[str]]

    def identify(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[str]:
        assert study_instance_uid == STUDY
        return self.answers[peer.ae_title]

    def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[int]:
        raise AssertionError("nobody asks for numbers here")

    def retrieve(self, peer: Peer | Destination, study_instance_uid: str, series: Sequence[str]) -> str:
        raise AssertionError("nobody asks for images here")


@pytest.mark.parametrize(
    ("first", "second", "confirmed"),
    [
        (QueryResult(matches={}), QueryResult(matches=NEW), 1),
        (QueryResult(matches={"PatientID": "MRN-1"}), QueryResult(matches=NEW), 0),
        (QueryResult(matches=None, problem="no connection"), QueryResult(matches=NEW), 1),
        (QueryResult(matches=None, problem="no connection"), QueryResult(matches={}), 0),
        (QueryResult(matches={}), QueryResult(matches={}), 0),
    ],
    ids=["unknown to the first", "the first disagrees", "the first is away", "nobody", "unknown to all"],
)
def test_the_first_archive_that_knows_the_study_decides(
    sqlite_store: Store, come: Come, first: QueryResult[str], second: QueryResult[str], confirmed: int
) -> None:
    come(1), come(1, **NEW)
    peers = {name: Peer(ae_title=name, host="127.0.0.1", port=104) for name in ("A", "B")}
    archives = ArchiveQueries(ScriptedArchive({"A": first, "B": second}), peers)
    assert confirm_identities(sqlite_store, archives) == confirmed


def test_an_archive_s_note_about_its_correction_needs_no_confirmation(
    sqlite_store: Store, come: Come
) -> None:
    note = Dataset()
    note.ModifyingSystem, note.ReasonForTheAttributeModification = "PACS", "CORRECT"
    come(1), come(1, **NEW, OriginalAttributesSequence=[note])
    assert confirm_identities(sqlite_store, Archive(NEW)) == 1
    assert _in_force(sqlite_store) == {"MRN-2"}


def test_a_note_alone_is_left_to_a_person(sqlite_store: Store, come: Come) -> None:
    note = Dataset()
    note.ModifyingSystem = "PACS"
    come(1), come(1, OriginalAttributesSequence=[note])
    assert confirm_identities(sqlite_store, Archive(NEW)) == 0
