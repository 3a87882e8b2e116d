"""Phantoms that the border of the image truncates.

The readings of the other rods are unreliable then too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import cos, pi, radians, sin, tan

import numpy as np

from scoring.phantoms.rod_volume import Floats, RodTarget, RodVolume
from scoring.phantoms.rods import (
    BRIDGE_SD_HU,
    LINE_TOLERANCE_MM,
    MINIMUM_MEAN_CONTRAST_HU,
    SEARCH_TILT_DEGREES,
    STANDS_OUT_HU,
    Lines,
    Pose,
    Search,
    best_straight_row,
    disc_candidates,
    find_poses,
)

AIR_BELOW_HU = -300.0  # of air, foam and lung: neither phantom body nor rod


NEAR_SIDE_MM = 4  # of body on the cut side: the least that is distinguishable from the rod's blur


FAR_SIDE_MM = 15  # body seen on the other side of a rod whose neighbour is cut away


def is_truncated(volume: RodVolume, minimum_blocks: int) -> bool:
    """Whether some of the rods lie in the image, and its border cuts the next one of their row.

    They must be seen along a straight line through at least half of the blocks, which chance discs in the
    patient are not.

    Parameters
    ----------
    minimum_blocks : in which rods must be seen at least.
    """
    needed = max(minimum_blocks, len(volume.z_mm) // 2)
    if _single_rod_at_border(volume, needed):
        return True
    for part, search in _ends(volume):
        found = best_straight_row(part, find_poses(part, search), needed)
        if found is not None and _blocks_that_run_out(part, search, found.lines) >= needed:
            return True
    return False


def _ends(volume: RodVolume) -> Iterator[tuple[RodVolume, Search]]:
    """From either end, the longest first: some of a row's rods, and the search for them."""
    order = [int(rod) for rod in np.argsort([target.offset_mm for target in volume.targets])]
    for kept in range(len(order) - 1, 1, -1):
        for seen, gone in ((order[:kept], order[kept]), (order[-kept:], order[-kept - 1])):
            part = volume.part(sorted(seen))
            contrasts = [abs(_contrast_hu(target, volume)) for target in part.targets]
            anchor = int(np.argmax(contrasts))
            yield (
                part,
                Search(
                    anchor=anchor,
                    stands_out_hu=min(STANDS_OUT_HU, contrasts[anchor] / 2),
                    missing=volume.targets[gone],
                ),
            )


def _blocks_that_run_out(part: RodVolume, search: Search, lines: Lines) -> int:
    """Number of blocks in which phantom body reaches the border, where the next rod would be."""
    missing = search.missing
    assert missing is not None  # `_ends` names one
    gaps = [missing.offset_mm - target.offset_mm for target in part.targets]
    last = int(np.argmin(np.abs(gaps)))
    first = int(np.argmax(np.abs(gaps)))
    start = part.targets[last].diameter_mm / 2 + 3.0
    steps = np.arange(start, abs(gaps[last]), 1.0)
    beside = steps < abs(gaps[last]) - missing.diameter_mm / 2 - 3.0
    low, high = part.body_hu
    count = 0
    for block, z_mm in enumerate(part.z_mm):
        centres = lines.at(float(z_mm))
        along = centres[last] - centres[first]
        points = centres[last] + steps[:, None] * along / np.hypot(*along)
        row, column, in_image = part.pixels(points)
        visible = np.logical_and.accumulate(in_image & part.inside[block, row, column])
        hu = part.hu[block, row, column]
        near = hu[beside & visible]
        count += bool(
            len(near) >= NEAR_SIDE_MM
            and hu[visible].min() >= AIR_BELOW_HU
            and low <= near.mean() <= high
            and near.std() <= BRIDGE_SD_HU
        )
    return count


def _contrast_hu(target: RodTarget, volume: RodVolume) -> float:
    """About what a rod reads above the phantom's body."""
    return (sum(target.search_hu) - sum(volume.body_hu)) / 2


def _single_rod_at_border(volume: RodVolume, needed: int) -> bool:
    """Whether a single rod lies in phantom body that reaches the border of the image.

    The field of view has then cut another rod away. The same rod must be seen along a straight line through
    at least half of the blocks, which a chance disc in the patient is not.
    """
    for rod in (len(volume.targets) - 1, 0):
        places: list[Pose] = []
        for block, z_mm in enumerate(volume.z_mm):
            if rod == len(volume.targets) - 1:
                merit, minimum = volume.stands_out_hu(rod)[block], STANDS_OUT_HU
            else:
                merit, minimum = -np.abs(volume.core_hu[rod][block]), -np.inf
            found = disc_candidates(volume, block, rod, merit, minimum)
            places += [
                Pose(z_mm=float(z_mm), centres_mm=centre[None])
                for centre in found
                if _body_reaches_border(volume, block, rod, centre)
            ]
        if _on_one_line(places) >= needed:
            return True
    return False


def _on_one_line(places: Sequence[Pose]) -> int:
    """The most blocks that hold a place on one and the same straight line."""
    most = 0
    steepest = tan(radians(SEARCH_TILT_DEGREES))
    for a, b in combinations(places, 2):
        if a.z_mm == b.z_mm:
            continue
        gradient = (b.centres_mm - a.centres_mm) / (b.z_mm - a.z_mm)
        if np.hypot(*gradient[0]) > steepest:
            continue
        lines = Lines(intercept_mm=a.centres_mm - gradient * a.z_mm, gradient=gradient)
        offs = [float(np.hypot(*(place.centres_mm - lines.at(place.z_mm))[0])) for place in places]
        near = {p.z_mm for p, off in zip(places, offs, strict=True) if off <= LINE_TOLERANCE_MM}
        most = max(most, len(near))
    return most


def _body_reaches_border(volume: RodVolume, block: int, rod: int, centre_mm: Floats) -> bool:
    """Whether phantom body lies on both sides of this rod, and ends too early at the border on one."""
    target = volume.targets[rod]
    radius = target.diameter_mm / 2
    distance = min(abs(t.offset_mm - target.offset_mm) for t in volume.targets if t is not target)
    steps = np.arange(radius + 3.0, distance + radius, 1.0)
    beside = steps < distance - radius - 3.0  # before the next rod
    behind = steps < max(distance - radius - 3.0, radius + 3.0 + FAR_SIDE_MM)  # where none follows
    angles = np.arange(0.0, 2 * pi, radians(3))
    rays = centre_mm + steps[None, :, None] * np.array([[sin(a), cos(a)] for a in angles])[:, None, :]
    row, column, in_image = volume.pixels(rays)
    visible = np.logical_and.accumulate(in_image & volume.inside[block, row, column], axis=1)
    hu = volume.hu[block, row, column]
    core_hu = float(volume.core_hu[rod][block][tuple(volume.pixels(centre_mm)[:2])])
    for ray, opposite in enumerate(np.roll(np.arange(len(angles)), -len(angles) // 2)):
        if visible[ray].all():
            continue
        near, far = hu[ray, beside & visible[ray]], hu[opposite, behind & visible[opposite]]
        if len(near) < NEAR_SIDE_MM or len(far) < FAR_SIDE_MM:
            continue
        if hu[ray, visible[ray]].min() < AIR_BELOW_HU:  # what surrounds the rod ends before the border
            continue
        values = np.concatenate([near, far])
        stands_out = (core_hu - values.mean()) * (1 if target.brighter else -1) >= MINIMUM_MEAN_CONTRAST_HU
        low, high = volume.body_hu
        if stands_out and low <= values.mean() <= high and values.std() <= BRIDGE_SD_HU:
            return True
    return False
