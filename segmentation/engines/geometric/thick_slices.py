"""Endplates on thick slices, fitted to the HU that slices average, not to the steepest fall of HU.

Between slices 5 mm apart, interpolation alone decides where HU falls most steeply. The HU of a slice,
however, depends on how much of it is body, endplate and disc (`Slabs`). A single endplate remains ambiguous:
a thicker one a little further out gives the same HU, and where bone is as dense as the disc, an endplate
parallel to the slices may lie anywhere within one. All endplates of a study are therefore fitted together, by
least squares with prior knowledge (`Priors`, `minimise`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from segmentation.ct_volume import CtVolume, Grid, Mask, Points, Profile
from segmentation.engines.geometric.body import Body
from segmentation.engines.geometric.endplates import (
    COLUMN_STEP_MM,
    HALF_WIDTH_MM,
    column_grid,
    fit_plate,
    quadratic_terms,
)
from segmentation.engines.geometric.frame import BodyFrame

# The model. Along an endplate's normal, outwards, cancellous bone is followed by a thin plate of compact bone
# and by the disc. A voxel of a slice 5 mm thick averages them between the two faces of the slice.

SHAPE = slice(0, 6)  # heights over (1, u, v, u*u, u*v, v*v), in the body's frame
INNER, OUTER, THICKNESS = 6, 7, 8  # HU of bone and disc, mm of compact bone
PLATE_SIZE = 9  # parameters that describe one endplate, in this order
_MIN_PATH_MM = 0.3  # through a slab, along the normal: slabs that lie in the endplate's plane say little


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


def make_slabs(
    hu: Profile, local: Points, frame: BodyFrame, grid: Grid, *, shape: Profile, sense: int
) -> Slabs:
    """The slabs around voxels near one endplate.

    Parameters
    ----------
    hu : (n,).
    local : (n, 3), (h, u, v) of the voxels' centres in the body's frame.
    shape : (6,), the endplate's approximate shape, which gives the slope of its normal.
    sense : +1 for an upper endplate, -1 for a lower one.
    """
    half = 0.5 * grid.spacing_mm[0] * np.array([frame.along[0], frame.left[0], frame.front[0]])
    faces = np.stack([local - half, local + half])
    u, v = local[:, 1], local[:, 2]
    rise_u = shape[1] + 2 * shape[3] * u + shape[4] * v
    rise_v = shape[2] + shape[4] * u + 2 * shape[5] * v
    return Slabs(
        sense=sense,
        hu=hu,
        heights_mm=faces[..., 0],
        terms=quadratic_terms(faces[..., 1], faces[..., 2]),
        slope=np.sqrt(1 + rise_u**2 + rise_v**2),
    )


def slab_average(slabs: Slabs, plate: Profile, blur_mm: float, cortex_hu: float) -> tuple[Profile, Points]:
    """HU that the model gives the voxels of an endplate, and its derivatives.

    Parameters
    ----------
    plate : (9,), see `SHAPE`, `INNER`, `OUTER`, `THICKNESS`.
    blur_mm : sigma of the blur along the normal, besides the slice's thickness.
    cortex_hu : HU of compact bone, free of partial volume.

    Returns
    -------
    HU (n,), and derivatives (n, 10) with respect to `plate` and to the logarithm of `blur_mm`.
    """
    outward = slabs.sense / slabs.slope
    near, far = outward * (slabs.heights_mm - slabs.terms @ plate[SHAPE])
    inner, outer, thickness = plate[INNER], plate[OUTER], plate[THICKNESS]
    bone = _Step.through(near + thickness, far + thickness, blur_mm)
    disc = _Step.through(near, far, blur_mm)
    rise, fall = cortex_hu - inner, cortex_hu - outer
    change = np.empty((len(slabs.hu), PLATE_SIZE + 1))
    by_near, by_far = (rise * one - fall * other for one, other in zip(bone.by_end, disc.by_end, strict=True))
    change[:, SHAPE] = -(outward * by_near)[:, None] * slabs.terms[0]
    change[:, SHAPE] -= (outward * by_far)[:, None] * slabs.terms[1]
    change[:, INNER], change[:, OUTER] = 1 - bone.mean, disc.mean
    change[:, THICKNESS] = rise * (bone.by_end[0] + bone.by_end[1])
    change[:, PLATE_SIZE] = rise * bone.by_blur - fall * disc.by_blur
    return inner + rise * bone.mean - fall * disc.mean, change


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Mean of a blurred step from 0 to 1 at 0 over an interval, and its derivatives."""

    mean: Profile
    by_end: tuple[Profile, Profile]  # with respect to the way's two ends
    by_blur: Profile  # and to the logarithm of the blur

    @classmethod
    def through(cls, start: Profile, stop: Profile, blur_mm: float) -> _Step:
        way = stop - start
        way = np.where(np.abs(way) < _MIN_PATH_MM, np.copysign(_MIN_PATH_MM, way), way)
        low, high = special.ndtr(start / blur_mm), special.ndtr(stop / blur_mm)
        bell = blur_mm * (_normal(stop / blur_mm) - _normal(start / blur_mm))
        mean = (stop * high - start * low + bell) / way
        return cls(mean=mean, by_end=((mean - low) / way, (high - mean) / way), by_blur=bell / way)


