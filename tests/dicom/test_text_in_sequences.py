"""Text where a sequence belongs counts as absent, wherever it is read: no crash, no items made of letters."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from node.dicom.content_comparison import identity_difference, identity_values
from node.dicom.errors import SegUnusable
from node.dicom.header_text import drop_non_sequences, items_of
from node.dicom.result_headers import copy_identity, made_here
from node.dicom.seg.vertebra_masks import read_segmentation
from node.net.commitment import MessageInvalid, references_in

# What the library makes of these in implicit VR: items of odd tags, no items, and an error.
TEXTS = ("Vendor header anonymizer", "CT LSPINE", "AB")


def _text(keyword: str, value: str) -> DataElement:
    return DataElement(Tag(keyword), "LO", value)


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _as_file(dataset: Dataset, *, implicit: bool) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()


def _read(dataset: Dataset, *, implicit: bool) -> Dataset:
    return dcmread(BytesIO(_as_file(dataset, implicit=implicit)))


@pytest.fixture(params=[False, True], ids=["explicit", "implicit"])
def implicit(request) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_text_holds_no_items(text, implicit):
    dataset = Dataset()
    dataset.add(_text("ProcedureCodeSequence", text))
    assert items_of(_read(dataset, implicit=implicit), "ProcedureCodeSequence") == ()


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_dropped_with_its_name_and_sequences_stay(text, implicit):
    dataset = Dataset()
    dataset.add(_text("DeidentificationMethodCodeSequence", text))
    dataset.RequestAttributesSequence = [_item(ScheduledProcedureStepID="1"), _item(RequestedProcedureID="2")]
    dataset.RequestAttributesSequence[0].add(_text("RequestedProcedureCodeSequence", text))
    dataset.OtherPatientIDsSequence = [_item(PatientID="7")]
    read = _read(dataset, implicit=implicit)
    dropped = drop_non_sequences(read)
    assert dropped == {"DeidentificationMethodCodeSequence", "RequestAttributesSequence"}
    assert "DeidentificationMethodCodeSequence" not in read
    first, second = items_of(read, "RequestAttributesSequence")
    assert "RequestedProcedureCodeSequence" not in first
    assert (first.ScheduledProcedureStepID, second.RequestedProcedureID) == ("1", "2")
    assert items_of(read, "OtherPatientIDsSequence")[0].PatientID == "7"


def test_a_sequence_where_text_belongs_is_dropped():
    dataset = Dataset()
    dataset.add(DataElement(Tag("PatientID"), "SQ", [_item(PatientID="7")]))
    assert drop_non_sequences(_read(dataset, implicit=False)) == {"PatientID"}


@pytest.mark.parametrize("text", TEXTS)
def test_identity_is_copied_without_text_in_place_of_sequences(text, implicit):
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.PatientID = "1.2.3.4", "PID-1"
    dataset.add(_text("IssuerOfAccessionNumberSequence", text))
    dataset.OtherPatientIDsSequence = [_item(PatientID="7")]
    dataset.OtherPatientIDsSequence[0].add(_text("IssuerOfPatientIDQualifiersSequence", text))
    target = Dataset()
    copy_identity(_read(dataset, implicit=implicit), target)
    written = _read(target, implicit=False)
    assert written.PatientID == "PID-1"
    assert "IssuerOfAccessionNumberSequence" not in written
    (other,) = written.OtherPatientIDsSequence
    assert other.PatientID == "7"
    assert "IssuerOfPatientIDQualifiersSequence" not in other


@pytest.mark.parametrize("text", TEXTS)
def test_an_object_with_text_as_its_equipment_is_not_ours(text, implicit):
    dataset = Dataset()
    dataset.add(_text("ContributingEquipmentSequence", text))
    assert not made_here(_read(dataset, implicit=implicit))


@pytest.mark.parametrize("text", TEXTS)
def test_files_with_text_in_a_sequence_are_compared_and_told(tmp_path, text, implicit):
    paths = [tmp_path / "one.dcm", tmp_path / "other.dcm"]
    for path, patient in zip(paths, ("PID-1", "PID-2"), strict=True):
        dataset = Dataset()
        dataset.PatientID = patient
        dataset.add(_text("IssuerOfAccessionNumberSequence", text))
        path.write_bytes(_as_file(dataset, implicit=implicit))
    assert identity_difference(paths[0], paths[0]) == frozenset()
    assert identity_difference(*paths) == {"PatientID"}
    assert identity_values(paths[0])["PatientID"] == "PID-1"


@pytest.mark.parametrize(
    "keyword", ["ReferencedSeriesSequence", "SegmentSequence", "PerFrameFunctionalGroupsSequence"]
)
def test_a_segmentation_with_text_in_a_sequence_is_refused_with_a_reason(study, tmp_path, keyword, implicit):
    path: Path = tmp_path / "seg.dcm"
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.FrameOfReferenceUID = study.series.headers[0].FrameOfReferenceUID
    dataset.ReferencedSeriesSequence = [_item(SeriesInstanceUID=study.series.facts.series_instance_uid)]
    dataset.add(_text(keyword, "CT LSPINE"))
    content = _read(dataset, implicit=implicit)
    content.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    content.save_as(path)
    with pytest.raises(SegUnusable):
        read_segmentation(path, study.series, {})


@pytest.mark.parametrize("text", TEXTS)
def test_a_storage_commitment_of_text_is_invalid(text, implicit):
    dataset = Dataset()
    dataset.add(_text("ReferencedSOPSequence", text))
    with pytest.raises(MessageInvalid, match="ReferencedSOPSequence is not a sequence"):
        references_in(_read(dataset, implicit=implicit), "ReferencedSOPSequence")
