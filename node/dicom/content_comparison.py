"""Whether two data sets under one SOP Instance UID have the same content, or differ in identity alone.

What storing or sending may change without a change of content does not count (PS3.5): file meta information,
transfer syntax, byte order, group lengths, offset tables, padding, empty elements, the character set of a
text, and the digits of a number ("120" is "120.0"; fingerprints go by the digits, as earlier versions did).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from node.dicom.ct.pixel_data import decode_image
from node.dicom.header_text import TEXT_VRS, holds_items

Source = Path | BinaryIO
ElementPath = tuple[int, ...]  # tag, then for each sequence on the way the item's number and the tag in it

# Patient and order: what an archive corrects after the fact, by the rules of its site. All of group 0010, the
# patient's, belongs to it, too.
_IDENTITY_KEYWORDS = (
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyID",
    "PatientIdentityRemoved",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "RequestedProcedureID",
    "OriginalAttributesSequence",  # where an archive notes what it corrected (PS3.3 C.12.1)
)
_IDENTITY = frozenset(tag_for_keyword(keyword) for keyword in _IDENTITY_KEYWORDS)
_PATIENT_GROUP = 0x0010
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NOT_COMPARED = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        *_PIXELS,  # compared by themselves
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        "DataSetTrailingPadding",
        "SpecificCharacterSet",
    )
)
_STRINGS = TEXT_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_NUMBERS_AS_TEXT = frozenset({"DS", "IS"})
_WORD_BYTES = {
    **dict.fromkeys(("US", "SS", "AT", "OW"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OF", "OL"), 4),
    **dict.fromkeys(("FD", "UV", "SV", "OD", "OV"), 8),
}
_PADDING = b" \0"


def identity_difference(held: Source, came: Source) -> frozenset[str] | None:
    """Where two files differ, if in identity alone.

    Returns
    -------
    Keywords of the attributes of patient and order that differ: none where both have the same content. None
    where something else differs, or one of them cannot be read to the end: what cannot be compared is
    different.
    """
    try:
        ours, theirs = dcmread(held), dcmread(came)
        one, other = dict(_elements(ours)), dict(_elements(theirs))
        different = [
            path for path in one.keys() | other.keys() if not _are_equal(path, one.get(path), other.get(path))
        ]
        if not all(map(_is_identity, different)) or not _same_pixels(ours, theirs):
            return None
    except Exception:  # noqa: BLE001 - pydicom and its decoders raise whatever broken bytes lead to
        return None
    return frozenset(map(_identity_keyword, different))


def fingerprint(source: Source) -> tuple[str, str] | None:
    """Digests of a file by which its content can be compared when the file is gone.

    Returns
    -------
    Two SHA-256: of pixels and everything else but identity, and of identity. Two files with equal
    fingerprints have the same content. None where the file cannot be read or decoded.
    """
    try:
        dataset = dcmread(source)
        elements = dict(_elements(dataset))
        pixels = _decoded(dataset)
    except Exception:  # noqa: BLE001 - as above
        return None
    image = hashlib.sha256(_digestible(elements, identity=False))
    if pixels is not None:
        image.update(repr(pixels.shape).encode())
        image.update(np.ascontiguousarray(pixels, dtype=np.float64).data)  # holds every stored value exactly
    return image.hexdigest(), hashlib.sha256(_digestible(elements, identity=True)).hexdigest()


def identity_values(source: Source) -> Mapping[str, str]:
    """Patient and order as a file states them, for a person who has to decide between two of them.

    Returns
    -------
    Text by keyword; an attribute within a sequence has its own keyword, and the first of several counts.

    Raises
    ------
    pydicom.errors.InvalidDicomError
        If it is no DICOM file.
    """
    dataset = dcmread(source, stop_before_pixels=True)
    found: dict[str, str] = {}
    for path, value in _elements(dataset):
        if _is_identity(path):
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            found.setdefault(_identity_keyword(path), text)
    return found


def canonical_value(keyword: str, text: str) -> str:
    """A value from elsewhere, in the form of `identity_values`.

    Parameters
    ----------
    keyword : of its attribute: of a person's name, empty components at the end are dropped.
    """
    value = text.strip(_PADDING.decode())
    return _canonical_name(value) if _public_vr(BaseTag(tag_for_keyword(keyword) or 0)) == "PN" else value


def _is_identity(path: ElementPath) -> bool:
    return any(tag in _IDENTITY or tag >> 16 == _PATIENT_GROUP for tag in path[::2])


def _identity_keyword(path: ElementPath) -> str:
    tag = next(tag for tag in path[::2] if tag in _IDENTITY or tag >> 16 == _PATIENT_GROUP)
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _are_equal(path: ElementPath, one: bytes | str | None, other: bytes | str | None) -> bool:
    """Whether two values are the same; a number as text may be written with other digits."""
    if one == other:
        return True
    if not isinstance(one, bytes) or not isinstance(other, bytes):
        return False
    if _public_vr(BaseTag(path[-1])) not in _NUMBERS_AS_TEXT:
        return False
    try:
        return [Decimal(part.decode()) for part in one.split(b"\\")] == [
            Decimal(part.decode()) for part in other.split(b"\\")
        ]
    except (InvalidOperation, UnicodeDecodeError):
        return False


def _digestible(elements: Mapping[ElementPath, bytes | str], *, identity: bool) -> bytes:
    chosen = sorted(item for item in elements.items() if _is_identity(item[0]) is identity)
    return repr(chosen).encode()


def _elements(
    dataset: Dataset, within: ElementPath = (), inherited: tuple[str, ...] = ()
) -> Iterator[tuple[ElementPath, bytes | str]]:
    """Path and value of each element, in a form that does not depend on its encoding."""
    encodings = _encodings(dataset) or inherited
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset itself would decode its values
        if tag.element == 0 or tag in _NOT_COMPARED:  # 0: group length
            continue
        path = (*within, int(tag))
        element = _element(dataset, tag)
        if isinstance(element.value, Sequence):
            for number, item in enumerate(element.value):
                yield from _elements(item, (*path, number), encodings)
        elif value := _canonical(element, encodings):
            yield path, value


def _encodings(dataset: Dataset) -> tuple[str, ...]:
    stated = dataset.get("SpecificCharacterSet")
    if not stated:
        return ()
    return tuple(convert_encodings(stated if isinstance(stated, str) else list(stated)))


def _element(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    """The element as it was read; parsed only where it is a sequence."""
    element = dataset.get_item(tag)
    assert element is not None, "tags come from the data set itself"
    if _vr(element) != "SQ" or not holds_items(dataset, tag):
        return element  # text under a sequence's tag: its bytes count
    return dataset[tag]


def _vr(element: DataElement | RawDataElement) -> str:
    if element.VR and element.VR != "UN":
        return str(element.VR)
    return "UN" if element.tag.is_private else _public_vr(element.tag)


def _public_vr(tag: BaseTag) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def _canonical(element: DataElement | RawDataElement, encodings: tuple[str, ...]) -> bytes | str:
    value: Any = element.value
    if not isinstance(element, RawDataElement):
        return str(value).strip()
    vr = _vr(element)
    content: bytes = value or b""
    if not element.is_little_endian:
        content = _byte_swapped(content, _WORD_BYTES.get(vr.split(" ")[0], 1))
    if element.tag.is_private:
        return content.rstrip(_PADDING)  # whether it is text is not known in implicit VR
    if vr in _STRINGS:
        content = content.strip(_PADDING)
    if vr not in TEXT_VRS:
        return content
    delimiters = PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS
    is_plain = content.isascii() and b"\x1b" not in content  # the same in every character set
    text = (
        content.decode() if is_plain else decode_bytes(content, encodings or (default_encoding,), delimiters)
    )
    return _canonical_name(text) if vr == "PN" else text


def _canonical_name(text: str) -> str:
    """Without empty components and groups at the end, which PS3.5 6.2.1 lets a writer leave out."""
    return "=".join(group.rstrip("^ ") for group in text.split("=")).rstrip("=")


def _byte_swapped(content: bytes, word_bytes: int) -> bytes:
    """Big endian -> little endian."""
    if word_bytes == 1 or len(content) % word_bytes:
        return content
    return np.frombuffer(content, dtype=f"u{word_bytes}").byteswap().tobytes()


def _same_pixels(ours: Dataset, theirs: Dataset) -> bool:
    """Decodes only what is encoded differently."""
    if _is_encoded_alike(ours, theirs) and all(ours.get(name) == theirs.get(name) for name in _PIXELS):
        return True
    one, other = _decoded(ours), _decoded(theirs)
    return one is not None and other is not None and np.array_equal(one, other)


def _is_encoded_alike(ours: Dataset, theirs: Dataset) -> bool:
    one, other = (dataset.file_meta.TransferSyntaxUID for dataset in (ours, theirs))
    if one.is_compressed or other.is_compressed:
        return bool(one == other)
    return bool(one.is_little_endian == other.is_little_endian)


def _decoded(dataset: Dataset) -> np.ndarray[Any, Any] | None:
    return decode_image(dataset) if any(name in dataset for name in _PIXELS) else None
