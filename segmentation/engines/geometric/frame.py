"""The geometric engine's working frame: millimetres along the canonical axes, and sampling in it.

A point is ``(z, y, x)`` in mm from the centre of the canonical array's first voxel; z grows towards superior,
y towards posterior, x towards left. Working in mm keeps anisotropic voxels out of every later step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, FloatArray, Points, Profile

OUTSIDE_HU = -2000.0  # what sampling gives outside the volume: below any HU a scanner writes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingVolume:
    """A coarse isotropic copy, for finding things; measuring samples the full volume.

    Attributes
    ----------
    hu : shape (z, y, x).
    """

    hu: FloatArray
    step_mm: float


def extent_mm(volume: CtVolume) -> Points:
    """Position (z, y, x) in mm of the last voxel's centre in the working frame."""
    last: Points = (np.asarray(volume.grid.shape, dtype=float) - 1) * np.asarray(volume.grid.spacing_mm)
    return last


def coarsen(volume: CtVolume, step_mm: float) -> WorkingVolume:
    """An isotropic copy: means of whole blocks of fine voxels, interpolated linearly.

    The means keep the noise of thin slices out of the samples.

    Parameters
    ----------
    volume : in the canonical frame.
    step_mm : spacing of the copy.
    """
    spacing = np.asarray(volume.grid.spacing_mm)
    factors = np.maximum(1, np.floor(step_mm / spacing + 1e-6)).astype(int)
    factors = np.minimum(factors, volume.grid.shape)
    hu = volume.hu
    for axis, factor in enumerate(factors):
        if factor > 1:
            hu = _block_mean(hu, axis, int(factor))
    block_mm = spacing * factors
    first_mm = (factors - 1) * spacing / 2  # centre of the first block
    counts = np.maximum(1, np.floor(extent_mm(volume) / step_mm + 1e-6).astype(int) + 1)
    coarse = ndimage.affine_transform(
        hu,
        np.full(3, step_mm) / block_mm,
        offset=-first_mm / block_mm,
        output_shape=tuple(int(n) for n in counts),
        order=1,
        mode="nearest",
        prefilter=False,
    )
    return WorkingVolume(hu=coarse.astype(np.float32), step_mm=step_mm)


def _block_mean(hu: FloatArray, axis: int, factor: int) -> FloatArray:
    """Means of `factor` neighbours along one axis; a remainder at the end is left out."""
    count = hu.shape[axis] // factor
    total = np.zeros_like(np.take(hu, range(count), axis=axis))
    for first in range(factor):
        span = [slice(None)] * 3
        span[axis] = slice(first, first + count * factor, factor)
        total += hu[tuple(span)]
    return total / np.float32(factor)


def sample(volume: CtVolume, points_mm: Points) -> Profile:
    """HU at points by linear interpolation.

    Parameters
    ----------
    points_mm : (..., 3), (z, y, x) in the working frame.

    Returns
    -------
    float32, (...); `OUTSIDE_HU` outside the volume.
    """
    index = np.moveaxis(points_mm / np.asarray(volume.grid.spacing_mm), -1, 0)
    hu: Profile = ndimage.map_coordinates(
        volume.hu, index, output=np.float32, order=1, mode="constant", cval=OUTSIDE_HU, prefilter=False
    )
    return hu


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFrame:
    """One vertebral body's own axes; heights h along, u left and v front, in mm from `origin_mm`.

    Attributes
    ----------
    origin_mm : (3,), (z, y, x) in the working frame.
    along : (3,), unit vector towards superior.
    front : (3,), unit vector towards anterior.
    left : (3,), unit vector towards left.
    """

    origin_mm: Points
    along: Points
    front: Points
    left: Points

    def points(self, h: npt.ArrayLike, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
        """Working-frame points (..., 3) of local coordinates in mm, which are broadcast."""
        placed: Points = (
            self.origin_mm
            + np.asarray(h, dtype=float)[..., None] * self.along
            + np.asarray(u, dtype=float)[..., None] * self.left
            + np.asarray(v, dtype=float)[..., None] * self.front
        )
        return placed

    def local(self, points_mm: Points) -> Points:
        """Local coordinates (h, u, v) in mm of working-frame points; both (..., 3)."""
        axes = np.column_stack([self.along, self.left, self.front])
        found: Points = (points_mm - self.origin_mm) @ axes
        return found

    def moved(self, h: float, u: float, v: float) -> BodyFrame:
        return self.facing(self.along, self.points(h, u, v))

    def facing(self, along: Points, origin_mm: Points) -> BodyFrame:
        """The frame with another axis and origin; its front stays as near as possible."""
        return body_frame(origin_mm, along, self.front)


def body_frame(origin_mm: Points, along: Points, front: Points) -> BodyFrame:
    """A right-angled frame from an axis and an approximate anterior direction.

    Parameters
    ----------
    origin_mm : (3,), (z, y, x) in the working frame.
    along, front : (3,), of any length, not parallel.
    """
    along = along / np.linalg.norm(along)
    front = front - (front @ along) * along
    front = front / np.linalg.norm(front)
    left = np.cross(front, along)
    # (z, y, x) is read as a right-handed triple here; left is +x in the canonical frame.
    left = left if left[2] >= 0 else -left
    return BodyFrame(origin_mm=np.asarray(origin_mm, dtype=float), along=along, front=front, left=left)
