"""The check of a finished object before it is written or sent, by the standard and by the node's own rules.

By the standard: attributes of its modules, valid values, text in its character set. The attributes that each
class requires come from the tables of PS3.3 that highdicom ships with. Their functions are private (a leading
underscore): they are used here alone, and the version is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from highdicom._standard_utils import construct_module_tree, get_iod_module_map, get_sop_class_iod_map
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import RAISE
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pydicom.valuerep import validate_value

from node.dicom.ct.pixel_data import iterate_frames
from node.dicom.errors import ObjectInvalid
from node.dicom.header_text import TEXT_VRS, declared_sets, is_valid_text, items_of, text_of
from node.dicom.result_headers import IDENTITY_KEYWORDS, made_here

_REQUIRED, _MAY_BE_EMPTY = "1", "2"
_MANDATORY = "M"
# Identity is copied as it came: an invalid value of the source must not hold back a result.
_IDENTITY = frozenset(tag_for_keyword(keyword) for keyword in IDENTITY_KEYWORDS)
_ONE_VALUE = frozenset({"LT", "ST", "UR", "UT"})  # may hold a backslash
_CHECKED = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UI", "UR", "UT"}
)
# Enumerated values (PS3.3) of attributes that the node writes.
_ENUMERATED: Mapping[str, frozenset[str]] = {
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
    "CompletionFlag": frozenset({"PARTIAL", "COMPLETE"}),
    "ContinuityOfContent": frozenset({"SEPARATE", "CONTINUOUS"}),
    "ConversionType": frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"}),
    "Modality": frozenset({"SR", "SEG", "OT", "KO"}),
    "PhotometricInterpretation": frozenset({"MONOCHROME2", "RGB"}),
    "PreliminaryFlag": frozenset({"PRELIMINARY", "FINAL"}),
    "RelationshipType": frozenset(
        {"CONTAINS", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES",
         "INFERRED FROM", "SELECTED FROM"}
    ),
    "SegmentAlgorithmType": frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"}),
    "SegmentationType": frozenset({"BINARY", "FRACTIONAL", "LABELMAP"}),
    "VerificationFlag": frozenset({"UNVERIFIED", "VERIFIED"}),
}  # fmt: skip

# Value type of a content item -> attributes that it must hold (PS3.3 C.17.3.2 and C.18). The tables have the
# attributes of all value types in one.
_CONTENT: Mapping[str, tuple[str, ...]] = {
    "CODE": ("ConceptNameCodeSequence", "ConceptCodeSequence"),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "CONTAINER": ("ContinuityOfContent",),
    "DATE": ("ConceptNameCodeSequence", "Date"),
    "DATETIME": ("ConceptNameCodeSequence", "DateTime"),
    "IMAGE": ("ReferencedSOPSequence",),
    "NUM": ("ConceptNameCodeSequence", "MeasuredValueSequence"),
    "PNAME": ("ConceptNameCodeSequence", "PersonName"),
    "SCOORD": ("GraphicType", "GraphicData"),
    "TEXT": ("ConceptNameCodeSequence", "TextValue"),
    "TIME": ("ConceptNameCodeSequence", "Time"),
    "UIDREF": ("ConceptNameCodeSequence", "UID"),
}
_CONTENT_MODULE = "sr-document-content"
# Which of the macros beneath these a frame needs depends on the object, and each may be in either.
_FUNCTIONAL_GROUPS = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")


def standard_violations(dataset: Dataset) -> list[str]:
    """What the standard requires of a finished object and the object lacks.

    Parameters
    ----------
    dataset : as just read from its file: text is judged by its bytes.

    Returns
    -------
    A line for each violation, without any value of the data set.
    """
    return list(dict.fromkeys([*_odd_values(dataset, ()), *_absent_attributes(dataset)]))


def _absent_attributes(dataset: Dataset) -> Iterator[str]:
    for module in _mandatory_modules(str(dataset.get("SOPClassUID", ""))):
        if module == _CONTENT_MODULE:
            yield from _absent_content(dataset)
        else:
            yield from _absent(dataset, _tree(module), module)


def _absent_content(item: Dataset) -> Iterator[str]:
    kind = str(item.get("ValueType", ""))
    if kind not in _CONTENT:
        yield "content: ValueType is missing or is none that the node writes"
    for keyword in _CONTENT.get(kind, ()):
        if keyword not in item or item[keyword].is_empty:
            yield f"content: {keyword} of an item of type {kind} is missing"
    for child in items_of(item, "ContentSequence"):
        if not child.get("RelationshipType"):
            yield "content: RelationshipType is missing"
        yield from _absent_content(child)


@lru_cache
def _mandatory_modules(sop_class_uid: str) -> tuple[str, ...]:
    """Keys of the modules; none for a class that the tables do not have."""
    iod = get_sop_class_iod_map().get(sop_class_uid)
    modules = get_iod_module_map().get(iod, []) if iod else []
    return tuple(module["key"] for module in modules if module["usage"] == _MANDATORY)


@lru_cache
def _tree(module: str) -> Mapping[str, Any]:
    tree: Mapping[str, Any] = construct_module_tree(module)
    return tree


def _absent(
    dataset: Dataset, tree: Mapping[str, Any], where: str, *, all_optional: bool = False
) -> Iterator[str]:
    for keyword, row in tree.get("attributes", {}).items():
        kind = getattr(row.get("type"), "value", row.get("type"))
        if keyword in IDENTITY_KEYWORDS and keyword in dataset:
            continue
        element = dataset.get_item(keyword) if keyword in dataset else None
        if element is None:
            if not all_optional and kind in (_REQUIRED, _MAY_BE_EMPTY):
                yield f"{where}: {keyword} is missing"
        elif kind == _REQUIRED and _is_empty(element):
            yield f"{where}: {keyword} is empty"
        elif "attributes" in row:
            groups = keyword in _FUNCTIONAL_GROUPS
            for item in items_of(dataset, keyword):
                yield from _absent(item, row, f"{where}: {keyword}", all_optional=groups)


def _is_empty(element: DataElement | RawDataElement) -> bool:
    return not element.value if isinstance(element, RawDataElement) else element.is_empty


def _odd_values(dataset: Dataset, inherited: tuple[str, ...]) -> Iterator[str]:
    """Values that are invalid in their representation, not enumerated, or invalid in the character set."""
    declared = declared_sets(dataset) or inherited
    for tag in list(dataset.keys()):
        if tag in _IDENTITY or tag.group == 0x7FE0:
            continue
        if _is_invalid_text(dataset, tag, declared):
            yield f"{_name(tag)} is not text in the declared character set"
            continue
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and element.VR in _CHECKED:
            yield from _odd_value(element)
        elif element is not None and element.VR == "SQ":
            for item in dataset[tag].value:
                yield from _odd_values(item, declared)


def _odd_value(element: RawDataElement) -> Iterator[str]:
    """Judge a value by its bytes: the library would warn of what it reads, and read on."""
    content = (element.value or b"").decode("latin-1").rstrip(" \0")
    values = [content] if element.VR in _ONE_VALUE else content.split("\\")
    keyword = _name(element.tag)
    allowed = _ENUMERATED.get(keyword)
    if content and allowed is not None and not allowed.issuperset(map(str.strip, values)):
        yield f"{keyword} has a value that the standard does not enumerate"
    try:
        for value in values:
            validate_value(str(element.VR), value.strip(" "), RAISE)
    except ValueError:
        yield f"{keyword} holds what is no {element.VR}"


def _is_invalid_text(dataset: Dataset, tag: BaseTag, declared: tuple[str, ...]) -> bool:
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or element.VR not in TEXT_VRS or not element.value:
        return False
    return not is_valid_text(element.value.rstrip(b" \0"), declared)


def _name(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or str(tag)


def check_object(content: bytes) -> None:
    """Decode a finished object and check it by the standard and by the rules of its kind.

    The result is the same on every machine: no tool that may or may not be installed takes part.

    Parameters
    ----------
    content : a DICOM file (PS3.10).

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
    """Broken rules of the node itself: identity, evidence, and statements on what the object is."""
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
