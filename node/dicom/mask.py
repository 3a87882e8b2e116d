"""Label images drawn elsewhere, in NIfTI or any format but DICOM that SimpleITK reads; see `seg_read`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from pydicom.misc import is_dicom

from node.dicom.errors import MaskUnreadable
from segmentation.volume import Grid, Vector

LabelArray = npt.NDArray[np.int64]


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by its preamble, whatever its name says."""
    return bool(is_dicom(path))


def read_mask(path: Path) -> tuple[LabelArray, Grid]:
    """The labels, shape (z, y, x), and where they lie in patient coordinates (LPS, mm).

    SimpleITK turns NIfTI's RAS into LPS itself.

    Raises
    ------
    MaskUnreadable
        If the file is no image, has not three dimensions or holds values that are no whole numbers.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise MaskUnreadable(f"not an image file: {path.name}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise MaskUnreadable(f"not a three-dimensional label image: {path.name}")
    values = sitk.GetArrayFromImage(image)
    labels: LabelArray = np.rint(values).astype(np.int64)
    if not np.array_equal(labels, values):
        raise MaskUnreadable(f"holds values that are no labels: {path.name}")
    if np.abs(labels).max(initial=0) > np.iinfo(np.int16).max:
        raise MaskUnreadable(f"holds values that are no labels: {path.name}")
    return labels, _grid_of(image)


def _grid_of(image: sitk.Image) -> Grid:
    sx, sy, sz = image.GetSpacing()
    cosines = np.asarray(image.GetDirection(), dtype=float).reshape(3, 3)  # columns: image axes x, y, z
    ox, oy, oz = image.GetOrigin()
    nx, ny, nz = image.GetSize()

    def axis(column: int) -> Vector:
        return float(cosines[0, column]), float(cosines[1, column]), float(cosines[2, column])

    return Grid(
        shape=(int(nz), int(ny), int(nx)),
        spacing_mm=(float(sz), float(sy), float(sx)),
        origin_mm=(float(ox), float(oy), float(oz)),
        direction=(axis(2), axis(1), axis(0)),
    )
