"""A rejection note: a Key Object Selection that names objects which no viewer shall show any more.

IHE Radiology, Imaging Object Change Management (RAD-66): an archive that supports it hides what is named. The
pictures and the segmentation of an amended report cannot name what they replace; this can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset, dcmread

from node.dicom import codes
from node.dicom.equipment import MANUFACTURER, NOTE_DESCRIPTION, NOTE_SERIES
from node.dicom.identity import copy_identity, without_identity
from node.dicom.uids import derived_uid, mint, to_bytes
from node.study_report import EncodedObject, ObjectKind

_OF_THE_REPORT = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "ContributingEquipmentSequence",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedObject:
    """What is to be rejected and is no longer here."""

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
    """The note that goes with a report which takes the place of earlier objects of its study.

    Parameters
    ----------
    report : the structured report of now; whose patient and study it is, and who made it, is copied from it.
    rejected : what it replaces, at least one.
    issued_at : of the report, aware.
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
    for keyword in _OF_THE_REPORT:
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
