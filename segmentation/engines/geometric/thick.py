"""Endplates on thick slices: found by what a slice averages, not by where HU seems to fall most steeply.

Between slices 5 mm apart the steepest fall lies wherever interpolation puts it. But the HU of a slice says
how much of it was body, endplate and disc. A surface through all columns of the body, with one body, one disc
and one endplate for all of them, is fitted to the voxels themselves, the slice's thickness included.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from segmentation.engines.geometric.cortex import Plate
from segmentation.engines.geometric.endplates import COLUMN_STEP_MM, HALF_WIDTH_MM, Surface, column_grid
from segmentation.engines.geometric.frame import BodyFrame, Points, Profile
from segmentation.volume import CtVolume, Mask

THICK_MM = 3.5  # slices further apart than this are treated so
INSIDE_MM, OUTSIDE_MM = 11.0, 5.0  # voxels this far from the expected endplate take part
BLUR_MM = 1.0  # sigma along the normal, besides the slice's thickness (R)
MIDDLE_MM = 5.0  # bone this close to the body's middle tells what bone beneath its endplates is like
BONE_SPREAD_HU = 25.0  # of bone beneath endplates about that (R)
DISC_HU = (80.0, 30.0)  # what is expected of a disc, and its spread (R)
THICKNESS_SPREAD_MM = 0.2  # of endplates about the thickness of the wall's cortex (R)
NOISE_HU = 40.0  # scale of one voxel's misfit: noise, trabeculae, and what the model leaves out
STARTS_MM = (0.0, 3.0, 6.0)  # inward of where the endplate is expected
MAX_SHIFT_MM = 7.0  # an endplate that a fracture has sunk may first be sought elsewhere
MIN_VOXELS = 40


def refit(
    volume: CtVolume, frame: BodyFrame, surface: Surface, inside: Mask, *, sense: int, cortex: Plate
) -> Surface:
    """An endplate found on thin-slice assumptions, put where the slices' averages say.

    Parameters
    ----------
    volume : in the canonical frame.
    inside : columns of `column_grid` well within the body's outline.
    sense : +1 for the upper endplate, -1 for the lower.
    cortex : the compact bone of the same body's wall, HU and thickness.

    Returns
    -------
    The surface, or the given one where too few voxels bear on it.
    """
    slice_mm = float(volume.grid.spacing_mm[0] * abs(frame.along[0]))
    local, hu = _voxels_near(volume, frame, surface, inside, sense)
    outward = sense * (local[:, 0] - surface.height(local[:, 1], local[:, 2]))
    middle = np.abs(local[:, 0]) <= max(MIDDLE_MM, 0.6 * slice_mm)
    near = (outward >= -INSIDE_MM) & (outward <= OUTSIDE_MM)
    if near.sum() < MIN_VOXELS or not middle.any():
        return surface
    bone_hu = float(np.median(hu[middle]))
    local, hu = local[near], hu[near]
    terms = _terms(local[:, 1], local[:, 2])
    u, v = column_grid()
    grid_terms = _terms(u[inside], v[inside])
    first, *_ = np.linalg.lstsq(grid_terms, surface.heights_mm[inside], rcond=None)
    normal = float(np.sqrt(1 + first[1] ** 2 + first[2] ** 2))  # heights run along the axis, not the normal

    def residual(guess: Profile) -> Profile:
        shape, (inner, outer, thickness) = guess[:6], guess[6:]
        depth = sense * (local[:, 0] - terms @ shape) / normal
        model = inner + (cortex.hu - inner) * _averaged(depth + thickness, slice_mm)
        model -= (cortex.hu - outer) * _averaged(depth, slice_mm)
        priors = [
            (inner - bone_hu) / BONE_SPREAD_HU * _PRIOR,
            (outer - DISC_HU[0]) / DISC_HU[1] * _PRIOR,
            (thickness - cortex.thickness_mm) / THICKNESS_SPREAD_MM * _PRIOR,
        ]
        return np.concatenate([(model - hu) / NOISE_HU, priors])

    fits = []
    for inward_mm in STARTS_MM:  # on noisy thick slices there are false minima
        start = np.concatenate([first, [bone_hu, DISC_HU[0], cortex.thickness_mm]])
        start[0] -= sense * inward_mm
        fits.append(optimize.least_squares(residual, start, loss="soft_l1", x_scale=_SCALE, max_nfev=200))
    believed = [fit for fit in fits if np.abs(grid_terms @ (fit.x[:6] - first)).max() <= MAX_SHIFT_MM]
    if not believed:
        return surface
    best = min(believed, key=lambda fit: float(fit.cost))
    return replace(surface, heights_mm=_terms(u, v) @ best.x[:6], profile_hu=None)


_PRIOR = 6.0  # weight of what is expected against the many voxels, whose misfits are not independent
_SCALE = np.array([1.0, 0.05, 0.05, 2e-3, 2e-3, 2e-3, 50.0, 30.0, 0.3])


def _terms(u: Profile, v: Profile) -> Points:
    terms: Points = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    return terms


def _averaged(x: Profile, slice_mm: float) -> Profile:
    """A step from 0 to 1 at x = 0, blurred, as a slice around `x` averages it."""
    half = slice_mm / 2
    step: Profile = (_ramp(x + half) - _ramp(x - half)) / slice_mm
    return step


def _ramp(x: Profile) -> Profile:
    """The integral of a blurred step."""
    ramp: Profile = x * special.ndtr(x / BLUR_MM) + BLUR_MM * np.exp(-0.5 * (x / BLUR_MM) ** 2) / np.sqrt(
        2 * np.pi
    )
    return ramp


def _voxels_near(
    volume: CtVolume, frame: BodyFrame, surface: Surface, inside: Mask, sense: int
) -> tuple[Points, Profile]:
    """Local coordinates (n, 3) and HU of the voxels of the columns, from the body's middle to its disc."""
    spacing = np.asarray(volume.grid.spacing_mm)
    u, v = column_grid()
    around = frame.points(surface.heights_mm[inside], u[inside], v[inside])
    reach = abs(float(np.median(surface.heights_mm[inside]))) + MIDDLE_MM
    low = np.clip(np.floor((around.min(axis=0) - reach) / spacing).astype(int), 0, volume.grid.shape)
    high = np.clip(np.ceil((around.max(axis=0) + reach) / spacing).astype(int) + 1, 0, volume.grid.shape)
    index = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    local = frame.local(index * spacing)
    kept = (sense * local[:, 0] >= -volume.grid.spacing_mm[0]) & _on_columns(inside, local)
    return local[kept], volume.hu[tuple(index[kept].T)].astype(float)


def _on_columns(inside: Mask, local: Points) -> npt.NDArray[np.bool_]:
    """Which local points (n, 3) lie on one of the columns."""
    place = np.round((local[:, 1:] + HALF_WIDTH_MM) / COLUMN_STEP_MM).astype(int)
    within = ((place >= 0) & (place < len(inside))).all(axis=1)
    hit = np.zeros(len(local), bool)
    hit[within] = inside[tuple(place[within].T)]
    return hit
