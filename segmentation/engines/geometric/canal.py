"""Tracking of the spinal canal: a tube of soft tissue that bone surrounds in every slice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import Points, Profile
from segmentation.engines.geometric.frame import WorkingVolume
from segmentation.settings import CanalSettings

DIRECTIONS = 16
MAX_BACK = 2  # cells per slice: lets the path follow a sacrum that turns by more than 45 degrees
MAX_SIDE = 1
BACKWARD_PENALTY = 0.05  # per cell and slice: lordosis and the sacrum need this movement
SIDEWAYS_PENALTY = 0.20  # scoliosis needs little of it; leaving the sacrum for the iliac marrow needs much
MIN_LENGTH_MM = 30.0
BRIDGE_MM = 40.0  # metal and its streaks may hide the canal over a vertebra
WORTH = (
    0.30  # a slice adds to a path only with more enclosure than this: the path may end where the canal does
)
OFF_MIDLINE_PER_MM = 0.01  # taken from the worth of a voxel, beyond `near_midline_mm` from the trunk's middle
TRUNK_HU = -300.0
MAX_SIDE_SLOPE = (
    0.6  # 31 degrees over 20 mm: steeper than scoliosis, the path has left the sacrum for the ilium
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canal:
    """The canal's centre line, from inferior to superior, one point per working slice.

    Attributes
    ----------
    points_mm : (n, 3), (z, y, x) in the working frame.
    enclosure : (n,), share of rays that meet bone, 0..1.
    """

    points_mm: Points
    enclosure: Profile


def enclosure_map(work: WorkingVolume, rules: CanalSettings) -> npt.NDArray[np.float32]:
    """For each soft voxel, the share of in-plane rays that meet bone within `ray_mm`.

    All directions count alike: neither a single wall nor a corner passes as a tube.

    Returns
    -------
    float32, shape of the working volume, 0..1; 0 in bone or air.
    """
    bone = work.hu > rules.bone_hu
    reach = round(rules.ray_mm / work.step_mm)
    hits = np.zeros(work.hu.shape, np.float32)
    for angle in np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS):
        met = np.zeros_like(bone)
        seen = set()
        for distance in range(1, reach + 1):
            shift = (round(distance * np.sin(angle)), round(distance * np.cos(angle)))
            if shift not in seen:
                seen.add(shift)
                _or_shifted(met, bone, shift)
        hits += met
    soft = (work.hu > rules.soft_hu[0]) & (work.hu < rules.soft_hu[1])
    enclosed: npt.NDArray[np.float32] = np.where(soft, hits / DIRECTIONS, 0).astype(np.float32)
    return enclosed


def _or_shifted(target: npt.NDArray[np.bool_], source: npt.NDArray[np.bool_], shift: tuple[int, int]) -> None:
    """``target[z, y, x] |= source[z, y + dy, x + dx]`` where that lies inside."""
    to, start = [slice(None)], [slice(None)]
    for size, step in zip(source.shape[1:], shift, strict=True):
        if abs(step) >= size:
            return
        to.append(slice(max(0, -step), size - max(0, step)))
        start.append(slice(max(0, step), size - max(0, -step)))
    target[tuple(to)] |= source[tuple(start)]


def track_canal(work: WorkingVolume, rules: CanalSettings) -> Canal | None:
    """The best continuous tube through the slices; it may begin and end inside the volume.

    Marrow with the HU of soft tissue (osteoporosis, high tube voltage) is enclosed by its cortex like a
    canal. Where the path runs through it, the search is repeated with a limit between that marrow and the
    patient's dural sac.

    Returns
    -------
    None where no stretch of at least `MIN_LENGTH_MM` looks like a canal.
    """
    canal = _tracked(work, rules)
    limit_hu = _limit_below_marrow(work, canal, rules) if canal is not None else None
    if limit_hu is None:
        return canal
    return _tracked(work, replace(rules, soft_hu=(rules.soft_hu[0], limit_hu))) or canal


def _limit_below_marrow(work: WorkingVolume, canal: Canal, rules: CanalSettings) -> float | None:
    """HU midway between the sac and the marrow that the path runs through; None where it meets no marrow."""
    around = ndimage.uniform_filter(work.hu, size=(1, 3, 3), mode="nearest")
    met_hu = around[tuple(np.round(canal.points_mm / work.step_mm).astype(int).T)]
    sac_hu = float(np.median(met_hu))
    marrow_hu = met_hu[(met_hu > sac_hu + rules.marrow_above_sac_hu) & (met_hu < rules.soft_hu[1])]
    if len(marrow_hu) * work.step_mm < rules.marrow_mm:
        return None
    return (sac_hu + float(np.median(marrow_hu))) / 2


def _tracked(work: WorkingVolume, rules: CanalSettings) -> Canal | None:
    """The best tube with one set of limits."""
    enclosed = enclosure_map(work, rules)
    # A canal is a few voxels wide: averaging over its width prefers its middle to its rim.
    score = ndimage.uniform_filter(enclosed, size=(1, 5, 5), mode="constant")
    first, path = _best_path(
        score - np.float32(WORTH) - _off_midline(work, rules.near_midline_mm).astype(np.float32)
    )
    slices = first + np.arange(len(path))
    along = score[slices, path[:, 0], path[:, 1]].astype(float)
    steady = ndimage.uniform_filter1d(along, max(3, round(MIN_LENGTH_MM / work.step_mm)), mode="nearest")
    seen = (steady >= rules.min_enclosure) & (_side_slope(path, work.step_mm) <= MAX_SIDE_SLOPE)
    bridged = ndimage.binary_closing(
        np.pad(seen, round(BRIDGE_MM / work.step_mm)), np.ones(round(BRIDGE_MM / work.step_mm) + 1)
    )[round(BRIDGE_MM / work.step_mm) : -round(BRIDGE_MM / work.step_mm)]
    kept = _longest_run(bridged)
    if seen[kept].sum() * work.step_mm < MIN_LENGTH_MM:
        return None
    centres = _recentre(enclosed, slices, path, round(8.0 / work.step_mm))
    for axis in range(2):  # interpolated where metal hides the canal
        centres[:, axis] = np.interp(slices, slices[seen], centres[seen, axis])
    points = np.column_stack([slices[kept].astype(float), centres[kept]]) * work.step_mm
    return Canal(points_mm=points, enclosure=along[kept])


def _off_midline(work: WorkingVolume, near_mm: float) -> Profile:
    """What a column of the volume loses for lying beside the trunk's middle; shape (x,)."""
    trunk = (work.hu > TRUNK_HU).sum(axis=(0, 1))
    columns = np.arange(len(trunk))
    middle = float((trunk * columns).sum() / max(1, trunk.sum()))
    beside_mm = np.abs(columns - middle) * work.step_mm
    loss: Profile = OFF_MIDLINE_PER_MM * np.maximum(0.0, beside_mm - near_mm)
    return loss


