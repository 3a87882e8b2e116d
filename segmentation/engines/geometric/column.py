"""The vertebral column as a curve: the line of the spinal canal, moved forward into the vertebral bodies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentation.ct_volume import Points
from segmentation.engines.geometric.canal import Canal

BODY_OFFSET_MM = 26.0  # canal centre to body centre: half a canal (8) and half a body's depth (17-18) (R)
EXTENSION_MM = 30.0  # most of a vertebra
END_MM = 25  # an end's direction is that of its last points
LEAST_MM = 8  # no vertebra, not even a crushed one, shows on less of a line (R)
CURVE_SMOOTHING_MM = 14.0  # about half a vertebra: the curve follows the column, not each vertebra


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The line through the vertebral bodies, sampled every mm from inferior to superior, with its frames.

    Attributes
    ----------
    centre_mm : (n, 3).
    along : (n, 3), unit vectors towards superior.
    front : (n, 3), unit vectors towards anterior, perpendicular to `along`.
    left : (n, 3), unit vectors towards left.
    canal_mm : (m, 3), the smoothed centre line of the canal.
    """

    centre_mm: Points
    along: Points
    front: Points
    left: Points
    canal_mm: Points

    @property
    def length(self) -> int:
        return len(self.centre_mm)

    def points(self, s: npt.ArrayLike, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
        """Working-frame points of places beside the curve.

        Parameters
        ----------
        s : whole mm along the curve, 0 to `length` - 1.
        u, v : mm towards left and anterior; broadcast with `s`.

        Returns
        -------
        (..., 3), (z, y, x) in mm.
        """
        at = np.asarray(s, dtype=int)
        moved: Points = (
            self.centre_mm[at]
            + np.asarray(u)[..., None] * self.left[at]
            + np.asarray(v)[..., None] * self.front[at]
        )
        return moved


def body_curve(canal: Canal, top_mm: float) -> Curve | None:
    """Move the canal's line forward into the bodies and give each mm of it a frame.

    None where less than `LEAST_MM` of that line lies in the volume: where the canal leans, the line before it
    may be outside a volume that holds the canal itself.

    Parameters
    ----------
    top_mm : z of the volume's last slice, in the working frame.
    """
    canal_mm = _extended(_smooth(_even_steps(canal.points_mm)), top_mm)
    if len(canal_mm) <= LEAST_MM:
        return None
    _, front, _ = _frames(canal_mm)
    # Where the canal leans, the line before it begins higher or ends lower than the canal does.
    moved = _extended(_smooth(_even_steps(canal_mm + BODY_OFFSET_MM * front)), top_mm)
    if len(moved) <= LEAST_MM:
        return None
    line = _even_steps(_smooth(_even_steps(moved)))
    if len(line) <= LEAST_MM:
        return None
    along, front, left = _frames(line)
    return Curve(centre_mm=line, along=along, front=front, left=left, canal_mm=canal_mm)


def _extended(line: Points, top_mm: float) -> Points:
    """Continue the line straight at both ends, as far as the volume and `EXTENSION_MM` reach.

    In the outermost slices of a volume bone need not surround the canal: a body may be in view, its arch not.
    """
    steps = np.arange(1.0, EXTENSION_MM + 1.0)[:, None]
    reach = min(END_MM, len(line) - 1)
    below, above = (
        line[end] + steps * direction / np.linalg.norm(direction)
        for end, direction in ((0, line[0] - line[reach]), (-1, line[-1] - line[-1 - reach]))
    )
    extended: Points = np.concatenate([below[::-1], line, above])
    return extended[(extended[:, 0] >= 0.0) & (extended[:, 0] <= top_mm)]


def _smooth(line: Points) -> Points:
    """Local straight-line fits with Gaussian weights: unlike plain averages they do not bend at the ends."""
    place = np.arange(float(len(line)))
    apart = place[None, :] - place[:, None]
    weight = np.exp(-0.5 * (apart / CURVE_SMOOTHING_MM) ** 2)
    zeroth, first, second = (np.sum(weight * apart**power, axis=1) for power in (0, 1, 2))
    total, slope = weight @ line, (weight * apart) @ line
    smooth: Points = (second[:, None] * total - first[:, None] * slope) / (zeroth * second - first**2)[
        :, None
    ]
    return smooth


def _even_steps(line: Points) -> Points:
    """The same line with points 1 mm apart."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(steps)])
    even = np.arange(0.0, at[-1], 1.0)
    return np.column_stack([np.interp(even, at, line[:, axis]) for axis in range(3)])


def _frames(line: Points) -> tuple[Points, Points, Points]:
    """Unit vectors (along, front, left); front is the anterior direction made square to along."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    anterior = np.array([0.0, -1.0, 0.0])
    front = anterior - (along @ anterior)[:, None] * along
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    left = np.cross(along, front)
    left *= np.sign(left[:, 2])[:, None]
    return along, front, left
