"""What age adds to a lumbar spine: spurs at the rims of its endplates, and chalk in the wall of the aorta.

Shapes are typical of what such bones and vessels show on CT, sizes are chosen here; they belong to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import cos, radians, sin

import numpy as np

from node.reference.shapes import Body, Point, Solid, Tube
from node.reference.spec import LUMBAR, StudySpec
from node.reference.spine import Vertebra
from node.reference.surroundings import Painted

CHALK_HU = 700.0  # dense plaque; the scanner's blur takes a third of it
_SPUR_RADIUS_MM = 3.0
# Degrees from straight ahead, to the left. Behind lie canal and joints; the aorta keeps the left front free.
_PLACES = (-100.0, -75.0, -50.0, -25.0, 0.0, 60.0, 85.0, 105.0)
_BRIDGED = 2  # of them are joined across the disc
_PLAQUES = 14
_AORTA_LEFT_MM, _AORTA_AHEAD_MM, _AORTA_RADIUS_MM = 11.0, 12.5, 9.5  # as soft_tissue draws it


def spurs(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Solid]:
    """Osteophytes at both rims of every disc from L1 to S1: some meet, and bridge it."""
    reach_mm = spec.faults.spurs_mm
    if not reach_mm:
        return
    rng = np.random.default_rng([spec.seed, 17])
    for upper, lower in pairwise((*LUMBAR, "S1")):
        bridged = set(rng.choice(len(_PLACES), _BRIDGED, replace=False).tolist())
        for place, degrees in enumerate(_PLACES):
            length_mm = reach_mm * rng.uniform(0.5, 1.0)
            above = _spur(spine[upper].body, -1.0, degrees, length_mm)
            below = _spur(spine[lower].body, 1.0, degrees, length_mm)
            if place in bridged:
                yield _tube([*above, *reversed(below)])
            else:
                yield _tube(above)
                if lower != "S1":
                    yield _tube(below)


def plaques(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Chalk in the aortic wall from L1 to L4, on every side of it."""
    if not spec.faults.calcified_aorta:
        return
    rng = np.random.default_rng([spec.seed, 19])
    path = [
        spine[name].at(_AORTA_LEFT_MM, -spine[name].body.depth / 2 - _AORTA_AHEAD_MM, 0)
        for name in LUMBAR[:4]
    ]
    for _ in range(_PLAQUES):
        share = rng.uniform(0, len(path) - 1.2)
        turn, thick_mm = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.8)
        wall = _AORTA_RADIUS_MM - thick_mm / 2
        around = [turn, turn + rng.uniform(0.3, 0.9)]
        piece = [
            _between(path, min(share + along, len(path) - 1.001))
            + np.array([wall * cos(angle), wall * sin(angle), 0])
            for angle, along in zip(around, (0.0, rng.uniform(0.1, 0.5)), strict=True)
        ]
        solid = Tube(path=np.array(piece), radii=np.full(2, thick_mm))
        yield Painted(solid=solid, hu=CHALK_HU)


def _spur(body: Body, end: float, degrees: float, length_mm: float) -> list[Point]:
    """From inside the rim outwards, and a little towards the disc. `end` is 1 at the upper endplate."""
    angle = radians(degrees)
    rim = np.array([sin(angle) * body.width / 2, -cos(angle) * body.depth / 2])
    outwards = rim / np.linalg.norm(rim)
    height = end * (body.height / 2 - _SPUR_RADIUS_MM)
    return [
        body.centre + np.array([*flat, up]) @ body.axes
        for flat, up in (
            (rim - 4.0 * outwards, height),
            (rim + 0.5 * length_mm * outwards, height),
            (rim + (length_mm - _SPUR_RADIUS_MM) * outwards, height + end * 3.0),
        )
    ]


def _tube(points: list[Point]) -> Tube:
    return Tube(path=np.array(points), radii=np.full(len(points), _SPUR_RADIUS_MM))


def _between(path: list[Point], share: float) -> Point:
    step = int(share)
    point: Point = path[step] + (share - step) * (path[step + 1] - path[step])
    return point
