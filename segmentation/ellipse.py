"""An ellipse in the middle of a vertebral body, in front of the basivertebral veins, as readers draw it.

It lies in the plane midway between the body's own endplates, whatever the tilt of gantry, table or spine, and
is turned with the body. Only the body's surface is asked for, so that it is the same for every engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmentation.settings import EllipseSettings
from segmentation.surface import Points, places_in_voxel, surface_points
from segmentation.vertebrae import Level
from segmentation.volume import FloatArray, Grid, Mask

_CENTRAL = 0.6  # of width and depth: endplates are judged there, away from rims and osteophytes
_MIN_POINTS = 12  # of each endplate; fewer tell no plane
_OUTLINE_QUANTILES = (0.01, 0.99)  # single points of the wall do not count
_ROUNDS = 3
_OVAL = 1.15  # ratio of variances from which a body's width tells how it is turned


@dataclass(frozen=True, slots=True, kw_only=True)
class MidPlane:
    """The plane midway between two endplates and the body's outline in it."""

    middle_mm: Points  # (3,), LPS: the middle of the outline
    axes: Points  # (3, 3): unit vectors towards superior (the normal), posterior and left, LPS
    width_mm: float
    depth_mm: float

    def local(self, points_mm: Points) -> Points:
        """Shape (..., 3) in LPS -> the same shape: mm above the plane, behind the middle and left of it."""
        coordinates: Points = (points_mm - self.middle_mm) @ self.axes.T
        return coordinates


def mid_plane(share: FloatArray, grid: Grid, level: Level) -> MidPlane:
    """The plane between a body's endplates.

    Parameters
    ----------
    share : of each voxel inside the body (0..1), shape of the grid, which may be a part of the volume's.

    Raises
    ------
    ValueError
        If no voxel lies inside.
    """
    surface = grid.to_patient(surface_points(np.pad(share, 1), grid.spacing_mm) - 1.0)
    if not len(surface):
        raise ValueError(f"{level.name} has no surface")
    axes = _upright(np.asarray(level.axis))
    middle: Points = np.asarray(level.centroid_mm)
    for _ in range(_ROUNDS):  # what is central, and what is an endplate, depends on the plane
        local = (surface - middle) @ axes.T
        half = np.abs(np.quantile(local, _OUTLINE_QUANTILES, axis=0)).mean(axis=0)
        central = np.all(np.abs(local[:, 1:]) <= _CENTRAL * half[1:], axis=1)
        planes = [
            _plane(local[central & (sense * local[:, 0] > half[0] / 2)], sense * half[0])
            for sense in (1.0, -1.0)
        ]
        height, backwards, leftwards = np.mean(planes, axis=0)
        middle = middle + height * axes[0]
        axes = _upright(axes[0] - backwards * axes[1] - leftwards * axes[2])
    axes = _turned_with(grid.to_patient(np.argwhere(share >= 0.5)), middle, axes)
    local = (surface - middle) @ axes.T
    wall = local[np.abs(local[:, 0]) <= half[0] / 2]
    low, high = np.quantile(wall[:, 1:], _OUTLINE_QUANTILES, axis=0)
    centre = (low + high) / 2
    return MidPlane(
        middle_mm=middle + centre @ axes[1:],
        axes=axes,
        width_mm=float(high[1] - low[1]),
        depth_mm=float(high[0] - low[0]),
    )


def ellipse_of(share: FloatArray, grid: Grid, level: Level, settings: EllipseSettings) -> Mask:
    """The voxels of which at least half lies in the ellipse; shape of `share`.

    Thick slices are judged by their share, not by their middle: one that the ellipse only grazes is left out.

    Parameters
    ----------
    share : of each voxel inside the body (0..1), shape of the grid, which may be a part of the volume's.
    """
    plane = mid_plane(share, grid, level)
    front = (settings.front - 0.5) * plane.depth_mm
    back = (settings.back - 0.5) * plane.depth_mm
    index = np.stack(np.meshgrid(*map(np.arange, share.shape), indexing="ij"), axis=-1)
    places = places_in_voxel(grid.spacing_mm)
    inside = np.zeros(share.shape, np.float32)
    for place in places:
        above, behind, aside = np.moveaxis(plane.local(grid.to_patient(index + place)), -1, 0)
        across = (behind - (front + back) / 2) / ((back - front) / 2)
        along = aside / (settings.width * plane.width_mm / 2)
        inside += (np.abs(above) <= settings.height_mm / 2) & (across**2 + along**2 <= 1)
    half: Mask = inside >= len(places) / 2
    return half


def _upright(up: Points) -> Points:
    """Unit vectors towards superior, posterior and left: `up`, and the patient's others upright to it."""
    normal: Points = up / np.linalg.norm(up)
    back: Points = np.array([0.0, 1.0, 0.0]) - normal[1] * normal
    back /= np.linalg.norm(back)
    return np.stack([normal, back, np.cross(back, normal)])


def _plane(points: Points, height: float) -> Points:
    """Height at the middle, and rise towards posterior and left, of a plane through (up, back, left)."""
    if len(points) < _MIN_POINTS:
        return np.array([height, 0.0, 0.0])
    across = np.column_stack([np.ones(len(points)), points[:, 1:]])
    return np.asarray(np.linalg.lstsq(across, points[:, 0], rcond=None)[0], dtype=np.float64)


def _turned_with(points_mm: Points, middle_mm: Points, axes: Points) -> Points:
    """The axes, turned about the first one to where the body is widest; a round body is not turned."""
    behind, aside = ((points_mm - middle_mm) @ axes[1:].T).T
    (depth, both), (_, width) = np.cov(behind, aside)
    if width < _OVAL * depth:
        return axes
    turn = np.arctan2(2 * both, width - depth) / 2
    up, back, left = axes
    return np.stack(
        [up, np.cos(turn) * back - np.sin(turn) * left, np.sin(turn) * back + np.cos(turn) * left]
    )
