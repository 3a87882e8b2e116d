"""The patient's own tissues as they read in a CT: air around the body, fat, muscle beside the spine, blood.

Each is taken where it is even: smoothed HU within the tissue's window, and well inside; blood in the great
vessels. Cortical bone, the fifth tissue of Michalski et al. 2020, is left out: no place of a lumbar field of
view is thick enough to read it without its neighbours, and its HU depends on its density more than on the
photons' energy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from scoring.attenuation import Tissue
from scoring.calibration_types import TissueReading
from segmentation.contrast import great_vessels
from segmentation.course import ABOVE_SACRUM, course_of_bodies
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Vertebrae
from segmentation.volume import CtVolume, FloatArray, Mask, canonical

_PADDING_BELOW_HU = -900.0
_BODY_HU = -300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueRules:
    """Where tissues are read. V: windows as published (Michalski et al. 2020); R: chosen here."""

    air_hu: tuple[float, float] = (-1030.0, -980.0)  # V
    adipose_hu: tuple[float, float] = (-130.0, -70.0)  # V
    blood_hu: tuple[float, float] = (-20.0, 60.0)  # V
    muscle_hu: tuple[float, float] = (-5.0, 65.0)  # V
    smoothing_mm: float = 1.5  # R
    inside_mm: float = 3.0  # R: from a tissue's border, beyond what smoothing reaches
    from_body_mm: float = 10.0  # R: air, from whatever lies in it
    every_mm: float = 5.0  # R: between the slices that are looked at
    beside_mm: float = 60.0  # R: muscle, from the middle of the vertebral bodies ...
    behind_mm: float = 80.0  # ... and from their front
    from_bone_mm: float = 6.0  # R
    minimum_cm3: float = 2.0  # R: of a tissue in the slices that are looked at


def read_tissues(
    volume: CtVolume, vertebrae: Vertebrae, rules: TissueRules, contrast: ImageSettings
) -> tuple[TissueReading, ...]:
    """The tissues that are there in sufficient amount, from the lowest HU to the highest.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    samples: dict[Tissue, list[npt.NDArray[np.float32]]] = {one: [] for one in Tissue}
    for hu, masks in _slices(volume, vertebrae, rules):
        for tissue, mask in masks.items():
            samples[tissue].append(hu[mask])
    found = [
        _reading(tissue, np.concatenate(parts), volume.grid.voxel_volume_mm3 / 1000)
        for tissue, parts in samples.items()
        if parts
    ]
    vessel = next(iter(great_vessels(volume, vertebrae, contrast)), None)
    if vessel is not None:
        volume_cm3 = pi * vessel.radius_mm**2 * vessel.height_mm / 1000
        found.append(TissueReading(name=Tissue.BLOOD, hu=vessel.hu, volume_cm3=volume_cm3))
    return tuple(
        sorted((one for one in found if one.volume_cm3 >= rules.minimum_cm3), key=lambda one: one.hu)
    )


def _reading(tissue: Tissue, hu: npt.NDArray[np.float32], voxel_cm3: float) -> TissueReading:
    middle = float(np.median(hu)) if hu.size else 0.0
    return TissueReading(name=tissue, hu=middle, volume_cm3=hu.size * voxel_cm3)


def _slices(
    volume: CtVolume, vertebrae: Vertebrae, rules: TissueRules
) -> Iterator[tuple[FloatArray, dict[Tissue, Mask]]]:
    """Slices along the vertebral bodies in view, with what is surely air, fat or muscle in each."""
    volume.grid.require_same(vertebrae.grid)
    turned, turn = canonical(volume)
    bodies = turn.forward(vertebrae.bodies)
    course = course_of_bodies(turned, bodies, ABOVE_SACRUM)
    if course is None:
        return
    dz, dy, dx = turned.grid.spacing_mm
    for place in range(0, len(course.slices), max(1, round(rules.every_mm / dz))):
        k = int(course.slices[place])
        hu = turned.hu[k]
        smooth = ndimage.gaussian_filter(hu, (rules.smoothing_mm / dy, rules.smoothing_mm / dx))
        seen = _inside(~_padding(hu), rules.inside_mm, dy, dx)
        body = _largest(smooth > _BODY_HU)
        around = ndimage.binary_fill_holes(body)
        muscle_box = np.zeros(hu.shape, bool)
        front, middle = course.front_mm[place], course.middle_mm[place]
        muscle_box[
            max(0, int(front / dy)) : int((front + rules.behind_mm) / dy),
            max(0, int((middle - rules.beside_mm) / dx)) : int((middle + rules.beside_mm) / dx),
        ] = True
        masks = {
            Tissue.AIR: _inside(_within(smooth, rules.air_hu) & seen & ~around, rules.inside_mm, dy, dx)
            & _away(smooth > _BODY_HU, rules.from_body_mm, dy, dx),
            Tissue.ADIPOSE: _inside(_within(smooth, rules.adipose_hu) & body & seen, rules.inside_mm, dy, dx),
            Tissue.MUSCLE: _inside(
                _within(smooth, rules.muscle_hu) & body & seen & muscle_box, rules.inside_mm, dy, dx
            )
            & _away(bodies[k] > 0, rules.from_bone_mm, dy, dx),
        }
        yield hu, masks


def _within(hu: FloatArray, window: tuple[float, float]) -> Mask:
    inside: Mask = (hu >= window[0]) & (hu <= window[1])
    return inside


def _padding(hu: FloatArray) -> Mask:
    """What fills a slice outside a circular field of view, where its four corners share one value."""
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if corners[0] > _PADDING_BELOW_HU or not np.all(corners == corners[0]):
        return np.zeros(hu.shape, bool)
    filled: Mask = hu == corners[0]
    return filled


def _inside(mask: Mask, depth_mm: float, dy: float, dx: float) -> Mask:
    """What of the mask lies deeper than `depth_mm`; the image's edge counts as a border."""
    padded = np.pad(mask, 1)
    deep: Mask = ndimage.distance_transform_edt(padded, sampling=(dy, dx))[1:-1, 1:-1] > depth_mm
    return deep


def _away(mask: Mask, distance_mm: float, dy: float, dx: float) -> Mask:
    if not mask.any():
        return np.ones(mask.shape, bool)
    far: Mask = ndimage.distance_transform_edt(~mask, sampling=(dy, dx)) > distance_mm
    return far


def _largest(mask: Mask) -> Mask:
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest: Mask = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return largest
