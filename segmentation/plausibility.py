"""Whether what was drawn as a vertebral body is bone at all: a mask may lie beside the vertebra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from segmentation.observation import Observation
from segmentation.vertebrae import LUMBAR, Vertebrae
from segmentation.volume import CtVolume

RING_MM = (3.0, 8.0)  # the surroundings that a body is compared with


def bone_observations(
    volume: CtVolume, vertebrae: Vertebrae, *, minimum_contrast_hu: float
) -> tuple[Observation, ...]:
    """`body_not_bone` for every complete lumbar body that is hardly denser than what surrounds it.

    The body's mean is compared with the median of a ring around it: the median is soft tissue, whatever bone
    of the posterior elements the ring holds.
    """
    found = []
    for level in vertebrae.levels:
        if level.complete and level.name in LUMBAR:
            contrast = _contrast(volume, vertebrae.bodies == level.label)
            if contrast < minimum_contrast_hu:
                values: dict[str, str | int | float] = {
                    "contrast": round(contrast),
                    "limit": round(minimum_contrast_hu),
                }
                found.append(Observation(code="body_not_bone", level=level.name, values=values))
    return tuple(found)


def _contrast(volume: CtVolume, body: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    box = _box(np.argwhere(body), volume)
    inside, hu = body[box], volume.hu[box]
    outside_mm = ndimage.distance_transform_edt(~inside, sampling=volume.grid.spacing_mm)
    ring = (outside_mm >= RING_MM[0]) & (outside_mm <= RING_MM[1])
    return float(hu[inside].mean() - np.median(hu[ring])) if ring.any() else 0.0


def _box(
    points: np.ndarray[tuple[int, ...], np.dtype[np.intp]], volume: CtVolume
) -> tuple[slice, slice, slice]:
    margin = np.ceil(RING_MM[1] / np.asarray(volume.grid.spacing_mm)).astype(int) + 1
    low = np.maximum(points.min(axis=0) - margin, 0)
    high: Sequence[int] = (points.max(axis=0) + margin + 1).tolist()
    return (
        slice(int(low[0]), high[0]),
        slice(int(low[1]), high[1]),
        slice(int(low[2]), high[2]),
    )
