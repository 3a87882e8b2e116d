"""Search for a phantom's rods in a CT volume, for `scoring.phantoms.rod_reading`.

All coordinates are millimetres in the canonical frame's axes, from the centre of voxel [0, 0, 0]: (y, x) in
the plane, z along the slice normal.

The search averages the slices in blocks of 10 mm. In each block it finds the densest rod as an even disc in
contrast to its surroundings, then turns the phantom's row of rods about that disc until every other rod falls
on an even disc, with phantom body between them. Bone, bowel and tubing may match in some blocks; only a
phantom matches along one straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import pi, radians, tan

import numpy as np
import numpy.typing as npt

from scoring.phantoms.rod_volume import PITCH_MM, Floats, Images, RodTarget, RodVolume

# Tuning of the search alone: none of these decides whether a reading is accepted (see PhantomLimits).
STANDS_OUT_HU = 60.0  # the densest rod above the mean of that ring
BRIDGE_SD_HU = 25.0  # structure allowed in the body from one rod to the next
BRIDGE_LANES = 5  # profiles across the bridge
BODY_MARGIN_HU = 10.0  # the body's range is widened by this in a single block
MINIMUM_CONTRAST_HU = 8.0  # between a rod and the body beside it, in one block
MINIMUM_MEAN_CONTRAST_HU = 12.0  # the same, over all blocks on a line: chance averages out
ANCHORS_PER_BLOCK = 8
POSES_PER_BLOCK = 3
DISTANCE_TOLERANCE = 0.05  # relative, of the distance between rods
SEARCH_TILT_DEGREES = 15.0  # steeper lines are no phantom; the model's own limit is judged later
LINE_TOLERANCE_MM = 4.0
MOST_ROWS = 4  # of phantoms that are looked for in one image
FAINT_HU = 80.0  # from the body: of such a rod half is its own centroid, half its row


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """The rods' centres in one block.

    Attributes
    ----------
    centres_mm : (rods, 2), y and x.
    """

    z_mm: float
    centres_mm: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The rods' axes: centre(z) = intercept + gradient * z.

    Attributes
    ----------
    intercept_mm : (rods, 2), y and x.
    gradient : (rods, 2), mm in the plane per mm along z.
    """

    intercept_mm: Floats
    gradient: Floats

    def at(self, z_mm: float | Floats) -> Floats:
        """Centres of the rods in the plane.

        Parameters
        ----------
        z_mm : (...).

        Returns
        -------
        (..., rods, 2), y and x in mm.
        """
        centres: Floats = self.intercept_mm + self.gradient * np.asarray(z_mm)[..., None, None]
        return centres


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The rod by which a row is found, and a truncated rod beyond its end.

    Attributes
    ----------
    anchor : index of the rod about which the row is turned.
    stands_out_hu : least contrast of that rod to its ring.
    missing : a rod of the row that the border of the image cuts away.
    """

    anchor: int
    stands_out_hu: float
    missing: RodTarget | None = None

    @classmethod
    def whole(cls, volume: RodVolume) -> Search:
        """The search for all rods of a phantom, by its densest."""
        return cls(anchor=len(volume.targets) - 1, stands_out_hu=STANDS_OUT_HU)


def find_poses(volume: RodVolume, search: Search) -> list[Pose]:
    """Places in each block where the row of rods fits, the clearest of each."""
    return clearest_poses(poses_by_block(volume, search))


def clearest_poses(rows: Sequence[Sequence[Pose]]) -> list[Pose]:
    """The clearest rows of each block, through which lines are laid.

    Parameters
    ----------
    rows : of each block, the clearest first.
    """
    return [pose for block in rows for pose in block[:POSES_PER_BLOCK]]


def without_row(rows: Sequence[Sequence[Pose]], found: FoundRow, volume: RodVolume) -> list[list[Pose]]:
    """The rows of each block without those that share a rod with a row already found.

    Beyond the stretch in which that row was seen, rows off its line are kept: a table movement divides one
    phantom in two.

    Parameters
    ----------
    rows : of each block, the clearest first.
    """
    low, high = found.seen_mm

    def belongs(pose: Pose) -> bool:
        there = found.lines.at(pose.z_mm)
        if low <= pose.z_mm <= high:
            return share_a_rod(volume, pose.centres_mm, there)
        return bool(np.hypot(*(pose.centres_mm - there).T).max() <= LINE_TOLERANCE_MM)

    return [[pose for pose in block if not belongs(pose)] for block in rows]


def share_a_rod(volume: RodVolume, one_mm: Floats, other_mm: Floats) -> bool:
    """Whether a rod of one row overlaps a rod of another: they are one phantom.

    Parameters
    ----------
    one_mm, other_mm : (rods, 2), y and x.
    """
    radii = np.array([target.diameter_mm / 2 for target in volume.targets])
    between = one_mm[:, None, :] - other_mm[None, :, :]
    return bool(np.any(np.hypot(between[..., 0], between[..., 1]) < radii[:, None] + radii[None, :]))


def poses_by_block(volume: RodVolume, search: Search) -> list[list[Pose]]:
    """All places in each block where the row of rods fits, the clearest first."""
    rows = []
    stands_out_hu = volume.stands_out_hu(search.anchor)
    for block in range(len(volume.z_mm)):
        merit = stands_out_hu[block]
        if search.missing is not None:  # the border is near then, and chance discs elsewhere are not
            reach_mm = abs(search.missing.offset_mm - volume.targets[search.anchor].offset_mm)
            reach_mm = reach_mm * (1 + DISTANCE_TOLERANCE) + search.missing.diameter_mm / 2
            merit = np.where(volume.border_mm(block) <= reach_mm, merit, -np.inf)
        anchors = disc_candidates(volume, block, search.anchor, merit, search.stands_out_hu)
        turned = [found for one in anchors if (found := _turned_row(volume, block, one, search)) is not None]
        turned.sort(key=lambda found: -found[0])
        rows.append([pose for _, pose in turned])
    return rows


def disc_candidates(volume: RodVolume, block: int, rod: int, merit: Images, minimum: float) -> list[Floats]:
    """Centres (y, x in mm) in one block of discs that may be that rod, by falling merit."""
    rows, columns = np.nonzero(volume.possible[rod][block] & (merit >= minimum))
    points = np.column_stack([rows, columns]) * volume.pitch_mm + volume.corner_mm
    chosen: list[Floats] = []
    for point in points[np.argsort(-merit[rows, columns], kind="stable")]:
        if all(np.hypot(*(point - other)) > volume.targets[rod].diameter_mm / 2 for other in chosen):
            chosen.append(point)
            if len(chosen) == ANCHORS_PER_BLOCK:
                break
    return chosen


def _turned_row(
    volume: RodVolume, block: int, anchor_mm: Floats, search: Search
) -> tuple[float, Pose] | None:
    """The best turn of the row about one rod at `anchor_mm`, with its contrast, if any fits."""
    origin_mm = volume.targets[search.anchor].offset_mm
    offsets = np.array([target.offset_mm - origin_mm for target in volume.targets])
    angles = np.arange(0.0, 2 * pi, PITCH_MM / float(np.abs(offsets).max()))
    scales = np.linspace(1 - DISTANCE_TOLERANCE, 1 + DISTANCE_TOLERANCE, 5)
    turn, scale = (grid.ravel() for grid in np.meshgrid(angles, scales, indexing="ij"))
    direction = np.column_stack([np.sin(turn), np.cos(turn)]) * scale[:, None]
    if search.missing is not None:
        gone = anchor_mm + direction * (search.missing.offset_mm - origin_mm)
        direction = direction[volume.is_cut(block, gone, search.missing.diameter_mm / 2)]
        if not len(direction):
            return None
    centres = anchor_mm + direction[:, None, :] * offsets[None, :, None]  # (turns, rods, 2)
    contrast = row_contrast(volume, np.full(len(centres), block), centres)
    best = int(np.argmax(contrast))
    if contrast[best] < MINIMUM_CONTRAST_HU:
        return None
    return float(contrast[best]), Pose(z_mm=float(volume.z_mm[block]), centres_mm=centres[best])


def row_contrast(volume: RodVolume, block: npt.NDArray[np.intp], centres_mm: Floats) -> Floats:
    """Contrast of each row's faintest rod to the body between its rods, -inf where a row cannot be there.

    Parameters
    ----------
    block : (n,) index of the block that each row lies in.
    centres_mm : (n, rods, 2).
    """
    contrast = np.full(len(block), -np.inf)
    row, column, in_image = volume.pixels(centres_mm)
    fits = in_image.all(axis=1)
    for rod, possible in enumerate(volume.possible):
        fits &= possible[block, row[:, rod], column[:, rod]]
    kept = np.flatnonzero(fits)
    if not len(kept):
        return contrast
    body = _body_between(volume, block[kept], centres_mm[kept])
    signs = np.array([1.0 if target.brighter else -1.0 for target in volume.targets])
    cores = np.stack(
        [core[block[kept], row[kept, rod], column[kept, rod]] for rod, core in enumerate(volume.core_hu)]
    )
    contrast[kept] = np.where(np.isnan(body), -np.inf, ((cores - body) * signs[:, None]).min(axis=0))
    return contrast


def _body_between(volume: RodVolume, block: npt.NDArray[np.intp], centres_mm: Floats) -> Floats:
    """Mean HU (n,) of what lies between the rods of each row, NaN where that is no phantom body."""
    points = bridges(centres_mm, volume.targets)  # (n, lanes, steps, 2)
    row, column, in_image = volume.pixels(points)
    profile = volume.hu[block[:, None, None], row, column].mean(
        axis=1
    )  # across the bridge: noise averages out
    mean = profile.mean(axis=1).astype(np.float64)
    low, high = volume.body_hu
    is_body = (mean >= low - BODY_MARGIN_HU) & (mean <= high + BODY_MARGIN_HU)
    is_body &= (profile.std(axis=1) <= BRIDGE_SD_HU) & in_image.all(axis=(1, 2))
    return np.where(is_body, mean, np.nan)


def bridges(centres_mm: Floats, targets: Sequence[RodTarget]) -> Floats:
    """Points (..., lanes, steps, 2) on the body between neighbouring rods, clear of either wall.

    Parameters
    ----------
    centres_mm : (..., rods, 2), of any number of rows.
    """
    order = np.argsort([target.offset_mm for target in targets])
    parts: list[Floats] = []
    for left, right in pairwise(order):
        across = centres_mm[..., right, :] - centres_mm[..., left, :]
        along = across / np.hypot(across[..., 0], across[..., 1])[..., None]
        aslant = np.stack([-along[..., 1], along[..., 0]], axis=-1)
        nominal = targets[right].offset_mm - targets[left].offset_mm  # so that all rows have as many steps
        start = targets[left].diameter_mm / 2 + 3.0
        stop = nominal - targets[right].diameter_mm / 2 - 3.0
        aside = min(targets[left].diameter_mm, targets[right].diameter_mm) / 4
        u = np.arange(start, max(stop, start) + 0.5, 1.5)[:, None] * along[..., None, None, :]
        v = np.linspace(-aside, aside, BRIDGE_LANES)[:, None, None] * aslant[..., None, None, :]
        parts.append(centres_mm[..., left, None, None, :] + u + v)
    return np.concatenate(parts, axis=-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRow:
    """A straight row of rods.

    Attributes
    ----------
    seen_mm : range along the slice normal in which it was seen.
    """

    lines: Lines
    seen_mm: tuple[float, float]


def find_straight_rows(volume: RodVolume, minimum_blocks: int) -> list[FoundRow]:
    """Rows of rods that share no rod, the clearest first; at most `MOST_ROWS`.

    Parameters
    ----------
    minimum_blocks : in which a row must be seen.
    """
    rows: Sequence[Sequence[Pose]] = poses_by_block(volume, Search.whole(volume))
    found: list[FoundRow] = []
    for _ in range(MOST_ROWS):
        row = best_straight_row(volume, clearest_poses(rows), minimum_blocks)
        if row is None:
            break
        if not any(_are_one(volume, row, other) for other in found):
            found.append(row)
        rows = without_row(rows, row, volume)
    return found


def _are_one(volume: RodVolume, one: FoundRow, other: FoundRow) -> bool:
    """Whether two rows share a rod where both were seen: then a phantom's blurred ends made the second."""
    low, high = max(one.seen_mm[0], other.seen_mm[0]), min(one.seen_mm[1], other.seen_mm[1])
    both = volume.z_mm[(volume.z_mm >= low) & (volume.z_mm <= high)]
    return any(share_a_rod(volume, one.lines.at(float(z)), other.lines.at(float(z))) for z in both)


