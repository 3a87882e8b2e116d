"""Decoding of pixels, and what lossy compression did to them.

Each transfer syntax has one decoder, named here, so that every machine decodes alike: two decoders of one
lossy stream may differ by a grey level, and which of them are installed differs between machines.

A decoder allocates what the codestream states, and a slice of some kilobytes can state billions of pixels.
So an image is decoded only if its codestream states the size that its data set states.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from node.dicom.ct.headers import Instance
from node.dicom.header_text import number_of, text_of

MOST_PIXELS = 8192 * 8192  # of a frame: what `limits.matrix` can be raised to
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_JPEG_2000 = frozenset({JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL})
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", 0xDA
# Start of frame of every process, and of JPEG-LS; C4, C8 and CC are others (ITU-T T.81 Table B.1, T.87).
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_SIZ = struct.Struct(">HH8IH")  # after its marker, up to the number of components (ITU-T T.800 Annex A.5.1)
_CODESTREAM = b"\xff\x4f\xff\x51"
_RLE_HEADER, _RLE_MOST_SEGMENTS = 64, 15


class SizeContradicted(ValueError):
    """A frame whose codestream states another size than its data set, or states none."""


def require_stated_size(
    dataset: Dataset, frames: Iterable[bytes] | None = None, syntax: UID | None = None
) -> None:
    """Check each frame's own size against the data set before a decoder believes it.

    Parameters
    ----------
    frames : encapsulated frames that are to be decoded; by default those of the data set's own pixel data.
    syntax : transfer syntax of the frames; by default that of the data set's file.

    Raises
    ------
    SizeContradicted
        If a frame states another size than Rows, Columns and SamplesPerPixel, has more than `MOST_PIXELS`
        pixels, or cannot be parsed.

    Source: ITU-T T.81 Annex B (JPEG), T.87 (JPEG-LS), T.800 Annex A.5.1 (JPEG 2000), PS3.5 Annex G (RLE).
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
    """`require_stated_size` for frames of a file whose pixel data is not read into memory.

    Parameters
    ----------
    header : of the image, or of one of its frames.
    indices : of the frames, from 0; at least one.

    Raises
    ------
    SizeContradicted
        As `require_stated_size`.
    """
    with path.open("rb") as file:
        whole = dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames", *_OFFSETS])
        syntax = UID(whole.file_meta.TransferSyntaxUID)
        file.seek(12, 1)  # the pixel data's own tag, representation and length (PS3.5 Annex A.4)
        frames = _frames_of(whole, file)
        chosen = (frame for k, frame in enumerate(islice(frames, max(indices) + 1)) if k in indices)
        require_stated_size(header, chosen, syntax)


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
        if marker in _START_OF_FRAME and at + 8 <= len(content):
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
    """Bound the length of a frame: a run of two bytes decodes to at most 128."""
    if len(content) < _RLE_HEADER or not 0 < segments <= _RLE_MOST_SEGMENTS:
        raise SizeContradicted("no RLE frame")
    if len(content) > _RLE_HEADER + segments * (2 * pixels + 2):
        raise SizeContradicted("an RLE frame longer than its pixels can need")


# The decoder of each encapsulated transfer syntax; others cannot be read.
DECODERS: dict[str, str] = {
    RLELossless: "pydicom",  # pylibjpeg-rle 2.2 panics at a broken stream: no Exception
    JPEGBaseline8Bit: "pylibjpeg",
    JPEGExtended12Bit: "pylibjpeg",
    JPEGLossless: "pylibjpeg",
    JPEGLosslessSV1: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
# Transfer syntaxes that may lose information, whatever LossyImageCompression states: some archives compress
# and leave "00" in the header.
_LOSSY_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})
_EIGHT_BITS = 8
_COARSEST_STEP_HU = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionLoss:
    """What lossy compression did to images.

    Attributes
    ----------
    lossy : whether any of them was compressed with loss.
    ratio : of the strongest compression, above 0; None where nothing was lost, or where a ratio is not known.
    """

    lossy: bool
    ratio: float | None


