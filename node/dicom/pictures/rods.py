"""Where a calibration's rods cross an axial slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.calibration import Calibration, Grade, RodReading
from segmentation.volume import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class RodCircle:
    """One rod as it is drawn."""

    rod: RodReading
    x_mm: float  # from the drawn plane's centre
    y_mm: float
    radius_mm: float  # of the part that is read


def rods_in_view(calibration: Calibration | None) -> tuple[RodReading, ...]:
    """The rods that lie in the report's own images: none where they were scanned earlier."""
    if calibration is None or calibration.grade is not Grade.PHANTOM:
        return ()
    return calibration.rods


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
        points = grid.to_index(np.asarray(rod.axis_points_mm))
        points = points[np.argsort(points[:, 0])]
        x = float(np.interp(row, points[:, 0], points[:, 2]))
        y = float(np.interp(row, points[:, 0], points[:, 1]))
        length_mm = (float(np.ptp(points[:, 0])) + 1) * grid.spacing_mm[0]  # half a slice beyond both ends
        volume_mm3 = rod.voxels * grid.voxel_volume_mm3
        circles.append(
            RodCircle(
                rod=rod,
                x_mm=(x - float(centre[2])) * grid.spacing_mm[2],
                y_mm=(y - float(centre[1])) * grid.spacing_mm[1],
                radius_mm=float(np.sqrt(volume_mm3 / (np.pi * length_mm))),
            )
        )
    return circles
