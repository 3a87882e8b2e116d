"""The measured regions of a vertebral body: for density (core or ellipse) and for radiomic features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import Box, CtVolume, FloatArray, Grid, Mask, Points
from segmentation.errors import LevelNotFound
from segmentation.regions.surface import (
    body_axes,
    body_share,
    box_around,
    deep_shares,
    largest_piece,
    places_in_voxel,
    surface_points,
)
from segmentation.settings import DensityRegions, EllipseSettings, RegionSettings
from segmentation.vertebrae import Level, RegionKind, Regions, Vertebrae

# The ellipse: in the middle of a vertebral body, in front of the basivertebral veins, as readers draw it. It
# lies in the plane midway between the endplates, whatever the tilt of gantry, table or spine, and turns with
# the body. It depends on the body's surface alone, and is therefore the same for every engine.
_CENTRAL = 0.6  # of width and depth: endplates are judged there, away from rims and osteophytes
_MIN_POINTS = 12  # of each endplate; fewer determine no plane
_OUTLINE_QUANTILES = (0.01, 0.99)  # leave out single points of the wall
_ROUNDS = 3
_OVAL = 1.15  # ratio of variances from which a body's width shows how it is turned


@dataclass(frozen=True, slots=True, kw_only=True)
class MidPlane:
    """The plane midway between two endplates and the body's outline in it.

    Attributes
    ----------
    middle_mm : (3,), LPS: the middle of the outline.
    axes : (3, 3): unit vectors towards superior (the normal), posterior and left, LPS.
    """

    middle_mm: Points
    axes: Points
    width_mm: float
    depth_mm: float

    def local(self, points_mm: Points) -> Points:
        """Coordinates of points in the plane's axes.

        Parameters
        ----------
        points_mm : (..., 3), LPS.

        Returns
        -------
        (..., 3), mm above the plane, behind the middle and left of it.
        """
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


def mid_body_ellipse(share: FloatArray, grid: Grid, level: Level, settings: EllipseSettings) -> Mask:
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
    return body_axes(up / np.linalg.norm(up))


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


Coordinates = npt.NDArray[np.float64]

# The core.
THICK_STEP_MM = 3.5  # between voxels along a body: above, a label map does not give its height (R)


def cut_regions(
    volume: CtVolume, vertebrae: Vertebrae, level_name: str, settings: RegionSettings | None = None
) -> Regions:
    """Cut the density region and the radiomics region of one level.

    Parameters
    ----------
    volume : the CT that `vertebrae` were found in.

    Returns
    -------
    Masks of the volume's shape. They may be empty: `segmentation.gates.bodies` reports regions that are too
    small.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    LevelNotFound
        If the level is not among the vertebrae, or has no voxel.
    """
    volume.grid.require_same(vertebrae.grid)
    rules = settings or RegionSettings()
    level = vertebrae.level(level_name)
    if level is None:
        raise LevelNotFound(level_name)
    bodies = vertebrae.bodies == level.label
    if not bodies.any():
        raise LevelNotFound(level_name)
    box = box_around(bodies)
    hu = volume.hu[box]
    local = body_coordinates(volume.grid, level, box)
    deep = _eroded_share(vertebrae, level, box, rules)
    core = deep >= 0.5
    core = largest_piece(core & ~_dense_clusters(hu, core, volume.grid, rules))
    height = _height_by_share(vertebrae, level, box, local)
    density = core & _central(local, height, rules) & ~_basivertebral(local, rules)
    whole = _in_volume(largest_piece(density), box, volume.grid)
    ellipse = None
    if rules.bmd is not DensityRegions.CORE:
        share = body_share(vertebrae, level, box)
        drawn = mid_body_ellipse(share, volume.grid.part(box), level, rules.ellipse)
        ellipse = _in_volume(largest_piece(drawn & core), box, volume.grid)
    alone = ellipse is not None and rules.bmd is DensityRegions.ELLIPSE
    return Regions(
        level=level_name,
        bmd=ellipse if alone and ellipse is not None else whole,
        radiomics=_in_volume(core, box, volume.grid),
        core_volume_mm3=_volume_mm3(deep, core, volume.grid),
        kind=RegionKind.ELLIPSE if alone else RegionKind.CORE,
        ellipse=None if alone else ellipse,
    )


def body_coordinates(grid: Grid, level: Level, box: Box) -> Coordinates:
    """Position of each voxel of `box` in the body's own axes, from its centroid, in mm.

    Returns
    -------
    Shape (3, z, y, x): towards superior along the body's axis, towards posterior and towards left across it.
    """
    index = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij"), axis=-1)
    points = grid.to_patient(index) - np.asarray(level.centroid_mm)
    coordinates: Coordinates = np.stack([points @ axis for axis in body_axes(level.axis)])
    return coordinates


def height_range(local: Coordinates, body: Mask, grid: Grid, level: Level) -> tuple[float, float]:
    """Extent of the body along its axis.

    Parameters
    ----------
    local : as `body_coordinates` gives them.
    body : bool, (z, y, x) of the same box.

    Returns
    -------
    Lowest and highest end in mm from the centroid: quantiles of 1 and 99 % of the voxels' centres, plus half
    a voxel.
    """
    low, high = np.quantile(local[0][body], [0.01, 0.99])
    # The body reaches half a voxel beyond its outermost centres.
    half = float(_steps_mm(grid, level).max()) / 2
    return float(low) - half, float(high) + half


def _height_by_share(vertebrae: Vertebrae, level: Level, box: Box, local: Coordinates) -> tuple[float, float]:
    """Extent of the body along its axis; on thick slices by the voxels' shares.

    A label map of slices of 5 mm is up to half a slice too high at either end: a slice with some of the
    endplate would belong to the middle.
    """
    grid = vertebrae.grid
    step_mm = float(_steps_mm(grid, level).max())
    if level.name not in vertebrae.occupancy or step_mm < THICK_STEP_MM:
        return height_range(local, vertebrae.bodies[box] == level.label, grid, level)
    share = body_share(vertebrae, level, box)
    middle = float(np.average(local[0], weights=share))
    spread = float(np.average((local[0] - middle) ** 2, weights=share))
    # Of an even stretch, averaged over voxels: both lengths add to the variance as their squares over 12.
    half = float(np.sqrt(max(12.0 * spread - step_mm**2, 0.0))) / 2
    return middle - half, middle + half


def _steps_mm(grid: Grid, level: Level) -> npt.NDArray[np.float64]:
    """How far one voxel leads along the body's axis, for each axis of the grid."""
    steps: npt.NDArray[np.float64] = np.abs(np.asarray(grid.direction) @ np.asarray(level.axis)) * np.asarray(
        grid.spacing_mm
    )
    return steps


