"""Vertebral fracture by lost height, after Genant et al. 1993: against own and neighbours' heights.

A deformity of another cause (Scheuermann's disease, congenital wedging) loses height as well: what is found
is a suspicion, for a radiologist to confirm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmentation.heights import Heights, body_heights
from segmentation.observation import Observation
from segmentation.surface import body_share, box_around
from segmentation.vertebrae import ANATOMICAL_ORDER, LUMBAR, Level, Vertebrae

EVEN_SHARE = 0.8  # a body whose mean height lost nearly as much as any one height is crushed


@dataclass(frozen=True, slots=True, kw_only=True)
class FractureSettings:
    """When a body is taken for fractured. The losses follow Genant's grades; all values proposals (R)."""

    suspected_loss: float = 0.20
    refused_loss: float = 0.25
    # Heights read from a label map step with its slices: further apart they step by more than a grade. Where
    # the share of each voxel inside the body is known, they do not.
    max_step_mm: float = 3.2
    max_step_of_shares_mm: float = 5.0
    # The middle of an intact body over its higher end: endplates are hollow. For a body without neighbours.
    middle_share: float = 0.86
    # Over the neighbours' median. On a real CT at hand the uppermost body reads 17 % more than its neighbours
    # behind, in our drawing and in another's alike: the root of an arch, not a body's height.
    posterior_excess: float = 1.05
    neighbours_apart: int = 2  # levels; lumbar heights change by some 3 % from one to the next


def fracture_observations(
    vertebrae: Vertebrae, settings: FractureSettings | None = None
) -> tuple[Observation, ...]:
    """Lumbar bodies that have lost height, from superior to inferior, and what that means for the study."""
    rules = settings or FractureSettings()
    whole = [level for level in vertebrae.levels if level.complete]
    lumbar = [level for level in whole if level.name in LUMBAR]
    if not lumbar:
        return ()
    coarse = [
        step
        for level in lumbar
        if (step := _step_along_mm(vertebrae, level)) > _limit_mm(vertebrae, level, rules)
    ]
    if coarse:
        return (Observation(code="fracture_not_assessed", values={"step_mm": round(max(coarse), 1)}),)
    heights = {level.name: found for level in whole if (found := _heights(vertebrae, level)) is not None}
    suspicions = tuple(_suspicions([level.name for level in lumbar], heights, rules))
    if not suspicions:
        return ()
    named = ", ".join(str(observation.level) for observation in suspicions)
    return (*suspicions, Observation(code="fracture_in_spine", values={"levels": named}))


def _heights(vertebrae: Vertebrae, level: Level) -> Heights | None:
    box = box_around(vertebrae.bodies == level.label)
    return body_heights(body_share(vertebrae, level, box), vertebrae.grid.part(box), level)


def _limit_mm(vertebrae: Vertebrae, level: Level, rules: FractureSettings) -> float:
    return rules.max_step_of_shares_mm if level.name in vertebrae.occupancy else rules.max_step_mm


def _step_along_mm(vertebrae: Vertebrae, level: Level) -> float:
    """The distance of neighbouring voxels most nearly along the body's axis."""
    along = np.abs(np.asarray(vertebrae.grid.direction) @ np.asarray(level.axis))
    return float(vertebrae.grid.spacing_mm[int(np.argmax(along))])


def _suspicions(
    names: Sequence[str], heights: Mapping[str, Heights], rules: FractureSettings
) -> Iterator[Observation]:
    for name in names:
        if name not in heights:
            continue
        shape, loss = height_loss(name, heights, rules)
        if loss < rules.suspected_loss:
            continue
        code = "fracture" if loss >= rules.refused_loss else "fracture_suspected"
        yield Observation(code=code, level=name, values={"percent": round(100 * loss), "shape": shape})


def height_loss(
    name: str, heights: Mapping[str, Heights], settings: FractureSettings | None = None
) -> tuple[str, float]:
    """The largest relative loss of one body and the deformity that it is: wedge, biconcave or crush.

    Parameters
    ----------
    heights : of this body and of every other whole one, by level name.
    """
    rules = settings or FractureSettings()
    own = heights[name]
    near = [
        other
        for label, other in heights.items()
        if label != name
        and abs(ANATOMICAL_ORDER.index(label) - ANATOMICAL_ORDER.index(name)) <= rules.neighbours_apart
    ]
    behind = own.posterior_mm
    if near:
        behind = min(behind, rules.posterior_excess * float(np.median([one.posterior_mm for one in near])))
    losses = {"wedge": 1 - own.anterior_mm / behind}
    if near:
        # The median: a fractured neighbour is no measure.
        middle = float(np.median([other.middle_mm for other in near]))
        mean = float(np.median([other.mean_mm for other in near]))
        losses["biconcave"] = 1 - own.middle_mm / middle
        losses["crush"] = 1 - own.mean_mm / mean
        front = 1 - own.anterior_mm / float(np.median([other.anterior_mm for other in near]))
        if own.anterior_mm < own.posterior_mm:
            losses["wedge"] = max(losses["wedge"], front)
    else:
        higher = max(own.anterior_mm, own.posterior_mm)
        losses["biconcave"] = 1 - own.middle_mm / (rules.middle_share * higher)
    shape = max(losses, key=lambda kind: losses[kind])
    largest = losses[shape]
    if losses.get("crush", 0.0) >= EVEN_SHARE * largest:
        shape = "crush"
    return shape, largest
