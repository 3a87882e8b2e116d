"""Fits endplates to voxels and expectations: damped least squares (Marquardt, SIAM J Appl Math 1963;11:431).

Misfits count with their square while they are small, and in proportion where they are large: a voxel that
holds something else, or an endplate that is not as expected, pulls no harder than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmentation.engines.geometric.expected import LOG_BLUR, SHARED, End, Expectations, own_numbers
from segmentation.engines.geometric.frame import Points, Profile
from segmentation.engines.geometric.slabs import averaged
from segmentation.volume import Mask

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
    """The endplates of a study, and what is expected of them."""

    ends: Sequence[End]
    expected: Expectations
    cortex_hu: float  # of compact bone, free of partial volume


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
