"""Whether a drawing is one whole vertebral body, or parts of two.

A drawing that has slipped by half a vertebra is as high as a body and full of bone, but a disc runs through
its middle. The pedicles tell: they spring from the upper half of their body, and beside its lower half lies
the neural foramen. This holds for any engine and any mask, for worn and for dense bone, on slices thin and
thick.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from scipy import ndimage

from segmentation.ct_volume import CtVolume, Mask, Profile
from segmentation.regions.surface import body_axes, box_around
from segmentation.settings import GateSettings
from segmentation.vertebrae import Level, Observation, Vertebrae, is_lumbar

# Beside the canal, where pedicles leave the body (R).
BESIDE_MM = np.concatenate([-np.arange(8.0, 22.0), np.arange(8.0, 22.0)])  # of the body's middle
BEHIND_MM = np.arange(0.0, 6.0)  # the body's back
HALVES = (0.15, 0.5)  # of the height, from the middle: what counts as the upper and the lower half
REACH = 0.7  # of the height, from the middle: what is looked at
STEPS = 35
UPRIGHT_MM = (
    24.0  # a crushed body keeps its pedicles' height: its halves are looked for as if it were intact (R)
)
BONE_HU = (0.0, 500.0)
LEAST_HU = 50.0  # by which bone beside the canal differs along a body; less are no pedicles, but noise (R)
OUTSIDE_HU = -2000.0  # no voxel reads so
OUTSIDE_SHARE = 0.3
ENDS = (0.02, 0.98)  # quantiles that leave out single voxels


def wholeness_observations(
    volume: CtVolume,
    vertebrae: Vertebrae,
    settings: GateSettings | None = None,
    *,
    unread: Collection[str] = (),
) -> tuple[Observation, ...]:
    """`body_not_whole` for each complete lumbar body whose pedicles do not lie at its upper half.

    Parameters
    ----------
    volume : the CT that `vertebrae` were drawn in, on the same grid.
    unread : levels left out, because metal hides their pedicles.
    """
    rules = settings or GateSettings()
    found = []
    for level in vertebrae.levels:
        if level.complete and is_lumbar(level.name) and level.name not in unread:
            share = pedicles_above(volume, vertebrae.bodies == level.label, level)
            if share is not None and share < rules.min_pedicles_above:
                values = {"share": f"{share:.0%}", "limit": f"{rules.min_pedicles_above:.0%}"}
                found.append(Observation(code="body_not_whole", level=level.name, values=values))
    return tuple(found)


def pedicles_above(volume: CtVolume, body: Mask, level: Level) -> float | None:
    """By how much more bone flanks the canal at a body's upper half than at its lower half.

    Returns
    -------
    As a share of the largest difference along the body, -1 to 1; None where the volume ends beside the
    canal, or where no bone flanks it.
    """
    box = box_around(body)
    grid = volume.grid.part(box)
    axes = body_axes(level.axis)
    points = grid.to_patient(np.argwhere(body[box]))
    centre = points.mean(axis=0)
    local = (points - centre) @ axes.T
    low, high = np.quantile(local[:, 0], ENDS)
    height, middle = high - low, (low + high) / 2
    central = np.abs(local[:, 0] - middle) <= height / 4
    if not central.any():  # slices so thick that none lies in the middle
        central[:] = True
    back = float(np.quantile(local[central, 1], ENDS[1]))
    aside = float(np.mean(np.quantile(local[central, 2], ENDS)))
    height = max(height, UPRIGHT_MM)
    at = np.linspace(-REACH, REACH, STEPS)
    places = (
        centre
        + (middle + at * height)[:, None, None, None] * axes[0]
        + (back + BEHIND_MM)[None, :, None, None] * axes[1]
        + (aside + BESIDE_MM)[None, None, :, None] * axes[2]
    )
    hu = _sampled(volume, places)
    outside = hu <= OUTSIDE_HU / 2 - 24.0
    if outside.mean() > OUTSIDE_SHARE:
        return None
    bone = np.where(outside, BONE_HU[0], np.clip(hu, *BONE_HU)).mean(axis=(1, 2))
    upper = (at > HALVES[0]) & (at < HALVES[1])
    difference, largest = bone[upper].mean() - bone[upper[::-1]].mean(), np.ptp(bone)
    return float(difference / largest) if largest >= LEAST_HU else None


def _sampled(volume: CtVolume, places_mm: Profile) -> Profile:
    """HU at places in LPS, (..., 3); `OUTSIDE_HU` outside the volume."""
    index = np.moveaxis(volume.grid.to_index(places_mm), -1, 0)
    hu: Profile = ndimage.map_coordinates(
        volume.hu, index, order=1, mode="constant", cval=OUTSIDE_HU, prefilter=False
    )
    return hu
