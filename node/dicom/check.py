"""The gate before an object is written or sent: it must decode, and hold what a PACS needs."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.dicom.errors import ObjectInvalid
from node.dicom.frames import iterate_frames
from node.dicom.headers import text_of
from node.dicom.select import made_here
from node.dicom.sequences import items_of
from node.dicom.standard import standard_violations

_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")


def check_object(content: bytes) -> None:
    """Decode a finished object and hold it to the standard and to the rules of its kind.

    The same on every machine: no tool that may or may not be installed has a say.

    Raises
    ------
    ObjectInvalid
        With one line for each broken rule. Lines hold no patient data.
    """
    try:
        dataset = dcmread(BytesIO(content))
    except InvalidDicomError as error:
        raise ObjectInvalid(("not a DICOM file",)) from error
    try:
        violations = standard_violations(dataset) or _own_violations(dataset)
    except Exception as error:  # pydicom raises whatever broken bytes lead to
        raise ObjectInvalid((f"it cannot be decoded ({type(error).__name__})",)) from error
    if violations:
        raise ObjectInvalid(tuple(violations))


def _own_violations(dataset: Dataset) -> list[str]:
    """Broken rules of the node's own: identity, evidence, honesty about what the object is."""
    rules_of_class = {
        Comprehensive3DSRStorage: _report_rules,
        ComprehensiveSRStorage: _report_rules,
        EnhancedSRStorage: _report_rules,
        KeyObjectSelectionDocumentStorage: _note_rules,
        SegmentationStorage: _segmentation_rules,
        SecondaryCaptureImageStorage: _picture_rules,
    }.get(dataset.get("SOPClassUID"))
    if rules_of_class is None:
        return [f"unexpected SOP class {text_of(dataset, 'SOPClassUID')}"]
    uid = text_of(dataset, "SOPInstanceUID")
    rules = {
        "meta and data set name different instances": (
            uid == text_of(dataset.file_meta, "MediaStorageSOPInstanceUID")
        ),
        "no Study Instance UID": bool(text_of(dataset, "StudyInstanceUID")),
        "does not name this node as its maker": made_here(dataset),
        "series description lacks 'research use only'": (
            "research use only" in text_of(dataset, "SeriesDescription")
        ),
        "UID not minted under 2.25": uid.startswith("2.25."),
    } | rules_of_class(dataset)
    return [text for text, holds in rules.items() if not holds]


def _report_rules(dataset: Dataset) -> dict[str, bool]:
    return {
        "report without evidence": bool(items_of(dataset, "CurrentRequestedProcedureEvidenceSequence")),
        "report claims to be verified": text_of(dataset, "VerificationFlag") == "UNVERIFIED",
        "report claims to be final": text_of(dataset, "PreliminaryFlag") == "PRELIMINARY",
        "private codes undeclared": bool(items_of(dataset, "CodingSchemeIdentificationSequence")),
        "report without content": bool(items_of(dataset, "ContentSequence")),
    }


def _note_rules(dataset: Dataset) -> dict[str, bool]:
    titles = [
        (text_of(one, "CodeValue"), text_of(one, "CodingSchemeDesignator"))
        for one in items_of(dataset, "ConceptNameCodeSequence")
    ]
    return {
        "note without evidence": bool(items_of(dataset, "CurrentRequestedProcedureEvidenceSequence")),
        "note does not reject": titles == [("113001", "DCM")],
        "note without content": bool(items_of(dataset, "ContentSequence")),
    }


def _segmentation_rules(dataset: Dataset) -> dict[str, bool]:
    return {
        "segmentation with an empty frame": all(frame.any() for frame in iterate_frames(dataset)),
        # A refusal may go without (process writes it, nothing sends it); a measurement never.
        "measured without a Patient ID": bool(text_of(dataset, "PatientID")),
        "segmentation without frame of reference": bool(text_of(dataset, "FrameOfReferenceUID")),
        "segmentation without source images": bool(items_of(dataset, "ReferencedSeriesSequence")),
    }


def _picture_rules(dataset: Dataset) -> dict[str, bool]:
    return {
        "picture claims geometry": not any(keyword in dataset for keyword in _GEOMETRY),
        "picture is not marked as annotated": text_of(dataset, "BurnedInAnnotation") == "YES",
        "picture is not RGB": dataset.pixel_array.ndim == 3,
        "picture is blank": bool(np.ptp(dataset.pixel_array) > 0),
    }