def _in_volume(part: Mask, box: Box, grid: Grid) -> Mask:
    whole = np.zeros(grid.shape, bool)
    whole[box] = part
    return whole


def _eroded_share(vertebrae: Vertebrae, level: Level, box: Box, rules: RegionSettings) -> FloatArray:
    """The share of each voxel of `box` that lies deeper than the erosion."""
    grid = vertebrae.grid
    spacing = np.asarray(grid.spacing_mm)
    reach = np.full(3, rules.erosion_mm)
    along = int(np.argmax(np.abs(np.asarray(grid.direction) @ np.asarray(level.axis))))
    across = np.arange(3) != along
    reach[across] = np.maximum(reach[across], rules.min_erosion_voxels * spacing[across])
    share = np.pad(body_share(vertebrae, level, box), 1)  # where the volume ends the body does
    return deep_shares(share, spacing, reach)[1:-1, 1:-1, 1:-1]


def _volume_mm3(deep: FloatArray, core: Mask, grid: Grid) -> float:
    """Volume of a core, with the voxels at its border that were left out for lying mostly outside it."""
    with_border = ndimage.binary_dilation(core, np.ones((3, 3, 3))) & (core | (deep < 0.5))
    return float(deep[with_border].sum() * grid.voxel_volume_mm3)


def _central(local: Coordinates, height: tuple[float, float], rules: RegionSettings) -> Mask:
    low, high = height
    central: Mask = np.abs(local[0] - (low + high) / 2) <= rules.central_height * (high - low) / 2
    return central


def _basivertebral(local: Coordinates, rules: RegionSettings) -> Mask:
    """The wedge behind the body's middle through which the basivertebral veins leave."""
    tangent = np.tan(np.deg2rad(rules.wedge_half_angle_deg))
    wedge: Mask = (local[1] > 0) & (np.abs(local[2]) < local[1] * tangent)
    return wedge


def _dense_clusters(hu: FloatArray, core: Mask, grid: Grid, rules: RegionSettings) -> Mask:
    """Connected dense bone inside the core, large enough not to be noise."""
    if not core.any():
        return core
    limit = max(rules.dense_hu, float(np.median(hu[core])) + rules.dense_above_median_hu)
    smooth = ndimage.gaussian_filter(hu, rules.dense_smoothing_mm / np.asarray(grid.spacing_mm))
    labels, count = ndimage.label(core & (smooth > limit), np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1)) * grid.voxel_volume_mm3
    large = np.concatenate([[False], sizes >= rules.dense_min_mm3])
    dense: Mask = large[labels]
    return dense
