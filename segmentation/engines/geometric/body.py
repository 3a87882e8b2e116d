"""One vertebral body as a closed shape: two endplates and a side wall, in its own axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segmentation.engines.geometric.column import Curve
from segmentation.engines.geometric.cortex import Plate, fit_plate
from segmentation.engines.geometric.endplates import (
    Plane,
    Surface,
    column_grid,
    fit_plane,
    fit_surface,
)
from segmentation.engines.geometric.frame import BodyFrame, Points, frame_of
from segmentation.engines.geometric.outline import ANGLES, Outline, trace_outline
from segmentation.volume import CtVolume, FloatArray, Mask

ENDPLATE_MARGIN_MM = 1.5  # columns this close to the wall see its cortex, not the endplate
MAX_TILT_COSINE = 0.64  # 50 degrees between a body's axis and the column's
MIN_CUT_HEIGHT_MM = 10.0  # of a body that the volume cuts (R)
MIN_CUT_SUPPORT = 0.5
MIN_HEIGHT_MM = 8.0  # less of a body than this is not told from its endplate
THICK_MM = 3.5  # between slices this far apart no edge is seen: `thick` finds the endplates
SUBSTEP_MM = 0.75  # how finely voxels at the surface are divided

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A vertebral body's surface."""

    frame: BodyFrame
    upper: Surface
    lower: Surface
    wall: Outline

    @property
    def complete(self) -> bool:
        return self.upper.found and self.lower.found

    @property
    def height_mm(self) -> float:
        """Endplate to endplate on the body's axis; only the part in view where an end is open."""
        zero = np.zeros(1)
        return float(self.upper.height(zero, zero)[0] - self.lower.height(zero, zero)[0])

    @property
    def width_mm(self) -> float:
        """Left to right at mid-height."""
        middle = self.wall.radius_mm[len(self.wall.radius_mm) // 2]
        return float(middle[0] + middle[ANGLES // 2])

    @property
    def depth_mm(self) -> float:
        """Front to back at mid-height."""
        middle = self.wall.radius_mm[len(self.wall.radius_mm) // 2]
        return float(middle[ANGLES // 4] + middle[3 * ANGLES // 4])

    def contains(self, local: Points) -> Mask:
        """Which local points (h, u, v) lie inside."""
        h, u, v = local[..., 0], local[..., 1], local[..., 2]
        wall = self.wall.radius(h, np.arctan2(v, u))
        inside: Mask = (
            (np.hypot(u, v) <= wall) & (h <= self.upper.height(u, v)) & (h >= self.lower.height(u, v))
        )
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """The two endplates as planes in a body's frame; one that is not found stands where the volume ends."""

    lower: Plane
    upper: Plane
    lower_found: bool
    upper_found: bool


def body_between(volume: CtVolume, curve: Curve, lower_mm: int | None, upper_mm: int | None) -> Body | None:
    """The body between two discs, given by their places on the curve.

    None stands for an end that the volume cuts off: the body is then open there. Returns None where no
    endplate is found towards a disc that is there, and where both ends are cut: what has no endplate in view
    cannot be told to be a body.
    """
    if lower_mm is None and upper_mm is None:
        return None
    bottom = lower_mm if lower_mm is not None else 0
    top = upper_mm if upper_mm is not None else curve.length - 1
    middle, half = (bottom + top) // 2, (top - bottom) / 2
    frame = frame_of(curve.centre_mm[middle], curve.along[middle], curve.front[middle])
    ends: _Ends | None = _Ends(
        lower=_level_plane(-half),
        upper=_level_plane(half),
        lower_found=lower_mm is not None,
        upper_found=upper_mm is not None,
    )
    for past_mm in (0.0, 1.0, 1.0):  # first towards the discs' middles, then around the endplates just found
        assert ends is not None
        ends = _find_ends(volume, frame, ends, past_mm)
        if ends is None:
            return None
        frame, ends = _squared(frame, ends)
        frame = _centred(volume, frame, ends, curve.canal_mm)
    assert ends is not None
    if float(frame.along @ curve.along[middle]) < MAX_TILT_COSINE:
        return None
    body = _shaped(volume, frame, ends, curve.canal_mm)
    return body if body.complete or _is_seen(body) else None


def _is_seen(body: Body) -> bool:
    """Whether enough of a body that the volume cuts is in view to be one."""
    return body.height_mm >= MIN_CUT_HEIGHT_MM and body.wall.supported >= MIN_CUT_SUPPORT


def _level_plane(h: float) -> Plane:
    return Plane(offset=h, slope_u=0.0, slope_v=0.0)


def _find_ends(volume: CtVolume, frame: BodyFrame, ends: _Ends, past_mm: float) -> _Ends | None:
    lower = fit_plane(volume, frame, -ends.lower.offset + past_mm, -1) if ends.lower_found else ends.lower
    upper = fit_plane(volume, frame, ends.upper.offset + past_mm, 1) if ends.upper_found else ends.upper
    if lower is None or upper is None or upper.offset - lower.offset < MIN_HEIGHT_MM:
        return None
    return replace(ends, lower=lower, upper=upper)


def _squared(frame: BodyFrame, ends: _Ends) -> tuple[BodyFrame, _Ends]:
    """Turn the frame's axis to the mean normal of the endplates, its origin half-way between them."""
    normals = [
        frame.along - plane.slope_u * frame.left - plane.slope_v * frame.front
        for plane, found in ((ends.lower, ends.lower_found), (ends.upper, ends.upper_found))
        if found
    ]
    axis = np.sum([normal / np.linalg.norm(normal) for normal in normals], axis=0)
    centre = frame.points((ends.lower.offset + ends.upper.offset) / 2, 0.0, 0.0)
    half = (ends.upper.offset - ends.lower.offset) / 2
    return frame.facing(axis, centre), replace(ends, lower=_level_plane(-half), upper=_level_plane(half))


def _centred(volume: CtVolume, frame: BodyFrame, ends: _Ends, canal_mm: Points) -> BodyFrame:
    """Move the axis to the middle of the body's cross-section at mid-height."""
    reach = min(5.0, 0.3 * (ends.upper.offset - ends.lower.offset))
    wall = trace_outline(volume, frame, np.linspace(-reach, reach, 7), canal_mm).radius_mm.mean(axis=0)
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    area = (wall**2).sum()
    u = float((wall**3 * np.cos(angle)).sum() * 2 / 3 / area)
    v = float((wall**3 * np.sin(angle)).sum() * 2 / 3 / area)
    return frame.moved(0.0, u, v)


def _shaped(volume: CtVolume, frame: BodyFrame, ends: _Ends, canal_mm: Points) -> Body:
    low, high = ends.lower.offset + 1.0, ends.upper.offset - 1.0
    wall = trace_outline(volume, frame, np.linspace(low, high, max(5, round(high - low) + 1)), canal_mm)
    u, v = column_grid()
    surfaces = []
    for plane, found, sense in ((ends.lower, ends.lower_found, -1), (ends.upper, ends.upper_found, 1)):
        if found:
            near = np.full(u.shape, plane.offset)
            inside = np.hypot(u, v) <= wall.radius(near, np.arctan2(v, u)) - ENDPLATE_MARGIN_MM
            surfaces.append(fit_surface(volume, frame, plane, inside, sense))
        else:
            surfaces.append(Surface(heights_mm=plane.height(u, v), found=False))
    return Body(frame=frame, lower=surfaces[0], upper=surfaces[1], wall=wall)


def settled(body: Body, volume: CtVolume, cortex_hu: float) -> Body:
    """The body with its surfaces moved from where HU falls most steeply to where the cortex ends.

    On slices `THICK_MM` and more apart its wall alone: its endplates are left to `thick.refit`.
    """
    if body.wall.profile_hu is None:
        return body
    plate = fit_plate(body.wall.profile_hu, cortex_hu)
    moved = replace(body, wall=replace(body.wall, radius_mm=body.wall.radius_mm + plate.shift_mm))
    if volume.grid.spacing_mm[0] >= THICK_MM:
        return moved
    return replace(
        moved, lower=_settled_end(moved.lower, -1, plate), upper=_settled_end(moved.upper, 1, plate)
    )


def _settled_end(surface: Surface, sense: int, plate: Plate) -> Surface:
    if surface.profile_hu is None:
        return surface
    shift_mm = fit_plate(surface.profile_hu, plate.hu).shift_mm
    return replace(surface, heights_mm=surface.heights_mm + sense * shift_mm)


def rasterise(body: Body, volume: CtVolume) -> tuple[Box, Mask]:
    """The voxels whose centres lie inside the body: the box that holds them, and which of it they are."""
    box = _box_around(body, volume)
    axes = [np.arange(part.start, part.stop) for part in box]
    return box, _contains(body, volume, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))


def occupied(body: Body, volume: CtVolume) -> tuple[Box, FloatArray]:
    """The share (0..1) of each voxel that lies inside the body, in the box that holds it.

    Only voxels at the surface are looked at in several places.
    """
    box, inside = rasterise(body, volume)
    share = inside.astype(np.float32)
    around = np.ones((3, 3, 3))
    border = np.argwhere(ndimage.binary_dilation(inside, around) & ~ndimage.binary_erosion(inside, around))
    counts = np.maximum(2, np.ceil(np.asarray(volume.grid.spacing_mm) / SUBSTEP_MM - 1e-6).astype(int))
    parts = [(np.arange(count) + 0.5) / count - 0.5 for count in counts]
    offsets = np.stack(np.meshgrid(*parts, indexing="ij"), axis=-1).reshape(-1, 3)
    corner = np.array([part.start for part in box])
    filled = np.zeros(len(border), np.float32)
    for offset in offsets:
        filled += _contains(body, volume, border + corner + offset)
    share[tuple(border.T)] = filled / np.float32(len(offsets))
    return box, share


def _contains(body: Body, volume: CtVolume, index_zyx: Points) -> Mask:
    """Which places, given as (fractional) indices, lie inside the body."""
    return body.contains(body.frame.local(index_zyx * np.asarray(volume.grid.spacing_mm)))


def _box_around(body: Body, volume: CtVolume) -> Box:
    """A box of voxels that holds the body, with one voxel more where the volume allows."""
    spacing = np.asarray(volume.grid.spacing_mm)
    reach = np.hypot(float(body.wall.radius_mm.max()), body.height_mm / 2 + 6.0)
    low = np.floor((body.frame.origin_mm - reach) / spacing).astype(int)
    high = np.ceil((body.frame.origin_mm + reach) / spacing).astype(int) + 1
    low, high = (np.clip(end, 0, volume.grid.shape) for end in (low, high))
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (box[0], box[1], box[2])
