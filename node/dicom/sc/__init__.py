"""Pictures of a report as Secondary Captures: to be read, without geometry that a viewer could measure in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from node.dicom.result_headers import PICTURE_DESCRIPTION, PICTURE_SERIES, apply_equipment, copy_identity
from node.dicom.uids import mint, to_bytes
from node.study_report import EncodedObject, ObjectKind, Report

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One page of the picture series.

    Attributes
    ----------
    name : "answer", "nomogram", "overlay", "calibration" or "refusal"; part of the file's name.
    title : shown by viewers beside the thumbnail.
    pixels : RGB, uint8, shape (rows, columns, 3).
    """

    name: str
    title: str
    pixels: Pixels


def encode_pictures(
    report: Report, source: Dataset, pictures: Sequence[Picture]
) -> tuple[EncodedObject, ...]:
    """All pictures of a report as one series, in order.

    Parameters
    ----------
    source : header of a source image, whose patient and study are copied.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.

    Source: PS3.3 A.8.1 (Secondary Capture Image).
    """
    datasets = [_secondary_capture(report, source, p, number) for number, p in enumerate(pictures, start=1)]
    mint(datasets, report.issued_at)
    return tuple(
        EncodedObject(
            kind=ObjectKind.PICTURE,
            file_name=f"nomogram-{dataset.InstanceNumber}-{picture.name}.dcm",
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            content=to_bytes(dataset),
        )
        for dataset, picture in zip(datasets, pictures, strict=True)
    )


def _secondary_capture(report: Report, source: Dataset, picture: Picture, number: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    copy_identity(source, dataset)
    apply_equipment(dataset, report, series_number=PICTURE_SERIES, description=PICTURE_DESCRIPTION)
    # SC is what an archive treats as "other": it is no CT, and no viewer shall measure in it.
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.InstanceNumber = number
    dataset.BodyPartExamined = "LSPINE"  # unpaired: no laterality is required
    dataset.PatientOrientation = ""
    dataset.BurnedInAnnotation = "YES"
    dataset.DateOfSecondaryCapture = dataset.TimeOfSecondaryCapture = ""
    dataset.ImageComments = picture.title
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = picture.pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "00"
    dataset.PixelData = np.ascontiguousarray(picture.pixels).tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset
