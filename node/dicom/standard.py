"""What every object must hold by the standard: attributes of its modules, valid values, text in its set.

The attributes that each class requires come from the tables of PS3.3 that highdicom ships with. Their
functions are its own affair (a leading underscore): they are used here alone, and the version is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from highdicom._standard_utils import construct_module_tree, get_iod_module_map, get_sop_class_iod_map
from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import validate_value

from node.dicom.characters import declared_sets, is_text
from node.dicom.identity import IDENTITY_KEYWORDS
from node.dicom.sequences import items_of

_REQUIRED, _MAY_BE_EMPTY = "1", "2"
_MANDATORY = "M"
# Identity is copied as it came: what is wrong with its values is the source's, and holds back no result.
_IDENTITY = frozenset(tag_for_keyword(keyword) for keyword in IDENTITY_KEYWORDS)
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
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

# Value type of a content item -> what an item of it must hold (PS3.3 C.17.3.2 and C.18). The tables have the
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
# Which of the macros beneath these a frame needs depends on the object, and each may stand in either.
_FUNCTIONAL_GROUPS = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})


def standard_violations(dataset: Dataset) -> list[str]:
    """What the standard requires of a finished object and does not find, a line each, without any value.

    Parameters
    ----------
    dataset : as just read from its file: text is judged by its bytes.
    """
    found = dict.fromkeys(_odd_values(dataset, ()))
    found |= dict.fromkeys(_absent_attributes(dataset))
    return list(found)


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
    """None of a class that the tables do not have."""
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
    """Values that are none of their representation or not enumerated, or no text in the character set."""
    declared = declared_sets(dataset) or inherited
    for tag in list(dataset.keys()):
        if tag in _IDENTITY or tag.group == 0x7FE0:
            continue
        if _is_no_text(dataset, tag, declared):
            yield f"{_name(tag)} is no text in the declared character set"
            continue
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and element.VR in _CHECKED:
            yield from _odd_value(element)
        elif element is not None and element.VR == "SQ":
            for item in dataset[tag].value:
                yield from _odd_values(item, declared)


def _odd_value(element: RawDataElement) -> Iterator[str]:
    """By the bytes: the library would warn of what it reads, and read on."""
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


def _is_no_text(dataset: Dataset, tag: BaseTag, declared: tuple[str, ...]) -> bool:
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or element.VR not in _TEXT or not element.value:
        return False
    return not is_text(element.value.rstrip(b" \0"), declared)


def _name(tag: BaseTag) -> str:
    element = DataElement(tag, "UN", None)
    return element.keyword or str(tag)