def best_straight_row(volume: RodVolume, poses: Sequence[Pose], minimum_blocks: int) -> FoundRow | None:
    """The straight row of rods with the most contrast.

    Every pair of poses proposes lines (in a fixed order, without random draws). Each proposal is judged by
    the contrast of its faintest rod in all blocks: a chance match in two of them does not persist.

    Parameters
    ----------
    minimum_blocks : in which a row must be seen.

    Returns
    -------
    None without such a row.
    """
    best: tuple[float, Lines, Floats] | None = None
    steepest = tan(radians(SEARCH_TILT_DEGREES))
    every_block = np.arange(len(volume.z_mm))
    for a, b in combinations(poses, 2):
        if a.z_mm == b.z_mm:
            continue
        gradient = (b.centres_mm - a.centres_mm) / (b.z_mm - a.z_mm)
        if np.hypot(gradient[:, 0], gradient[:, 1]).max() > steepest:
            continue
        lines = Lines(intercept_mm=a.centres_mm - gradient * a.z_mm, gradient=gradient)
        contrast = row_contrast(volume, every_block, lines.at(volume.z_mm))
        seen = np.isfinite(contrast)
        if seen.sum() < minimum_blocks or contrast[seen].mean() < MINIMUM_MEAN_CONTRAST_HU:
            continue
        if best is None or contrast[seen].sum() > best[0]:
            best = float(contrast[seen].sum()), lines, volume.z_mm[seen]
    if best is None:
        return None
    _, lines, seen_mm = best
    return FoundRow(lines=_refitted(lines, poses), seen_mm=(float(seen_mm.min()), float(seen_mm.max())))


