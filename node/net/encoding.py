"""Three short encodings that every instance waits for: its C-STORE-RQ, the answer to it, its file's header.

The libraries make data sets of all three, which takes longer than storing the instance. Tests hold that what
is written and read here is what they write and read.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PREAMBLE = b"\0" * 128 + b"DICM"
_VERSION = struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01"
_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_UID = re.compile(rb"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")  # PS3.5 Section 9.1
_ELEMENT = struct.Struct("<HHI")  # of a command set: group, element, length of the value
_NUMBER = struct.Struct("<H")
# Of a C-STORE-RQ (PS3.7 Table 9.3-1), by their element numbers in group 0000.
_SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE, _SOP_INSTANCE = _NEEDED = (
    0x0002,
    0x0100,
    0x0110,
    0x0700,
    0x0800,
    0x1000,
)
_KNOWN = frozenset({0x0000, *_NEEDED, 0x1030, 0x1031})  # the length, and who asked for it by C-MOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCommand:
    """What a C-STORE-RQ says of the data set that follows it."""

    message_id: int
    priority: int
    sop_class_uid: str
    sop_instance_uid: str


def store_command(encoded: bytes) -> StoreCommand | None:
    """A command set in Implicit VR Little Endian, if it is a C-STORE-RQ in which nothing is unusual.

    None for any other: the library says what it is, or what is wrong with it.
    """
    values: dict[int, bytes] = {}
    at, before = 0, -1
    while at < len(encoded):
        if len(encoded) - at < _ELEMENT.size:
            return None
        group, element, length = _ELEMENT.unpack_from(encoded, at)
        begin = at + _ELEMENT.size
        at = begin + length
        if group != 0 or element not in _KNOWN or element <= before or at > len(encoded):
            return None
        values[element] = encoded[begin:at]
        before = element
    if not values.keys() >= set(_NEEDED):
        return None
    numbers = [values[one] for one in (_COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE)]
    uids = [values[one].removesuffix(b"\0") for one in (_SOP_CLASS, _SOP_INSTANCE)]
    if any(len(one) != _NUMBER.size for one in numbers) or not all(_UID.fullmatch(one) for one in uids):
        return None
    field, message_id, priority, data_set_type = (_NUMBER.unpack(one)[0] for one in numbers)
    if field != _C_STORE_RQ or data_set_type == _NO_DATA_SET or priority > 2:
        return None
    sop_class_uid, sop_instance_uid = (one.decode("ascii") for one in uids)
    return StoreCommand(
        message_id=message_id,
        priority=priority,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
    )


def file_header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and File Meta Information of a Part 10 file (PS3.10 Section 7.1).

    Raises
    ------
    UnicodeEncodeError
        If a UID holds anything but ASCII.
    """
    meta = b"".join(
        (
            _VERSION,
            _explicit(0x0002, b"UI", _padded(sop_class_uid, b"\0")),
            _explicit(0x0003, b"UI", _padded(sop_instance_uid, b"\0")),
            _explicit(0x0010, b"UI", _padded(transfer_syntax_uid, b"\0")),
            _explicit(0x0012, b"UI", _padded(IMPLEMENTATION_CLASS_UID, b"\0")),
            _explicit(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
        )
    )
    return _PREAMBLE + _explicit(0x0000, b"UL", struct.pack("<I", len(meta))) + meta


def store_response(*, sop_class_uid: str, sop_instance_uid: str, message_id: int, status: int) -> bytes:
    """Command set of a C-STORE-RSP, in Implicit VR Little Endian (PS3.7 Sections 6.3.1 and 9.3.1.2)."""
    elements = b"".join(
        (
            _implicit(0x0002, _padded(sop_class_uid, b"\0")),
            _implicit(0x0100, struct.pack("<H", _C_STORE_RSP)),
            _implicit(0x0120, struct.pack("<H", message_id)),
            _implicit(0x0800, struct.pack("<H", _NO_DATA_SET)),
            _implicit(0x0900, struct.pack("<H", status)),
            _implicit(0x1000, _padded(sop_instance_uid, b"\0")),
        )
    )
    return _implicit(0x0000, struct.pack("<I", len(elements))) + elements


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii")
    return value + pad if len(value) % 2 else value


def _explicit(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _implicit(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, element, len(value)) + value
