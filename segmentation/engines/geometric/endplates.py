"""Endplates: where a body ends towards its discs, as planes first and as curved surfaces then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize, special

from segmentation.ct_volume import CtVolume, Points, Profile
from segmentation.engines.geometric.frame import OUTSIDE_HU, BodyFrame, sample

# The surface of a thin cortex. The scanner's blur moves the steepest fall of HU outward: of a plate of 1 mm
# and a blur of 2 mm by half a millimetre, which makes nearly a tenth of a body's volume. A blurred plate,
# fitted to the mean profile across the surface, gives the surface itself; after Treece et al., Med Image Anal
# 2010;14:276 (cortical thickness below the resolution of CT, by a model of fixed cortical density).
INSIDE_MM, OUTSIDE_MM, PROFILE_STEP_MM = 6.0, 3.5, 0.25  # the stretch of profile that is fitted
MAX_SHIFT_MM = 1.5


def profile_distances() -> Profile:
    """Distances in mm from the steepest place, outward positive, at which profiles are sampled."""
    return np.arange(-INSIDE_MM, OUTSIDE_MM + 0.01, PROFILE_STEP_MM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plate:
    """The compact bone at a surface.

    Attributes
    ----------
    hu : HU of compact bone.
    shift_mm : of the surface from the steepest place of the profile; negative is inward.
    """

    hu: float
    thickness_mm: float
    shift_mm: float


def fit_plate(profile: Profile, cortex_hu: float) -> Plate:
    """The blurred plate that a mean profile across a surface shows.

    Parameters
    ----------
    profile : HU at `profile_distances`.
    cortex_hu : HU of compact bone in this patient, free of partial volume.
    """
    distance = profile_distances()

    def residual(guess: Profile) -> Profile:
        edge, thickness, blur, inner, outer = guess
        falling = special.ndtr((edge - distance) / blur)
        rising = special.ndtr((distance - edge + thickness) / blur)
        model = outer + (cortex_hu - outer) * falling - (cortex_hu - inner) * (1 - rising)
        difference: Profile = (model - profile) / 100.0
        return difference

    start = np.array([-0.3, 0.8, 1.0, profile[0], profile[-1]])
    lower = np.array([-MAX_SHIFT_MM, 0.05, 0.4, -200.0, -200.0])
    upper = np.array([MAX_SHIFT_MM, 3.0, 2.5, 600.0, 400.0])
    fit = optimize.least_squares(residual, np.clip(start, lower + 1e-3, upper - 1e-3), bounds=(lower, upper))
    return Plate(hu=cortex_hu, thickness_mm=float(fit.x[1]), shift_mm=float(fit.x[0]))


# Endplates as planes and surfaces.
STEP_MM = 0.5
COLUMN_STEP_MM = 2.0
HALF_WIDTH_MM = 36.0  # the columns reach this far from the axis: beyond any lumbar body
EDGE_CLIP_HU = (0.0, 500.0)  # fat is as good as muscle, and cortex as good as metal
MIN_EDGE_HU_PER_MM = 12.0
SHARP_MM = 3.0  # voxels longer than this along the body blur an edge in proportion
PLANE_RADII_MM = (
    15.0,
    10.0,
)  # half-axes (u, v) of the columns that a plane is fitted to: inside any body (R)
PAST_DISC_MM = 3.0
SEARCH_FROM = (0.45, 0.1)  # of the way to the disc's middle


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """``h = offset + slope_u * u + slope_v * v`` in a body's frame."""

    offset: float
    slope_u: float
    slope_v: float

    def height(self, u: npt.ArrayLike, v: npt.ArrayLike) -> Profile:
        """Heights in mm at (u, v), which are broadcast."""
        h: Profile = self.offset + self.slope_u * np.asarray(u) + self.slope_v * np.asarray(v)
        return h


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """An endplate's height over the body's cross-section, on `column_grid`.

    Attributes
    ----------
    heights_mm : (u, v) on `column_grid`, in the body's frame.
    found : False where the volume ends before the endplate.
    profile_hu : mean HU across it, at `profile_distances` from its steepest place.
    """

    heights_mm: Profile
    found: bool
    profile_hu: Profile | None = None

    def height(self, u: Profile, v: Profile) -> Profile:
        """Bilinear interpolation; the border value outside the grid."""
        index = (np.stack([u, v]) + HALF_WIDTH_MM) / COLUMN_STEP_MM
        h: Profile = ndimage.map_coordinates(self.heights_mm, index, order=1, mode="nearest", prefilter=False)
        return h


