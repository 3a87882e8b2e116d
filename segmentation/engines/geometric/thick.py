"""Endplates on thick slices: found by what a slice averages, not by where HU seems to fall most steeply.

Between slices 5 mm apart the steepest fall lies wherever interpolation puts it. But the HU of a slice says
how much of it was body, endplate and disc (`slabs`). One endplate alone may be misread: a thicker one a
little further out looks the same, and where bone is as dense as the disc, an endplate that lies square to the
slices may lie anywhere within one. So all endplates of a study are fitted together (`expected`, `descent`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segmentation.engines.geometric.body import Body
from segmentation.engines.geometric.cortex import fit_plate
from segmentation.engines.geometric.descent import Fit, Task, descended
from segmentation.engines.geometric.endplates import COLUMN_STEP_MM, HALF_WIDTH_MM, column_grid
from segmentation.engines.geometric.expected import (
    BLUR_MM,
    DISC_HU,
    SHARED,
    End,
    expectations_of,
    own_numbers,
)
from segmentation.engines.geometric.frame import Points, Profile
from segmentation.engines.geometric.slabs import OWN, SHAPE, slabs_of, terms_of
from segmentation.volume import CtVolume, Mask

MARGIN_MM = 4.0  # voxels this close to the wall hold some of it
INSIDE_MM, OUTSIDE_MM = 11.0, 5.0  # voxels this far from the expected endplate take part
MIDDLE_MM = 5.0  # bone this close to the body's middle tells what bone beneath its endplates is like
MIN_VOXELS = 40
STARTS_MM = (-1.5, 0.0, 1.5, 3.0, 4.5, 6.0)  # inward of what is expected: there are false minima
AGAIN_MM = (-3.0, -1.5, 1.5, 3.0)  # the same, once all endplates are known
MAX_SHIFT_MM = 7.0  # an endplate that a fracture has sunk may first be sought elsewhere


def refit(bodies: Sequence[Body | None], volume: CtVolume, cortex_hu: float) -> list[Body | None]:
    """The bodies of a study with their endplates put where the slices' averages say.

    Parameters
    ----------
    bodies : from one end of the spine to the other, None where there is none; `body.settled` as to their
        walls, and with their endplates where HU falls most steeply.
    volume : in the canonical frame.
    cortex_hu : HU of compact bone, free of partial volume.

    Returns
    -------
    The bodies in their order. An endplate on which too few voxels bear stays where it is.
    """
    walls = [body.wall.profile_hu for body in bodies if body is not None]
    cortex_mm = [fit_plate(profile, cortex_hu).thickness_mm for profile in walls if profile is not None]
    ends = [
        end
        for place, body in enumerate(bodies)
        if body is not None and body.wall.profile_hu is not None
        for sense in (-1, 1)
        if (end := _end_of(body, volume, place, sense)) is not None
    ]
    moved = list(bodies)
    if not ends:
        return moved
    numbers = _fitted(ends, cortex_hu, float(np.median(cortex_mm)))
    for place, end in enumerate(ends):
        shape, body = numbers[own_numbers(place)][SHAPE], moved[end.body]
        if body is not None and end.farthest_mm(shape) <= MAX_SHIFT_MM:
            moved[end.body] = _with_end(body, end.slabs.sense, shape)
    return moved


def _with_end(body: Body, sense: int, shape: Profile) -> Body:
    u, v = column_grid()
    heights = terms_of(u, v) @ shape
    if sense > 0:
        return replace(body, upper=replace(body.upper, heights_mm=heights, profile_hu=None))
    return replace(body, lower=replace(body.lower, heights_mm=heights, profile_hu=None))


def _end_of(body: Body, volume: CtVolume, place: int, sense: int) -> End | None:
    """None where the volume cuts the body, or too few voxels bear on the endplate."""
    surface = body.upper if sense > 0 else body.lower
    if surface.profile_hu is None:
        return None
    u, v = column_grid()
    inside = np.hypot(u, v) <= body.wall.radius(surface.heights_mm, np.arctan2(v, u)) - MARGIN_MM
    if not inside.any():
        return None
    columns = terms_of(u[inside], v[inside])
    local, hu = _voxels_near(body, volume, inside, surface.heights_mm[inside], sense)
    outward = sense * (local[:, 0] - surface.height(local[:, 1], local[:, 2]))
    slice_mm = float(volume.grid.spacing_mm[0] * abs(body.frame.along[0]))
    middle = np.abs(local[:, 0]) <= max(MIDDLE_MM, 0.6 * slice_mm)
    near = (outward >= -INSIDE_MM) & (outward <= OUTSIDE_MM)
    if near.sum() < MIN_VOXELS or not middle.any():
        return None
    first, *_ = np.linalg.lstsq(columns, surface.heights_mm[inside], rcond=None)
    return End(
        body=place,
        slabs=slabs_of(hu[near], local[near], body.frame, volume.grid, shape=first, sense=sense),
        first=first,
        columns=columns,
        bone_hu=float(np.median(hu[middle])),
    )


def _voxels_near(
    body: Body, volume: CtVolume, inside: Mask, heights_mm: Profile, sense: int
) -> tuple[Points, Profile]:
    """Local coordinates (n, 3) and HU of voxels well within the wall, from the body's middle to its disc.

    `inside` are the columns of `column_grid` that count, `heights_mm` the endplate's there.
    """
    spacing, shape = np.asarray(volume.grid.spacing_mm), volume.grid.shape
    u, v = column_grid()
    around = body.frame.points(heights_mm, u[inside], v[inside])
    reach = abs(float(np.median(heights_mm))) + MIDDLE_MM
    low = np.clip(np.floor((around.min(axis=0) - reach) / spacing).astype(int), 0, shape)
    high = np.clip(np.ceil((around.max(axis=0) + reach) / spacing).astype(int) + 1, 0, shape)
    axes = [np.arange(first, last) for first, last in zip(low, high, strict=True)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    local = body.frame.local(index * spacing)
    h, u, v = local.T
    kept = (sense * h >= -spacing[0]) & _on_columns(inside, local)
    kept &= np.hypot(u, v) <= body.wall.radius(h, np.arctan2(v, u)) - MARGIN_MM
    return local[kept], volume.hu[tuple(index[kept].T)].astype(float)


def _on_columns(inside: Mask, local: Points) -> Mask:
    """Which local points (n, 3) lie on one of the columns."""
    place = np.round((local[:, 1:] + HALF_WIDTH_MM) / COLUMN_STEP_MM).astype(int)
    within = ((place >= 0) & (place < len(inside))).all(axis=1)
    hit = np.zeros(len(local), bool)
    hit[within] = inside[tuple(place[within].T)]
    return hit


def _fitted(ends: Sequence[End], cortex_hu: float, cortex_mm: float) -> Profile:
    """The numbers of all endplates, and the shared ones: each alone first, then all, then each once more."""
    alone = [_alone(end, cortex_hu, cortex_mm) for end in ends]
    shared = np.median([numbers[OWN:] for numbers in alone], axis=0)
    task = Task(ends=ends, expected=expectations_of(ends, cortex_mm), cortex_hu=cortex_hu)
    numbers = descended(task, np.concatenate([*(one[:OWN] for one in alone), shared])).numbers
    for place in range(len(ends)):
        numbers = _sought_again(task, numbers, place)
    return descended(task, numbers).numbers


def _alone(end: End, cortex_hu: float, cortex_mm: float) -> Profile:
    """One endplate as it seems without the others: its numbers, and what it says of the shared ones."""
    task = Task(ends=[end], expected=expectations_of([end], cortex_mm), cortex_hu=cortex_hu)
    usual = np.concatenate(
        [end.first, [end.bone_hu, DISC_HU, cortex_mm], [cortex_mm, DISC_HU, np.log(BLUR_MM), 0.0, 0.0]]
    )
    assert len(usual) == OWN + SHARED
    starts = [_inward(usual, 0, end, inward_mm) for inward_mm in STARTS_MM]
    return _cheapest([descended(task, start) for start in starts], 0, end).numbers


def _sought_again(task: Task, numbers: Profile, place: int) -> Profile:
    """One endplate tried elsewhere, now that it is known what endplates are like here."""
    end = task.ends[place]
    free = np.zeros(len(numbers), bool)
    free[own_numbers(place)] = True
    starts = [numbers, *(_inward(numbers, place, end, inward_mm) for inward_mm in AGAIN_MM)]
    return _cheapest([descended(task, start, free) for start in starts], place, end).numbers


def _inward(numbers: Profile, place: int, end: End, inward_mm: float) -> Profile:
    moved = numbers.copy()
    moved[own_numbers(place).start] -= end.slabs.sense * inward_mm
    return moved


def _cheapest(fits: Sequence[Fit], place: int, end: End) -> Fit:
    """The fit that costs least, of those that leave the endplate near where it was seen, if there are any."""
    near = [fit for fit in fits if end.farthest_mm(fit.numbers[own_numbers(place)][SHAPE]) <= MAX_SHIFT_MM]
    return min(near or fits, key=lambda fit: fit.cost)
