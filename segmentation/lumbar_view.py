"""Whether a slice looks like one through the lumbar spine: a cheap guess, which measures nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, binary_opening, label

from segmentation.volume import FloatArray, Mask

# All R: chosen on the reference study and on real CT of chest, neck and abdomen.
_PIXEL_MM = 3.0  # about what is looked at
_TISSUE_HU = -300.0
_TABLE_MM = 6.0  # sheets and straps thinner than twice this belong to no patient
_TRUNK_CM2 = 100.0  # at least; a narrow reconstruction of the spine alone shows about so much
_LUNG_HU = (-950.0, -400.0)
_LUNG_SHARE = 0.08  # of the trunk: more is a chest
_BONE_HU = 150.0
_SPINE_CM2 = 1.5  # of bone in the middle third, at least
_DENSE_HU = 250.0  # enhanced kidneys stay below
_DENSE_CM2 = 40.0  # at most: skull and pelvis have more


def shows_lumbar_spine(image: FloatArray, spacing_mm: tuple[float, float]) -> bool:
    """Whether a slice shows a trunk with a spine in its middle, and neither lungs, skull nor pelvis.

    Parameters
    ----------
    image : HU, shape (y, x), of one slice or the mean of a few.
    spacing_mm : of its pixels, (y, x).
    """
    steps = [max(1, round(_PIXEL_MM / spacing)) for spacing in spacing_mm]
    rows, columns = image.shape[0] // steps[0], image.shape[1] // steps[1]
    if not rows or not columns:
        return False
    trimmed = image[: rows * steps[0], : columns * steps[1]]
    hu = trimmed.reshape(rows, steps[0], columns, steps[1]).mean(axis=(1, 3))
    size_mm = steps[0] * spacing_mm[0], steps[1] * spacing_mm[1]
    trunk = _trunk(hu, size_mm)
    pixel_cm2 = size_mm[0] * size_mm[1] / 100.0
    if trunk.sum() * pixel_cm2 < _TRUNK_CM2:
        return False
    lung = trunk & (hu > _LUNG_HU[0]) & (hu < _LUNG_HU[1])
    across = np.flatnonzero(trunk.any(axis=0))
    left, right = int(across[0]), int(across[-1]) + 1
    third = (right - left) // 3
    middle = (trunk & (hu > _BONE_HU))[:, left + third : right - third]
    return bool(
        lung.sum() <= _LUNG_SHARE * trunk.sum()
        and middle.sum() * pixel_cm2 >= _SPINE_CM2
        and (trunk & (hu > _DENSE_HU)).sum() * pixel_cm2 <= _DENSE_CM2
    )


def _trunk(hu: npt.NDArray[np.floating], size_mm: tuple[float, float]) -> Mask:
    """The largest thing in the slice without the table's sheets, its hollows filled."""
    reach = [max(1, round(_TABLE_MM / size)) for size in size_mm]
    y, x = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disc = (y / reach[0]) ** 2 + (x / reach[1]) ** 2 <= 1
    parts, count = label(binary_opening(hu > _TISSUE_HU, disc))
    if not count:
        return np.zeros(hu.shape, dtype=bool)
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    filled: Mask = binary_fill_holes(parts == largest)
    return filled
