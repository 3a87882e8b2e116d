"""The frames of a segmentation, one at a time: unpacked together they take a gigabyte."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels import iter_pixels
from pydicom.uid import UID


def iterate_frames(dataset: Dataset) -> Iterator[npt.NDArray[np.uint8]]:
    """Stored values of each frame, shape (rows, columns), in the order of the file.

    Frames of one bit follow one another without a gap (PS3.5 8.1.1 and 8.2), so that one begins within a byte
    wherever rows times columns is no multiple of eight; pydicom's own iteration takes each to begin a byte.

    Raises
    ------
    ValueError
        If the pixel data are shorter than the frames they are said to hold.
    Exception
        Of any type: what a codec raises for a stream that is broken.
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
