"""The body's side wall: its radius over angle and height, smooth, and free of pedicles and neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.engines.geometric.cortex import INSIDE_MM, profile_distances
from segmentation.engines.geometric.endplates import EDGE_CLIP_HU, robust_fit
from segmentation.engines.geometric.frame import OUTSIDE_HU, BodyFrame, Points, Profile, sample
from segmentation.volume import CtVolume, Mask

ANGLES = 72
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
    """Wall radius in mm over angle (from left over front) and height."""

    radius_mm: Profile  # (heights, ANGLES)
    heights_mm: Profile  # (heights,) evenly spaced
    supported: float  # share of the wall where an edge against soft tissue was seen
    profile_hu: (
        Profile | None
    )  # mean HU across the wall, at `cortex.profile_distances` from its steepest place

    def radius(self, h: Profile, angle: Profile) -> Profile:
        """Interpolated radius; heights outside the table take the nearest row."""
        step = self.heights_mm[1] - self.heights_mm[0]
        row = np.clip((h - self.heights_mm[0]) / step, 0, len(self.heights_mm) - 1)
        column = np.mod(angle, 2 * np.pi) * (ANGLES / (2 * np.pi))
        wrapped = np.concatenate([self.radius_mm, self.radius_mm[:, :1]], axis=1)
        r: Profile = ndimage.map_coordinates(
            wrapped, np.stack([row, column]), order=1, mode="nearest", prefilter=False
        )
        return r


def polar_samples(volume: CtVolume, frame: BodyFrame, heights: Profile) -> tuple[Profile, Profile]:
    """HU on rays from the body's axis: (heights, ANGLES, radii), and the radii in mm."""
    radii = np.arange(RADII_MM[0], RADII_MM[1] + 6.0, RADIUS_STEP_MM)
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    u = np.cos(angle)[:, None] * radii
    v = np.sin(angle)[:, None] * radii
    return sample(volume, frame.points(heights[:, None, None], u[None], v[None])), radii


def trace_outline(volume: CtVolume, frame: BodyFrame, heights: Profile, canal_mm: Points) -> Outline:
    """The side wall between two heights (evenly spaced, mm, in the body's frame).

    Parameters
    ----------
    canal_mm : the middle of the canal, working frame; the wall stays in front of it, so that a lamina is not
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
    # The body's own back, seen between the pedicles, bounds it at the pedicles too.
    behind = first[:, BACK_ANGLES] * np.sin(BACK_ANGLES * (2 * np.pi / ANGLES))
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
    slope = np.sin(np.arange(ANGLES) * (2 * np.pi / ANGLES))
    backward = slope < -1e-6
    radius: Profile = np.where(backward, back[:, None] / np.where(backward, slope, -1.0), np.inf)
    return radius


def _trace(fall: Profile, radii: Profile) -> Profile:
    """Per height, the closed path through the angles with the most edge (dynamic programming)."""
    worth = fall - FAR_PENALTY * (radii - radii[0])
    # Twice around: the middle turn no longer knows where the path began.
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
    """How far each piece of wall can be believed: steep, soft tissue behind it, inside the volume."""
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
    """Low harmonics over the angle times low powers over the height, fitted robustly to the believed wall."""
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    harmonics = [np.ones(ANGLES)]
    for order in range(1, HARMONICS + 1):
        harmonics += [np.cos(order * angle), np.sin(order * angle)]
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
