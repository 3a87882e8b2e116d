"""One vertebral body as a closed shape: two endplates and a side wall, in its own axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import Box, CtVolume, FloatArray, Mask, Points, Profile
from segmentation.engines.geometric.column import Curve
from segmentation.engines.geometric.endplates import (
    EDGE_CLIP_HU,
    INSIDE_MM,
    Plane,
    Plate,
    Surface,
    column_grid,
    fit_plane,
    fit_plate,
    fit_surface,
    mean_normal,
    profile_distances,
    robust_fit,
)
from segmentation.engines.geometric.frame import OUTSIDE_HU, BodyFrame, body_frame, sample

# The side wall: its radius over angle and height, smooth, and free of pedicles and neighbours.
ANGLES = 72
WALL_ANGLES = np.arange(ANGLES) * (2 * np.pi / ANGLES)  # from left over front
RADIUS_STEP_MM = 0.5
RADII_MM = (6.0, 36.0)  # half-axes of lumbar bodies run from 13 to 30 mm (R)
MAX_CHANGE_MM = 1.5  # between neighbouring angles
CHANGE_PENALTY = 6.0  # HU/mm of edge per mm of change between neighbouring angles
FAR_PENALTY = 1.0  # HU/mm of edge per mm of radius: the nearer of two edges is the body's
SOFT_HU = (
    180.0  # outside a true wall lies soft tissue; a pedicle, a rib's head or an osteophyte is denser (R)
)
MIN_EDGE_HU_PER_MM = 12.0
IN_FRONT_MM = 3.0  # the body ends at least this far in front of the canal's middle (R)
BARRED = 1e3
BACK_ANGLES = np.arange(51, 58)  # 15 degrees to either side of straight back: between the pedicles
BACK_HOLLOW_MM = 3.0  # the back is hollow: its corners lie this much behind its middle (R)
HARMONICS = 6
HEIGHT_ORDER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Wall radius in mm over angle (from left over front) and height.

    Attributes
    ----------
    radius_mm : (heights, ANGLES), angles from left over front.
    heights_mm : (heights,), evenly spaced, in the body's frame.
    supported : share of the wall with an edge against soft tissue.
    profile_hu : mean HU across the wall, at `endplates.profile_distances` from its steepest place; None
        where no edge is believed.
    """

    radius_mm: Profile
    heights_mm: Profile
    supported: float
    profile_hu: Profile | None

    def radius(self, h: Profile, angle: Profile) -> Profile:
        """Radius in mm by linear interpolation.

        Parameters
        ----------
        h : height in mm in the body's frame; beyond the table the nearest row counts.
        angle : radians from left over front, any turn; same shape as `h`.
        """
        step = self.heights_mm[1] - self.heights_mm[0]
        row = np.clip((h - self.heights_mm[0]) / step, 0, len(self.heights_mm) - 1)
        column = np.mod(angle, 2 * np.pi) * (ANGLES / (2 * np.pi))
        wrapped = np.concatenate([self.radius_mm, self.radius_mm[:, :1]], axis=1)
        r: Profile = ndimage.map_coordinates(
            wrapped, np.stack([row, column]), order=1, mode="nearest", prefilter=False
        )
        return r


def polar_samples(volume: CtVolume, frame: BodyFrame, heights: Profile) -> tuple[Profile, Profile]:
    """HU on rays from the body's axis.

    Parameters
    ----------
    heights : (heights,) in mm in the body's frame.

    Returns
    -------
    HU (heights, ANGLES, radii), and the radii in mm.
    """
    radii = np.arange(RADII_MM[0], RADII_MM[1] + 6.0, RADIUS_STEP_MM)
    u = np.cos(WALL_ANGLES)[:, None] * radii
    v = np.sin(WALL_ANGLES)[:, None] * radii
    return sample(volume, frame.points(heights[:, None, None], u[None], v[None])), radii


