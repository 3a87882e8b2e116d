"""Geometry of masks: boxes, pieces and axes; a body's surface between voxels, and the depth beneath it.

A label map gives its border to half a voxel: on slices 5 mm apart that is a tenth of a vertebra's height. The
share of each voxel that lies inside gives the border to a fraction of a voxel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from segmentation.ct_volume import Box, FloatArray, Mask, Points
from segmentation.vertebrae import Level, Vertebrae

SUBSTEP_MM = 1.0  # voxels longer than this are judged in several places
_SMOOTHING_VOXELS = (
    0.7  # turns the steps of a label map into shares; keeps flat and gently curved walls in place
)


def box_around(mask: Mask, margin: npt.ArrayLike = (1, 1, 1)) -> Box:
    """The smallest box around a mask, larger by a margin where the volume allows.

    Parameters
    ----------
    mask : (z, y, x), not empty.
    margin : in voxels, along (z, y, x).
    """
    parts = []
    for axis, room in enumerate(np.asarray(margin, int).tolist()):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        parts.append(slice(max(0, int(hit[0]) - room), min(mask.shape[axis], int(hit[-1]) + room + 1)))
    return (parts[0], parts[1], parts[2])


def largest_piece(mask: Mask, *, corners: bool = False) -> Mask:
    """The largest connected piece of a mask, the first of equals; an empty mask stays empty.

    Parameters
    ----------
    mask : of any dimensions.
    corners : whether voxels that share an edge or a corner are connected; else those that share a face.
    """
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim) if corners else None)
    if count <= 1:
        return mask
    largest: Mask = labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    return largest


def body_axes(up: npt.ArrayLike) -> Points:
    """Axes of a body: rows towards superior, posterior and left, LPS unit vectors; shape (3, 3).

    Parameters
    ----------
    up : (3,), unit vector towards superior, LPS; not along the patient's front.
    """
    normal: Points = np.asarray(up, dtype=float)
    back = np.array([0.0, 1.0, 0.0]) - normal[1] * normal
    back = back / np.linalg.norm(back)
    return np.stack([normal, back, np.cross(back, normal)])


def body_share(vertebrae: Vertebrae, level: Level, box: Box) -> FloatArray:
    """The share of each voxel of a box that lies inside one body.

    Where an engine gives whole voxels only, the label map's steps are smoothed into shares.

    Parameters
    ----------
    box : of the volume's array.

    Returns
    -------
    float32, shape of the box, 0..1.
    """
    known = vertebrae.occupancy.get(level.name)
    if known is None:
        inside = np.pad(vertebrae.bodies[box] == level.label, 2)
        smooth = ndimage.gaussian_filter(inside.astype(np.float32), _SMOOTHING_VOXELS)
        return np.ascontiguousarray(smooth[2:-2, 2:-2, 2:-2])
    share = np.zeros([part.stop - part.start for part in box], np.float32)
    here, there = [], []
    for part, corner, size in zip(box, known.corner, known.share.shape, strict=True):
        low, high = max(part.start, corner), min(part.stop, corner + size)
        here.append(slice(low - part.start, max(low, high) - part.start))
        there.append(slice(low - corner, max(low, high) - corner))
    share[tuple(here)] = known.share[tuple(there)] / np.float32(255)
    return share


def surface_points(share: FloatArray, spacing_mm: npt.ArrayLike) -> Points:
    """Points of the surface, where lines along the three axes cross it.

    A line from a voxel inside to one outside crosses where both shares together place it: exact for a flat
    border across the line. Lines are at most `SUBSTEP_MM` apart; shares are interpolated between voxels.

    Parameters
    ----------
    share : of each voxel inside the body (z, y, x), 0..1.

    Returns
    -------
    (n, 3), fractional indices (z, y, x).
    """
    parts = _parts(np.asarray(spacing_mm, dtype=float))
    found = []
    for axis in range(3):
        across = [np.arange(float(size)) for size in share.shape]
        lines = share
        for other in range(3):
            if other != axis:
                across[other] = (np.arange(share.shape[other])[:, None] + parts[other]).ravel()
                lines = _interpolated(lines, other, across[other])
        lines = np.moveaxis(lines, axis, 0)
        within = lines >= 0.5
        k, i, j = np.nonzero(within[:-1] != within[1:])
        one, other_share = lines[k, i, j], lines[k + 1, i, j]
        filled = one + other_share - 0.5
        place = np.empty((len(k), 3))
        place[:, axis] = k + np.where(one >= 0.5, filled, 1.0 - filled)
        first, second = (other for other in range(3) if other != axis)
        place[:, first], place[:, second] = across[first][i], across[second][j]
        found.append(place)
    return np.concatenate(found)


def _interpolated(values: FloatArray, axis: int, at: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Linear interpolation along one axis, the end values beyond it."""
    if len(at) == values.shape[axis]:
        return values
    place = np.clip(at, 0, values.shape[axis] - 1)
    low = np.minimum(np.floor(place).astype(int), values.shape[axis] - 2)
    weight = (place - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
    mixed: FloatArray = (1 - weight) * np.take(values, low, axis) + weight * np.take(values, low + 1, axis)
    return mixed


def deep_shares(share: FloatArray, spacing_mm: npt.ArrayLike, reach_mm: npt.ArrayLike) -> FloatArray:
    """The share of each voxel that lies deeper beneath the surface than a reach; shape of `share`.

    Parameters
    ----------
    share : the share of each voxel inside the body, 0..1, with one voxel of surroundings on every side.
    reach_mm : depth along each array axis (z, y, x): the half-axes of the ellipsoid that erodes.
    """
    spacing, reach = np.asarray(spacing_mm, dtype=float), np.asarray(reach_mm, dtype=float)
    deep = np.zeros(share.shape, np.float32)
    border = surface_points(share, spacing)
    if not len(border):
        return deep
    tree = spatial.cKDTree(border * (spacing / reach))
    places = places_in_voxel(spacing)
    candidates = np.argwhere(share >= 0.5)
    for offset in places:
        at = candidates + offset
        inside = ndimage.map_coordinates(share, at.T, order=1, prefilter=False) >= 0.5
        # Only whether the distance exceeds 1 matters: the search stops there.
        distance, _ = tree.query(at[inside] * (spacing / reach), distance_upper_bound=1.0)
        deep[tuple(candidates[inside].T)] += np.isinf(distance)
    return deep / np.float32(len(places))


def places_in_voxel(spacing_mm: npt.ArrayLike) -> Points:
    """Places at which a voxel is sampled, at most `SUBSTEP_MM` apart.

    Returns
    -------
    (n, 3), offsets (z, y, x) from its centre in voxels.
    """
    parts = _parts(np.asarray(spacing_mm, dtype=float))
    places: Points = np.stack(np.meshgrid(*parts, indexing="ij"), axis=-1).reshape(-1, 3)
    return places


def _parts(spacing: Points) -> list[Points]:
    """Where a voxel is judged along each axis, from its centre in voxels: the middles of even parts."""
    counts = np.ceil(spacing / SUBSTEP_MM - 1e-6).astype(int)
    return [(np.arange(count) + 0.5) / count - 0.5 for count in counts]
