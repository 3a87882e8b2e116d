"""Vertebrae drawn by a person or a network: cut to their bodies, measured, and checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from segmentation.ct_volume import Box, CtVolume, Grid, LabelMap, Mask, Points
from segmentation.engines.geometric.body import Body, fit_body, rasterise
from segmentation.engines.geometric.canal import track_canal
from segmentation.engines.geometric.column import Curve, body_curve
from segmentation.engines.geometric.endplates import fit_plane, mean_normal
from segmentation.engines.geometric.frame import body_frame, coarsen, extent_mm
from segmentation.errors import MaskNotUsable
from segmentation.levels import are_adjacent, in_anatomical_order, measure_level
from segmentation.phrase import Phrase, phrase
from segmentation.regions.surface import largest_piece
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, Level

WHOLE_DEPTH_MM = (
    48.0  # a body is at most about 42 mm deep, a vertebra with its spinous process 70 and more (R)
)
WHOLE_WIDTH_MM = (
    68.0  # a body is at most about 62 mm wide, a vertebra with its transverse processes 75 and more (R)
)
DRAWN_HU = 400.0  # HU of the inside, where the geometric engine's functions read a drawing as an image
CANAL_STEP_MM = 2.0  # independent of the geometric engine's configured step (R)
DISC_HALF_MM = 3  # the search for an endplate begins this far outside the drawing
CANAL_MISSING = phrase("canal-missing")
SURROUNDINGS_MM = 12.0  # around a body, for the search for its endplates
EVEN_RUNS = (
    0.8  # share of the runs of equal planes that must be of one length, to one plane, to be slices (R)
)
REPEATED = 1.4  # planes for each slice, from which equal neighbours are no coincidence (R)


def cut_to_bodies(
    drawn: LabelMap, volume: CtVolume, canal_rules: CanalSettings | None = None
) -> tuple[LabelMap, tuple[Phrase, ...]]:
    """The drawing itself where it shows bodies only; otherwise the bodies of its whole vertebrae.

    Parameters
    ----------
    drawn : values of `LABELS`, on the grid of `volume`, which is in the canonical frame.

    Returns
    -------
    The bodies, and a phrase for each vertebra whose body cannot be separated from its posterior elements; it
    is left out of the bodies.
    """
    there = {name: drawn == value for name, value in LABELS.items() if (drawn == value).any()}
    if not any(is_whole_vertebra(inside, volume.grid) for inside in there.values()):
        return drawn, ()
    canal = track_canal(coarsen(volume, CANAL_STEP_MM), canal_rules or CanalSettings())
    curve = body_curve(canal, float(extent_mm(volume)[0])) if canal is not None else None
    bodies: LabelMap = np.zeros_like(drawn)
    if curve is None:
        return bodies, (CANAL_MISSING,)
    uncut: list[Phrase] = []
    for name, inside in there.items():
        try:
            bodies[cut_to_body(inside, volume.grid, curve, name)] = LABELS[name]
        except MaskNotUsable as error:
            uncut.append(error.reason)
    return bodies, tuple(uncut)


def measure_bodies(
    bodies: LabelMap, grid: Grid, *, min_voxels: int = 1
) -> tuple[LabelMap, tuple[Level, ...]]:
    """The bodies of at least `min_voxels`, and their measurements from superior to inferior.

    Parameters
    ----------
    bodies, grid : values of `LABELS`, in the canonical frame.
    """
    kept = bodies.copy()
    levels = []
    names = {value: name for name, value in LABELS.items()}
    for value, box in enumerate(ndimage.find_objects(bodies), start=1):
        if box is None:
            continue
        around = _with_surroundings(box, grid)
        inside = bodies[around] == value
        if value not in names or inside.sum() < min_voxels:
            kept[around][inside] = 0
            continue
        part = grid.part(around)
        axis_mm = axis_of_body(inside, part)
        axis = grid.step_matrix() @ (axis_mm / np.asarray(grid.spacing_mm))
        cut = any(
            end == limit
            for span, size in zip(box, grid.shape, strict=True)
            for end, limit in ((span.start, 0), (span.stop, size))
        )
        levels.append(measure_level(names[value], inside, part, axis=axis, complete=not cut))
    return kept, in_anatomical_order(levels)


def drawing_grid(labels: npt.NDArray[np.integer], grid: Grid) -> Grid:
    """The grid on which a mask was drawn, which may be coarser than the one on which it is stored.

    A mask brought onto finer slices by nearest neighbour repeats its planes, in runs of two lengths where the
    steps are no multiples of one another. Other resampling leaves no such trace.

    Parameters
    ----------
    labels, grid : the mask as stored, 0 where nothing is drawn.

    Returns
    -------
    The grid itself, or along each axis with repeated planes fewer planes of proportionally larger spacing.
    """
    box = ndimage.find_objects((labels != 0).astype(np.uint8))
    if not box:
        return grid
    drawn = labels[box[0]]
    repeats = tuple(_planes_per_slice(drawn, axis) for axis in range(3))
    shape = tuple(int(np.ceil(size / times)) for size, times in zip(grid.shape, repeats, strict=True))
    spacing = tuple(step * times for step, times in zip(grid.spacing_mm, repeats, strict=True))
    return replace(
        grid, shape=(shape[0], shape[1], shape[2]), spacing_mm=(spacing[0], spacing[1], spacing[2])
    )


def _planes_per_slice(labels: npt.NDArray[np.integer], axis: int) -> float:
    """Equal planes for each drawn plane: 1 where planes do not repeat evenly."""
    planes = np.moveaxis(labels, axis, 0)
    changes = [at for at in range(1, len(planes)) if not np.array_equal(planes[at - 1], planes[at])]
    runs = np.diff(changes)  # those at the ends may be cut, and are left out
    if runs.size == 0:
        return 1.0
    usual = runs[np.abs(runs - np.median(runs)) <= 1]
    times = float(usual.mean()) if usual.size >= EVEN_RUNS * runs.size else 1.0
    return times if times >= REPEATED else 1.0


def _with_surroundings(box: Box, grid: Grid) -> Box:
    parts = [
        slice(max(0, span.start - margin), min(size, span.stop + margin))
        for span, size, margin in zip(
            box, grid.shape, (int(np.ceil(SURROUNDINGS_MM / step)) for step in grid.spacing_mm), strict=True
        )
    ]
    return (parts[0], parts[1], parts[2])


def is_whole_vertebra(inside: Mask, grid: Grid) -> bool:
    """Whether a mask is deeper or wider than any vertebral body: posterior elements are included.

    Parameters
    ----------
    inside, grid : in the canonical frame.
    """
    index = np.argwhere(inside)
    size_mm = (np.quantile(index, 0.99, axis=0) - np.quantile(index, 0.01, axis=0)) * grid.spacing_mm
    return bool(size_mm[1] > WHOLE_DEPTH_MM or size_mm[2] > WHOLE_WIDTH_MM)


def cut_to_body(inside: Mask, grid: Grid, curve: Curve, name: str) -> Mask:
    """The vertebral body of a whole vertebra: the geometric engine's shape, drawn on the mask, not the CT.

    A vertebra that the volume cuts may have no body in view: the result is then empty.

    Raises
    ------
    MaskNotUsable
        If a vertebra that lies wholly in the volume shows no body with two endplates.
    """
    drawn = _as_image(inside, grid)
    body = _body_on_curve(drawn, inside, curve)
    kept = np.zeros_like(inside)
    if body is not None:
        box, within = rasterise(body, drawn)
        kept[box] = within & inside[box]
    elif not _touches_edge(inside):
        raise MaskNotUsable(phrase("body-inseparable", level=name))
    return kept


def _as_image(inside: Mask, grid: Grid) -> CtVolume:
    return CtVolume(hu=np.where(inside, DRAWN_HU, 0.0).astype(np.float32), grid=grid)


def _body_on_curve(drawn: CtVolume, inside: Mask, curve: Curve) -> Body | None:
    """The body between where the curve enters and leaves the mask; open where the volume cuts it."""
    index = np.round(curve.centre_mm / np.asarray(drawn.grid.spacing_mm)).astype(int)
    within = ((index >= 0) & (index < np.asarray(inside.shape))).all(axis=1)
    crossed = np.zeros(curve.length, bool)
    crossed[within] = inside[tuple(index[within].T)]
    hit = np.flatnonzero(crossed)
    if hit.size == 0:
        return None
    below, above = int(hit[0]) - DISC_HALF_MM, int(hit[-1]) + DISC_HALF_MM
    return fit_body(
        drawn,
        curve,
        None if inside[0].any() else max(0, below),
        None if inside[-1].any() else min(curve.length - 1, above),
    )


def _touches_edge(inside: Mask) -> bool:
    return any(bool(np.take(inside, at, axis).any()) for axis in range(3) for at in (0, -1))


def axis_of_body(inside: Mask, grid: Grid) -> Points:
    """A body's own axis in the working frame: square, on average, to the endplates of its mask.

    Parameters
    ----------
    inside, grid : the body alone, in the canonical frame.
    """
    drawn = _as_image(inside, grid)
    points = np.argwhere(inside) * np.asarray(grid.spacing_mm)
    frame = body_frame(points.mean(axis=0), np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0]))
    for _ in range(3):  # each pass fits the endplates in a better aligned frame
        half = float(np.quantile(np.abs(frame.local(points)[:, 0]), 0.98))
        planes = [plane for sense in (-1, 1) if (plane := fit_plane(drawn, frame, half, sense)) is not None]
        if not planes:
            break
        frame = frame.facing(mean_normal(frame, planes), frame.origin_mm)
    return frame.along


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a drawing, in the box that holds it.

    Attributes
    ----------
    box : of the grid's array.
    inside : shape of the box.
    """

    box: Box
    inside: Mask

    @classmethod
    def largest_of(cls, drawn: Mask) -> Component | None:
        """The largest connected piece of a mask (z, y, x); None where it is empty."""
        box = next(iter(ndimage.find_objects(drawn.view(np.uint8))), None)
        return None if box is None else cls(box=box, inside=largest_piece(drawn[box], corners=True))

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.inside))

    def border_mm(self, grid: Grid) -> Points:
        """Its outermost voxels, (n, 3) in LPS."""
        index = np.argwhere(self.inside & ~ndimage.binary_erosion(self.inside))
        return grid.to_patient(index + np.array([part.start for part in self.box]))