def trace_outline(volume: CtVolume, frame: BodyFrame, heights: Profile, canal_mm: Points) -> Outline:
    """The side wall between two heights.

    Parameters
    ----------
    heights : (heights,) in mm in the body's frame, evenly spaced.
    canal_mm : (n, 3), the middle of the canal, working frame. The wall stays in front of it: a lamina is not
        taken for the body's back.
    """
    raw, radii = polar_samples(volume, frame, heights)
    hu = ndimage.gaussian_filter(
        np.clip(raw, *EDGE_CLIP_HU), (1.0, 0.6, 1.0), mode=("nearest", "wrap", "nearest")
    )
    fall = -np.gradient(hu, RADIUS_STEP_MM, axis=2)
    usable = len(np.arange(*RADII_MM, RADIUS_STEP_MM))
    back = _canal_front(frame, heights, canal_mm)
    fall[radii > _radius_at_back(back)[:, :, None]] = -BARRED
    first = _trace(fall[:, :, :usable], radii[:usable])
    # The back of the body, visible between the pedicles, is the limit at the pedicles too.
    behind = first[:, BACK_ANGLES] * np.sin(WALL_ANGLES[BACK_ANGLES])
    back = np.maximum(back, np.median(behind, axis=1) - BACK_HOLLOW_MM)
    limit = _radius_at_back(back)
    fall[radii > limit[:, :, None]] = -BARRED
    first = np.minimum(first, limit)
    fitted = _smooth_wall(first, _edge_weights(raw, hu, fall, first, radii), heights)
    near = np.abs(radii[:usable] - fitted[:, :, None]) <= 3.5
    second = radii[np.argmax(np.where(near, fall[:, :, :usable], -np.inf), axis=2)]
    weights = _edge_weights(raw, hu, fall, second, radii)
    weights[second > limit - 1.0] = 0.0  # where the limit, not an edge, stopped the search
    wall = _smooth_wall(second, weights, heights)
    return Outline(
        radius_mm=wall,
        heights_mm=heights,
        supported=float((weights > 0).mean()),
        profile_hu=_mean_profile(raw, second, weights > 0, radii),
    )


def _mean_profile(raw: Profile, wall: Profile, believed: Mask, radii: Profile) -> Profile | None:
    """HU across the wall at `profile_distances`, averaged over its believed part; None without one."""
    clear = believed & (wall - INSIDE_MM >= radii[0])
    if not clear.any():
        return None
    index = (wall[clear][:, None] + profile_distances() - radii[0]) / RADIUS_STEP_MM
    low = np.clip(np.floor(index).astype(int), 0, len(radii) - 2)
    rays = raw[clear]
    rows = np.arange(len(rays))[:, None]
    part = np.clip(index - low, 0.0, 1.0)
    profile: Profile = ((1 - part) * rays[rows, low] + part * rays[rows, low + 1]).mean(axis=0)
    return profile


def _canal_front(frame: BodyFrame, heights: Profile, canal_mm: Points) -> Profile:
    """v of a line a little in front of the canal's middle, per height."""
    local = frame.local(canal_mm)
    return np.minimum(np.interp(heights, local[:, 0], local[:, 2]) + IN_FRONT_MM, -8.0)


def _radius_at_back(back: Profile) -> Profile:
    """The radius at which each ray comes as far back as v = `back`; shape (heights, ANGLES)."""
    slope = np.sin(WALL_ANGLES)
    backward = slope < -1e-6
    radius: Profile = np.where(backward, back[:, None] / np.where(backward, slope, -1.0), np.inf)
    return radius


def _trace(fall: Profile, radii: Profile) -> Profile:
    """Per height, the closed path through the angles with the most edge (dynamic programming)."""
    worth = fall - FAR_PENALTY * (radii - radii[0])
    # Twice around: the middle turn does not depend on where the path began.
    turns = np.concatenate([worth, worth], axis=1)
    reach = round(MAX_CHANGE_MM / RADIUS_STEP_MM)
    rows, steps, size = turns.shape
    total = turns[:, 0].copy()
    came = np.zeros((rows, steps, size), np.int8)
    for step in range(1, steps):
        best = np.full((rows, size), -np.inf)
        padded = np.pad(total, ((0, 0), (reach, reach)), constant_values=-np.inf)
        for move in range(-reach, reach + 1):
            option = padded[:, reach + move : reach + move + size] - CHANGE_PENALTY * RADIUS_STEP_MM * abs(
                move
            )
            better = option > best
            best = np.where(better, option, best)
            came[:, step][better] = move
        total = best + turns[:, step]
    at = np.argmax(total, axis=1)
    path = np.zeros((rows, steps), np.intp)
    every = np.arange(rows)
    for step in range(steps - 1, -1, -1):
        path[:, step] = at
        at = at + came[every, step, at]
    half = steps // 4
    middle = path[:, half : half + ANGLES]
    wall: Profile = radii[np.roll(middle, half, axis=1)]
    return wall


def _edge_weights(raw: Profile, hu: Profile, fall: Profile, wall: Profile, radii: Profile) -> Profile:
    """Weight of each piece of wall: its steepness, where soft tissue lies behind it and inside the volume."""
    index = np.clip(np.round((wall - radii[0]) / RADIUS_STEP_MM).astype(np.intp), 0, len(radii) - 1)
    behind = np.clip(index + round(3.0 / RADIUS_STEP_MM), 0, len(radii) - 1)
    steep = _picked(fall, index)
    weights = np.where(
        (steep >= MIN_EDGE_HU_PER_MM) & (_picked(hu, behind) < SOFT_HU), np.minimum(steep, 100.0), 0.0
    )
    weights[_picked(raw, behind) <= OUTSIDE_HU + 1] = 0.0
    return weights


