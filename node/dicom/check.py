"""The gate before an object is written or sent: it must decode, and hold what a PACS needs."""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description, tag_for_keyword
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
from node.dicom.headers import text_of
from node.dicom.identity import IDENTITY_KEYWORDS
from node.dicom.select import made_here

# By absolute path: a virtual environment may shadow tools of the system.
DCIODVFY = Path("/usr/bin/dciodvfy")
_TIMEOUT_S = 60

_ERROR_LINE = re.compile(r"^Error - (?P<text>.*)$", re.MULTILINE)
# dciodvfy names an attribute by its keyword or, in other messages, by its words.
_IDENTITY_NAMES = IDENTITY_KEYWORDS | {dictionary_description(keyword) for keyword in IDENTITY_KEYWORDS}
_IDENTITY_TAGS = {f"{tag_for_keyword(keyword):08x}" for keyword in IDENTITY_KEYWORDS}
_TAG = re.compile(r"\(0x(?P<group>[0-9a-f]{4}),0x(?P<element>[0-9a-f]{4})\)")
_VALUES_INVALID = "Dicom dataset contains invalid data values for Value Representations"
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")


def check_object(content: bytes) -> None:
    """Decode a finished object and hold it to the rules of its kind.

    Raises
    ------
    ObjectInvalid
        With one line for each broken rule. Lines hold no patient data.
    """
    violations = [*own_violations(content), *dciodvfy_errors(content)]
    if violations:
        raise ObjectInvalid(tuple(violations))


def own_violations(content: bytes) -> list[str]:
    """Broken rules of the node's own: identity, evidence, honesty about what the object is."""
    try:
        dataset = dcmread(BytesIO(content))
    except InvalidDicomError:
        return ["not a DICOM file"]
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
        "report without evidence": bool(dataset.get("CurrentRequestedProcedureEvidenceSequence")),
        "report claims to be verified": text_of(dataset, "VerificationFlag") == "UNVERIFIED",
        "report claims to be final": text_of(dataset, "PreliminaryFlag") == "PRELIMINARY",
        "private codes undeclared": bool(dataset.get("CodingSchemeIdentificationSequence")),
        "report without content": bool(dataset.get("ContentSequence")),
    }


def _note_rules(dataset: Dataset) -> dict[str, bool]:
    title = dataset.ConceptNameCodeSequence[0]
    return {
        "note without evidence": bool(dataset.get("CurrentRequestedProcedureEvidenceSequence")),
        "note does not reject": (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM"),
        "note without content": bool(dataset.get("ContentSequence")),
    }


def _segmentation_rules(dataset: Dataset) -> dict[str, bool]:
    frames = dataset.pixel_array
    return {
        "segmentation with an empty frame": bool(
            np.all(frames.reshape(dataset.NumberOfFrames, -1).any(axis=1))
        ),
        # A refusal may go without (process writes it, nothing sends it); a measurement never.
        "measured without a Patient ID": bool(text_of(dataset, "PatientID")),
        "segmentation without frame of reference": bool(text_of(dataset, "FrameOfReferenceUID")),
        "segmentation without source images": bool(dataset.get("ReferencedSeriesSequence")),
    }


def _picture_rules(dataset: Dataset) -> dict[str, bool]:
    return {
        "picture claims geometry": not any(keyword in dataset for keyword in _GEOMETRY),
        "picture is not marked as annotated": text_of(dataset, "BurnedInAnnotation") == "YES",
        "picture is not RGB": dataset.pixel_array.ndim == 3,
        "picture is blank": bool(np.ptp(dataset.pixel_array) > 0),
    }


def dciodvfy_errors(content: bytes) -> list[str]:
    """Errors that dciodvfy reports; none where it is not installed.

    Identity is copied as it came, so an error in it is the source's and does not hold back the result.
    """
    if not DCIODVFY.is_file():
        return []
    with NamedTemporaryFile(suffix=".dcm") as file:
        file.write(content)
        file.flush()
        run = subprocess.run(
            [str(DCIODVFY), file.name],
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    output = (run.stderr + run.stdout).decode("utf-8", "replace")
    errors = [match["text"] for match in _ERROR_LINE.finditer(output)]
    others = [text for text in errors if not _concerns_identity(text)]
    if others == [_VALUES_INVALID]:
        return []  # it sums up lines that all concern identity
    return [_without_value(text) for text in others]


def _concerns_identity(text: str) -> bool:
    tag = _TAG.search(text)
    return any(f"<{name}>" in text for name in _IDENTITY_NAMES) or (
        tag is not None and tag["group"] + tag["element"] in _IDENTITY_TAGS
    )


def _without_value(text: str) -> str:
    """The line without the values it quotes, for it ends in logs."""
    return re.sub(r"(?<=value )<[^>]*>|(?<== )<.*>", "<...>", text)