def neighbour_doubts(
    bodies: LabelMap, sacrum: Component | None, grid: Grid, row: Sequence[Level], rules: IdentitySettings
) -> tuple[Phrase, ...]:
    """Reasons why neighbours in the row cannot be adjacent vertebrae.

    A network that misses a vertebra, or whose name for it is dropped, leaves its place empty: gaps between
    neighbours, and to the sacrum, are limited.

    Parameters
    ----------
    bodies : values of `LABELS` on `grid`; those of `row`.
    sacrum : of an array on `grid`; None where it is not in view.
    row : from superior to inferior, in any order of names.
    """
    boxes = ndimage.find_objects(bodies)
    borders = {
        level.name: Component(box=box, inside=bodies[box] == level.label).border_mm(grid)
        for level in row
        if (box := boxes[level.label - 1]) is not None
    }
    doubts = [
        phrase("gap-between", gap=f"{gap:.0f}", upper=upper.name, lower=lower.name)
        for upper, lower in pairwise(row)
        if are_adjacent(upper, lower)
        and (gap := _gap_mm(borders[upper.name], borders[lower.name])) > rules.max_gap_mm
    ]
    if sacrum is not None and row:
        doubts += _sacrum_doubts(row[-1], borders[row[-1].name], sacrum.border_mm(grid), rules)
    return tuple(doubts)


