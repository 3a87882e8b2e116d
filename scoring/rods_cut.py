"""Whether the border of the image cuts a phantom: then other rods' readings are not to be trusted either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import cos, pi, radians, sin, tan

import numpy as np

from scoring.rod_scene import Floats, RodTarget, Scene
from scoring.rods import (
    BRIDGE_SD_HU,
    LINE_TOLERANCE_MM,
    MINIMUM_MEAN_CONTRAST_HU,
    SEARCH_TILT_DEGREES,
    STANDS_OUT_HU,
    Lines,
    Pose,
    Search,
    disc_candidates,
    poses_of,
    straight_lines,
)

AIR_BELOW_HU = -300.0  # of air, foam and lung: neither phantom body nor rod
NEAR_SIDE_MM = 4  # of body on the cut side: the least that can be told from the rod's own blur
FAR_SIDE_MM = 15  # body seen on the other side of a rod whose neighbour is cut away


def cut_off(scene: Scene, minimum_blocks: int) -> bool:
    """Whether some of the rods lie in the image, and the border cuts the next one of their row.

    They must be seen along a straight line through at least half of the blocks, so that no chance discs in
    the patient pass for them.
    """
    needed = max(minimum_blocks, len(scene.z_mm) // 2)
    if _lone_rod(scene, needed):
        return True
    for part, search in _ends(scene):
        found = straight_lines(part, poses_of(part, search), needed)
        if found is not None and _blocks_that_run_out(part, search, found[0]) >= needed:
            return True
    return False


def _ends(scene: Scene) -> Iterator[tuple[Scene, Search]]:
    """From either end, the longest first: some of a row's rods, and how to look for them."""
    order = [int(rod) for rod in np.argsort([target.offset_mm for target in scene.targets])]
    for kept in range(len(order) - 1, 1, -1):
        for seen, gone in ((order[:kept], order[kept]), (order[-kept:], order[-kept - 1])):
            part = scene.part(sorted(seen))
            contrasts = [abs(_contrast_hu(target, scene)) for target in part.targets]
            anchor = int(np.argmax(contrasts))
            yield (
                part,
                Search(
                    anchor=anchor,
                    stands_out_hu=min(STANDS_OUT_HU, contrasts[anchor] / 2),
                    missing=scene.targets[gone],
                ),
            )


def _blocks_that_run_out(part: Scene, search: Search, lines: Lines) -> int:
    """In how many blocks phantom body leads from the rods seen to the border, where the next rod would be."""
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


def _contrast_hu(target: RodTarget, scene: Scene) -> float:
    """About what a rod reads above the phantom's body."""
    return (sum(target.search_hu) - sum(scene.body_hu)) / 2


def _lone_rod(scene: Scene, needed: int) -> bool:
    """Whether a lone rod lies in phantom body that runs on to the border of the image.

    So reads a phantom of which the field of view has cut another rod away. The same rod must be seen along a
    straight line through at least half of the blocks, so that no chance disc in the patient passes for one.
    """
    for rod in (len(scene.targets) - 1, 0):
        places: list[Pose] = []
        for block, z_mm in enumerate(scene.z_mm):
            if rod == len(scene.targets) - 1:
                merit, minimum = scene.stands_out_hu(rod)[block], STANDS_OUT_HU
            else:
                merit, minimum = -np.abs(scene.core_hu[rod][block]), -np.inf
            found = disc_candidates(scene, block, rod, merit, minimum)
            places += [
                Pose(z_mm=float(z_mm), centres_mm=centre[None])
                for centre in found
                if _leads_out(scene, block, rod, centre)
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


def _leads_out(scene: Scene, block: int, rod: int, centre_mm: Floats) -> bool:
    """Whether phantom body lies on both sides of this rod, and on one of them ends at the border too soon."""
    target = scene.targets[rod]
    radius = target.diameter_mm / 2
    distance = min(abs(t.offset_mm - target.offset_mm) for t in scene.targets if t is not target)
    steps = np.arange(radius + 3.0, distance + radius, 1.0)
    beside = steps < distance - radius - 3.0  # before the next rod
    behind = steps < max(distance - radius - 3.0, radius + 3.0 + FAR_SIDE_MM)  # where none follows
    angles = np.arange(0.0, 2 * pi, radians(3))
    rays = centre_mm + steps[None, :, None] * np.array([[sin(a), cos(a)] for a in angles])[:, None, :]
    row, column, in_image = scene.pixels(rays)
    visible = np.logical_and.accumulate(in_image & scene.inside[block, row, column], axis=1)
    hu = scene.hu[block, row, column]
    core_hu = float(scene.core_hu[rod][block][tuple(scene.pixels(centre_mm)[:2])])
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
        low, high = scene.body_hu
        if stands_out and low <= values.mean() <= high and values.std() <= BRIDGE_SD_HU:
            return True
    return False
