"""One slice through the middle of each of some vertebral bodies, tilted along its endplates.

So was quantitative CT done before spiral scanners: on a localizer the gantry is tilted to each body in turn,
and one slice of 8 to 10 mm is taken. A gantry tilts about the patient's transverse axis alone. DICOM states
where the slice lies by ImagePositionPatient and ImageOrientationPatient (PS3.3 C.7.6.2.1.1); the tag
GantryDetectorTilt repeats the angle, as a nominal value that is not meant for computing (PS3.3 C.8.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, ceil, cos, degrees, sin
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from node.reference.render import BLUR_MM, SUBSLICE_MM, Volume, add_noise, scene
from node.reference.shapes import Point
from node.reference.spec import StudySpec
from node.reference.spine import Vertebra
from node.reference.surroundings import AIR_HU, Painted


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Where one slice lies; its rows run to the patient's left."""

    level: str  # the body that it is meant for
    corner_mm: Point  # centre of the first pixel (LPS)
    down: Point  # unit vector from row to row
    tilt_degrees: float  # of the gantry; positive leans the upper end forward

    @property
    def normal(self) -> Point:
        """Towards the head."""
        return np.array([0.0, -self.down[2], self.down[1]])


def planes_of(spec: StudySpec, spine: dict[str, Vertebra]) -> tuple[Plane, ...]:
    """The slices of `spec`, in the order of its levels."""
    return tuple(_plane(spec, spine[level]) for level in spec.slice_levels)


def _plane(spec: StudySpec, vertebra: Vertebra) -> Plane:
    up = vertebra.body.axes[2]
    tilt = atan2(-up[1], up[2]) + 0.0  # never minus zero
    down, normal = np.array([0.0, cos(tilt), sin(tilt)]), np.array([0.0, -sin(tilt), cos(tilt)])
    # The image's middle lies on the scanner's axis, x = y = 0.
    z_mm = float(normal @ vertebra.body.centre + spec.slice_offset_mm) / cos(tilt)
    half_y, half_x = ((spec.matrix - 1) / 2 * spacing for spacing in spec.pixel_spacing_mm)
    corner = np.array([0.0, 0.0, z_mm]) - half_y * down - np.array([half_x, 0.0, 0.0])
    return Plane(level=vertebra.name, corner_mm=corner, down=down, tilt_degrees=degrees(tilt))


def render_planes(spec: StudySpec, spine: dict[str, Vertebra], planes: Sequence[Plane]) -> Volume:
    """HU, float32, shape (slices, y, x): each averaged over its thickness, blurred, with noise.

    Trabeculae are left out: over 10 mm their pattern averages away, and its mean is zero in any case.
    """
    painted = list(scene(spec, spine))
    count = max(1, ceil(spec.slice_thickness_mm / SUBSLICE_MM))
    offsets = (np.arange(count) - (count - 1) / 2) * spec.slice_thickness_mm / count
    layers = ([_layer(spec, painted, plane, float(offset)) for offset in offsets] for plane in planes)
    hu = np.stack([np.mean(stack, axis=0, dtype=np.float32) for stack in layers])
    for axis, spacing in ((1, spec.pixel_spacing_mm[0]), (2, spec.pixel_spacing_mm[1])):
        gaussian_filter1d(hu, BLUR_MM / spacing, axis=axis, output=hu, mode="nearest")
    add_noise(hu, spec)
    return np.clip(hu, -1024, 3071)


def _layer(
    spec: StudySpec, painted: Sequence[Painted], plane: Plane, offset_mm: float
) -> npt.NDArray[np.float32]:
    """An infinitely thin slice; an edge is as soft as a pixel is wide."""
    steps_mm = np.arange(spec.matrix)
    corner = plane.corner_mm + offset_mm * plane.normal
    x = (corner[0] + steps_mm * spec.pixel_spacing_mm[1]).astype(np.float32)
    rows = corner + (steps_mm * spec.pixel_spacing_mm[0])[:, None] * plane.down
    y, z = rows[:, 1].astype(np.float32), rows[:, 2].astype(np.float32)
    soft = np.float32(max(spec.pixel_spacing_mm))
    hu = np.full((len(y), len(x)), AIR_HU, np.float32)
    for one in painted:
        low, high = one.solid.box.low - soft, one.solid.box.high + soft
        j = np.flatnonzero((y >= low[1]) & (y <= high[1]) & (z >= low[2]) & (z <= high[2]))
        i = np.flatnonzero((x >= low[0]) & (x <= high[0]))
        if not len(j) or not len(i):
            continue
        part = (slice(int(j[0]), int(j[-1]) + 1), slice(int(i[0]), int(i[-1]) + 1))
        distance = one.solid.distance(x[None, part[1]], y[part[0], None], z[part[0], None])
        cover = np.clip(np.float32(0.5) - distance / soft, 0, 1)
        hu[part] += cover * (np.float32(one.hu) - hu[part])
    return hu


def slices_document(spec: StudySpec, planes: Sequence[Plane]) -> list[dict[str, Any]]:
    """What each slice truly shows, for truth.json."""
    return [
        {
            "level": plane.level,
            "bmd_mg_cm3": spec.bmd_of(plane.level),
            "offset_mm": spec.slice_offset_mm,
            "tilt_degrees": plane.tilt_degrees,
        }
        for plane in planes
    ]
