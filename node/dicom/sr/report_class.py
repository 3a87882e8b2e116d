"""The report in another SR class, for a PACS that does not take Comprehensive 3D SR.

Another class is another instance: its UID follows from content, issue time and class, so that it is the same
bytes whenever it is made. The content is the same: it holds nothing that the lesser classes forbid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from node.dicom.errors import ObjectInvalid
from node.dicom.uids import mint, series_uid_of, to_bytes
from node.study_report import EncodedObject

# By the names of `destinations.sr_class`, the richest first.
SR_CLASSES: Mapping[str, UID] = {
    "comprehensive3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
}


_THREE_DIMENSIONAL = "SCOORD3D"  # the value type that Comprehensive 3D SR alone has: PS3.3 A.35.13


def report_as(
    report: EncodedObject, sr_class: str, *, issued_at: datetime, predecessor_uid: str | None
) -> EncodedObject:
    """The same report in another class.

    Parameters
    ----------
    sr_class : a name of SR_CLASSES.
    issued_at : of the report, aware.
    predecessor_uid : the predecessor in this class, where a destination has that; None to name it as `report`
        does.

    Raises
    ------
    ObjectInvalid
        If the content cannot be held by the class.
    """
    dataset = dcmread(BytesIO(report.content))
    if any(item.get("ValueType") == _THREE_DIMENSIONAL for item in _items(dataset)):
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


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence") or ():
        yield item
        yield from _items(item)