def _normal(x: Profile) -> Profile:
    density: Profile = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return density


# The priors: what thick slices alone do not show. Each is a linear equation: a weighted sum of parameters,
# its value, and its spread. They tie the parameters of single endplates to shared ones, and these loosely to
# anatomy. Endplates that slices show well (tilted ones, which cross several slices) thereby determine the
# others.

# Values and spreads; all are proposals (R). The second spread of two is that of one endplate about the study.
BONE_SPREAD_HU = 25.0  # of bone beneath an endplate about that of the body's middle
DISC_HU, DISC_SPREAD_HU = 80.0, (30.0, 10.0)
THICKNESS_SPREAD_MM = (0.3, 0.06)  # about the cortex of the bodies' walls
BLUR_MM, BLUR_SPREAD = 0.6, 0.3  # sigma besides the slice's thickness; the spread is relative
HOLLOW_SPREAD_MM = (1.8, 0.6)  # of the depth of an endplate's hollow over these half-axes (u, v)
HOLLOW_HALF_MM = (18.0, 12.0)
HEIGHT_SPREAD_MM = 1.2  # between neighbouring bodies; fractures lose more, and are outliers to it
PLACE_SPREAD_MM, TILT_SPREAD = 5.0, 0.5  # about where the steepest fall of HU puts an endplate

