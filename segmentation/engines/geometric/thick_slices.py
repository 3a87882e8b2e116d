"""Endplates on thick slices: found by what a slice averages, not by where HU seems to fall most steeply.

Between slices 5 mm apart the steepest fall lies wherever interpolation puts it. But the HU of a slice says
how much of it was body, endplate and disc (`slabs`). One endplate alone may be misread: a thicker one a
little further out looks the same, and where bone is as dense as the disc, an endplate that lies square to the
slices may lie anywhere within one. So all endplates of a study are fitted together (`expected`, `descent`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from segmentation.engines.geometric.body import Body
from segmentation.engines.geometric.endplates import COLUMN_STEP_MM, HALF_WIDTH_MM, column_grid, fit_plate
from segmentation.engines.geometric.frame import BodyFrame, Points, Profile
from segmentation.volume import CtVolume, Grid, Mask

# What an endplate looks like in thick slices: the HU of voxels, each the average of a slab of patient.
#
# Going out along an endplate's normal there is cancellous bone, a thin plate of compact bone, and the disc. A
# voxel of a slice 5 mm thick averages its way through them between the slice's two faces.


SHAPE = slice(0, 6)  # heights over (1, u, v, u*u, u*v, v*v), in the body's frame
INNER, OUTER, THICKNESS = 6, 7, 8  # HU of bone and disc, mm of compact bone
OWN = 9  # numbers that describe one endplate, in this order
_LEAST_WAY_MM = 0.3  # through a slab, along the normal: slabs that lie in the endplate's plane say little


@dataclass(frozen=True, slots=True, kw_only=True)
class Slabs:
    """The voxels about one endplate, each as the slab that it averages.

    Attributes
    ----------
    sense : +1 for an upper endplate, -1 for a lower one.
    hu : (n,).
    heights_mm : (2, n): of the middles of each slab's lower and upper face, in the body's frame.
    terms : (2, n, 6), of `SHAPE` at these heights.
    slope : (n,), mm of height for one mm along the normal, at least 1.
    """

    sense: int
    hu: Profile
    heights_mm: Profile
    terms: Points
    slope: Profile


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


# What is expected of the endplates of one study: the knowledge that thick slices alone do not hold.
#
# Each expectation is a line: a weighted sum of numbers, the value that it should have, and its spread.
# Numbers of single endplates are tied to those that the study shares, and these loosely to anatomy. So
# endplates that slices show well (tilted ones, which cross several) tell what the others are like.


# Values and spreads; all are proposals (R). The second spread of two is that of one endplate about the study.
BONE_SPREAD_HU = 25.0  # of bone beneath an endplate about that of the body's middle
DISC_HU, DISC_SPREAD_HU = 80.0, (30.0, 10.0)
THICKNESS_SPREAD_MM = (0.3, 0.06)  # about the cortex of the bodies' walls
BLUR_MM, BLUR_SPREAD = 0.6, 0.3  # sigma besides the slice's thickness; the spread is relative
HOLLOW_SPREAD_MM = (1.8, 0.6)  # of the depth of an endplate's hollow over these half-axes (u, v)
HOLLOW_HALF_MM = (18.0, 12.0)
HEIGHT_SPREAD_MM = 1.2  # between neighbouring bodies; fractures lose more, and are outliers to it
PLACE_SPREAD_MM, TILT_SPREAD = 5.0, 0.5  # about where the steepest fall of HU puts an endplate

# Numbers that the study shares: they follow those of its endplates.
ALL_THICKNESS, ALL_OUTER, LOG_BLUR, HOLLOW_U, HOLLOW_V = range(5)
SHARED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One endplate that is to be fitted.

    Attributes
    ----------
    body : index of its body, from one end of the spine to the other.
    first : (6,), the shape at the steepest fall of HU.
    columns : (m, 6), `terms_of` the columns well within the body.
    bone_hu : HU of the body's middle.
    """

    body: int
    slabs: Slabs
    first: Profile
    columns: Points
    bone_hu: float

    def farthest_mm(self, shape: Profile) -> float:
        """The most that a shape departs from the first one within the body."""
        return float(np.abs(self.columns @ (shape - self.first)).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """Lines ``rows @ numbers - wanted``, each in units of its spread.

    Attributes
    ----------
    rows : (lines, numbers).
    wanted : (lines,).
    """

    rows: Points
    wanted: Profile


def own_numbers(place: int) -> slice:
    """Where the numbers of the endplate at `place` stand."""
    return slice(OWN * place, OWN * (place + 1))


def expectations_of(ends: Sequence[End], cortex_mm: float) -> Expectations:
    """The lines for `ends`, whose numbers come first, in order, and the shared ones last.

    Parameters
    ----------
    cortex_mm : thickness of the compact bone of the bodies' walls.
    """
    shared = OWN * len(ends)
    lines = [
        ({shared + ALL_THICKNESS: 1.0}, cortex_mm, THICKNESS_SPREAD_MM[0]),
        ({shared + ALL_OUTER: 1.0}, DISC_HU, DISC_SPREAD_HU[0]),
        ({shared + LOG_BLUR: 1.0}, float(np.log(BLUR_MM)), BLUR_SPREAD),
        ({shared + HOLLOW_U: 1.0}, 0.0, HOLLOW_SPREAD_MM[0]),
        ({shared + HOLLOW_V: 1.0}, 0.0, HOLLOW_SPREAD_MM[0]),
    ]
    for place, end in enumerate(ends):
        lines += _lines_of(end, own_numbers(place).start, shared)
    lines += _lines_between(ends)
    rows = np.zeros((len(lines), shared + SHARED))
    for row, (weights, _, spread) in zip(rows, lines, strict=True):
        row[list(weights)] = np.array(list(weights.values())) / spread
    return Expectations(rows=rows, wanted=np.array([value / spread for _, value, spread in lines]))


_Line = tuple[dict[int, float], float, float]  # weights by number, value, spread


def _lines_of(end: End, own: int, shared: int) -> list[_Line]:
    half_u, half_v = HOLLOW_HALF_MM
    sense, hollow = float(end.slabs.sense), HOLLOW_SPREAD_MM[1]
    return [
        ({own: 1.0}, float(end.first[0]), PLACE_SPREAD_MM),
        ({own + 1: 1.0}, float(end.first[1]), TILT_SPREAD),
        ({own + 2: 1.0}, float(end.first[2]), TILT_SPREAD),
        ({own + 3: sense * half_u**2, shared + HOLLOW_U: -1.0}, 0.0, hollow),
        ({own + 4: half_u * half_v}, 0.0, hollow),
        ({own + 5: sense * half_v**2, shared + HOLLOW_V: -1.0}, 0.0, hollow),
        ({own + INNER: 1.0}, end.bone_hu, BONE_SPREAD_HU),
        ({own + OUTER: 1.0, shared + ALL_OUTER: -1.0}, 0.0, DISC_SPREAD_HU[1]),
        ({own + THICKNESS: 1.0, shared + ALL_THICKNESS: -1.0}, 0.0, THICKNESS_SPREAD_MM[1]),
    ]


def _lines_between(ends: Sequence[End]) -> list[_Line]:
    """Neighbouring bodies are about as high as one another."""
    heights = _heights_of(ends)
    return [
        (
            {**below, **{number: -weight for number, weight in heights[place + 1].items()}},
            0.0,
            HEIGHT_SPREAD_MM,
        )
        for place, below in heights.items()
        if place + 1 in heights
    ]


def _heights_of(ends: Sequence[End]) -> Mapping[int, dict[int, float]]:
    """By body, where both its endplates are there: how much of each number adds up to its mean height."""
    heights: dict[int, dict[int, float]] = {}
    for place, end in enumerate(ends):
        mean = end.slabs.sense * end.columns.mean(axis=0)
        start = own_numbers(place).start + SHAPE.start
        heights.setdefault(end.body, {}).update({start + k: float(weight) for k, weight in enumerate(mean)})
    return {
        body: weights for body, weights in heights.items() if len(weights) == 2 * (SHAPE.stop - SHAPE.start)
    }


# Fits endplates to voxels and expectations: damped least squares (Marquardt, SIAM J Appl Math 1963;11:431).
#
# Misfits count with their square while they are small, and in proportion where they are large: a voxel that
# holds something else, or an endplate that is not as expected, pulls no harder than others. SciPy's
# `least_squares` with the same losses finds the same minima (to its tolerance) in nearly four times the time:
# it holds the derivatives of every voxel, and this the sums that a step needs.


# Of a voxel, as if voxels were independent: noise, trabeculae, and what the model leaves out (R). From 40 to
# 90 HU the result hardly changes.
MISFIT_HU = 60.0
FAR_HU = 50.0  # a voxel's misfit beyond which it counts in proportion (R)
# Of an expectation: beyond it costs hardly grow, for a fractured endplate is nothing like the others (R).
FAR_SPREADS = 1.0
_ITERATIONS = 40
_SETTLED = 1e-4  # relative change of the cost that ends the descent
_DAMPING = (1e-3, 1e6)  # at first, and at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The endplates of a study, and what is expected of them.

    Attributes
    ----------
    cortex_hu : of compact bone, free of partial volume.
    """

    ends: Sequence[End]
    expected: Expectations
    cortex_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A minimum: the numbers of all endplates, then the shared ones; and what they cost."""

    numbers: Profile
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slopes:
    cost: float
    gradient: Profile
    bend: Points  # the cost's second derivatives, as Gauss and Newton take them


def descended(task: Task, start: Profile, free: Mask | None = None) -> Fit:
    """The nearest minimum.

    Parameters
    ----------
    free : bool, shape of `start`: the numbers that may change; all by default. Costs of fits with the same
        free numbers and the same others can be compared.
    """
    freely = np.ones(len(start), bool) if free is None else free
    moving = [place for place in range(len(task.ends)) if freely[own_numbers(place)].any()]
    numbers, damping = start, _DAMPING[0]
    here = _slopes(task, moving, numbers)
    for _ in range(_ITERATIONS):
        bend = here.bend[np.ix_(freely, freely)]
        step = np.zeros_like(numbers)
        step[freely] = np.linalg.solve(bend + damping * np.diag(bend.diagonal()), -here.gradient[freely])
        there = _slopes(task, moving, numbers + step)
        if there.cost < here.cost:
            settled = here.cost - there.cost < _SETTLED * here.cost
            numbers, here, damping = numbers + step, there, damping / 5
            if settled:
                break
        elif damping > _DAMPING[1]:
            break
        else:
            damping *= 5
    return Fit(numbers=numbers, cost=here.cost)


def _slopes(task: Task, moving: Sequence[int], numbers: Profile) -> _Slopes:
    blur_at = len(numbers) - SHARED + LOG_BLUR
    misfit = task.expected.rows @ numbers - task.expected.wanted
    cost, weight = _forgiven(misfit, FAR_SPREADS)
    weighted = task.expected.rows * weight[:, None]
    gradient, bend = weighted.T @ misfit, weighted.T @ task.expected.rows
    for place in moving:
        own, slabs = own_numbers(place), task.ends[place].slabs
        hu, change = averaged(slabs, numbers[own], float(np.exp(numbers[blur_at])), task.cortex_hu)
        misfit = (hu - slabs.hu) / MISFIT_HU
        change /= MISFIT_HU
        more, weight = _softened(misfit, FAR_HU / MISFIT_HU)
        cost += more
        weighted = change * weight[:, None]
        at = np.append(np.arange(own.start, own.stop), blur_at)
        gradient[at] += weighted.T @ misfit
        bend[np.ix_(at, at)] += weighted.T @ change
    return _Slopes(cost=cost, gradient=gradient, bend=bend)


def _softened(misfit: Profile, far: float) -> tuple[float, Profile]:
    """The cost of misfits, half their squares while they are small, and the weight of each."""
    root = np.sqrt(1 + (misfit / far) ** 2)
    return float(far**2 * (root - 1).sum()), 1 / root


def _forgiven(misfit: Profile, far: float) -> tuple[float, Profile]:
    """The same, with large misfits costing hardly more the larger they are."""
    square = 1 + (misfit / far) ** 2
    return float(0.5 * far**2 * np.log(square).sum()), 1 / square


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
