"""The measured parts of a vertebral body: where density is read, and where features are computed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ellipse import ellipse_of
from segmentation.errors import LevelNotFound
from segmentation.settings import DensityRegions, RegionSettings
from segmentation.surface import Box, body_share, box_around, deep_shares
from segmentation.vertebrae import Level, RegionKind, Regions, Vertebrae
from segmentation.volume import CtVolume, FloatArray, Grid, Mask

Coordinates = npt.NDArray[np.float64]

THICK_STEP_MM = 3.5  # between voxels along a body: above, a label map's height is not believed (R)


def regions_of(
    volume: CtVolume, vertebrae: Vertebrae, level_name: str, settings: RegionSettings | None = None
) -> Regions:
    """Cut the density region and the radiomics region of one level.

    Parameters
    ----------
    volume : the CT that `vertebrae` were found in.

    Returns
    -------
    Masks of the volume's shape. They may be empty: `segmentation.quality` says when they are too small.

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
    deep = _deep(vertebrae, level, box, rules)
    core = deep >= 0.5
    core = _largest_part(core & ~_dense_clusters(hu, core, volume.grid, rules))
    height = _believed_height(vertebrae, level, box, local)
    density = core & _central(local, height, rules) & ~_basivertebral(local, rules)
    whole = _in_volume(_largest_part(density), box, volume.grid)
    ellipse = None
    if rules.bmd is not DensityRegions.CORE:
        share = body_share(vertebrae, level, box)
        drawn = ellipse_of(share, volume.grid.part(box), level, rules.ellipse)
        ellipse = _in_volume(_largest_part(drawn & core), box, volume.grid)
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
    axes = [np.arange(part.start, part.stop) for part in box]
    points = grid.to_patient(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)) - np.asarray(
        level.centroid_mm
    )
    up = np.asarray(level.axis)
    back = np.array([0.0, 1.0, 0.0]) - up[1] * up
    back = back / np.linalg.norm(back)
    left = np.cross(back, up)
    coordinates: Coordinates = np.stack([points @ up, points @ back, points @ left])
    return coordinates


def height_range(local: Coordinates, body: Mask, grid: Grid, level: Level) -> tuple[float, float]:
    """Where the body begins and ends along its axis, mm from its centroid; single rim voxels do not count."""
    low, high = np.quantile(local[0][body], [0.01, 0.99])
    # The body reaches half a voxel beyond its outermost centres.
    half = float(_steps_mm(grid, level).max()) / 2
    return float(low) - half, float(high) + half


def _believed_height(vertebrae: Vertebrae, level: Level, box: Box, local: Coordinates) -> tuple[float, float]:
    """Where the body begins and ends along its axis; on thick slices by how much of each voxel lies inside.

    A label map of slices of 5 mm is up to half a slice too high at either end, which lets a slice that holds
    some of the endplate into the middle.
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


def _deep(vertebrae: Vertebrae, level: Level, box: Box, rules: RegionSettings) -> FloatArray:
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


def _largest_part(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
    largest: Mask = labels == int(np.argmax(sizes)) + 1
    return largest
