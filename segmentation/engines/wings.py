"""Whether what somebody drew and named sacrum has the sacrum's shape.

A name alone anchors nothing: where a network's names are one vertebra off, the fifth lumbar vertebra bears
the sacrum's. Its shape it cannot change: a sacrum widens into wings beside its uppermost body, a lumbar
vertebra has transverse processes there, which taper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmentation.engines.neighbours import Points
from segmentation.vertebrae import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class WingShape:
    """What counts as a wing that was drawn. All values are proposals for adults (R)."""

    # To the side of the middle. TotalSegmentator's drawing of a real sacrum is 21 mm high there on both sides
    # within the depth below, that of the fifth lumbar vertebra above it 14 mm.
    beside_mm: tuple[float, float] = (44.0, 52.0)
    min_height_mm: float = 17.0
    # Below the top, less than a body: a lumbar vertebra drawn as one with the sacrum has no wings so high up.
    depth_mm: float = 22.0
    middle_mm: float = 15.0  # half the width of the strip in which the top is looked for


def drawn_with_wings(lowest: Level, sacral_mm: Points, shape: WingShape | None = None) -> bool:
    """Whether a drawing called sacrum has wings on both sides of its uppermost part.

    Parameters
    ----------
    lowest : the lowest body above it; its axis tells up from down.
    sacral_mm : every outermost voxel of the drawing, patient coordinates (LPS); shape (n, 3).
    """
    rules = shape or WingShape()
    up = np.asarray(lowest.axis)
    left = np.array([1.0, 0.0, 0.0]) - up[0] * up
    left = left / np.linalg.norm(left)
    height_mm = sacral_mm @ up
    aside_mm = (sacral_mm - np.asarray(lowest.centroid_mm)) @ left
    middle = np.abs(aside_mm) <= rules.middle_mm
    if not middle.any():
        return False
    below_top_mm = height_mm[middle].max() - height_mm
    near = (below_top_mm >= 0) & (below_top_mm <= rules.depth_mm)
    sides = (
        below_top_mm[near & (side * aside_mm >= rules.beside_mm[0]) & (side * aside_mm <= rules.beside_mm[1])]
        for side in (-1.0, 1.0)
    )
    return all(side.size > 0 and np.ptp(side) >= rules.min_height_mm for side in sides)
