"""What a slice has lost to compression, and how its pixels are decoded: the same way on every machine.

Each transfer syntax has one decoder, named here: two decoders of one lossy stream may differ by a grey level,
and which of them are installed differs between machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy.typing as npt
from pydicom import Dataset, dcmread
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

from node.dicom.codestream import require_stated_size, require_stated_size_in
from node.dicom.headers import Instance, number_of, text_of

# The decoder of each encapsulated transfer syntax. What is missing here cannot be read.
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
# Transfer syntaxes that may lose information, whatever LossyImageCompression says: a header that an archive
# did not correct when it compressed says "00".
_LOSSY_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})
_EIGHT_BITS = 8
_COARSEST_STEP_HU = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What lossy compression did to images."""

    lossy: bool
    ratio: float | None  # of the strongest; None where nothing was lost, or how much is not known


def decoded(dataset: Dataset) -> npt.NDArray[Any]:
    """The stored values of an image as read from a file, bits beyond BitsStored cleared, before any rescale.

    Raises
    ------
    NotImplementedError
        If the transfer syntax has no decoder.
    SizeContradicted
        If the codestream states another size than the data set.
    Exception
        Of any type: what a codec raises for a stream that is broken.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax in DECODERS or not syntax.is_encapsulated:
        require_stated_size(dataset)
    return _cleared(pixel_array(dataset, decoding_plugin=DECODERS.get(syntax, "")), int(dataset.BitsStored))


def decoded_frames(frames: Sequence[Instance]) -> Iterator[npt.NDArray[Any]]:
    """`decoded` for frames of one file, in the order given, one at a time: the file is parsed once.

    Raises
    ------
    ValueError
        If one of them is no frame of the first one's file.
    Exception
        As `decoded` does.
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
        yield _cleared(stored, int(first.header.BitsStored))


def _cleared(stored: npt.NDArray[Any], bits_stored: int) -> npt.NDArray[Any]:
    # The library clears them but in JPEG-LS and JPEG 2000.
    unused = 8 * stored.dtype.itemsize - bits_stored if stored.dtype.kind in "iu" else 0
    if unused <= 0:
        return stored
    cleared: npt.NDArray[Any] = (stored << unused) >> unused
    return cleared


def loss_of(instances: Iterable[Instance]) -> Loss:
    """What all of a series' images have lost, at worst."""
    # Frames of one file that share a scale share a ratio: the file is looked at once.
    differing = {(one.path, text_of(one.header, "RescaleSlope")): one for one in instances}.values()
    ratios = [_ratio(one) for one in differing if _is_lossy(one)]
    known = [ratio for ratio in ratios if ratio is not None]
    return Loss(lossy=bool(ratios), ratio=max(known) if ratios and len(known) == len(ratios) else None)


def _is_lossy(instance: Instance) -> bool:
    flag = text_of(instance.header, "LossyImageCompression")
    return flag == "01" or instance.transfer_syntax_uid in _LOSSY_SYNTAXES


def _ratio(instance: Instance) -> float | None:
    """By how much an image was compressed: what its header says or its size tells, the larger.

    None where neither tells, and where the values were made coarser first, which no ratio counts: an encoder
    of 8 bits maps a window of HU onto 256 grey levels and cuts off the rest.
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
    """LossyImageCompressionRatio: a value for each step of compression that was applied."""
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