def quadratic_terms(u: Profile, v: Profile) -> Points:
    """The terms (1, u, v, u*u, u*v, v*v) of an endplate's shape; shape (..., 6)."""
    terms: Points = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    return terms


def mean_normal(frame: BodyFrame, planes: Sequence[Plane]) -> Points:
    """Sum of the unit normals of some endplates in a body's frame: their mean direction, (3,)."""
    normals = [frame.along - plane.slope_u * frame.left - plane.slope_v * frame.front for plane in planes]
    total: Points = np.sum([normal / np.linalg.norm(normal) for normal in normals], axis=0)
    return total


def column_grid() -> tuple[Profile, Profile]:
    """Positions of the columns that describe an endplate.

    Returns
    -------
    u and v in mm, each (n, n), `COLUMN_STEP_MM` apart.
    """
    axis = np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM + 0.1, COLUMN_STEP_MM)
    u, v = np.meshgrid(axis, axis, indexing="ij")
    return u, v


def edge_heights(
    volume: CtVolume,
    frame: BodyFrame,
    columns: tuple[Profile, Profile],
    search_mm: tuple[Profile, Profile],
    sense: int,
) -> tuple[Profile, Profile]:
    """Per column, the height of the steepest fall of HU going out of the body, and its steepness.

    Parameters
    ----------
    columns : their positions u and v, 2D arrays of neighbours.
    search_mm : first and last distance from h = 0, per column, positive for both senses.
    sense : +1 for the upper endplate, -1 for the lower.

    Returns
    -------
    heights in mm (signed), steepness in HU/mm (0 where the column leaves the volume or has no edge).
    """
    (u, v), (low, high) = columns, search_mm
    distance = np.arange(float(low.min()) - 1.5, float(high.max()) + 1.5, STEP_MM)
    points = frame.points(sense * distance[:, None, None], u[None], v[None])
    raw = sample(volume, points)
    hu = ndimage.gaussian_filter(np.clip(raw, *EDGE_CLIP_HU), (1.0, 0.7, 0.7), mode="nearest")
    fall = -np.gradient(hu, STEP_MM, axis=0)
    fall[(distance[:, None, None] < low) | (distance[:, None, None] > high)] = -np.inf
    peak = np.argmax(fall, axis=0)
    steepness = np.maximum(np.take_along_axis(fall, peak[None], axis=0)[0], 0.0)
    steepness[np.take_along_axis(raw, peak[None], axis=0)[0] <= OUTSIDE_HU + 1] = 0.0
    return sense * (distance[peak] + _subsample(fall, peak)), steepness


def _subsample(fall: Profile, peak: npt.NDArray[np.intp]) -> Profile:
    """Parabola through the peak and its neighbours: the offset of its top in mm."""
    inner = np.clip(peak, 1, len(fall) - 2)
    before, at, after = (np.take_along_axis(fall, (inner + k)[None], axis=0)[0] for k in (-1, 0, 1))
    finite = np.isfinite(before) & np.isfinite(at) & np.isfinite(after) & (inner == peak)
    with np.errstate(invalid="ignore", divide="ignore"):
        bend = before - 2 * at + after
        offset = np.where(finite & (bend < 0), 0.5 * (before - after) / bend, 0.0)
    return STEP_MM * np.clip(np.nan_to_num(offset), -0.5, 0.5)


def fit_plane(volume: CtVolume, frame: BodyFrame, disc_mm: float, sense: int) -> Plane | None:
    """The endplate towards a disc, as a plane.

    A crushed body's endplate may lie near its middle: that range is searched second.

    Parameters
    ----------
    frame : the body's axes.
    disc_mm : distance of the disc's middle from h = 0.
    sense : +1 for the upper endplate, -1 for the lower.

    Returns
    -------
    None where fewer than 40 % of the columns show an edge.
    """
    for share in SEARCH_FROM:
        if (plane := _plane_beyond(volume, frame, max(1.0, share * disc_mm), disc_mm, sense)) is not None:
            return plane
    return None