def decode_image(dataset: Dataset) -> npt.NDArray[Any]:
    """The stored values of an image, bits beyond BitsStored cleared, before any rescale.

    Parameters
    ----------
    dataset : as read from a file, with pixel data.

    Returns
    -------
    Shape (rows, columns) of a single grey frame; frames come first and samples last where there are
    several. The dtype is that of the stored values.

    Raises
    ------
    NotImplementedError
        If the transfer syntax has no decoder.
    SizeContradicted
        If the codestream states another size than the data set.
    Exception
        Of any type: what a codec raises for a broken stream.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax in DECODERS or not syntax.is_encapsulated:
        require_stated_size(dataset)
    return _without_unused_bits(
        pixel_array(dataset, decoding_plugin=DECODERS.get(syntax, "")), int(dataset.BitsStored)
    )


def decode_frames(frames: Sequence[Instance]) -> Iterator[npt.NDArray[Any]]:
    """Decode frames of one file like `decode_image`, in the order given, one at a time: the file is parsed
    once.

    Parameters
    ----------
    frames : images with a frame number, all of the first one's file; at least one.

    Raises
    ------
    ValueError
        If one of them is no frame of the first one's file.
    Exception
        As `decode_image` does.
    """
    first = frames[0]
    indices = [one.frame - 1 for one in frames if one.frame is not None and one.path == first.path]
    if len(indices) != len(frames):
        raise ValueError("not all are frames of one file")
    syntax = UID(first.transfer_syntax_uid)
    if syntax in DECODERS:
        require_stated_size_in(first.path, first.header, frozenset(indices))
    elif not syntax.is_encapsulated:
        require_stated_size(first.header, (), syntax)
    # What was deflated has no place to start reading from.
    source = dcmread(first.path) if syntax.is_deflated else first.path
    for stored in iter_pixels(source, indices=indices, decoding_plugin=DECODERS.get(syntax, "")):
        yield _without_unused_bits(stored, int(first.header.BitsStored))


def _without_unused_bits(stored: npt.NDArray[Any], bits_stored: int) -> npt.NDArray[Any]:
    """Clear the bits beyond BitsStored: pydicom does so but in JPEG-LS and JPEG 2000."""
    unused = 8 * stored.dtype.itemsize - bits_stored if stored.dtype.kind in "iu" else 0
    if unused <= 0:
        return stored
    cleared: npt.NDArray[Any] = (stored << unused) >> unused
    return cleared


def compression_loss(instances: Iterable[Instance]) -> CompressionLoss:
    """The worst loss among the images of a series.

    The ratio is the largest that headers state or file sizes show. It is unknown if it is unknown for any
    lossy image, has 8 bits or fewer, or steps of more than 1 HU: values made coarser before compression.
    """
    # Frames of one file that share a scale share a ratio: each file is read once.
    differing = {(one.path, text_of(one.header, "RescaleSlope")): one for one in instances}.values()
    ratios = [_ratio(one) for one in differing if _is_lossy(one)]
    known = [ratio for ratio in ratios if ratio is not None]
    return CompressionLoss(
        lossy=bool(ratios), ratio=max(known) if known and len(known) == len(ratios) else None
    )


def _is_lossy(instance: Instance) -> bool:
    flag = text_of(instance.header, "LossyImageCompression")
    return flag == "01" or instance.transfer_syntax_uid in _LOSSY_SYNTAXES


def _ratio(instance: Instance) -> float | None:
    """The compression ratio that the header states or the size shows, whichever is larger.

    None where neither is known, and where the values were made coarser before, which no ratio counts: an
    encoder of 8 bits maps a window of HU onto 256 grey levels and cuts off the rest.
    """
    header = instance.header
    slope = abs(number_of(header, "RescaleSlope") or 0.0)
    if int(header.get("BitsStored") or 0) <= _EIGHT_BITS or slope > _COARSEST_STEP_HU:
        return None
    found = list(_stated_ratios(header))
    if instance.transfer_syntax_uid in _LOSSY_SYNTAXES:
        found.append(_measured_ratio(instance))
    return max(found, default=None)


def _stated_ratios(header: Dataset) -> Iterator[float]:
    """LossyImageCompressionRatio: one value for each step of compression."""
    for value in text_of(header, "LossyImageCompressionRatio").split():
        try:
            ratio = float(value)
        except ValueError:
            continue
        if isfinite(ratio) and ratio > 0:
            yield ratio


def _measured_ratio(instance: Instance) -> float:
    """Bytes of the image before its compression to bytes after it."""
    header = instance.header
    values = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    after = len(dcmread(instance.path, specific_tags=["PixelData"]).PixelData)
    return values * (int(header.BitsAllocated) // 8) / after


def iterate_frames(dataset: Dataset) -> Iterator[npt.NDArray[np.uint8]]:
    """Stored values of each frame, one at a time: the frames of a segmentation, unpacked, can take a
    gigabyte.

    Frames of one bit follow one another without a gap (PS3.5 8.1.1 and 8.2). A frame begins within a byte
    wherever rows times columns is no multiple of eight; pydicom's own iteration takes each to begin a byte.

    Parameters
    ----------
    dataset : as read from a file, with pixel data.

    Returns
    -------
    Arrays of shape (rows, columns), in the order of the file.

    Raises
    ------
    ValueError
        If the pixel data are shorter than the stated frames.
    Exception
        Of any type: what a codec raises for a broken stream.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if int(dataset.BitsAllocated) != 1 or syntax.is_encapsulated:
        yield from iter_pixels(dataset, raw=True)
        return
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    content = np.frombuffer(dataset.PixelData, np.uint8)
    if not syntax.is_little_endian and dataset["PixelData"].VR == "OW":
        content = content.reshape(-1, 2)[:, ::-1].reshape(-1)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if 8 * len(content) < frames * rows * columns:
        raise ValueError("the pixel data are shorter than their frames")
    for first in range(0, frames * rows * columns, rows * columns):
        last = first + rows * columns
        packed = content[first // 8 : -(-last // 8)]
        bits = np.unpackbits(packed, bitorder="little")[first % 8 :]
        yield bits[: rows * columns].reshape(rows, columns)
