"""What an image shows of phantoms that are not read: one cut by the border, and objects that resemble rods.

`scoring.phantoms.rod_reading` finds the rods of described phantoms, near their expected HU. Where the border
of the image cuts such a phantom, readings of its other rods are unreliable too.

An unknown phantom is detected by what all phantoms have in common: a round, even object of a rod's width, in
contrast to all that surrounds it, along a straight line through the slices, outside the patient. The
detection measures nothing. It prevents a prior-scan calibration of an image that shows an unknown phantom.

Its tuning is R: tried on phantoms off by up to 100 HU, tilted by up to 26 degrees and cut, and on real CT of
patients without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, cos, pi, radians, sin, tan

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, binary_opening

from scoring.phantoms.rod_volume import Blocks, Bools, Floats, RodTarget, RodVolume, average_blocks
from scoring.phantoms.rods import (
    BRIDGE_SD_HU,
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
from scoring.phantoms.rods import (
    LINE_TOLERANCE_MM as ROW_TOLERANCE_MM,
)
from segmentation.ct_volume import CtVolume, canonical
from segmentation.regions.surface import largest_piece

Index = npt.NDArray[np.intp]

RADII_MM = (9.0, 11.0, 7.0, 13.5)  # the usual first; each finds rods about 2 mm off in radius as well
CORE_MARGIN_MM = 2.0
RING_MM = (1.5, 4.5)  # outside the wall
SECTORS = 8  # of the ring: an object that runs on in one direction is no rod
SEEN_SECTORS = 6  # the border of the image may hide the others
SEEN_SHARE = 0.5  # of a core, or of a sector
CONTRAST_HU = 15.0  # to each of them, all upwards or all downwards
CORE_SD_HU = 20.0
CORE_HU = (-250.0, 2000.0)  # solid or liquid: neither foam nor metal
TISSUE_ABOVE_HU = -300.0
TABLE_MM = 6.0  # sheets, straps and lines thinner than twice this belong to no patient
BACK_MM = 35.0  # a phantom that touches the back seems part of the patient, no deeper than this
ROW_MM = (20.0, 130.0)  # there, two equal rods at such a distance are required
TILT_DEGREES = 30.0
LINE_TOLERANCE_MM = 4.0
LONG_ENOUGH_BLOCKS = 6  # of about 10 mm; of a shorter volume half
DISCS_PER_BLOCK = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RodCandidate:
    """Something that looks like a calibration rod.

    Attributes
    ----------
    diameter_mm : accurate to about 3 mm.
    centre_mm : LPS, at half its length.
    """

    diameter_mm: float
    centre_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """Where equal discs lie along one straight line."""

    start_mm: Floats  # y, x at z = 0
    gradient: Floats
    blocks: int

    def at(self, z_mm: float) -> Floats:
        centre: Floats = self.start_mm + self.gradient * z_mm
        return centre


def find_rod_candidates(volume: CtVolume) -> tuple[RodCandidate, ...]:
    """Objects like a rod outside the patient, or like two rods of a row against the patient's back.

    Parameters
    ----------
    volume : HU; any axis order and sense.

    Returns
    -------
    All of one width, the first that has any; empty where no object resembles a rod. Arms and fingers beside a
    patient are excluded by their bones, tubing by its width. A phantom of which only the body between its
    rods is in view is not detected.
    """
    turned, _ = canonical(volume)
    blocks = average_blocks(turned)
    patient = _patient(blocks)
    at_back = patient & (_depth_from_back_mm(patient, blocks.pitch_mm) <= BACK_MM)
    needed = max(2, min(LONG_ENOUGH_BLOCKS, ceil(len(blocks.z_mm) / 2)))
    for radius_mm in RADII_MM:
        beside = _lines(_discs(blocks, radius_mm, ~patient), blocks, needed)
        touching = _rows(_lines(_discs(blocks, radius_mm, at_back), blocks, needed), blocks)
        if beside or touching:
            return tuple(
                RodCandidate(diameter_mm=2 * radius_mm, centre_mm=_middle(line, blocks, turned))
                for line in (*beside, *touching)
            )
    return ()


def _patient(blocks: Blocks) -> Bools:
    """The largest object in view, without the table's sheets, with its cavities filled."""
    disc = _offsets(blocks.pitch_mm, 0.0, TABLE_MM)
    reach = np.abs(disc).max(axis=0)
    element = np.zeros(2 * reach + 1, bool)
    element[tuple((disc + reach).T)] = True
    thick = np.stack([binary_opening(image > TISSUE_ABOVE_HU, element) for image in blocks.hu])
    return np.stack([binary_fill_holes(image) for image in largest_piece(thick, corners=True)])


