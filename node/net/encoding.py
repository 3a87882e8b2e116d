"""Two short encodings that every instance waits for: the header of its file and the answer to its C-STORE.

pydicom makes both of data sets, which takes a millisecond of each instance's five. Tests hold that these
bytes are the library's.
"""

from __future__ import annotations

import struct

from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PREAMBLE = b"\0" * 128 + b"DICM"
_VERSION = struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01"
_C_STORE_RSP = 0x8001
_NO_DATA_SET = 0x0101


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
