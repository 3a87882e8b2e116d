"""The C-STORE-RQ, the C-STORE-RSP and the file header of an instance, encoded and decoded without data sets.

Every instance waits for the three. The libraries make a data set of each, which takes 0.4 ms together, a
quarter of all that an instance takes. Tests hold that these functions write and read what the libraries do.
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
_UID = re.compile(r"[0-9.]{1,64}")
_ELEMENT = struct.Struct("<HHI")  # of a command set: group, element, length of the value
_NUMBER_BYTES = 2
# Of a C-STORE-RQ (PS3.7 Table 9.3-1), by their element numbers in group 0000.
_SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID, _PRIORITY = 0x0002, 0x0100, 0x0110, 0x0700
_DATA_SET_TYPE, _SOP_INSTANCE = 0x0800, 0x1000
_PRIORITIES = range(3)
_MEDIUM = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCommand:
    """What a C-STORE-RQ states of the data set that follows it. The UIDs are as sent, and may be no UIDs.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid : one character for each byte.
    """

    message_id: int
    priority: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool = True


def store_command(encoded: bytes) -> StoreCommand | None:
    """Read a command set in Implicit VR Little Endian, if it is a C-STORE-RQ that can be answered.

    None for any other, which pynetdicom reads. An undefined priority counts as medium; elements that do not
    belong to the message are ignored.
    """
    values: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        if len(encoded) - at < _ELEMENT.size:
            return None
        group, element, length = _ELEMENT.unpack_from(encoded, at)
        begin = at + _ELEMENT.size
        at = begin + length
        if group != 0 or at > len(encoded):
            return None
        values[element] = encoded[begin:at]
    field, message_id, data_set_type = (
        _number(values.get(one)) for one in (_COMMAND_FIELD, _MESSAGE_ID, _DATA_SET_TYPE)
    )
    if field != _C_STORE_RQ or message_id is None or data_set_type is None:
        return None
    priority = _number(values.get(_PRIORITY))
    sop_class_uid, sop_instance_uid = (
        values.get(one, b"").rstrip(b"\0 ").decode("latin-1") for one in (_SOP_CLASS, _SOP_INSTANCE)
    )
    return StoreCommand(
        message_id=message_id,
        priority=priority if priority is not None and priority in _PRIORITIES else _MEDIUM,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        has_data_set=data_set_type != _NO_DATA_SET,
    )


def _number(value: bytes | None) -> int | None:
    return int.from_bytes(value, "little") if value is not None and len(value) == _NUMBER_BYTES else None


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
    """Command set of a C-STORE-RSP, in Implicit VR Little Endian (PS3.7 Sections 6.3.1 and 9.3.1.2).

    Both UIDs are optional: one that is no UID is left out.
    """
    elements = b"".join(
        (
            _uid(0x0002, sop_class_uid),
            _implicit(0x0100, struct.pack("<H", _C_STORE_RSP)),
            _implicit(0x0120, struct.pack("<H", message_id)),
            _implicit(0x0800, struct.pack("<H", _NO_DATA_SET)),
            _implicit(0x0900, struct.pack("<H", status)),
            _uid(0x1000, sop_instance_uid),
        )
    )
    return _implicit(0x0000, struct.pack("<I", len(elements))) + elements


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii")
    return value + pad if len(value) % 2 else value


def _explicit(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _uid(element: int, uid: str) -> bytes:
    return _implicit(element, _padded(uid, b"\0")) if _UID.fullmatch(uid) else b""


def _implicit(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, element, len(value)) + value