def _picked(values: Profile, index: npt.NDArray[np.intp]) -> Profile:
    """One radius per ray."""
    picked: Profile = np.take_along_axis(values, index[:, :, None], axis=2)[:, :, 0]
    return picked


def _smooth_wall(wall: Profile, weights: Profile, heights: Profile) -> Profile:
    """Low harmonics over the angle times low powers over the height, fitted robustly to the weighted wall."""
    harmonics = [np.ones(ANGLES)]
    for order in range(1, HARMONICS + 1):
        harmonics += [np.cos(order * WALL_ANGLES), np.sin(order * WALL_ANGLES)]
    across = np.stack(harmonics, axis=1)
    stretch = 2 * (heights - heights[0]) / (heights[-1] - heights[0]) - 1
    upward = np.polynomial.legendre.legvander(stretch, HEIGHT_ORDER)
    design = np.einsum("hp,ak->hapk", upward, across).reshape(wall.size, -1)
    frequency = np.concatenate([[0.0], np.repeat(np.arange(1.0, HARMONICS + 1), 2)])
    power = np.arange(HEIGHT_ORDER + 1.0)
    # High orders are damped, so that gaps (the pedicles) are bridged smoothly and not by ringing.
    damping = np.sqrt(2e-4 * wall.size * (frequency[None, :] ** 2 * 0.2 + power[:, None] ** 2)).ravel()
    believed = weights.ravel() > 0
    if believed.sum() < 0.2 * wall.size:
        believed = np.ones(wall.size, bool)
        weights = np.ones_like(weights)
    rows = np.vstack([design[believed], np.diag(damping)])
    values = np.concatenate([wall.ravel()[believed], np.zeros(len(damping))])
    strength = np.concatenate([weights.ravel()[believed] / weights.max(), np.ones(len(damping))])
    solution = robust_fit(rows, values, strength, scale_mm=1.2)
    smooth: Profile = (design @ solution).reshape(wall.shape)
    return np.clip(smooth, RADII_MM[0], RADII_MM[1])


# The whole body.
ENDPLATE_MARGIN_MM = 1.5  # columns this close to the wall show its cortex, not the endplate
MAX_TILT_COSINE = 0.64  # 50 degrees between a body's axis and the column's
MIN_CUT_HEIGHT_MM = 10.0  # of a body that the volume cuts (R)
MIN_CUT_SUPPORT = 0.5
MIN_HEIGHT_MM = 8.0  # less of a body cannot be distinguished from its endplate
THICK_MM = 3.5  # slices this far apart show no edge: `thick_slices` fits the endplates
SUBSTEP_MM = 0.75  # how finely voxels at the surface are divided


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A vertebral body's surface.

    Attributes
    ----------
    frame : the body's axes; all heights and radii are relative to it.
    """

    frame: BodyFrame
    upper: Surface
    lower: Surface
    wall: Outline

    @property
    def complete(self) -> bool:
        return self.upper.found and self.lower.found

    @property
    def height_mm(self) -> float:
        """Endplate to endplate on the body's axis; of the visible part where an end is open."""
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
        """Which local points lie inside.

        Parameters
        ----------
        local : (..., 3), (h, u, v) in mm.

        Returns
        -------
        bool, (...).
        """
        h, u, v = local[..., 0], local[..., 1], local[..., 2]
        wall = self.wall.radius(h, np.arctan2(v, u))
        inside: Mask = (
            (np.hypot(u, v) <= wall) & (h <= self.upper.height(u, v)) & (h >= self.lower.height(u, v))
        )
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """The endplates as planes in a body's frame; one that is not found lies at the volume's end."""

    lower: Plane
    upper: Plane
    lower_found: bool
    upper_found: bool


def fit_body(volume: CtVolume, curve: Curve, lower_mm: int | None, upper_mm: int | None) -> Body | None:
    """The body between two discs.

    Parameters
    ----------
    lower_mm, upper_mm : places of the discs on the curve; None for an end that the volume cuts off, where the
        body is open.

    Returns
    -------
    None where a visible disc has no endplate, where both ends are cut, or where too little of a cut body is
    in view.
    """
    if lower_mm is None and upper_mm is None:
        return None
    bottom = lower_mm if lower_mm is not None else 0
    top = upper_mm if upper_mm is not None else curve.length - 1
    middle, half = (bottom + top) // 2, (top - bottom) / 2
    frame = body_frame(curve.centre_mm[middle], curve.along[middle], curve.front[middle])
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
        frame, ends = _align_to_endplates(frame, ends)
        frame = _centre_axis(volume, frame, ends, curve.canal_mm)
    assert ends is not None
    if float(frame.along @ curve.along[middle]) < MAX_TILT_COSINE:
        return None
    body = _fit_surfaces(volume, frame, ends, curve.canal_mm)
    return body if body.complete or _enough_in_view(body) else None


