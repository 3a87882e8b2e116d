"""Objects that are made for one destination: the report in a lesser SR class, and the rejection note.

A PACS may not take Comprehensive 3D SR. The report in another class is another instance: its UID follows from
content, issue time and class, so that it is the same bytes whenever it is made. The content stays the same:
it holds nothing that the lesser classes forbid.

A rejection note is a Key Object Selection that names objects which no viewer shall show any more (IHE
Radiology, Imaging Object Change Management, RAD-66): an archive that supports it hides what is named. The
pictures and the segmentation of an amended report cannot name what they replace; the note can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset, dcmread
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from node.dicom import codes
from node.dicom.errors import ObjectInvalid
from node.dicom.result_headers import (
    MANUFACTURER,
    NOTE_DESCRIPTION,
    NOTE_SERIES,
    copy_identity,
    without_identity,
)
from node.dicom.uids import derived_uid, mint, series_uid_of, to_bytes
from node.study_report import EncodedObject, ObjectKind

# By the values of the setting `destinations.sr_class`, the richest first.
SR_CLASSES: Mapping[str, UID] = {
    "comprehensive3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
}
_COPIED_FROM_REPORT = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "ContributingEquipmentSequence",
)


def report_as(
    report: EncodedObject, sr_class: str, *, issued_at: datetime, predecessor_uid: str | None
) -> EncodedObject:
    """The report in another SR class, with the same content.

    Parameters
    ----------
    report : the structured report as it was encoded first.
    sr_class : a name of `SR_CLASSES`.
    issued_at : when the report was issued; aware.
    predecessor_uid : SOP Instance UID of the predecessor in this class, where the destination holds one; None
        to name it as `report` does.

    Raises
    ------
    ObjectInvalid
        If the class cannot hold the content (PS3.3 A.35.13: only Comprehensive 3D SR has SCOORD3D).
    """
    dataset = dcmread(BytesIO(report.content))
    if any(item.get("ValueType") == "SCOORD3D" for item in _content_items(dataset)):
        raise ObjectInvalid((f"the report holds coordinates in space, which {sr_class} SR cannot",))
    dataset.SOPClassUID = SR_CLASSES[sr_class]
    if predecessor_uid is not None:
        for study in dataset.get("PredecessorDocumentsSequence") or ():
            (series,) = study.ReferencedSeriesSequence
            (instance,) = series.ReferencedSOPSequence
            instance.ReferencedSOPClassUID = SR_CLASSES[sr_class]
            instance.ReferencedSOPInstanceUID = predecessor_uid
            series.SeriesInstanceUID = series_uid_of([predecessor_uid])
    mint([dataset], issued_at, variant=sr_class)
    return EncodedObject(
        kind=report.kind,
        file_name=f"report-{sr_class}.dcm",
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        content=to_bytes(dataset),
    )


def _content_items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence") or ():
        yield item
        yield from _content_items(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedObject:
    """An object that is to be rejected and is no longer stored here.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, series_instance_uid : by which the note refers to it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def encode_rejection_note(
    report: EncodedObject,
    rejected: Sequence[EncodedObject | RemovedObject],
    *,
    issued_at: datetime,
    file_name: str,
) -> EncodedObject:
    """The note that goes with a report that replaces earlier objects of its study.

    Parameters
    ----------
    report : the structured report that replaces them. Patient, study and equipment are copied from it.
    rejected : the objects that it replaces; at least one.
    issued_at : when the report was issued; aware.
    file_name : of the note.

    Raises
    ------
    IdentityMissing
        If the report has no Study Instance UID.
    """
    source = dcmread(BytesIO(report.content))
    evidence = [without_identity(_header(one, source)) for one in rejected]
    dataset = KeyObjectSelectionDocument(
        evidence=evidence,
        content=KeyObjectSelection(
            document_title=codes.REJECTED,
            referenced_objects=evidence,
            description="Replaced by an amended report of the same study. Research use only.",
        ),
        series_instance_uid=derived_uid("placeholder"),
        series_number=NOTE_SERIES,
        sop_instance_uid=derived_uid("placeholder"),
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    copy_identity(source, dataset)
    for keyword in _COPIED_FROM_REPORT:
        dataset[keyword] = source[keyword]
    dataset.SeriesDescription = NOTE_DESCRIPTION
    mint([dataset], issued_at)
    return EncodedObject(
        kind=ObjectKind.REJECTION_NOTE,
        file_name=file_name,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        content=to_bytes(dataset),
    )


def _header(one: EncodedObject | RemovedObject, report: Dataset) -> Dataset:
    if isinstance(one, EncodedObject):
        return dcmread(BytesIO(one.content), stop_before_pixels=True)
    header = Dataset()  # a note names study, series, class and instance, and nothing else
    header.StudyInstanceUID = report.StudyInstanceUID
    header.SeriesInstanceUID = one.series_instance_uid
    header.SOPClassUID, header.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return header