def _depth_from_back_mm(patient: Bools, pitch_mm: Floats) -> Floats:
    """Distance of every pixel in front of the rearmost pixel of the patient in its column."""
    rows = np.arange(patient.shape[1])[None, :, None]
    rearmost = np.where(patient, rows, -1).max(axis=1, keepdims=True)
    depth: Floats = (rearmost - rows) * pitch_mm[0]
    return depth


def _offsets(pitch_mm: Floats, from_mm: float, to_mm: float) -> Index:
    """Pixels (n, 2) about one, whose centres lie so far from it."""
    reach = (to_mm / pitch_mm).astype(int) + 1
    grid = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1].reshape(2, -1).T
    distance = np.hypot(*(grid * pitch_mm).T)
    chosen: Index = grid[(distance >= from_mm) & (distance <= to_mm)].astype(np.intp)
    return chosen


def _sectors(ring: Index, pitch_mm: Floats) -> list[Index]:
    turn = np.arctan2(*(ring * pitch_mm).T) / (2 * np.pi) + 0.5
    place = np.floor(turn * SECTORS).astype(int) % SECTORS
    return [ring[place == number] for number in range(SECTORS)]


def _sampled(blocks: Blocks, block: int, pixels: Index, offsets: Index) -> tuple[Floats, Floats, Floats]:
    """Mean and SD (n,) of the HU about pixels (n, 2) of one block, and how much of it lies in the image."""
    places = pixels[:, None, :] + offsets
    held = np.clip(places, 0, np.array(blocks.hu.shape[1:]) - 1)
    inside = (places == held).all(axis=-1) & blocks.inside[block, held[..., 0], held[..., 1]]
    hu = np.where(inside, blocks.hu[block, held[..., 0], held[..., 1]].astype(np.float64), 0.0)
    count = np.maximum(inside.sum(axis=1), 1)
    mean = hu.sum(axis=1) / count
    spread = np.sqrt(np.maximum(0.0, (hu * hu).sum(axis=1) / count - mean * mean))
    return mean, spread, inside.mean(axis=1)


def _discs(blocks: Blocks, radius_mm: float, where: Bools) -> list[Floats]:
    """Centres (n, 2: y, x in mm) of discs in each block, the clearest first."""
    core = _offsets(blocks.pitch_mm, 0.0, radius_mm - CORE_MARGIN_MM)
    ring = _offsets(blocks.pitch_mm, radius_mm + RING_MM[0], radius_mm + RING_MM[1])
    sectors = _sectors(ring, blocks.pitch_mm)
    low, high = CORE_HU
    solid = where & blocks.inside & (blocks.hu > low) & (blocks.hu < high)
    found = []
    for block in range(len(blocks.z_mm)):
        pixels = np.argwhere(solid[block])
        means, spreads, share = _sampled(blocks, block, pixels, core)
        even = (share >= SEEN_SHARE) & (spreads <= CORE_SD_HU)
        pixels, means = pixels[even], means[even]
        clear_hu = _set_off_by(blocks, block, pixels, means, sectors)
        discs = clear_hu >= CONTRAST_HU
        centres_mm = pixels[discs] * blocks.pitch_mm + blocks.corner_mm
        found.append(_apart(centres_mm, clear_hu[discs], radius_mm))
    return found


