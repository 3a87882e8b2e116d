"""Where a calibration's rods lie in the images that they were read in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from node.report import Report
from scoring.calibration import Calibration, Grade, RodReading
from segmentation.volume import Grid, Mask


def rods_in_view(calibration: Calibration | None) -> tuple[RodReading, ...]:
    """The rods that lie in the report's own images: none where they were scanned earlier."""
    if calibration is None or calibration.grade is not Grade.PHANTOM:
        return ()
    return calibration.rods


def read_radius_mm(rod: RodReading, grid: Grid) -> float:
    """Of the part of a rod that was read, from its volume; the rod has at least two axis points."""
    planes = _axis(rod, grid)[:, 0]
    length_mm = (float(np.ptp(planes)) + 1) * grid.spacing_mm[0]  # half a slice beyond both ends
    return float(np.sqrt(rod.voxels * grid.voxel_volume_mm3 / (np.pi * length_mm)))


def centre_in(rod: RodReading, grid: Grid, plane: float) -> tuple[float, float]:
    """Fractional row and column at which a rod crosses a slice, given by its index."""
    points = _axis(rod, grid)
    return (
        float(np.interp(plane, points[:, 0], points[:, 1])),
        float(np.interp(plane, points[:, 0], points[:, 2])),
    )


def rod_masks(report: Report, grid: Grid, planes: slice) -> tuple[tuple[RodReading, Mask], ...]:
    """The part of each rod that was read, within some slices.

    Parameters
    ----------
    planes : beyond them the masks are empty.

    Returns
    -------
    tuple of (rod, mask)
        Masks have the grid's shape. Rods known at one point only, and those of an earlier scan, are left out.
    """
    return tuple(
        (rod, _mask(rod, grid, planes))
        for rod in rods_in_view(report.calibration)
        if len(rod.axis_points_mm) >= 2
    )


def _axis(rod: RodReading, grid: Grid) -> npt.NDArray[np.float64]:
    """Fractional indices (z, y, x) along the rod, shape (n, 3), by rising slice."""
    points = grid.to_index(np.asarray(rod.axis_points_mm))
    ordered: npt.NDArray[np.float64] = points[np.argsort(points[:, 0])]
    return ordered


def _mask(rod: RodReading, grid: Grid, planes: slice) -> Mask:
    mask = np.zeros(grid.shape, dtype=np.bool_)
    ends = _axis(rod, grid)[[0, -1], 0]
    first, last = max(planes.start, round(float(ends[0]))), min(planes.stop - 1, round(float(ends[1])))
    rows, columns = (np.arange(size) for size in grid.shape[1:])
    radius_mm = read_radius_mm(rod, grid)
    for plane in range(first, last + 1):
        row, column = centre_in(rod, grid, plane)
        down_mm = (rows - row) * grid.spacing_mm[1]
        across_mm = (columns - column) * grid.spacing_mm[2]
        mask[plane] = np.hypot(down_mm[:, None], across_mm[None, :]) <= radius_mm
    return mask