# Indices of the study's shared parameters, after those of its endplates.
ALL_THICKNESS, ALL_OUTER, LOG_BLUR, HOLLOW_U, HOLLOW_V = range(5)
SHARED_SIZE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Endplate:
    """One endplate that is to be fitted.

    Attributes
    ----------
    body : index of its body, from one end of the spine to the other.
    first : (6,), the shape at the steepest fall of HU.
    columns : (m, 6), `quadratic_terms` the columns well within the body.
    bone_hu : HU of the body's middle.
    """

    body: int
    slabs: Slabs
    first: Profile
    columns: Points
    bone_hu: float

    def farthest_mm(self, shape: Profile) -> float:
        """Largest distance of a shape (6,) from `first` within the body."""
        return float(np.abs(self.columns @ (shape - self.first)).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """Prior knowledge as linear equations ``rows @ parameters = targets``, in units of their spreads.

    Attributes
    ----------
    rows : (equations, parameters).
    targets : (equations,).
    """

    rows: Points
    targets: Profile


def plate_parameters(place: int) -> slice:
    """The indices of the parameters of the endplate at `place`."""
    return slice(PLATE_SIZE * place, PLATE_SIZE * (place + 1))


def priors_of(ends: Sequence[Endplate], cortex_mm: float) -> Priors:
    """The priors of some endplates, whose parameters come first, in order, and the shared ones last.

    Parameters
    ----------
    cortex_mm : thickness of the compact bone of the bodies' walls.
    """
    shared = PLATE_SIZE * len(ends)
    lines = [
        ({shared + ALL_THICKNESS: 1.0}, cortex_mm, THICKNESS_SPREAD_MM[0]),
        ({shared + ALL_OUTER: 1.0}, DISC_HU, DISC_SPREAD_HU[0]),
        ({shared + LOG_BLUR: 1.0}, float(np.log(BLUR_MM)), BLUR_SPREAD),
        ({shared + HOLLOW_U: 1.0}, 0.0, HOLLOW_SPREAD_MM[0]),
        ({shared + HOLLOW_V: 1.0}, 0.0, HOLLOW_SPREAD_MM[0]),
    ]
    for place, end in enumerate(ends):
        lines += _plate_lines(end, plate_parameters(place).start, shared)
    lines += _height_lines(ends)
    rows = np.zeros((len(lines), shared + SHARED_SIZE))
    for row, (weights, _, spread) in zip(rows, lines, strict=True):
        row[list(weights)] = np.array(list(weights.values())) / spread
    return Priors(rows=rows, targets=np.array([value / spread for _, value, spread in lines]))


_Line = tuple[dict[int, float], float, float]  # weights by parameter, value, spread


def _plate_lines(end: Endplate, start: int, shared: int) -> list[_Line]:
    half_u, half_v = HOLLOW_HALF_MM
    sense, hollow = float(end.slabs.sense), HOLLOW_SPREAD_MM[1]
    return [
        ({start: 1.0}, float(end.first[0]), PLACE_SPREAD_MM),
        ({start + 1: 1.0}, float(end.first[1]), TILT_SPREAD),
        ({start + 2: 1.0}, float(end.first[2]), TILT_SPREAD),
        ({start + 3: sense * half_u**2, shared + HOLLOW_U: -1.0}, 0.0, hollow),
        ({start + 4: half_u * half_v}, 0.0, hollow),
        ({start + 5: sense * half_v**2, shared + HOLLOW_V: -1.0}, 0.0, hollow),
        ({start + INNER: 1.0}, end.bone_hu, BONE_SPREAD_HU),
        ({start + OUTER: 1.0, shared + ALL_OUTER: -1.0}, 0.0, DISC_SPREAD_HU[1]),
        ({start + THICKNESS: 1.0, shared + ALL_THICKNESS: -1.0}, 0.0, THICKNESS_SPREAD_MM[1]),
    ]


def _height_lines(ends: Sequence[Endplate]) -> list[_Line]:
    """Equal mean heights of neighbouring bodies."""
    heights = _heights_of(ends)
    return [
        (
            {**below, **{parameter: -weight for parameter, weight in heights[place + 1].items()}},
            0.0,
            HEIGHT_SPREAD_MM,
        )
        for place, below in heights.items()
        if place + 1 in heights
    ]


def _heights_of(ends: Sequence[Endplate]) -> Mapping[int, dict[int, float]]:
    """By body with both endplates: the weights by which parameters add up to its mean height."""
    heights: dict[int, dict[int, float]] = {}
    for place, end in enumerate(ends):
        mean = end.slabs.sense * end.columns.mean(axis=0)
        start = plate_parameters(place).start + SHAPE.start
        heights.setdefault(end.body, {}).update({start + k: float(weight) for k, weight in enumerate(mean)})
    return {
        body: weights for body, weights in heights.items() if len(weights) == 2 * (SHAPE.stop - SHAPE.start)
    }


# The fit: damped least squares (Marquardt, SIAM J Appl Math 1963;11:431) with losses that limit the pull of
# large misfits: of a voxel that holds something else, or of an endplate unlike the others. SciPy's
# `least_squares` with the same losses mostly finds the same minima (over 448 fits the median ratio of the
# costs is 1.000; single fits ended in other minima) in nearly four times the time: it keeps the derivatives
# of every voxel, and this the sums that a step needs.

# SD of a voxel, as if voxels were independent: noise, trabeculae, and what the model leaves out (R). From 40
# to 90 HU the result hardly changes.
MISFIT_HU = 60.0
FAR_HU = 50.0  # a voxel's misfit beyond which its cost grows linearly (R)
# Beyond this the cost of a prior hardly grows: a fractured endplate is unlike the others (R).
FAR_SPREADS = 1.0
_ITERATIONS = 40
_TOLERANCE = 1e-4  # relative change of the cost that ends the descent
_DAMPING = (1e-3, 1e6)  # at first, and at most


@dataclass(frozen=True, slots=True, kw_only=True)
class EndplateProblem:
    """The endplates of a study, and their priors.

    Attributes
    ----------
    cortex_hu : HU of compact bone, free of partial volume.
    """

    ends: Sequence[Endplate]
    priors: Priors
    cortex_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndplateFit:
    """A minimum of the cost.

    Attributes
    ----------
    parameters : of all endplates, 9 each, then the 5 shared ones.
    cost : sum of the losses of all voxels and priors.
    """

    parameters: Profile
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slopes:
    cost: float
    gradient: Profile
    bend: Points  # Gauss and Newton's approximation of the second derivatives


def minimise(problem: EndplateProblem, start: Profile, free: Mask | None = None) -> EndplateFit:
    """The nearest minimum of the cost.

    Parameters
    ----------
    start : (parameters,).
    free : bool, (parameters,): the parameters that may change; all by default. Only costs of fits with equal
        free and equal fixed parameters are comparable.
    """
    freely = np.ones(len(start), bool) if free is None else free
    moving = [place for place in range(len(problem.ends)) if freely[plate_parameters(place)].any()]
    parameters, damping = start, _DAMPING[0]
    here = _slopes(problem, moving, parameters)
    for _ in range(_ITERATIONS):
        bend = here.bend[np.ix_(freely, freely)]
        step = np.zeros_like(parameters)
        step[freely] = np.linalg.solve(bend + damping * np.diag(bend.diagonal()), -here.gradient[freely])
        there = _slopes(problem, moving, parameters + step)
        if there.cost < here.cost:
            converged = here.cost - there.cost < _TOLERANCE * here.cost
            parameters, here, damping = parameters + step, there, damping / 5
            if converged:
                break
        elif damping > _DAMPING[1]:
            break
        else:
            damping *= 5
    return EndplateFit(parameters=parameters, cost=here.cost)


def _slopes(problem: EndplateProblem, moving: Sequence[int], parameters: Profile) -> _Slopes:
    blur_at = len(parameters) - SHARED_SIZE + LOG_BLUR
    misfit = problem.priors.rows @ parameters - problem.priors.targets
    cost, weight = _cauchy(misfit, FAR_SPREADS)
    weighted = problem.priors.rows * weight[:, None]
    gradient, bend = weighted.T @ misfit, weighted.T @ problem.priors.rows
    for place in moving:
        indices, slabs = plate_parameters(place), problem.ends[place].slabs
        hu, change = slab_average(
            slabs, parameters[indices], float(np.exp(parameters[blur_at])), problem.cortex_hu
        )
        misfit = (hu - slabs.hu) / MISFIT_HU
        change /= MISFIT_HU
        more, weight = _pseudo_huber(misfit, FAR_HU / MISFIT_HU)
        cost += more
        weighted = change * weight[:, None]
        at = np.append(np.arange(indices.start, indices.stop), blur_at)
        gradient[at] += weighted.T @ misfit
        bend[np.ix_(at, at)] += weighted.T @ change
    return _Slopes(cost=cost, gradient=gradient, bend=bend)


def _pseudo_huber(misfit: Profile, far: float) -> tuple[float, Profile]:
    """Loss that grows linearly beyond `far`, and the weight of each misfit."""
    root = np.sqrt(1 + (misfit / far) ** 2)
    return float(far**2 * (root - 1).sum()), 1 / root


def _cauchy(misfit: Profile, far: float) -> tuple[float, Profile]:
    """Loss that grows logarithmically beyond `far`, and the weight of each misfit."""
    square = 1 + (misfit / far) ** 2
    return float(0.5 * far**2 * np.log(square).sum()), 1 / square


MARGIN_MM = 4.0  # voxels this close to the wall hold some of it
INSIDE_MM, OUTSIDE_MM = 11.0, 5.0  # voxels this far from the expected endplate take part
MIDDLE_MM = 5.0  # bone this close to the body's middle stands for the bone beneath its endplates
MIN_VOXELS = 40
STARTS_MM = (-1.5, 0.0, 1.5, 3.0, 4.5, 6.0)  # inward of the expected place: there are false minima
RESTARTS_MM = (-3.0, -1.5, 1.5, 3.0)  # the same, after the common fit
MAX_SHIFT_MM = 7.0  # from the steepest fall of HU, which a fracture may displace


def refit_endplates(bodies: Sequence[Body | None], volume: CtVolume, cortex_hu: float) -> list[Body | None]:
    """The bodies of a study with their endplates fitted to what the slices average.

    Parameters
    ----------
    bodies : from one end of the spine to the other, None where there is none; their walls corrected by
        `body.move_to_cortex`, their endplates where HU falls most steeply.
    volume : in the canonical frame.
    cortex_hu : HU of compact bone, free of partial volume.

    Returns
    -------
    The bodies in their order. An endplate with too few voxels stays in place.
    """
    walls = [body.wall.profile_hu for body in bodies if body is not None]
    cortex_mm = [fit_plate(profile, cortex_hu).thickness_mm for profile in walls if profile is not None]
    ends = [
        end
        for place, body in enumerate(bodies)
        if body is not None and body.wall.profile_hu is not None
        for sense in (-1, 1)
        if (end := _endplate_of(body, volume, place, sense)) is not None
    ]
    moved = list(bodies)
    if not ends:
        return moved
    parameters = _fit_all(ends, cortex_hu, float(np.median(cortex_mm)))
    for place, end in enumerate(ends):
        shape, body = parameters[plate_parameters(place)][SHAPE], moved[end.body]
        if body is not None and end.farthest_mm(shape) <= MAX_SHIFT_MM:
            moved[end.body] = _with_endplate(body, end.slabs.sense, shape)
    return moved


def _with_endplate(body: Body, sense: int, shape: Profile) -> Body:
    u, v = column_grid()
    heights = quadratic_terms(u, v) @ shape
    if sense > 0:
        return replace(body, upper=replace(body.upper, heights_mm=heights, profile_hu=None))
    return replace(body, lower=replace(body.lower, heights_mm=heights, profile_hu=None))


def _endplate_of(body: Body, volume: CtVolume, place: int, sense: int) -> Endplate | None:
    """One endplate with its voxels; None where the volume cuts the body, or the voxels are too few."""
    surface = body.upper if sense > 0 else body.lower
    if surface.profile_hu is None:
        return None
    u, v = column_grid()
    inside = np.hypot(u, v) <= body.wall.radius(surface.heights_mm, np.arctan2(v, u)) - MARGIN_MM
    if not inside.any():
        return None
    columns = quadratic_terms(u[inside], v[inside])
    local, hu = _voxels_near(body, volume, inside, surface.heights_mm[inside], sense)
    outward = sense * (local[:, 0] - surface.height(local[:, 1], local[:, 2]))
    slice_mm = float(volume.grid.spacing_mm[0] * abs(body.frame.along[0]))
    middle = np.abs(local[:, 0]) <= max(MIDDLE_MM, 0.6 * slice_mm)
    near = (outward >= -INSIDE_MM) & (outward <= OUTSIDE_MM)
    if near.sum() < MIN_VOXELS or not middle.any():
        return None
    first, *_ = np.linalg.lstsq(columns, surface.heights_mm[inside], rcond=None)
    return Endplate(
        body=place,
        slabs=make_slabs(hu[near], local[near], body.frame, volume.grid, shape=first, sense=sense),
        first=first,
        columns=columns,
        bone_hu=float(np.median(hu[middle])),
    )


def _voxels_near(
    body: Body, volume: CtVolume, inside: Mask, heights_mm: Profile, sense: int
) -> tuple[Points, Profile]:
    """Local coordinates (n, 3) and HU (n,) of voxels inside the wall, from the body's middle to its disc.

    `inside` are the columns of `column_grid` that count, `heights_mm` the endplate's heights there.
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


def _fit_all(ends: Sequence[Endplate], cortex_hu: float, cortex_mm: float) -> Profile:
    """All parameters: fits of single endplates, a fit of all, a refit of each, and a last fit of all."""
    separate = [_fit_alone(end, cortex_hu, cortex_mm) for end in ends]
    shared = np.median([parameters[PLATE_SIZE:] for parameters in separate], axis=0)
    problem = EndplateProblem(ends=ends, priors=priors_of(ends, cortex_mm), cortex_hu=cortex_hu)
    parameters = minimise(
        problem, np.concatenate([*(one[:PLATE_SIZE] for one in separate), shared])
    ).parameters
    for place in range(len(ends)):
        parameters = _refit_one(problem, parameters, place)
    return minimise(problem, parameters).parameters


def _fit_alone(end: Endplate, cortex_hu: float, cortex_mm: float) -> Profile:
    """Parameters of one endplate and the shared ones, fitted without the other endplates."""
    problem = EndplateProblem(ends=[end], priors=priors_of([end], cortex_mm), cortex_hu=cortex_hu)
    initial = np.concatenate(
        [end.first, [end.bone_hu, DISC_HU, cortex_mm], [cortex_mm, DISC_HU, np.log(BLUR_MM), 0.0, 0.0]]
    )
    assert len(initial) == PLATE_SIZE + SHARED_SIZE
    starts = [_shifted_inward(initial, 0, end, inward_mm) for inward_mm in STARTS_MM]
    return _cheapest([minimise(problem, start) for start in starts], 0, end).parameters


def _refit_one(problem: EndplateProblem, parameters: Profile, place: int) -> Profile:
    """All parameters, with one endplate fitted again from several places while the others stay fixed."""
    end = problem.ends[place]
    free = np.zeros(len(parameters), bool)
    free[plate_parameters(place)] = True
    starts = [parameters, *(_shifted_inward(parameters, place, end, inward_mm) for inward_mm in RESTARTS_MM)]
    return _cheapest([minimise(problem, start, free) for start in starts], place, end).parameters


def _shifted_inward(parameters: Profile, place: int, end: Endplate, inward_mm: float) -> Profile:
    moved = parameters.copy()
    moved[plate_parameters(place).start] -= end.slabs.sense * inward_mm
    return moved


def _cheapest(fits: Sequence[EndplateFit], place: int, end: Endplate) -> EndplateFit:
    """The fit of least cost; fits within `MAX_SHIFT_MM` of the steepest fall take precedence."""
    near = [
        fit for fit in fits if end.farthest_mm(fit.parameters[plate_parameters(place)][SHAPE]) <= MAX_SHIFT_MM
    ]
    return min(near or fits, key=lambda fit: fit.cost)