def rows_in_one_slice(volume: RodVolume) -> list[Lines]:
    """Rows of rods in a volume of one block, the clearest first, as lines along the slice normal.

    A single block has no straight line to confirm a chance match: a row must have the contrast that is
    otherwise required of the mean over all blocks.
    """
    poses = find_poses(volume, Search.whole(volume))
    if not poses:
        return []
    contrast = row_contrast(
        volume, np.zeros(len(poses), dtype=np.intp), np.stack([pose.centres_mm for pose in poses])
    )
    ordered = np.argsort(-contrast, kind="stable")
    return [fit_lines([poses[k]]) for k in ordered if contrast[k] >= MINIMUM_MEAN_CONTRAST_HU]


def _refitted(lines: Lines, poses: Sequence[Pose]) -> Lines:
    """The lines fitted again to all poses within `LINE_TOLERANCE_MM` of them."""
    offs = [np.hypot(*(pose.centres_mm - lines.at(pose.z_mm)).T).max() for pose in poses]
    return fit_lines([pose for pose, off in zip(poses, offs, strict=True) if off <= LINE_TOLERANCE_MM])


def fit_lines(poses: Sequence[Pose]) -> Lines:
    """Least-squares lines through the rods' centres.

    Parameters
    ----------
    poses : of several blocks; a single one gives lines along the slice normal.
    """
    z = np.array([pose.z_mm for pose in poses])
    centres = np.stack([pose.centres_mm for pose in poses])  # (blocks, rods, 2)
    middle = z.mean()
    spread = max(float(np.sum((z - middle) ** 2)), 1e-9)  # 0 of one block, and so is its covariance
    gradient = np.tensordot(z - middle, centres - centres.mean(axis=0), axes=1) / spread
    return Lines(intercept_mm=centres.mean(axis=0) - gradient * middle, gradient=gradient)


