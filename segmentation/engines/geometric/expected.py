"""What is expected of the endplates of one study: the knowledge that thick slices alone do not hold.

Each expectation is a line: a weighted sum of numbers, the value that it should have, and its spread. Numbers
of single endplates are tied to those that the study shares, and these loosely to anatomy. So endplates that
slices show well (tilted ones, which cross several) tell what the others are like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmentation.engines.geometric.frame import Points, Profile
from segmentation.engines.geometric.slabs import INNER, OUTER, OWN, SHAPE, THICKNESS, Slabs

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
    """One endplate that is to be fitted."""

    body: int  # its body's place among the study's, from one end of the spine to the other
    slabs: Slabs
    first: Profile  # (6,) the shape found where HU falls most steeply
    columns: Points  # (m, 6): `terms_of` the columns well within the body
    bone_hu: float  # of the body's middle

    def farthest_mm(self, shape: Profile) -> float:
        """The most that a shape departs from the first one within the body."""
        return float(np.abs(self.columns @ (shape - self.first)).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """Lines ``rows @ numbers - wanted``, each in units of its spread."""

    rows: Points  # (lines, numbers)
    wanted: Profile  # (lines,)


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
