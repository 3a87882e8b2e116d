"""How high a vertebral body is in front, in its middle and behind, along its own axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.vertebrae import Level
from segmentation.volume import FloatArray, Grid, Mask

STEP_MM = 0.5  # along the axis
COLUMN_STEP_MM = 1.0  # across it
HALF_STRIP_MM = 7.0  # columns this close to the median plane are read
REACH_MM = 40.0
# A parabola through the columns between these shares of the depth, read near both ends: the rims themselves
# carry osteophytes and, in thick slices, partial volume.
FITTED = (0.10, 0.90)
READ_AT = (0.05, 0.50, 0.95)
MIN_COLUMNS = 8
TREND_COLUMNS = 8  # by which the height of a further one is expected
TREND_AHEAD = 3  # the columns just before it are not asked: voxels spread the end of a wall over them
HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Heights:
    """Of one body, in mm, after Genant et al. 1993."""

    anterior_mm: float
    middle_mm: float
    posterior_mm: float
    volume_mm3: float | None = None  # None where it is not known

    @property
    def mean_mm(self) -> float:
        return (self.anterior_mm + self.middle_mm + self.posterior_mm) / 3

    @property
    def proportion(self) -> float | None:
        """Mean height over the square root of the mean cross-section: what a body is by itself."""
        if self.volume_mm3 is None:
            return None
        return float(self.mean_mm / np.sqrt(self.volume_mm3 / self.mean_mm))


def body_heights(share: FloatArray, grid: Grid, level: Level) -> Heights | None:
    """The three heights; None where the body is too small to be measured.

    Parameters
    ----------
    share : of each voxel inside the body (0..1), shape of the grid (which may be a part of the volume's).
    """
    up = np.asarray(level.axis)
    back = np.array([0.0, 1.0, 0.0]) - up[1] * up
    back = back / np.linalg.norm(back)
    left = np.cross(back, up)
    h = np.arange(-REACH_MM, REACH_MM, STEP_MM)
    b = np.arange(-REACH_MM, REACH_MM, COLUMN_STEP_MM)
    w = np.arange(-HALF_STRIP_MM, HALF_STRIP_MM + 0.1, COLUMN_STEP_MM)
    points = (
        np.asarray(level.centroid_mm)
        + h[:, None, None, None] * up
        + b[None, :, None, None] * back
        + w[None, None, :, None] * left
    )
    index = np.moveaxis(grid.to_index(points), -1, 0)
    inside = ndimage.map_coordinates(share, index, order=1, prefilter=False) >= 0.5
    reached = inside.any(axis=0)
    column = _column_heights(inside) * STEP_MM
    wide = _wall_to_wall(inside.sum(axis=0).mean(axis=1) * STEP_MM, reached.mean(axis=1) >= HALF)
    if len(wide) < MIN_COLUMNS:
        return None
    height = np.array([column[k][reached[k]].mean() for k in wide])
    share = np.linspace(0.0, 1.0, len(height))
    fitted = (share >= FITTED[0]) & (share <= FITTED[1])
    curve = np.polynomial.Polynomial.fit(share[fitted], height[fitted], 2)
    anterior, middle, posterior = (max(STEP_MM, float(curve(at))) for at in READ_AT)
    return Heights(
        anterior_mm=anterior,
        middle_mm=middle,
        posterior_mm=posterior,
        volume_mm3=level.body_volume_mm3,
    )


def _wall_to_wall(filled_mm: npt.NDArray[np.float64], wide: npt.NDArray[np.bool_]) -> list[int]:
    """The depths that belong to the body itself, from front to back.

    A depth counts where most of the strip meets the body. In front of the wall an osteophyte may follow, of a
    few millimetres' height at one rim or at both: there bone ends at once, while a wedge thins out.

    Parameters
    ----------
    filled_mm : bone at each depth, in mm of height, as the mean of the strip.
    """
    depths = np.flatnonzero(wide)
    if len(depths) < MIN_COLUMNS:
        return []
    middle = int(depths[len(depths) // 2])
    kept = [middle]
    for step in (-1, 1):
        at = middle + step
        while 0 <= at < len(wide) and wide[at]:
            before = at - step * (np.arange(TREND_COLUMNS) + TREND_AHEAD)
            trend = np.polynomial.Polynomial.fit(before, filled_mm[before], 1)
            if filled_mm[at] < HALF * float(trend(at)):
                break
            kept.append(at)
            at += step
    return sorted(kept)


def _column_heights(inside: Mask) -> npt.NDArray[np.float64]:
    """Samples from the first to the last one inside, along axis 0: a waist or a hole shortens no column."""
    first = np.argmax(inside, axis=0)
    last = inside.shape[0] - 1 - np.argmax(inside[::-1], axis=0)
    samples: npt.NDArray[np.float64] = np.where(inside.any(axis=0), last - first + 1, 0).astype(float)
    return samples