def _best_path(worth: npt.NDArray[np.float32]) -> tuple[int, npt.NDArray[np.intp]]:
    """Viterbi through the slices with free ends: the first slice, and (row, column) per slice from there."""
    depth, rows, columns = worth.shape
    moves = [(dy, dx) for dy in range(-MAX_BACK, MAX_BACK + 1) for dx in range(-MAX_SIDE, MAX_SIDE + 1)]
    begin = len(moves)  # the choice of a path that begins here
    total = worth[0].copy()
    choice = np.full((depth, rows, columns), begin, np.uint8)
    finish, finish_total = (0, 0, 0), -float("inf")
    for k in range(depth):
        if k > 0:
            best = np.zeros((rows, columns), np.float32)
            padded = np.pad(total, max(MAX_BACK, MAX_SIDE), constant_values=-np.inf)
            for number, (dy, dx) in enumerate(moves):
                came = padded[MAX_BACK + dy :, MAX_BACK + dx :][:rows, :columns] - np.float32(
                    BACKWARD_PENALTY * abs(dy) + SIDEWAYS_PENALTY * abs(dx)
                )
                better = came > best
                best[better] = came[better]
                choice[k][better] = number
            total = best + worth[k]
        if total.max() > finish_total:
            row, column = np.unravel_index(int(np.argmax(total)), total.shape)
            finish, finish_total = (k, int(row), int(column)), float(total[row, column])
    at, y, x = finish
    path = [(y, x)]
    while choice[at, y, x] != begin:
        dy, dx = moves[choice[at, y, x]]
        at, y, x = at - 1, y + dy, x + dx
        path.append((y, x))
    return at, np.asarray(path[::-1], dtype=np.intp)


def _side_slope(path: npt.NDArray[np.intp], step_mm: float) -> Profile:
    """How far the path moves sideways per mm, over 20 mm around each slice."""
    reach = max(1, round(10.0 / step_mm))
    side = np.pad(path[:, 1].astype(float), reach, mode="edge")
    slope: Profile = np.abs(side[2 * reach :] - side[: -2 * reach]) / (2 * reach)
    return slope


def _recentre(
    enclosed: npt.NDArray[np.float32], slices: npt.NDArray[np.intp], path: npt.NDArray[np.intp], reach: int
) -> Points:
    """Per slice, the enclosure-weighted centre of the neighbourhood of the path."""
    centres = path.astype(float)
    for k, (row, column) in enumerate(path):
        top, left = max(0, row - reach), max(0, column - reach)
        patch = enclosed[slices[k], top : row + reach + 1, left : column + reach + 1].astype(float) ** 4
        if patch.sum() > 0:
            centres[k] = ndimage.center_of_mass(patch)
            centres[k] += (top, left)
    return centres


def _longest_run(flags: npt.NDArray[np.bool_]) -> slice:
    """The longest stretch of True; empty where there is none."""
    labels, count = ndimage.label(flags)
    if count == 0:
        return slice(0, 0)
    lengths = ndimage.sum_labels(flags, labels, np.arange(1, count + 1))
    run = np.flatnonzero(labels == int(np.argmax(lengths)) + 1)
    return slice(int(run[0]), int(run[-1]) + 1)