def _plane_beyond(
    volume: CtVolume, frame: BodyFrame, from_mm: float, disc_mm: float, sense: int
) -> Plane | None:
    u, v = np.meshgrid(
        np.arange(-PLANE_RADII_MM[0], PLANE_RADII_MM[0] + 0.1, COLUMN_STEP_MM),
        np.arange(-PLANE_RADII_MM[1], PLANE_RADII_MM[1] + 0.1, COLUMN_STEP_MM),
        indexing="ij",
    )
    search = (np.full(u.shape, min(from_mm, disc_mm)), np.full(u.shape, disc_mm + PAST_DISC_MM))
    heights, steepness = edge_heights(volume, frame, (u, v), search, sense)
    inside = (u / PLANE_RADII_MM[0]) ** 2 + (v / PLANE_RADII_MM[1]) ** 2 <= 1
    blurred = min(1.0, SHARP_MM / volume.grid.spacing_mm[0])
    good = inside & (steepness >= MIN_EDGE_HU_PER_MM * blurred)
    if good.sum() < 0.4 * inside.sum():
        return None
    design = np.column_stack([np.ones(good.sum()), u[good], v[good]])
    solution = robust_fit(design, heights[good], steepness[good], scale_mm=1.5)
    return Plane(offset=float(solution[0]), slope_u=float(solution[1]), slope_v=float(solution[2]))


def robust_fit(design: Points, values: Profile, weights: Profile, *, scale_mm: float) -> Profile:
    """Weighted least squares with Tukey's biweight: outliers beyond three scales count for nothing.

    The scale is known beforehand. statsmodels' RLM estimates it from the residuals, which puts endplates up
    to 1.5 mm elsewhere, and takes forty times as long.
    """
    weight = weights / weights.max()
    solution = np.zeros(design.shape[1])
    ridge = 1e-9 * np.eye(design.shape[1])  # keeps what no value bears on at zero
    for round_number in range(6):
        weighted = design * weight[:, None]
        solution = np.linalg.solve(weighted.T @ design + ridge, weighted.T @ values)
        residual = values - design @ solution
        # The first rounds start wide, so that a bad half does not decide which half is bad.
        reach = scale_mm * max(3.0, 9.0 - 2.0 * round_number)
        weight = weights / weights.max() * np.clip(1 - (residual / reach) ** 2, 1e-6, None) ** 2
    return solution


def fit_surface(
    volume: CtVolume, frame: BodyFrame, plane: Plane, inside: npt.NDArray[np.bool_], sense: int
) -> Surface:
    """The endplate near its plane: a quadratic, plus its residuals smoothed over 4 mm.

    Parameters
    ----------
    inside : the columns of `column_grid` well within the body's outline.
    sense : +1 for the upper endplate, -1 for the lower.

    Returns
    -------
    The plane itself, without a profile, where fewer than 12 columns show an edge.
    """
    u, v = column_grid()
    expected = sense * plane.height(u, v)
    heights, steepness = edge_heights(volume, frame, (u, v), (expected - 5.0, expected + 4.0), sense)
    good = inside & (steepness >= MIN_EDGE_HU_PER_MM)
    if good.sum() < 12:
        return Surface(heights_mm=plane.height(u, v), found=True)
    terms = quadratic_terms(u, v)
    solution = robust_fit(terms[good], heights[good], steepness[good], scale_mm=1.0)
    smooth = terms @ solution
    residual = heights - smooth
    weight = np.where(good & (np.abs(residual) <= 3.0), steepness, 0.0)
    sigma = 4.0 / COLUMN_STEP_MM
    top = ndimage.gaussian_filter(weight * residual, sigma, mode="constant")
    base = ndimage.gaussian_filter(weight, sigma, mode="constant")
    seen = weight > 0
    across = heights[seen][:, None] + sense * profile_distances()
    hu = sample(volume, frame.points(across, u[seen][:, None], v[seen][:, None]))
    return Surface(
        heights_mm=smooth + top / (base + 0.1 * float(base.max())), found=True, profile_hu=hu.mean(axis=0)
    )
