"""What a compressed frame says of its own size, before any decoder believes it.

A decoder makes room for what the codestream states. Where that is not what the data set states, the image is
not decoded: a slice of some kilobytes can state billions of pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    RLELossless,
)

MOST_PIXELS = 8192 * 8192  # of a frame: what `limits.matrix` can be raised to
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_JPEG_2000 = frozenset({JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL})
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", 0xDA
# Start of frame of every process, and of JPEG-LS; C4, C8 and CC are others (ITU-T T.81 Table B.1, T.87).
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_SIZ = struct.Struct(">HH8IH")  # after its marker, up to the number of components (ITU-T T.800 Annex A.5.1)
_CODESTREAM = b"\xff\x4f\xff\x51"
_RLE_HEADER, _RLE_MOST_SEGMENTS = 64, 15


class SizeContradicted(ValueError):
    """A frame states another size than its data set, or none that can be found."""


def require_stated_size(
    dataset: Dataset, frames: Iterable[bytes] | None = None, syntax: UID | None = None
) -> None:
    """Raise `SizeContradicted` unless every frame has the size that the data set states, and can be decoded.

    Parameters
    ----------
    frames : those that are to be decoded, encapsulated; those of the data set's own pixel data, if not given.
    syntax : of the frames; that of the data set's file, if not given.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > MOST_PIXELS:
        raise SizeContradicted(f"more than {MOST_PIXELS} pixels")
    syntax = syntax or UID(dataset.file_meta.TransferSyntaxUID)
    if not syntax.is_encapsulated:
        return  # the library compares lengths
    samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.BitsAllocated)
    for frame in _frames_of(dataset, dataset.PixelData) if frames is None else frames:
        if syntax == RLELossless:
            _require_rle_within(frame, rows * columns, samples * max(1, bits // 8))
            continue
        found = _size_in_jpeg_2000(frame) if syntax in _JPEG_2000 else _size_in_jpeg(frame)
        if found != (rows, columns, samples):
            raise SizeContradicted(f"the codestream states {found}, its data set {(rows, columns, samples)}")


def require_stated_size_in(path: Path, header: Dataset, indices: Collection[int]) -> None:
    """The same for some encapsulated frames of a file whose pixel data is not read into memory.

    Parameters
    ----------
    header : of the image, or of one of its frames.
    indices : from 0.
    """
    with path.open("rb") as file:
        whole = dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames", *_OFFSETS])
        syntax = UID(whole.file_meta.TransferSyntaxUID)
        file.seek(12, 1)  # the pixel data's own tag, representation and length (PS3.5 Annex A.4)
        frames = _frames_of(whole, file)
        sought = (frame for k, frame in enumerate(islice(frames, max(indices) + 1)) if k in indices)
        require_stated_size(header, sought, syntax)


def _frames_of(dataset: Dataset, pixels: bytes | BinaryIO) -> Iterator[bytes]:
    tables = tuple(dataset[keyword].value for keyword in _OFFSETS if keyword in dataset)
    frames: Iterator[bytes] = generate_frames(
        pixels,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
        extended_offsets=(tables[0], tables[1]) if len(tables) == len(_OFFSETS) else None,
    )
    return frames


def _size_in_jpeg(content: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a JPEG or JPEG-LS stream."""
    if content[:2] != _START_OF_IMAGE:
        raise SizeContradicted("no JPEG stream")
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            break
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2
        if marker in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        if marker in _FRAMES and at + 8 <= len(content):
            _, rows, columns, components = struct.unpack_from(">BHHB", content, at + 2)
            return rows, columns, components
        if marker == _START_OF_SCAN or length < 2:
            break
        at += length
    raise SizeContradicted("a JPEG stream that does not state its size")


def _size_in_jpeg_2000(content: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a JPEG 2000 codestream, alone or in the boxes of a file (JP2)."""
    at = 0
    while content[at : at + 4] != _CODESTREAM:
        if at + 8 > len(content):
            raise SizeContradicted("no JPEG 2000 codestream")
        length, kind = struct.unpack_from(">I4s", content, at)
        header = 8
        if length == 1 and at + 16 <= len(content):
            (length,), header = struct.unpack_from(">Q", content, at + 8), 16
        if kind == b"jp2c":
            length = header
        if length < header:
            raise SizeContradicted("no JPEG 2000 codestream")
        at += length
    if at + 4 + _SIZ.size > len(content):
        raise SizeContradicted("a JPEG 2000 codestream that breaks off")
    _, _, right, bottom, left, top, _, _, _, _, components = _SIZ.unpack_from(content, at + 4)
    return bottom - top, right - left, components


def _require_rle_within(content: bytes, pixels: int, segments: int) -> None:
    """Runs hold at most 128 bytes in two: where a frame is not too long, what it holds is bounded."""
    if len(content) < _RLE_HEADER or not 0 < segments <= _RLE_MOST_SEGMENTS:
        raise SizeContradicted("no RLE frame")
    if len(content) > _RLE_HEADER + segments * (2 * pixels + 2):
        raise SizeContradicted("an RLE frame longer than its pixels can need")
