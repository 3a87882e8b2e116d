"""Single slices as the report shows them: each with what was found in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from node.dicom.read import LoadedSeries
from segmentation.volume import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSlice:
    """One slice, and the masks drawn in it."""

    name: str  # as in `node.report.SliceResult`
    series: LoadedSeries  # of this slice alone
    body: Mask | None  # shape (1, rows, columns); None where no body was found
    region: Mask | None  # where density is read


def outline_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The closed outline of a mask's longest border.

    Parameters
    ----------
    mask : shape (rows, columns); some pixels set, none of them at the border of the image.

    Returns
    -------
    Shape (n, 2): column and row of its corners as SCOORD counts them, the first pixel's centre at (0.5, 0.5)
    (PS3.3 C.18.6.1.1); the first corner is repeated as the last.
    """
    lines = Figure().subplots().contour(mask.astype(float), levels=[0.5]).allsegs[0]
    longest: npt.NDArray[np.float64] = np.asarray(max(lines, key=len), dtype=np.float64) + 0.5
    return np.vstack([longest[:-1], longest[:1]])
