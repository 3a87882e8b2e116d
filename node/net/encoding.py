"""What the listener reads and writes of an instance without data sets: messages, file header, few elements.

Every instance waits for the C-STORE-RQ, the C-STORE-RSP and the file header. The libraries make a data set of
each, which takes 0.4 ms together, a quarter of all that an instance takes. Tests hold that these functions
write and read what the libraries do.

The few elements that are read on arrival are found in the pieces that a data set came in. The reader skips
all other elements by their lengths and copies only the wanted values. It takes no value that is cut off. It
inflates a deflated data set piece by piece, up to a limit.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

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


Piece = bytes | memoryview

# Elements of a data set, found in the pieces that it came in.

PIXELS = 0x7FE0_0000  # from here on: pixel data and what goes with them
_UNDEFINED = 0xFFFF_FFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
# Value representations with a length of 32 bits (PS3.5 Section 7.1.2), and all that there are.
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
    | {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_DEEPEST = 32  # sequences within one another
_LONGEST_WANTED = 1024  # bytes of a value
_INFLATED_PIECE = 1 << 20
_MOST_ELEMENTS = 1 << 20  # an Enhanced CT of 5,000 frames has half as many; a little deflated says millions


class DataSetUnreadable(Exception):
    """The data set ends too soon, or breaks a rule of encoding. Another reader may understand it."""


class DataSetTruncated(DataSetUnreadable):
    """The data set ends before the wanted values are complete."""


class DeflatedStreamInvalid(Exception):
    """A deflated data set is cut off, or is no deflated stream."""


class InflatedTooLarge(Exception):
    """The data set inflates to more than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a transfer syntax encodes elements."""

    explicit: bool
    little_endian: bool

    @property
    def order(self) -> str:
        return "<" if self.little_endian else ">"


_IMPLICIT = Encoding(explicit=False, little_endian=True)


@dataclass(slots=True)
class _Reader:
    """Reads forward through pieces."""

    pieces: Iterator[Piece]
    piece: Piece = b""
    at: int = 0
    passed: int = 0  # bytes of the pieces before this one
    kept: list[Piece] | None = None  # collects what was read
    elements: int = 0  # that were met, items' own among them
    _length: int = field(default=0)

    @property
    def place(self) -> int:
        return self.passed + self.at

    def take(self, count: int) -> bytes:
        """The next bytes. Raises `DataSetUnreadable` where there are fewer."""
        taken = bytes(self.piece[self.at : self.at + count])
        self.at += len(taken)
        while len(taken) < count:
            self._next()
            more = bytes(self.piece[: count - len(taken)])
            self.at = len(more)
            taken += more
        return taken

    def skip(self, count: int) -> None:
        while count > self._length - self.at:
            count -= self._length - self.at
            self._next()
        self.at += count

    def ended(self) -> bool:
        while self.at == self._length:
            try:
                self._next()
            except DataSetUnreadable:
                return True
        return False

    def _next(self) -> None:
        following = next(self.pieces, None)
        if following is None:
            raise DataSetTruncated
        self.passed += self._length
        self.piece, self.at, self._length = following, 0, len(following)
        if self.kept is not None:
            self.kept.append(following)


def find_values(
    pieces: Iterable[Piece],
    encoding: Encoding,
    needed: Collection[int],
    further: Collection[int] = (),
    *,
    to_the_end: bool = False,
) -> Mapping[int, bytes]:
    """Encoded values of elements of the data set itself; elements of its items are skipped.

    Parameters
    ----------
    needed, further : tags, as numbers of 32 bits. Reading ends after the last of them, or at damage
        after the last needed one.
    to_the_end : read the whole data set; damage anywhere raises.

    Raises
    ------
    DataSetTruncated
        If it ends before the last needed value.
    DataSetUnreadable
        If its elements do not ascend, or one cannot be read.
    DeflatedStreamInvalid, InflatedTooLarge
        As `inflated`, where the pieces come from it.
    """
    found: dict[int, bytes] = {}
    try:
        _find(_Reader(iter(pieces)), encoding, frozenset((*needed, *further)), found, to_the_end=to_the_end)
    except DataSetUnreadable:
        if to_the_end or not found.keys() >= set(needed):
            raise
    return found


def _find(
    reader: _Reader,
    encoding: Encoding,
    wanted: frozenset[int],
    found: dict[int, bytes],
    *,
    to_the_end: bool,
) -> None:
    last = max(wanted)
    before = -1
    while not reader.ended():
        try:
            tag, vr, length = _head(reader, encoding)
        except DataSetTruncated:
            if to_the_end:  # some bytes of padding
                break
            raise
        if tag <= before or tag >> 16 == 0xFFFE:
            raise DataSetUnreadable("its elements do not ascend")
        before = tag
        if tag > last and not to_the_end:
            break
        if tag in wanted:
            if length > _LONGEST_WANTED:
                raise DataSetUnreadable("a value is too long")
            found[tag] = reader.take(length)
        else:
            _pass(reader, encoding, vr, length)


def before_pixels(pieces: Iterable[Piece], encoding: Encoding, most_bytes: int) -> bytes:
    """The data set up to its pixel data, or all of it where it has none.

    Raises
    ------
    DataSetUnreadable
        If it is cut off, or an element cannot be read.
    InflatedTooLarge
        If that is more than `most_bytes`.
    DeflatedStreamInvalid
        As `inflated`, where the pieces come from it.
    """
    kept: list[Piece] = []
    reader = _Reader(_counted(pieces, most_bytes + _INFLATED_PIECE), kept=kept)
    end = None
    while not reader.ended():
        begin = reader.place
        tag, vr, length = _head(reader, encoding)
        if tag >= PIXELS:
            end = begin
            break
        _pass(reader, encoding, vr, length)
    return b"".join(kept)[:end]


def _counted(pieces: Iterable[Piece], most_bytes: int) -> Iterator[Piece]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most_bytes:
            raise InflatedTooLarge
        yield piece


def inflated(pieces: Iterable[Piece], most_bytes: int) -> Iterator[bytes]:
    """Inflate pieces, into pieces of at most 1 MiB (PS3.5 Annex A.5: no zlib header).

    Raises
    ------
    InflatedTooLarge
        If that is more than `most_bytes`.
    DeflatedStreamInvalid
        If the stream is cut off, or is none.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    try:
        for piece in pieces:
            rest: Piece = piece
            while rest and not stream.eof:
                made = stream.decompress(rest, _INFLATED_PIECE)
                rest = stream.unconsumed_tail
                total += len(made)
                if total > most_bytes:
                    raise InflatedTooLarge
                if made:
                    yield made
        while not stream.eof:  # what was held back for want of room
            made = stream.decompress(b"", _INFLATED_PIECE)
            if not made:
                raise DeflatedStreamInvalid("its deflated stream breaks off")
            total += len(made)
            if total > most_bytes:
                raise InflatedTooLarge
            yield made
    except zlib.error as error:
        raise DeflatedStreamInvalid("it is not a deflated stream") from error


