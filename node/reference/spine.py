"""The bones: vertebrae along a lordotic curve, which may be scoliotic, with ribs, sacrum and pelvis.

Sizes are typical of adult anatomy and belong to nobody. The frame is the patient's (LPS, mm) with the centre
of L3 at the origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import cos, radians, sin

import numpy as np

from node.reference.shapes import Ellipsoid, Point, RoundedBox, Solid, VertebralSolid, tube
from node.reference.spec import Faults, FractureShape, StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    width: float
    depth: float
    height: float
    disc_below: float
    lean: float  # degrees that the body's upper end leans forward: lordosis


_SIZES = {
    "T11": _Size(width=40, depth=30, height=24.0, disc_below=6.0, lean=-16),
    "T12": _Size(width=41, depth=30, height=25.0, disc_below=7.0, lean=-15),
    "L1": _Size(width=42, depth=31, height=26.0, disc_below=8.0, lean=-12),
    "L2": _Size(width=44, depth=32, height=27.0, disc_below=9.0, lean=-7),
    "L3": _Size(width=46, depth=33, height=27.5, disc_below=10.0, lean=0),
    "L4": _Size(width=48, depth=34, height=27.5, disc_below=11.0, lean=9),
    "L5": _Size(width=51, depth=34, height=27.0, disc_below=10.0, lean=20),
    "L6": _Size(width=51, depth=34, height=27.0, disc_below=10.0, lean=25),
    "S1": _Size(width=52, depth=32, height=29.0, disc_below=1.5, lean=44),
    "S2": _Size(width=38, depth=22, height=24.0, disc_below=1.0, lean=54),
}
_L5_OF_SIX_LEAN = 15.0  # degrees: the bend towards the sacrum is shared with L6
CORTEX_MM = 1.3
CANAL_BEHIND_MM = 9.5  # from the posterior wall to the middle of the canal


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertebra:
    """One vertebra in its position.

    Attributes
    ----------
    name : T11 to S2.
    body : the vertebral body, cortex included.
    """

    name: str
    body: VertebralSolid

    def at(self, left: float, back: float, up: float) -> Point:
        """A point given in the body's own directions.

        Parameters
        ----------
        left, back, up : in mm from the body's centre.

        Returns
        -------
        (x, y, z) in mm (LPS).
        """
        point: Point = self.body.centre + np.array([left, back, up]) @ self.body.axes
        return point

    @property
    def canal(self) -> Point:
        """Middle of the spinal canal at this level."""
        return self.at(0, self.body.depth / 2 + CANAL_BEHIND_MM, 0)

    @property
    def core(self) -> VertebralSolid:
        """The cancellous bone inside the cortex."""
        b = self.body
        return replace(
            b,
            width=b.width - 2 * CORTEX_MM,
            depth=b.depth - 2 * CORTEX_MM,
            height=b.height - 2 * CORTEX_MM,
        )


def build_spine(spec: StudySpec) -> dict[str, Vertebra]:
    """All vertebrae of a study, whatever its view shows.

    Returns
    -------
    By name, from T11 down to S2; the centre of L3 is the origin.
    """
    axes = {name: _axes(spec, name) for name in spec.levels}
    centres: dict[str, Point] = {"L3": np.zeros(3)}
    for upper, lower in pairwise(spec.levels):
        if upper in centres:
            centres[lower] = centres[upper] - _step(axes, upper, lower)
    for upper, lower in reversed(list(pairwise(spec.levels))):
        if upper not in centres:
            centres[upper] = centres[lower] + _step(axes, upper, lower)
    return {
        name: Vertebra(name=name, body=_broken(_body(name, centres[name], axes[name]), spec.faults, name))
        for name in spec.levels
    }


def _broken(body: VertebralSolid, faults: Faults, name: str) -> VertebralSolid:
    """The body as its fracture leaves it."""
    fracture = faults.fracture_of(name)
    if fracture is None:
        return body
    lost = fracture.height_loss * body.height
    if fracture.shape is FractureShape.BICONCAVE:
        # An intact body is hollow too, and the loss counts from its own middle height.
        half = fracture.height_loss * (body.height - 2 * body.hollow) / 2
        return replace(body, sunk_top=(0.0, half, 0.0), sunk_bottom=(0.0, half, 0.0))
    if fracture.shape is FractureShape.WEDGE:
        return replace(body, sunk_top=(lost, lost / 2, 0.0))
    return replace(body, sunk_top=(lost, lost, lost))


def _axes(spec: StudySpec, name: str) -> Point:
    """Directions of a body: to its left, backwards, up."""
    lean = radians(_L5_OF_SIX_LEAN if name == "L5" and "L6" in spec.levels else _SIZES[name].lean)
    place = (min(max(spec.levels.index(name), 1), 6) - 1) / 5  # 0 at T12 and above, 1 at L5 and below
    side = radians(spec.scoliosis_degrees / 2) * cos(np.pi * place)
    turn = radians(spec.rotation_degrees)
    forward = np.array([[1, 0, 0], [0, cos(lean), sin(lean)], [0, -sin(lean), cos(lean)]])
    sideways = np.array([[cos(side), 0, -sin(side)], [0, 1, 0], [sin(side), 0, cos(side)]])
    about = np.array([[cos(turn), sin(turn), 0], [-sin(turn), cos(turn), 0], [0, 0, 1]])
    axes: Point = forward @ sideways @ about
    return axes


def _step(axes: dict[str, Point], upper: str, lower: str) -> Point:
    """From the centre of the lower body to the centre of the upper one."""
    a, b = _SIZES[upper], _SIZES[lower]
    between = axes[upper][2] + axes[lower][2]
    step: Point = (
        axes[upper][2] * a.height / 2
        + axes[lower][2] * b.height / 2
        + between / np.linalg.norm(between) * a.disc_below
    )
    return step


def _body(name: str, centre: Point, axes: Point) -> VertebralSolid:
    size = _SIZES[name]
    sacral = name.startswith("S")
    return VertebralSolid(
        centre=centre,
        axes=axes,
        width=size.width,
        depth=size.depth,
        height=size.height,
        waist=0.02 if sacral else 0.09,
        hollow=0.3 if sacral else 1.6,
        wedge=0.12 if name in ("L5", "L6") else 0.0,
    )


def disc_below(spine: dict[str, Vertebra], name: str) -> VertebralSolid:
    """The disc between a vertebra and the next one; it bulges into the hollow endplates.

    Parameters
    ----------
    name : of any vertebra but the last.
    """
    names = list(spine)
    upper, lower = spine[name].body, spine[names[names.index(name) + 1]].body
    axes = upper.axes + lower.axes
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    top = upper.centre - upper.axes[2] * upper.height / 2
    bottom = lower.centre + lower.axes[2] * lower.height / 2
    return VertebralSolid(
        centre=(top + bottom) / 2,
        axes=axes,
        width=(upper.width + lower.width) / 2 + 1,
        depth=(upper.depth + lower.depth) / 2 + 1,
        height=_SIZES[name].disc_below + 0.5,
        waist=-0.03,
        hollow=-2.2,
        wedge=0.25 if name in ("L4", "L5", "L6") else 0.12,
    )


def posterior_elements(vertebra: Vertebra) -> Iterator[Solid]:
    """Pedicles, laminae, joints, transverse and spinous processes of a thoracic or lumbar vertebra."""
    wall = vertebra.body.depth / 2
    at = vertebra.at
    thoracic = vertebra.name.startswith("T")
    joint = 15.0 + 0.5 * (vertebra.body.width - 40)  # the joints stand further apart at each level down
    for side in (-1.0, 1.0):
        yield tube([at(side * 14, wall - 3, 5), at(side * 15.5, wall + 10, 5)], [6.0, 5.0])
        yield tube([at(side * 15.5, wall + 12, 5), at(side * 13, wall + 18, -8)], [4.6, 4.2])
        yield _plate(vertebra, (side * 7.5, wall + 21.5, -6), (9.5, 3.3, 8.5), turn=side * 38, tilt=12)
        # Facing joints leave a cleft of about 1 mm between neighbours.
        yield Ellipsoid(centre=at(side * joint, wall + 15.5, 12), radii=np.array([4.4, 6.0, 8.5]))
        yield Ellipsoid(centre=at(side * (joint - 6.5), wall + 22, -16), radii=np.array([4.6, 5.0, 9.0]))
        reach = 22.0 if thoracic else 41.0
        yield tube(
            [
                at(side * 16, wall + 11, 4),
                at(side * min(reach, 28), wall + 14, 3),
                at(side * reach, wall + 17, 4),
            ],
            [4.5, 3.0 if thoracic else 3.6, 2.8],
        )
    length, tilt = (10.0, 24.0) if thoracic else (11.5, 8.0)
    yield _plate(vertebra, (0, wall + 24 + length, -9), (3.4, length, 9.5), tilt=tilt)
    yield tube([at(0, wall + 25, -4), at(0, wall + 23 + 2 * length, -13)], [4.2, 3.8])


def twelfth_ribs(vertebra: Vertebra) -> Iterator[Solid]:
    """The last pair: from the side of T12 outwards, backwards and down."""
    wall = vertebra.body.depth / 2
    for side in (-1.0, 1.0):
        path = (
            (21, wall - 4, 3),
            (34, wall + 14, 2),
            (62, wall + 26, -14),
            (92, wall + 20, -38),
            (112, wall + 2, -60),
        )
        yield tube([vertebra.at(side * left, back, up) for left, back, up in path], [4.6, 3.8, 4.0, 4.0, 3.0])


def eleventh_ribs(vertebra: Vertebra) -> Iterator[Solid]:
    """The pair of T11, and the ends of the pair above it, whose vertebra is never in view.

    The ribs' ends stay with the wall of the trunk when the spine bends or turns.
    """
    wall = vertebra.body.depth / 2
    for side in (-1.0, 1.0):
        root = [
            vertebra.at(side * left, back, up)
            for left, back, up in ((21, wall - 4, 4), (34, wall + 14, 3), (60, wall + 25, -12))
        ]
        eleventh = [np.array([side * x, y, z]) for x, y, z in ((104, 46, 92), (131, 12, 70), (137, -23, 54))]
        tenth = [np.array([side * x, y, z]) for x, y, z in ((126, 42, 132), (138, -2, 112), (130, -48, 94))]
        yield tube([*root, *eleventh], [4.6, 3.8, 4.2, 4.4, 4.4, 3.4])
        yield tube(tenth, [4.6, 4.6, 4.2])


def sacral_wings(spine: dict[str, Vertebra]) -> Iterator[Solid]:
    """The alae beside S1 and S2, and the crest behind the sacral canal."""
    first, second = spine["S1"], spine["S2"]
    for side in (-1.0, 1.0):
        yield Ellipsoid(centre=first.at(side * 38, 4, -2), radii=np.array([25.0, 15.0, 19.0]))
        yield Ellipsoid(centre=first.at(side * 33, 6, -26), radii=np.array([23.0, 13.0, 20.0]))
        yield Ellipsoid(centre=second.at(side * 28, 4, -14), radii=np.array([20.0, 11.0, 20.0]))
        yield tube([first.at(side * 14, 20, 4), first.at(side * 20, 31, -6)], [5.0, 5.0])
        yield tube([first.at(side * 20, 31, -6), first.at(0, 39, -12)], [4.0, 4.0])
        yield tube([second.at(side * 14, 15, 2), second.at(0, 27, -4)], [4.0, 4.0])
    yield tube([first.at(0, 39, -6), first.at(0, 46, -14), second.at(0, 32, -8)], [4.0, 4.5, 4.0])


def sacralised_processes(vertebra: Vertebra) -> Iterator[Solid]:
    """The wide processes of a last lumbar vertebra that is joined to sacrum and ilium."""
    for side in (-1.0, 1.0):
        yield Ellipsoid(centre=vertebra.at(side * 40, 4, -4), radii=np.array([27.0, 13.0, 14.0]))


def iliac_wings(spine: dict[str, Vertebra]) -> Iterator[Solid]:
    """The back part of the iliac bones, beside the alae and rising to the height of L4."""
    first = spine["S1"].body.centre
    for side in (-1.0, 1.0):
        for start, middle, end in (
            ((66, 34, -30), (80, 22, -22), (104, -8, -14)),
            ((68, 38, -12), (86, 24, -2), (112, -12, 4)),
            ((74, 36, 6), (92, 22, 16), (118, -14, 18)),
            ((82, 32, 22), (98, 18, 32), (118, -10, 32)),
        ):
            path = [first + np.array([side * x, y, z]) for x, y, z in (start, middle, end)]
            yield tube(path, [10.0, 8.0, 7.0])


def _plate(
    vertebra: Vertebra,
    place: tuple[float, float, float],
    half: tuple[float, float, float],
    *,
    turn: float = 0.0,
    tilt: float = 0.0,
) -> RoundedBox:
    """A plate given in the vertebra's own directions: turned about its height, its back end tilted down."""
    a, b = radians(turn), radians(tilt)
    turned = np.array([[cos(a), -sin(a), 0], [sin(a), cos(a), 0], [0, 0, 1]])
    tilted = np.array([[1, 0, 0], [0, cos(b), -sin(b)], [0, sin(b), cos(b)]])
    return RoundedBox(
        centre=vertebra.at(*place),
        axes=tilted @ turned @ vertebra.body.axes,
        half=np.array(half),
        rounding=min(half) * 0.8,
    )