def _enough_in_view(body: Body) -> bool:
    """Whether enough of a truncated body is in view to be identified as one."""
    return body.height_mm >= MIN_CUT_HEIGHT_MM and body.wall.supported >= MIN_CUT_SUPPORT


def _level_plane(h: float) -> Plane:
    return Plane(offset=h, slope_u=0.0, slope_v=0.0)


def _find_ends(volume: CtVolume, frame: BodyFrame, ends: _Ends, past_mm: float) -> _Ends | None:
    lower = fit_plane(volume, frame, -ends.lower.offset + past_mm, -1) if ends.lower_found else ends.lower
    upper = fit_plane(volume, frame, ends.upper.offset + past_mm, 1) if ends.upper_found else ends.upper
    if lower is None or upper is None or upper.offset - lower.offset < MIN_HEIGHT_MM:
        return None
    return replace(ends, lower=lower, upper=upper)


def _align_to_endplates(frame: BodyFrame, ends: _Ends) -> tuple[BodyFrame, _Ends]:
    """Turn the frame's axis to the mean normal of the endplates, its origin half-way between them."""
    pairs = ((ends.lower, ends.lower_found), (ends.upper, ends.upper_found))
    axis = mean_normal(frame, [plane for plane, found in pairs if found])
    centre = frame.points((ends.lower.offset + ends.upper.offset) / 2, 0.0, 0.0)
    half = (ends.upper.offset - ends.lower.offset) / 2
    return frame.facing(axis, centre), replace(ends, lower=_level_plane(-half), upper=_level_plane(half))


def _centre_axis(volume: CtVolume, frame: BodyFrame, ends: _Ends, canal_mm: Points) -> BodyFrame:
    """Move the axis to the middle of the body's cross-section at mid-height."""
    reach = min(5.0, 0.3 * (ends.upper.offset - ends.lower.offset))
    wall = trace_outline(volume, frame, np.linspace(-reach, reach, 7), canal_mm).radius_mm.mean(axis=0)
    return frame.moved(0.0, *outline_centroid(wall))


def outline_centroid(radius_mm: Profile) -> tuple[float, float]:
    """Centroid (u, v) in mm of the area within an outline.

    Parameters
    ----------
    radius_mm : (ANGLES,), at `WALL_ANGLES`.
    """
    area = (radius_mm**2).sum()
    u, v = ((radius_mm**3 * part).sum() * 2 / 3 / area for part in (np.cos(WALL_ANGLES), np.sin(WALL_ANGLES)))
    return float(u), float(v)


def _fit_surfaces(volume: CtVolume, frame: BodyFrame, ends: _Ends, canal_mm: Points) -> Body:
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


def move_to_cortex(body: Body, volume: CtVolume, cortex_hu: float) -> Body:
    """The body with its surfaces moved from the steepest fall of HU to the outside of the cortex.

    Parameters
    ----------
    cortex_hu : HU of compact bone, free of partial volume.

    Returns
    -------
    On slices `THICK_MM` and more apart only the wall is moved: `thick_slices.refit_endplates` fits the
    endplates. A surface without a profile stays in place.
    """
    if body.wall.profile_hu is None:
        return body
    plate = fit_plate(body.wall.profile_hu, cortex_hu)
    moved = replace(body, wall=replace(body.wall, radius_mm=body.wall.radius_mm + plate.shift_mm))
    if volume.grid.spacing_mm[0] >= THICK_MM:
        return moved
    return replace(
        moved, lower=_move_endplate(moved.lower, -1, plate), upper=_move_endplate(moved.upper, 1, plate)
    )


def _move_endplate(surface: Surface, sense: int, plate: Plate) -> Surface:
    if surface.profile_hu is None:
        return surface
    shift_mm = fit_plate(surface.profile_hu, plate.hu).shift_mm
    return replace(surface, heights_mm=surface.heights_mm + sense * shift_mm)


def rasterise(body: Body, volume: CtVolume) -> tuple[Box, Mask]:
    """The voxels whose centres lie inside the body.

    Returns
    -------
    A box of the volume that holds the body, and a mask (bool) of its shape.
    """
    box = _box_around(body, volume)
    axes = [np.arange(part.start, part.stop) for part in box]
    return box, _contains(body, volume, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))


def voxel_shares(body: Body, volume: CtVolume) -> tuple[Box, FloatArray]:
    """The share of each voxel that lies inside the body; voxels at the surface are subdivided (`SUBSTEP_MM`).

    Returns
    -------
    A box of the volume that holds the body, and shares (float32, 0..1) of its shape.
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