def _head(reader: _Reader, encoding: Encoding) -> tuple[int, bytes, int]:
    """Tag, value representation and length of the next element; "UN" where none is stated."""
    reader.elements += 1
    if reader.elements > _MOST_ELEMENTS:
        raise DataSetUnreadable("it has too many elements")
    head = reader.take(8)
    group, element = struct.unpack_from(encoding.order + "HH", head)
    tag = group << 16 | element
    if not encoding.explicit or group == 0xFFFE:
        return tag, b"UN", struct.unpack_from(encoding.order + "I", head, 4)[0]
    vr = head[4:6]
    if vr in _SHORT:
        return tag, vr, struct.unpack_from(encoding.order + "H", head, 6)[0]
    if vr not in _LONG:
        raise DataSetUnreadable("a value representation that there is not")
    return tag, vr, struct.unpack(encoding.order + "I", reader.take(4))[0]


def _pass(reader: _Reader, encoding: Encoding, vr: bytes, length: int, depth: int = 0) -> None:
    """Skip a value; one of undefined length item by item."""
    if length != _UNDEFINED:
        reader.skip(length)
        return
    if depth > _DEEPEST:
        raise DataSetUnreadable("sequences lie too deep")
    if vr not in (b"SQ", b"UN"):
        inner = None  # fragments, whose items have lengths
    elif encoding.explicit and vr == b"UN":
        inner = _IMPLICIT  # PS3.5 Section 6.2.2: whatever the transfer syntax
    else:
        inner = encoding
    outer = inner or encoding
    while True:
        tag, _, length = _head(reader, outer)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM or (inner is None and length == _UNDEFINED):
            raise DataSetUnreadable("a sequence holds something else than items")
        if length != _UNDEFINED:
            reader.skip(length)
            continue
        while True:
            tag, inner_vr, length = _head(reader, outer)
            if tag == _ITEM_END:
                break
            _pass(reader, outer, inner_vr, length, depth + 1)
