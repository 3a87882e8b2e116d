"""What an endplate looks like in thick slices: the HU of voxels, each the average of a slab of patient.

Going out along an endplate's normal there is cancellous bone, a thin plate of compact bone, and the disc. A
voxel of a slice 5 mm thick averages its way through them between the slice's two faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from segmentation.engines.geometric.frame import BodyFrame, Points, Profile
from segmentation.volume import Grid

SHAPE = slice(0, 6)  # heights over (1, u, v, u*u, u*v, v*v), in the body's frame
INNER, OUTER, THICKNESS = 6, 7, 8  # HU of bone and disc, mm of compact bone
OWN = 9  # numbers that describe one endplate, in this order
_LEAST_WAY_MM = 0.3  # through a slab, along the normal: slabs that lie in the endplate's plane say little


@dataclass(frozen=True, slots=True, kw_only=True)
class Slabs:
    """The voxels about one endplate, each as the slab that it averages."""

    sense: int  # +1 for an upper endplate, -1 for a lower one
    hu: Profile  # (n,)
    heights_mm: Profile  # (2, n): of the middles of each slab's lower and upper face, in the body's frame
    terms: Points  # (2, n, 6): of `SHAPE`, there
    slope: Profile  # (n,): mm of height for one mm along the normal, at least 1


def terms_of(u: Profile, v: Profile) -> Points:
    """What the six numbers of `SHAPE` are multiplied with; shape (..., 6)."""
    terms: Points = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    return terms


def slabs_of(
    hu: Profile, local: Points, frame: BodyFrame, grid: Grid, *, shape: Profile, sense: int
) -> Slabs:
    """The slabs around voxels at `local` (n, 3) coordinates, for an endplate of about the given shape."""
    half = 0.5 * grid.spacing_mm[0] * np.array([frame.along[0], frame.left[0], frame.front[0]])
    faces = np.stack([local - half, local + half])
    u, v = local[:, 1], local[:, 2]
    rise_u = shape[1] + 2 * shape[3] * u + shape[4] * v
    rise_v = shape[2] + shape[4] * u + 2 * shape[5] * v
    return Slabs(
        sense=sense,
        hu=hu,
        heights_mm=faces[..., 0],
        terms=terms_of(faces[..., 1], faces[..., 2]),
        slope=np.sqrt(1 + rise_u**2 + rise_v**2),
    )


def averaged(slabs: Slabs, plate: Profile, blur_mm: float, cortex_hu: float) -> tuple[Profile, Points]:
    """HU that the voxels of an endplate should have, and how it changes with each of its numbers.

    Parameters
    ----------
    plate : (9,) see `SHAPE`, `INNER`, `OUTER`, `THICKNESS`.
    blur_mm : sigma of the blur along the normal, besides the slice's thickness.

    Returns
    -------
    HU (n,), and its derivatives (n, 10): with respect to `plate` and to the logarithm of `blur_mm`.
    """
    outward = slabs.sense / slabs.slope
    near, far = outward * (slabs.heights_mm - slabs.terms @ plate[SHAPE])
    inner, outer, thickness = plate[INNER], plate[OUTER], plate[THICKNESS]
    bone = _Step.through(near + thickness, far + thickness, blur_mm)
    disc = _Step.through(near, far, blur_mm)
    rise, fall = cortex_hu - inner, cortex_hu - outer
    change = np.empty((len(slabs.hu), OWN + 1))
    by_near, by_far = (rise * one - fall * other for one, other in zip(bone.by_end, disc.by_end, strict=True))
    change[:, SHAPE] = -(outward * by_near)[:, None] * slabs.terms[0]
    change[:, SHAPE] -= (outward * by_far)[:, None] * slabs.terms[1]
    change[:, INNER], change[:, OUTER] = 1 - bone.mean, disc.mean
    change[:, THICKNESS] = rise * (bone.by_end[0] + bone.by_end[1])
    change[:, OWN] = rise * bone.by_blur - fall * disc.by_blur
    return inner + rise * bone.mean - fall * disc.mean, change


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """The mean of a blurred step from 0 to 1 at 0 over a way, and its derivatives."""

    mean: Profile
    by_end: tuple[Profile, Profile]  # with respect to the way's two ends
    by_blur: Profile  # and to the logarithm of the blur

    @classmethod
    def through(cls, start: Profile, stop: Profile, blur_mm: float) -> _Step:
        way = stop - start
        way = np.where(np.abs(way) < _LEAST_WAY_MM, np.copysign(_LEAST_WAY_MM, way), way)
        low, high = special.ndtr(start / blur_mm), special.ndtr(stop / blur_mm)
        bell = blur_mm * (_normal(stop / blur_mm) - _normal(start / blur_mm))
        mean = (stop * high - start * low + bell) / way
        return cls(mean=mean, by_end=((mean - low) / way, (high - mean) / way), by_blur=bell / way)


def _normal(x: Profile) -> Profile:
    density: Profile = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return density