def _sacrum_doubts(
    lowest: Level, border_mm: Points, sacral_mm: Points, rules: IdentitySettings
) -> list[Phrase]:
    if lowest.name != "L5":
        return [phrase("sacrum-follows", level=lowest.name)]
    above_mm = np.subtract(lowest.centroid_mm, sacral_mm.mean(axis=0))
    if float(above_mm @ np.asarray(lowest.axis)) <= 0:
        return [phrase("sacrum-not-below")]
    gap_mm = _gap_mm(border_mm, sacral_mm)
    return [phrase("gap-to-sacrum", gap=f"{gap_mm:.0f}")] if gap_mm > rules.max_gap_mm else []


def _gap_mm(one: Points, other: Points) -> float:
    """Distance between the nearest voxels of two borders."""
    nearest, _ = cKDTree(other).query(one)
    return float(nearest.min())


@dataclass(frozen=True, slots=True, kw_only=True)
class WingShape:
    """Limits of the shape of a sacral wing. All values are proposals for adults (R).

    Attributes
    ----------
    middle_mm : half the width of the strip that defines the top.
    """

    # From the middle. TotalSegmentator's mask of a real sacrum is 21 mm high there on both sides, within the
    # depth below; its mask of the fifth lumbar vertebra is 14 mm high.
    beside_mm: tuple[float, float] = (44.0, 52.0)
    min_height_mm: float = 17.0
    # Below the top, less than a body: a lumbar vertebra drawn as one with the sacrum has no wings so high up.
    depth_mm: float = 22.0
    middle_mm: float = 15.0


def has_sacral_wings(lowest: Level, sacral_mm: Points, shape: WingShape | None = None) -> bool:
    """Whether a drawing named sacrum has wings on both sides of its uppermost part.

    Where a network's names are one vertebra off, the fifth lumbar vertebra bears the sacrum's name. The shape
    distinguishes them: a sacrum widens into wings beside its uppermost body; the transverse processes of a
    lumbar vertebra taper.

    Parameters
    ----------
    lowest : the lowest body above it, whose axis defines up and down.
    sacral_mm : every outermost voxel of the drawing, LPS; (n, 3).
    """
    rules = shape or WingShape()
    up = np.asarray(lowest.axis)
    left = np.array([1.0, 0.0, 0.0]) - up[0] * up
    left = left / np.linalg.norm(left)
    height_mm = sacral_mm @ up
    aside_mm = (sacral_mm - np.asarray(lowest.centroid_mm)) @ left
    middle = np.abs(aside_mm) <= rules.middle_mm
    if not middle.any():
        return False
    below_top_mm = height_mm[middle].max() - height_mm
    near = (below_top_mm >= 0) & (below_top_mm <= rules.depth_mm)
    sides = (
        below_top_mm[near & (side * aside_mm >= rules.beside_mm[0]) & (side * aside_mm <= rules.beside_mm[1])]
        for side in (-1.0, 1.0)
    )
    return all(side.size > 0 and np.ptp(side) >= rules.min_height_mm for side in sides)
