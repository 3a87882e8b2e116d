"""Whether named bodies, and the sacrum, lie as close to one another as a disc lets them.

Names in a row do not tell that nothing was left out between two of them, or between the last and the sacrum:
a network that misses a vertebra, or whose name for it is dropped, leaves its place empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from segmentation.settings import IdentitySettings
from segmentation.vertebrae import ANATOMICAL_ORDER, Level
from segmentation.volume import Grid, LabelMap, Mask

Box = tuple[slice, slice, slice]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a drawing, in the box that holds it."""

    box: Box
    inside: Mask  # shape of the box

    @classmethod
    def largest_of(cls, drawn: Mask) -> Piece | None:
        """The largest connected piece; None where nothing is drawn."""
        box = next(iter(ndimage.find_objects(drawn.view(np.uint8))), None)
        if box is None:
            return None
        pieces, _ = ndimage.label(drawn[box], np.ones((3, 3, 3)))
        return cls(box=box, inside=pieces == int(np.argmax(np.bincount(pieces.ravel())[1:])) + 1)

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.inside))

    def border_mm(self, grid: Grid) -> Points:
        """Its outermost voxels in patient coordinates; shape (n, 3)."""
        index = np.argwhere(self.inside & ~ndimage.binary_erosion(self.inside))
        return grid.to_patient(index + np.array([part.start for part in self.box]))


def neighbour_doubts(
    bodies: LabelMap, sacrum: Piece | None, grid: Grid, row: Sequence[Level], rules: IdentitySettings
) -> tuple[str, ...]:
    """What speaks against the row's neighbours being neighbours, a clause each.

    Parameters
    ----------
    bodies : values of `LABELS` on `grid`; those of `row`.
    sacrum : of an array on `grid`; None where it is not in view.
    row : from superior to inferior, in any order of names.
    """
    boxes = ndimage.find_objects(bodies)
    borders = {
        level.name: Piece(box=box, inside=bodies[box] == level.label).border_mm(grid)
        for level in row
        if (box := boxes[level.label - 1]) is not None
    }
    doubts = [
        f"{gap:.0f} mm lie between {upper.name} and {lower.name}"
        for upper, lower in pairwise(row)
        if _follow(upper, lower)
        and (gap := _gap_mm(borders[upper.name], borders[lower.name])) > rules.max_gap_mm
    ]
    if sacrum is not None and row:
        doubts += _sacrum_doubts(row[-1], borders[row[-1].name], sacrum.border_mm(grid), rules)
    return tuple(doubts)


def _sacrum_doubts(lowest: Level, border_mm: Points, sacral_mm: Points, rules: IdentitySettings) -> list[str]:
    if lowest.name != "L5":
        return [f"the sacrum follows {lowest.name}"]
    above_mm = np.subtract(lowest.centroid_mm, sacral_mm.mean(axis=0))
    if float(above_mm @ np.asarray(lowest.axis)) <= 0:
        return ["the sacrum does not lie below L5"]
    gap_mm = _gap_mm(border_mm, sacral_mm)
    return [f"{gap_mm:.0f} mm lie between L5 and the sacrum"] if gap_mm > rules.max_gap_mm else []


def _follow(upper: Level, lower: Level) -> bool:
    return ANATOMICAL_ORDER.index(lower.name) - ANATOMICAL_ORDER.index(upper.name) == 1


def _gap_mm(one: Points, other: Points) -> float:
    """From the one's voxel to the other's where they are nearest."""
    nearest, _ = cKDTree(other).query(one)
    return float(nearest.min())
