"""Solids, each given by the distance of a point from its surface.

Coordinates are in mm in the patient's frame (LPS): x to the left, y backwards, z up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Point = npt.NDArray[np.float64]
Axis = npt.NDArray[np.float64]  # positions along one axis of a grid, ascending
Axes = tuple[Axis, Axis, Axis]  # along z, y and x
Cut = tuple[slice, slice, slice]  # a part of a grid along z, y and x


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """An upright box that holds a solid.

    Attributes
    ----------
    low, high : corners (x, y, z) in mm; infinite where the solid has no end.
    """

    low: Point
    high: Point


class Solid(Protocol):
    """What can be painted into a volume."""

    @property
    def box(self) -> Extent:
        """A box that holds the solid; infinite where the solid has no end."""
        ...

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """About the distance to the surface.

        Parameters
        ----------
        x, y, z : in mm, float32; broadcast against one another.

        Returns
        -------
        In mm, negative inside: exact at the surface, elsewhere a bound only.
        """
        ...


def part_of(box: Extent, axes_mm: Axes, margin_mm: float | np.float32 = 0.0) -> Cut:
    """The part of a grid within a box and a margin.

    Parameters
    ----------
    axes_mm : positions of the grid along z, y and x.
    """
    low, high = box.low - margin_mm, box.high + margin_mm
    z, y, x = (
        slice(int(np.searchsorted(axis, low[k])), int(np.searchsorted(axis, high[k], "right")))
        for axis, k in zip(axes_mm, (2, 1, 0), strict=True)
    )
    return z, y, x


def distance_on(solid: Solid, axes_mm: Axes, part: Cut = (slice(None), slice(None), slice(None))) -> Field:
    """`Solid.distance` on a part of a grid.

    Parameters
    ----------
    axes_mm : positions of the grid along z, y and x.

    Returns
    -------
    float32, shape of the part (z, y, x).
    """
    z, y, x = (axis[cut].astype(np.float32) for axis, cut in zip(axes_mm, part, strict=True))
    return solid.distance(x[None, None, :], y[None, :, None], z[:, None, None])


def point_on(path: Sequence[Point] | Point, share: float) -> Point:
    """A point of a path of straight pieces: `share` counts pieces from its first point."""
    step = int(share)
    point: Point = path[step] + (share - step) * (path[step + 1] - path[step])
    return point


def _around(points: Point, reach: float | Point) -> Extent:
    return Extent(low=points.min(axis=0) - reach, high=points.max(axis=0) + reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """An upright ellipsoid.

    Attributes
    ----------
    centre, radii : (x, y, z) in mm.
    """

    centre: Point
    radii: Point

    @property
    def box(self) -> Extent:
        return _around(self.centre[None], self.radii)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        q = np.sqrt(
            ((x - np.float32(self.centre[0])) / np.float32(self.radii[0])) ** 2
            + ((y - np.float32(self.centre[1])) / np.float32(self.radii[1])) ** 2
            + ((z - np.float32(self.centre[2])) / np.float32(self.radii[2])) ** 2
        )
        scaled: Field = (q - np.float32(1)) * np.float32(self.radii.min())
        return scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class EllipticCylinder:
    """A cylinder parallel to z, without end.

    Attributes
    ----------
    centre, radii : (x, y) in mm.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]

    @property
    def box(self) -> Extent:
        centre, radii = np.array([*self.centre, 0.0]), np.array([*self.radii, np.inf])
        return Extent(low=centre - radii, high=centre + radii)

    def distance(self, x: Field, y: Field, z: Field) -> Field:  # noqa: ARG002 - endless along z
        a, b = (np.float32(r) for r in self.radii)
        q = np.sqrt(((x - np.float32(self.centre[0])) / a) ** 2 + ((y - np.float32(self.centre[1])) / b) ** 2)
        scaled: Field = (q - np.float32(1)) * np.minimum(a, b)
        return scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSection:
    """A trunk, along z without end: broad, flat-backed, with a furrow over the spine.

    Attributes
    ----------
    middle : (x, y) in mm.
    half_width : in mm, at z = 0.
    front, back : in mm from the middle to the belly, and to the back beside the furrow.
    furrow : how far the midline of the back is drawn in, in mm.
    flare : relative widening 100 mm above and below z = 0.
    power : of the superellipse: 2 is an ellipse; more is squarer.
    """

    middle: tuple[float, float]
    half_width: float
    front: float
    back: float
    furrow: float = 0.0
    flare: float = 0.0
    power: float = 2.3

    @property
    def box(self) -> Extent:
        half = np.array([self.half_width * (1 + 4 * self.flare), max(self.front, self.back), np.inf])
        centre = np.array([*self.middle, 0.0])
        return Extent(low=centre - half, high=centre + half)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        px, py = x - np.float32(self.middle[0]), y - np.float32(self.middle[1])
        rise = np.clip(z / np.float32(100), -2, 2)
        a = np.float32(self.half_width) * (1 + np.float32(self.flare) * rise * rise)
        furrow = np.float32(self.furrow) * np.exp(-((px / np.float32(16)) ** 2))
        b = np.where(py > 0, np.float32(self.back) - furrow, np.float32(self.front))
        power = np.float32(self.power)
        q = ((np.abs(px) / a) ** power + (np.abs(py) / b) ** power) ** (1 / power)
        along: Field = (np.hypot(px, py) * (1 - 1 / np.maximum(q, np.float32(1e-3)))).astype(np.float32)
        return along


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedBox:
    """A box with rounded edges, turned any way.

    Attributes
    ----------
    centre : (x, y, z) in mm.
    axes : rows: unit vectors along the box's own three directions.
    half : in mm from the centre to each pair of faces.
    rounding : radius of the edges in mm.
    """

    centre: Point
    axes: Point
    half: Point
    rounding: float

    @property
    def box(self) -> Extent:
        return _around(self.centre[None], np.abs(self.axes.T) @ self.half)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        px, py, pz = (axis - np.float32(c) for axis, c in zip((x, y, z), self.centre, strict=True))
        beyond = [
            np.abs(px * np.float32(row[0]) + py * np.float32(row[1]) + pz * np.float32(row[2]))
            - np.float32(size - self.rounding)
            for row, size in zip(self.axes, self.half, strict=True)
        ]
        outside = np.sqrt(sum(np.maximum(one, 0) ** 2 for one in beyond))
        inside = np.minimum(np.maximum(np.maximum(beyond[0], beyond[1]), beyond[2]), 0)
        surface: Field = (outside + inside - np.float32(self.rounding)).astype(np.float32)
        return surface


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """The part that two solids share."""

    first: Solid
    second: Solid

    @property
    def box(self) -> Extent:
        a, b = self.first.box, self.second.box
        return Extent(low=np.maximum(a.low, b.low), high=np.minimum(a.high, b.high))

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        both: Field = np.maximum(self.first.distance(x, y, z), self.second.distance(x, y, z))
        return both


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The part of a solid that lies deeper than a shell.

    Attributes
    ----------
    solid : with its shell.
    by_mm : thickness of the shell.
    """

    solid: Solid
    by_mm: float

    @property
    def box(self) -> Extent:
        return self.solid.box

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        deeper: Field = self.solid.distance(x, y, z) + np.float32(self.by_mm)
        return deeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """A bar with a rectangular section, parallel to z, without end.

    Attributes
    ----------
    low, high : corners (x, y) in mm.
    """

    low: tuple[float, float]
    high: tuple[float, float]

    @property
    def box(self) -> Extent:
        return Extent(low=np.array([*self.low, -np.inf]), high=np.array([*self.high, np.inf]))

    def distance(self, x: Field, y: Field, z: Field) -> Field:  # noqa: ARG002 - endless along z
        across = np.maximum(np.float32(self.low[0]) - x, x - np.float32(self.high[0]))
        down = np.maximum(np.float32(self.low[1]) - y, y - np.float32(self.high[1]))
        outside: Field = np.maximum(across, down)
        return outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Tube:
    """Everything within a radius of a path of straight pieces.

    Attributes
    ----------
    path : shape (points, 3), in mm; at least two points.
    radii : at each point, in mm; shape (points,).
    flatten : narrows the tube front to back where it is less than 1.
    """

    path: Point
    radii: Point
    flatten: float = 1.0

    @property
    def box(self) -> Extent:
        return _around(self.path, float(self.radii.max()))

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        squash = np.array([1.0, 1.0 / self.flatten, 1.0])
        best: Field | None = None
        for start, end, r0, r1 in zip(
            self.path[:-1] * squash, self.path[1:] * squash, self.radii[:-1], self.radii[1:], strict=True
        ):
            step = end - start
            length2 = max(float(step @ step), 1e-6)
            px, py, pz = (
                x - np.float32(start[0]),
                y * np.float32(squash[1]) - np.float32(start[1]),
                z - np.float32(start[2]),
            )
            along = np.clip(
                (px * np.float32(step[0]) + py * np.float32(step[1]) + pz * np.float32(step[2]))
                / np.float32(length2),
                0,
                1,
            )
            gap = np.sqrt(
                (px - along * np.float32(step[0])) ** 2
                + (py - along * np.float32(step[1])) ** 2
                + (pz - along * np.float32(step[2])) ** 2
            ) - (np.float32(r0) + along * np.float32(r1 - r0))
            best = gap if best is None else np.minimum(best, gap)
        assert best is not None, "a tube has at least two points"
        scaled: Field = (best * np.float32(self.flatten)).astype(np.float32)
        return scaled


def tube(path: Sequence[Point] | Point, radii: Sequence[float] | float, *, flatten: float = 1.0) -> Tube:
    """A tube along some points.

    Parameters
    ----------
    path : (x, y, z) in mm; at least two points.
    radii : in mm: one for all points, or one for each.
    """
    points = np.array(path, dtype=float)
    return Tube(path=points, radii=np.broadcast_to(np.array(radii, float), len(points)), flatten=flatten)


Sunk = tuple[float, float, float]  # in front, in the middle, behind
INTACT: Sunk = (0.0, 0.0, 0.0)


def _sinking(along: Field, sunk: Sunk) -> Field:
    """The parabola through the three values at -1 (front), 0 and 1 (back)."""
    front, middle, behind = (np.float32(value) for value in sunk)
    ends = front * along * (along - 1) / 2 + behind * along * (along + 1) / 2
    curved: Field = (ends + middle * (1 - along * along)).astype(np.float32)
    return curved


@dataclass(frozen=True, slots=True, kw_only=True)
class VertebralSolid:
    """A vertebral body, or the disc between two: kidney-shaped in section, waisted, with hollow endplates.

    Attributes
    ----------
    centre : (x, y, z) in mm.
    axes : rows: unit vectors to the left, backwards and up of the body itself.
    width, depth : in mm, at the endplates.
    height : in mm, at the rim.
    waist : relative narrowing at half height.
    hollow : how much deeper the middle of each endplate lies than its rim, in mm; negative bulges.
    wedge : relative: how much lower the body is behind than in front.
    sunk_top, sunk_bottom : how far the upper endplate has sunk and the lower one has risen, in mm: in
        front, in the middle, behind.
    """

    centre: Point
    axes: Point
    width: float
    depth: float
    height: float
    waist: float
    hollow: float
    wedge: float = 0.0
    sunk_top: Sunk = INTACT
    sunk_bottom: Sunk = INTACT

    @property
    def box(self) -> Extent:
        reach = float(np.linalg.norm([self.width, self.depth * 1.1, self.height + 6])) / 2 + 2
        return _around(self.centre[None], reach)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        px, py, pz = (axis - np.float32(c) for axis, c in zip((x, y, z), self.centre, strict=True))
        left, back, up = (
            px * np.float32(row[0]) + py * np.float32(row[1]) + pz * np.float32(row[2]) for row in self.axes
        )
        rest = np.clip(2 * up / np.float32(self.height), -1, 1)
        slim = np.float32(1) - np.float32(self.waist) * (1 - rest * rest)
        a = np.float32(self.width / 2) * slim
        # The wall towards the canal is drawn in: a kidney, not an egg.
        dent = np.where(back > 0, np.float32(0.16) * np.exp(-((left / np.float32(11)) ** 2)), np.float32(0))
        b = np.float32(self.depth / 2) * slim * (1 - dent)
        power = np.float32(2.5)
        q = ((np.abs(left) / a) ** power + (np.abs(back) / b) ** power) ** (1 / power)
        radius = np.sqrt(left * left + back * back)
        sideways = radius * (1 - 1 / np.maximum(q, np.float32(1e-3)))
        inner = np.clip(1 - q * q, 0, 1)
        half = np.float32(self.height / 2) * (1 - np.float32(self.wedge) * back / np.float32(self.depth))
        half = half - np.float32(self.hollow) * inner
        if self.sunk_top == INTACT and self.sunk_bottom == INTACT:
            endways = np.abs(up) - half
        else:
            along = np.clip(2 * back / np.float32(self.depth), -1, 1)
            top, bottom = (_sinking(along, sunk) for sunk in (self.sunk_top, self.sunk_bottom))
            endways = (np.maximum(up + top, bottom - up) - half).astype(np.float32)
        outside: Field = np.maximum(sideways, endways).astype(np.float32)
        return outside