def _set_off_by(
    blocks: Blocks, block: int, pixels: Index, means_hu: Floats, sectors: Sequence[Index]
) -> Floats:
    """Contrast (n,) to the nearest sector of the ring; 0 where its sides differ or few are seen."""
    sampled = [_sampled(blocks, block, pixels, sector) for sector in sectors]
    step = np.array([means_hu - mean for mean, _, _ in sampled])
    seen = np.array([share >= SEEN_SHARE for _, _, share in sampled])
    up = np.where(seen, step, np.inf).min(axis=0)
    down = np.where(seen, -step, np.inf).min(axis=0)
    enough = seen.sum(axis=0) >= SEEN_SECTORS
    clear: Floats = np.where(enough, np.maximum(0.0, np.maximum(up, down)), 0.0)
    return clear


def _apart(centres_mm: Floats, merit: Floats, radius_mm: float) -> Floats:
    """The clearest of centres that lie within a radius of one another."""
    chosen: list[Floats] = []
    for centre in centres_mm[np.argsort(-merit, kind="stable")]:
        if all(np.hypot(*(centre - other)) > radius_mm for other in chosen):
            chosen.append(centre)
            if len(chosen) == DISCS_PER_BLOCK:
                break
    return np.array(chosen).reshape(-1, 2)


def _lines(discs: Sequence[Floats], blocks: Blocks, needed: int) -> list[_Line]:
    """Straight lines through discs of at least so many blocks, the longest first, no disc on two of them."""
    block = np.repeat(np.arange(len(discs)), [len(one) for one in discs])
    centres = np.concatenate([one.reshape(-1, 2) for one in discs])
    found: list[_Line] = []
    while True:
        best, members = _longest(block, centres, blocks.z_mm)
        if best is None or best.blocks < needed:
            return found
        found.append(best)
        block, centres = block[~members], centres[~members]


def _longest(block: Index, centres_mm: Floats, z_mm: Floats) -> tuple[_Line | None, Bools]:
    best, members = None, np.zeros(len(block), bool)
    steepest = tan(radians(TILT_DEGREES))
    for a, b in combinations(range(len(block)), 2):
        if block[a] == block[b]:
            continue
        gradient = (centres_mm[b] - centres_mm[a]) / (z_mm[block[b]] - z_mm[block[a]])
        if np.hypot(*gradient) > steepest:
            continue
        start = centres_mm[a] - gradient * z_mm[block[a]]
        off = np.hypot(*(centres_mm - start - gradient * z_mm[block][:, None]).T)
        near = off <= LINE_TOLERANCE_MM
        count = len(set(block[near]))
        if best is None or count > best.blocks:
            best, members = _Line(start_mm=start, gradient=gradient, blocks=count), near
    return best, members


def _rows(lines: Sequence[_Line], blocks: Blocks) -> list[_Line]:
    """Those that have a parallel neighbour at the distance of rods."""
    return [one for one in lines if any(_are_neighbours(one, other, blocks.z_mm) for other in lines)]


def _are_neighbours(one: _Line, other: _Line, z_mm: Floats) -> bool:
    low_mm, high_mm = ROW_MM
    apart_mm = [float(np.hypot(*(one.at(z) - other.at(z)))) for z in (z_mm.min(), z_mm.max())]
    parallel = abs(apart_mm[0] - apart_mm[1]) <= 2 * LINE_TOLERANCE_MM
    return parallel and low_mm <= min(apart_mm) and max(apart_mm) <= high_mm


def _middle(line: _Line, blocks: Blocks, volume: CtVolume) -> tuple[float, float, float]:
    z_mm = float(blocks.z_mm.mean())
    y_mm, x_mm = line.at(z_mm)
    dz, dy, dx = volume.grid.spacing_mm
    x, y, z = volume.grid.to_patient(np.array([z_mm / dz, y_mm / dy, x_mm / dx]))
    return float(x), float(y), float(z)


# A known phantom that the border of the image cuts.


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
        near = {p.z_mm for p, off in zip(places, offs, strict=True) if off <= ROW_TOLERANCE_MM}
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
