"""Finds the few elements that the listener reads on arrival, in the pieces that a data set came in.

The reader skips all other elements by their lengths and copies only the wanted values. It takes no value that
is cut off. It inflates a deflated data set piece by piece, up to a limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Piece = bytes | memoryview

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
