"""A segmentation drawn elsewhere, read as vertebral bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.engines.geometric.body import Body, body_between, rasterise
from segmentation.engines.geometric.canal import track_canal
from segmentation.engines.geometric.column import Curve, body_curve
from segmentation.engines.geometric.endplates import fit_plane
from segmentation.engines.geometric.frame import Points, coarsen, extent_mm, frame_of
from segmentation.errors import GridMismatch, MaskNotUsable
from segmentation.levels import from_superior, identity_observations, level_of
from segmentation.observation import Observation
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Level, Vertebrae
from segmentation.volume import CtVolume, Grid, LabelMap, Mask, canonical


class Convention(StrEnum):
    """Whose numbers a mask carries."""

    AUTO = "auto"
    TOTALSEGMENTATOR = "totalsegmentator"
    VERSE = "verse"


# Class map of TotalSegmentator's `total` task, version 2.
TOTALSEGMENTATOR: Mapping[int, str] = {27: "L5", 28: "L4", 29: "L3", 30: "L2", 31: "L1", 32: "T12", 33: "T11"}
TOTALSEGMENTATOR_LAST_VERTEBRA = 50  # C1; organs have the numbers around
# Sekuboyina et al., VerSe: labels 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 27 coccyx, 28 T13.
VERSE: Mapping[int, str] = {18: "T11", 19: "T12", 20: "L1", 21: "L2", 22: "L3", 23: "L4", 24: "L5"}
VERSE_L6 = 25
AMBIGUOUS_ALONE = frozenset({25, 26, 27, 28})  # sacrum or L6, S1 or sacrum, L5 or coccyx, L4 or T13

WHOLE_DEPTH_MM = (
    48.0  # a body is at most about 42 mm deep, a vertebra with its spinous process 70 and more (R)
)
WHOLE_WIDTH_MM = (
    68.0  # a body is at most about 62 mm wide, a vertebra with its transverse processes 75 and more (R)
)
MASK_HU = 400.0  # what a mask's inside counts as where the geometric engine's tools read it like an image
DISC_HALF_MM = 3  # the search for an endplate begins this far outside the mask
MIN_VOXELS = 20
MIN_OVERLAP = 0.5  # share of the mask that must lie inside the volume


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImage:
    """A label map with its place in space."""

    labels: npt.NDArray[np.int_] | npt.NDArray[np.uint8] | npt.NDArray[np.int16]
    grid: Grid

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape:
            raise GridMismatch("shape", self.labels.shape, self.grid.shape)


class MaskEngine:
    """A `Segmenter` that answers with a mask drawn elsewhere.

    Parameters
    ----------
    convention : whose numbers the mask carries, or a mapping from its values to level names.
    """

    def __init__(
        self,
        mask: LabelImage,
        convention: Convention | Mapping[int, str] = Convention.AUTO,
        *,
        source: str = "mask",
    ) -> None:
        self._mask = mask
        self._convention = convention
        self._source = source

    @property
    def info(self) -> EngineInfo:
        named = self._convention.value if isinstance(self._convention, Convention) else "explicit"
        return EngineInfo(
            name="mask",
            version="1",
            model_free=False,
            parameters={"convention": named, "source": self._source},
        )

    def segment(self, volume: CtVolume) -> Vertebrae:
        """The mask's vertebral bodies on the volume's grid; see `segmentation.engines.Segmenter`.

        Raises
        ------
        GridMismatch
            If the mask does not lie over the volume.
        MaskNotUsable
            If its values can't be read as vertebral levels, or whole vertebrae can't be cut to their bodies.
        """
        labels = on_grid(self._mask, volume.grid)
        naming = resolve_naming(labels, volume.grid, self._convention)
        turned, turn = canonical(volume)
        there = turn.forward(labels)
        drawn = {name: there == value for value, name in naming.items()}
        if any(is_whole_vertebra(inside, turned.grid) for inside in drawn.values()):
            curve = _curve_of(turned)
            drawn = {name: cut_to_body(inside, turned.grid, curve, name) for name, inside in drawn.items()}
        bodies: LabelMap = np.zeros(there.shape, np.uint8)
        levels = []
        for name, inside in drawn.items():
            if inside.sum() >= MIN_VOXELS:
                bodies[inside] = LABELS[name]
                levels.append(_level(name, inside, turned.grid))
        row = from_superior(levels)
        return Vertebrae(
            grid=volume.grid,
            bodies=turn.backward(bodies),
            levels=row,
            numbering_confirmed=bool(row),
            numbering_basis="mask" if row else "none",
            engine=self.info,
            observations=_observations(row, labels, naming),
        )


def on_grid(mask: LabelImage, grid: Grid) -> npt.NDArray[np.int16]:
    """The mask's values at a grid's voxel centres (nearest neighbour); 0 where the mask does not reach.

    Raises
    ------
    GridMismatch
        If less than half of the mask lies inside the grid.
    """
    values = mask.labels.astype(np.int16)
    try:
        mask.grid.require_same(grid)
    except GridMismatch:
        _require_overlap(mask, grid)
    else:
        return values
    axes = [np.arange(size, dtype=float) for size in grid.shape]
    step = np.linalg.inv(mask.grid.step_matrix()) @ grid.step_matrix()
    start = mask.grid.to_index(grid.origin_mm)
    moved: npt.NDArray[np.int16] = ndimage.affine_transform(
        values, step, offset=start, output_shape=tuple(len(axis) for axis in axes), order=0, prefilter=False
    )
    return moved


def _require_overlap(mask: LabelImage, grid: Grid) -> None:
    drawn = np.argwhere(mask.labels != 0)
    if len(drawn) == 0:
        return
    index = grid.to_index(mask.grid.to_patient(drawn))
    inside = ((index >= -0.5) & (index <= np.asarray(grid.shape) - 0.5)).all(axis=1)
    if inside.mean() < MIN_OVERLAP:
        raise GridMismatch("extent", f"{inside.mean():.0%} of the mask", "the volume")


def resolve_naming(
    labels: npt.NDArray[np.int16], grid: Grid, convention: Convention | Mapping[int, str]
) -> Mapping[int, str]:
    """Which value stands for which level.

    A mask with one value is L3, unless the value itself names another level. Otherwise the two conventions
    differ in the sense in which their numbers run along the spine, and that is looked at.

    Raises
    ------
    MaskNotUsable
        If the mask is empty, fits both conventions or neither, or a mapping names an unknown level.
    """
    present = [int(value) for value in np.unique(labels) if value != 0]
    if not present:
        raise MaskNotUsable("the mask is empty")
    if not isinstance(convention, Convention):
        if unknown := sorted(set(convention.values()) - set(LABELS)):
            raise MaskNotUsable(f"unknown levels: {', '.join(unknown)}")
        return _used(convention, present)
    if convention is Convention.TOTALSEGMENTATOR:
        return _used(TOTALSEGMENTATOR, present)
    if convention is Convention.VERSE:
        return _used(VERSE, present)
    if len(present) == 1:
        return _naming_of_single(present[0])
    return _naming_by_order(labels, grid, present)


def _used(naming: Mapping[int, str], present: list[int]) -> Mapping[int, str]:
    used = {value: name for value, name in naming.items() if value in present}
    if not used:
        raise MaskNotUsable(f"none of the values {present} stands for a vertebra in this convention")
    return used


def _naming_of_single(value: int) -> Mapping[int, str]:
    if value in AMBIGUOUS_ALONE:
        raise MaskNotUsable(f"the single value {value} means different vertebrae in different conventions")
    return {value: VERSE.get(value) or TOTALSEGMENTATOR.get(value) or "L3"}


def _naming_by_order(labels: npt.NDArray[np.int16], grid: Grid, present: list[int]) -> Mapping[int, str]:
    upward = _runs(labels, grid, [value for value in present if value in TOTALSEGMENTATOR])
    downward = _runs(labels, grid, [value for value in present if value in VERSE])
    organs = max(present) > TOTALSEGMENTATOR_LAST_VERTEBRA
    if upward == 1 and (organs or downward != -1):
        return _used(TOTALSEGMENTATOR, present)
    if downward == -1 and upward != 1:
        return _used(VERSE, present)
    raise MaskNotUsable(f"the values {present} cannot be told to be TotalSegmentator's or VerSe's numbers")


def _runs(labels: npt.NDArray[np.int16], grid: Grid, values: list[int]) -> int:
    """+1 if higher values lie higher in the patient, -1 if lower, 0 where that cannot be said."""
    if len(values) < 2:
        return 0
    centres = ndimage.center_of_mass(np.ones_like(labels), labels, values)
    heights = grid.to_patient(np.asarray(centres))[:, 2]
    steps = np.sign(np.diff(heights))
    return int(steps[0]) if (steps == steps[0]).all() else 0


def is_whole_vertebra(inside: Mask, grid: Grid) -> bool:
    """Whether a mask is deeper or wider than any vertebral body: posterior elements are included.

    Parameters
    ----------
    inside, grid : in the canonical frame.
    """
    index = np.argwhere(inside)
    size_mm = (np.quantile(index, 0.99, axis=0) - np.quantile(index, 0.01, axis=0)) * grid.spacing_mm
    return bool(size_mm[1] > WHOLE_DEPTH_MM or size_mm[2] > WHOLE_WIDTH_MM)


def _curve_of(volume: CtVolume) -> Curve:
    canal = track_canal(coarsen(volume, 2.0))
    if canal is None:
        raise MaskNotUsable(
            "the mask holds whole vertebrae, and the spinal canal that bounds their bodies is not found"
        )
    return body_curve(canal, float(extent_mm(volume)[0]))


def cut_to_body(inside: Mask, grid: Grid, curve: Curve, name: str) -> Mask:
    """The vertebral body of a whole vertebra: the geometric engine's shape, drawn on the mask, not the CT.

    A vertebra that the volume cuts may have no body in view: the result is then empty.

    Raises
    ------
    MaskNotUsable
        If a vertebra that lies wholly in the volume shows no body with two endplates.
    """
    drawn = CtVolume(hu=np.where(inside, MASK_HU, 0.0).astype(np.float32), grid=grid)
    body = _body_on_curve(drawn, inside, curve)
    kept = np.zeros_like(inside)
    if body is not None:
        box, within = rasterise(body, drawn)
        kept[box] = within & inside[box]
    elif not _at_edge(inside):
        raise MaskNotUsable(f"{name}: the body cannot be told from the posterior elements")
    return kept


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
    return body_between(
        drawn,
        curve,
        None if inside[0].any() else max(0, below),
        None if inside[-1].any() else min(curve.length - 1, above),
    )


def _at_edge(inside: Mask) -> bool:
    return any(bool(np.take(inside, at, axis).any()) for axis in range(3) for at in (0, -1))


def _level(name: str, inside: Mask, grid: Grid) -> Level:
    axis_mm = axis_of_body(inside, grid)
    axis = grid.step_matrix() @ (axis_mm / np.asarray(grid.spacing_mm))
    return level_of(name, inside, grid, axis=axis, complete=not _at_edge(inside))


def axis_of_body(inside: Mask, grid: Grid) -> Points:
    """A body's own axis in the working frame: square, on average, to the endplates of its mask.

    Parameters
    ----------
    inside, grid : the body alone, in the canonical frame.
    """
    drawn = CtVolume(hu=np.where(inside, MASK_HU, 0.0).astype(np.float32), grid=grid)
    points = np.argwhere(inside) * np.asarray(grid.spacing_mm)
    frame = frame_of(points.mean(axis=0), np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0]))
    for _ in range(3):  # each turn sees the endplates less aslant
        half = float(np.quantile(np.abs(frame.local(points)[:, 0]), 0.98))
        planes = [plane for sense in (-1, 1) if (plane := fit_plane(drawn, frame, half, sense)) is not None]
        if not planes:
            break
        normals = [frame.along - plane.slope_u * frame.left - plane.slope_v * frame.front for plane in planes]
        axis = np.sum([normal / np.linalg.norm(normal) for normal in normals], axis=0)
        frame = frame.facing(axis, frame.origin_mm)
    return frame.along


def _observations(
    row: tuple[Level, ...], labels: npt.NDArray[np.int16], naming: Mapping[int, str]
) -> tuple[Observation, ...]:
    if not any(level.name in LUMBAR for level in row):
        return (Observation(code="no_lumbar_level"),)
    found = list(identity_observations(row))
    if naming.items() <= VERSE.items() and bool((labels == VERSE_L6).any()) and "L5" in naming.values():
        found.append(Observation(code="numbering_conflict", values={"detail": "the mask names an L6"}))
    return tuple(found)
