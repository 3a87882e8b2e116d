"""Sequences as headers really hold them: what stands under a sequence's tag may be text.

Anonymisers and routers write text there. Under an explicit VR the library gives that text; under an implicit
one it parses the text as items, of tags and lengths that its letters spell. Either counts as absent here.
"""

from __future__ import annotations

from pydicom import Dataset
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

_FUNCTIONAL_GROUPS = 0x5200
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000), little and big endian


def items_of(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence, () where it is absent or empty, or where what stands there is no sequence."""
    tag = Tag(keyword)
    return tuple(_sequence(dataset, tag) or ()) if tag in dataset else ()


def drop_non_sequences(dataset: Dataset) -> frozenset[str]:
    """Delete what stands under a sequence's tag and is none, and sequences under other attributes' tags.

    Items are looked through as well; not those of functional groups, which are many and parsed by themselves.

    Returns
    -------
    Keywords of the data set's own attributes that were deleted with what they held, in whole or in part.
    """
    found: set[str] = set()
    for tag in list(dataset.keys()):
        known = DicomDictionary.get(tag)  # private attributes and repeating groups hold nothing that is read
        if known is None or tag.group == _FUNCTIONAL_GROUPS:
            continue
        is_sequence, keyword = known[0] == "SQ", known[4]
        element = dataset.get_item(tag)
        if not is_sequence and (element is None or element.VR != "SQ"):
            continue
        items = _sequence(dataset, tag) if is_sequence else None
        if items is None:
            if element is not None and element.value:
                found.add(keyword)
            del dataset[tag]
        else:
            in_items = [drop_non_sequences(item) for item in items]
            if any(in_items):
                found.add(keyword)
    return frozenset(found)


def is_well_formed(dataset: Dataset, keyword: str) -> bool:
    """Whether an attribute that stands in a data set is a sequence where it should be one, and only there."""
    tag = Tag(keyword)
    if DicomDictionary[tag][0] == "SQ":
        return holds_items(dataset, tag)
    element = dataset.get_item(tag)
    return element is None or element.VR != "SQ"


def holds_items(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether a sequence, be it empty, stands under a tag."""
    return tag in dataset and _sequence(dataset, tag) is not None


def _sequence(dataset: Dataset, tag: BaseTag) -> Items | None:
    """The items under a tag that stands in the data set; None where they are no items."""
    element: DataElement | RawDataElement | None = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        if element.value and not element.value.startswith(_ITEM_TAGS):
            return None
        try:
            value = dataset[tag].value
        except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
            return None
    else:
        value = None if element is None else element.value
    return value if isinstance(value, Items) else None
