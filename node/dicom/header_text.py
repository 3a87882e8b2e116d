"""Values of a header as they really are: text in the declared character set, sequences, numbers.

Character sets (PS3.3 C.12.1.1.2): the library reads on whatever the bytes are, with replacement characters
where a set has no character for them, by the default repertoire where a set is undeclared or unknown; and it
writes some text without the escape sequences that it came with. Each of these alters a patient's name.

Sequences: anonymisers and routers write text under a sequence's tag. Under an explicit VR the library returns
that text; under an implicit one it parses the text as items, of tags and lengths that its letters spell.
Either counts as absent here.
"""

from __future__ import annotations

import re
import unicodedata
from math import isfinite
from typing import Any

from pydicom import Dataset
from pydicom.charset import (
    CODES_TO_ENCODINGS,
    convert_encodings,
    decode_bytes,
    encode_string,
    python_encoding,
)
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import TEXT_VR_DELIMS, PersonName

TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # that the character set applies to
# The text attributes among those that are copied into results.
IDENTITY_TEXT = (
    "AccessionNumber",
    "DeidentificationMethod",
    "IssuerOfPatientID",
    "PatientID",
    "PatientName",
    "ReferringPhysicianName",
    "StudyDescription",
    "StudyID",
    "TimezoneOffsetFromUTC",
)

_ESCAPE = re.compile(rb"(?=\x1b)")
_DEFAULT = python_encoding[""]
# The codecs that decode the text with its escape sequence; others decode the text alone.
_STATEFUL = frozenset({"iso2022_jp", "iso2022_jp_2"})
_FUNCTIONAL_GROUPS = 0x5200
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000), little and big endian
# Signs of reports beyond ASCII, which the source's character set may lack.
_SPELLED = {
    "−": "-",
    "–": "-",
    "≤": "<=",
    "≥": ">=",
    "±": "+/-",
    "µ": "u",
    "μ": "u",
    "³": "3",
    "²": "2",
    "×": "x",
}


def protect_identity_text(header: Dataset) -> tuple[str, ...]:
    """Find the attributes of identity whose text is invalid, and make sure that none is altered on writing.

    Names keep their bytes, so that they are written again as they came, under the same declaration. Of other
    text the library keeps none: what it would write differently is emptied, and counts as found.

    Parameters
    ----------
    header : as just read from a file; attributes that were accessed before are left out.

    Returns
    -------
    Their keywords, sorted.
    """
    declared = declared_sets(header)
    found = []
    for keyword in IDENTITY_TEXT:
        element = header.get_item(keyword) if keyword in header else None
        if not isinstance(element, RawDataElement) or not element.value or _is_plain_ascii(element.value):
            continue
        content = element.value.rstrip(b" \0")
        encodings = tuple(_encodings(declared))
        altered = False
        if dictionary_VR(keyword) == "PN":
            header[keyword] = DataElement(element.tag, "PN", PersonName(content, encodings))
        else:
            altered = _rewritten(content, encodings) != content
            if altered:
                header[keyword] = element._replace(value=b"", length=0)
        if altered or not is_valid_text(content, declared):
            found.append(keyword)
    return tuple(found)


def is_valid_text(content: bytes, declared: tuple[str, ...]) -> bool:
    """Whether bytes decode, each part in the set that its escape sequence names, else in the first one.

    Parameters
    ----------
    declared : the values of Specific Character Set; () where it is absent.

    Source: PS3.3 C.12.1.1.2, PS3.5 6.1.2.
    """
    if _is_plain_ascii(content):
        return True
    if any(term not in python_encoding for term in declared):
        return False
    encodings = [python_encoding[term] for term in declared] or [_DEFAULT]
    return all(_is_valid_part(part, encodings) for part in _ESCAPE.split(content) if part)