def make_parallel(lines: Lines, contrasts_hu: Sequence[float], middle_mm: float) -> Lines:
    """The lines turned about their middle to one common direction: a phantom is rigid.

    Parameters
    ----------
    contrasts_hu : of each rod to the body: the scatter of a centroid is inverse to it.
    middle_mm : z of the middle.
    """
    weights = np.asarray(contrasts_hu, dtype=np.float64) ** 2
    common = np.broadcast_to(weights @ lines.gradient / weights.sum(), lines.gradient.shape)
    return Lines(intercept_mm=lines.at(middle_mm) - common * middle_mm, gradient=common)


def align_to_row(
    lines: Lines, offsets_mm: Sequence[float], contrasts_hu: Sequence[float], middle_mm: float
) -> Lines:
    """The lines with faint rods moved towards the row of the others.

    A straight row with the drawing's distances, at a common scale, is fitted to the rods at the middle. The
    more contrast a rod has to the body, the more of its distance from the row it keeps. Two rods define their
    row themselves.

    Parameters
    ----------
    offsets_mm : positions of the rods along the drawing's row.
    contrasts_hu : of each rod to the body.
    middle_mm : z of the middle.
    """
    centres = lines.at(middle_mm)
    weights = np.asarray(contrasts_hu, dtype=np.float64) ** 2
    offsets = np.asarray(offsets_mm, dtype=np.float64)
    along = offsets - weights @ offsets / weights.sum()
    start = weights @ centres / weights.sum()
    direction = (weights * along) @ centres / ((weights * along) @ along)
    row = start + along[:, None] * direction
    kept = weights / (weights + FAINT_HU**2)
    moved = (row - centres) * (1.0 - kept)[:, None]
    return Lines(intercept_mm=lines.intercept_mm + moved, gradient=lines.gradient)
