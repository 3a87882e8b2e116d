"""Where a calibration's rods cross an axial slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from node.dicom.rods import centre_in, read_radius_mm
from scoring.calibration import RodReading
from segmentation.volume import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class RodCircle:
    """One rod as it is drawn."""

    rod: RodReading
    x_mm: float  # from the drawn plane's centre
    y_mm: float
    radius_mm: float  # of the part that is read


def rod_circles(
    rods: Sequence[RodReading], grid: Grid, row: int, centre: npt.NDArray[np.float64]
) -> list[RodCircle]:
    """Each rod where it crosses slice `row` of an upright grid; rods known at one point only are left out.

    Parameters
    ----------
    centre : fractional index (z, y, x) that millimetres are counted from.
    """
    circles = []
    for rod in rods:
        if len(rod.axis_points_mm) < 2:  # a rod of an earlier scan has no place in this image
            continue
        y, x = centre_in(rod, grid, row)
        circles.append(
            RodCircle(
                rod=rod,
                x_mm=(x - float(centre[2])) * grid.spacing_mm[2],
                y_mm=(y - float(centre[1])) * grid.spacing_mm[1],
                radius_mm=read_radius_mm(rod, grid),
            )
        )
    return circles