def _is_valid_part(part: bytes, encodings: list[str]) -> bool:
    encoding, text = encodings[0], part
    if part.startswith(b"\x1b"):
        code = next((one for one in CODES_TO_ENCODINGS if part.startswith(one)), b"")
        if not code:
            return False
        encoding = CODES_TO_ENCODINGS[code]
        if encoding != _DEFAULT and encoding not in encodings:
            return False
        if encoding not in _STATEFUL:
            text = part[len(code) :]
    if encoding == _DEFAULT:
        return text.isascii()
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_plain_ascii(content: bytes) -> bool:
    """Whether bytes mean the same in every character set."""
    return content.isascii() and b"\x1b" not in content


def _rewritten(content: bytes, encodings: tuple[str, ...]) -> bytes:
    """The bytes that the library writes after it has read these."""
    return bytes(encode_string(decode_bytes(content, encodings, TEXT_VR_DELIMS), encodings))


def _encodings(declared: tuple[str, ...]) -> list[str]:
    """The library's names of the declared sets; the default in place of an unknown one."""
    return convert_encodings(list(declared)) if declared else [_DEFAULT]


def declared_sets(header: Dataset) -> tuple[str, ...]:
    """The values of Specific Character Set as they are written, known or not.

    Returns
    -------
    () where it is absent or empty.
    """
    element = header.get_item("SpecificCharacterSet") if "SpecificCharacterSet" in header else None
    if element is None or not element.value:
        return ()
    if isinstance(element, RawDataElement):
        value = element.value.decode("ascii", "replace")
    else:
        value = element.value if isinstance(element.value, str) else "\\".join(element.value)
    return tuple(term.strip(" \0") for term in value.split("\\"))


def to_ascii(text: str) -> str:
    """`text` in ASCII, which every character set holds: the source's set is kept for names, and may lack a
    sign.

    Returns
    -------
    Signs of `_SPELLED` spelled out, accents dropped, "?" for any other character.
    """
    spelled = "".join(_SPELLED.get(sign, sign) for sign in text)
    decomposed = unicodedata.normalize("NFKD", spelled)
    bare = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    return bare.encode("ascii", "replace").decode("ascii")


def items_of(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence.

    Returns
    -------
    () where it is absent or empty, or where something else is under its tag.
    """
    tag = Tag(keyword)
    return tuple(_sequence(dataset, tag) or ()) if tag in dataset else ()


def drop_non_sequences(dataset: Dataset) -> frozenset[str]:
    """Delete what is no sequence under a sequence's tag, and sequences under other attributes' tags.

    Items are cleaned as well; not those of functional groups, which are many and parsed by themselves.

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
    """Whether an attribute that is in a data set is a sequence where it should be one, and only there.

    Parameters
    ----------
    keyword : of an attribute that the data set has.
    """
    tag = Tag(keyword)
    if DicomDictionary[tag][0] == "SQ":
        return holds_items(dataset, tag)
    element = dataset.get_item(tag)
    return element is None or element.VR != "SQ"


def holds_items(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether a sequence, even an empty one, is under a tag."""
    return tag in dataset and _sequence(dataset, tag) is not None


def _sequence(dataset: Dataset, tag: BaseTag) -> Items | None:
    """The items under a tag that is in the data set; None where they are no items."""
    element: DataElement | RawDataElement | None = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        if element.value and not element.value.startswith(_ITEM_TAGS):
            return None
        try:
            element = dataset[tag]
        except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
            return None
    return element.value if element is not None and isinstance(element.value, Items) else None


def text_of(header: Dataset, keyword: str) -> str:
    """An attribute as text.

    Returns
    -------
    "" where it is absent or empty; several values are joined by a blank.
    """
    value: Any = header.get(keyword)
    if value is None:
        return ""
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return " ".join(str(part) for part in value).strip()
    return str(value).strip()


def number_of(header: Dataset, keyword: str) -> float | None:
    """An attribute as a number.

    Returns
    -------
    None where it is absent, empty, no number or not finite.
    """
    try:
        value = float(text_of(header, keyword))
    except ValueError:
        return None
    return value if isfinite(value) else None
