"""Whether the text of a header is text in the character set that the header declares (PS3.3 C.12.1.1.2).

A library reads on whatever the bytes are: with replacement characters where a set has no sign for them, by
the default repertoire where a set is undeclared or unknown; and writes some text without the escape sequences
that it came with. Each makes another name of a name.
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

# Of the attributes that are copied into objects that go back, those that hold text.
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
# The codecs that want the escape sequence with the text; others want the text alone.
_STATEFUL = frozenset({"iso2022_jp", "iso2022_jp_2"})


def protect_identity_text(header: Dataset) -> tuple[str, ...]:
    """Find the attributes of identity whose bytes are no text, and see to it that none is altered.

    Names keep their bytes, so that they are written again as they came, under the same declaration. Of other
    text the library keeps none: what it would write differently is emptied, and counts as found.

    Parameters
    ----------
    header : as just read from a file; attributes that were asked for before are passed over.

    Returns
    -------
    Their keywords, sorted.
    """
    declared = declared_sets(header)
    found = []
    for keyword in IDENTITY_TEXT:
        element = header.get_item(keyword) if keyword in header else None
        if not isinstance(element, RawDataElement) or not element.value or _is_plain(element.value):
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
    """
    if _is_plain(content):
        return True
    if any(term not in python_encoding for term in declared):
        return False
    encodings = [python_encoding[term] for term in declared] or [_DEFAULT]
    return all(_is_part(part, encodings) for part in _ESCAPE.split(content) if part)


def _is_part(part: bytes, encodings: list[str]) -> bool:
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


def _is_plain(content: bytes) -> bool:
    """The same in every character set."""
    return content.isascii() and b"\x1b" not in content


def _rewritten(content: bytes, encodings: tuple[str, ...]) -> bytes:
    """What the library writes of what it reads."""
    return bytes(encode_string(decode_bytes(content, encodings, TEXT_VR_DELIMS), encodings))


def _encodings(declared: tuple[str, ...]) -> list[str]:
    """The library's names of the declared sets; of one that it does not know, of the default."""
    return convert_encodings(list(declared)) if declared else [_DEFAULT]


def declared_sets(header: Dataset) -> tuple[str, ...]:
    """The values of Specific Character Set as they are written, read without a look at their sense."""
    element = header.get_item("SpecificCharacterSet") if "SpecificCharacterSet" in header else None
    if element is None or not element.value:
        return ()
    if isinstance(element, RawDataElement):
        value = element.value.decode("ascii", "replace")
    else:
        value = element.value if isinstance(element.value, str) else "\\".join(element.value)
    return tuple(term.strip(" \0") for term in value.split("\\"))


# Text that any character set can hold.


# What reports use beyond ASCII, where the source's character set may not hold it.
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


def to_ascii(text: str) -> str:
    """`text` in ASCII. The source's character set is kept for names, and not every set holds every sign."""
    spelled = "".join(_SPELLED.get(sign, sign) for sign in text)
    decomposed = unicodedata.normalize("NFKD", spelled)
    return (
        "".join(sign for sign in decomposed if not unicodedata.combining(sign))
        .encode("ascii", "replace")
        .decode("ascii")
    )


# Sequences as headers really hold them: what stands under a sequence's tag may be text.
#
# Anonymisers and routers write text there. Under an explicit VR the library gives that text; under an
# implicit one it parses the text as items, of tags and lengths that its letters spell. Either counts as
# absent here.


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


def text_of(header: Dataset, keyword: str) -> str:
    """An attribute as text, "" where it is absent or empty; several values are joined by a blank."""
    value: Any = header.get(keyword)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str)):
        return " ".join(str(part) for part in value).strip()
    return str(value).strip()


def number_of(header: Dataset, keyword: str) -> float | None:
    """An attribute as a number, None where it is absent, empty or no number."""
    try:
        value = float(text_of(header, keyword))
    except ValueError:
        return None
    return value if isfinite(value) else None
