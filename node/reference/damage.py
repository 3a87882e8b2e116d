"""Faults and signs of age in an image: metal with streaks, lesions, motion, photon starvation, spurs, chalk.

Shapes are typical of what such bones and vessels show on CT, sizes are chosen here; they belong to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import cos, radians, sin
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from node.reference.shapes import (
    Axes,
    Axis,
    Ellipsoid,
    Point,
    Solid,
    VertebralSolid,
    distance_on,
    point_on,
    tube,
)
from node.reference.spec import LESION_HU, LUMBAR, Faults, Lesion, LesionKind, StudySpec
from node.reference.spine import Vertebra
from node.reference.surroundings import SKIN_BACK_MM, Painted

METAL_HU = 8000.0  # titanium; what a scanner writes ends at 3071
_SCREW_RADIUS_MM, _ROD_RADIUS_MM = 3.0, 2.75
_RAYS = 11  # of the streaks around one piece of metal
_STREAK_HU = 260.0  # beside the metal
_STREAK_REACH_MM = 22.0  # within which it falls to a third
_BEAM_HARDENING_HU = 220.0  # between the two screws of a slice
_BEAM_WIDTH_MM = 4.0

_STREAK_MM = 25.0  # sigma of a starved slice's streaks from side to side
_STREAK_DEPTH_MM = 60.0  # about the middle of the body, where they are strongest

CHALK_HU = 700.0  # dense plaque; the scanner's blur takes a third of it
_SPUR_RADIUS_MM = 3.0
# Degrees from straight ahead, to the left. Canal and joints lie behind; the aorta keeps the left front free.
_SPURS_AT = (-100.0, -75.0, -50.0, -25.0, 0.0, 60.0, 85.0, 105.0)
_BRIDGED = 2  # of them are joined across the disc
_PLAQUES = 14
_AORTA_LEFT_MM, _AORTA_AHEAD_MM, _AORTA_RADIUS_MM = 11.0, 12.5, 9.5  # as soft_tissue draws it

Voxel = TypeVar("Voxel", np.float32, np.uint8)


def metal(faults: Faults, spine: dict[str, Vertebra]) -> list[Solid]:
    """Pedicle screws and the rods that join their heads.

    Returns
    -------
    For each implant and side a screw in each level, and one rod.
    """
    solids: list[Solid] = []
    for implant in faults.implants:
        for side in (-1.0, 1.0):
            heads = []
            for name in implant.levels:
                vertebra = spine[name]
                wall = vertebra.body.depth / 2
                head = vertebra.at(side * 17, wall + 27, 5)
                tip = vertebra.at(side * 10, -wall * 0.35, 2)
                solids.append(tube([head, tip], _SCREW_RADIUS_MM))
                heads += [vertebra.at(side * 17, wall + 27, 17), vertebra.at(side * 17, wall + 27, -9)]
            solids.append(tube(heads, _ROD_RADIUS_MM))
    return solids


def lesions(faults: Faults, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """A lobed blob in the front half of each body that a lesion names."""
    for lesion in faults.lesions:
        for solid in _lobes(lesion, spine[lesion.level]):
            yield Painted(solid=solid, hu=LESION_HU[lesion.kind])


def _lobes(lesion: Lesion, vertebra: Vertebra) -> Iterator[Solid]:
    r = lesion.radius_mm
    flat = min(r, vertebra.body.height / 2 - 4.0)  # the endplates stay
    yield Ellipsoid(centre=vertebra.at(6, -2, 0), radii=np.array([r, r * 0.8, flat]))
    if lesion.kind is LesionKind.CEMENT:
        yield Ellipsoid(centre=vertebra.at(6 - r, -3, -2), radii=np.array([r, r * 0.6, flat * 0.6]))


def add_streaks(hu: npt.NDArray[np.float32], solids: Sequence[Solid], axes_mm: Axes, *, seed: int) -> None:
    """Bright and dark rays around the metal of each slice, and a dark band between two pieces.

    A caricature of beam hardening and photon starvation: position and size are right, the physics is not.

    Parameters
    ----------
    hu : shape (z, y, x); changed in place.
    axes_mm : positions of its voxels along z, y and x.
    seed : of the rays' phases.
    """
    z_mm, y_mm, x_mm = axes_mm
    y, x = np.meshgrid(y_mm, x_mm, indexing="ij")
    for k, z in enumerate(z_mm):
        middles = [
            middle for solid in solids if (middle := _middle_at(solid, x_mm, y_mm, float(z))) is not None
        ]
        if not middles:
            continue
        phase = np.random.default_rng([seed, 17, k]).uniform(0, 2 * np.pi, len(middles))
        streaks = np.zeros(x.shape)
        for (mx, my), turn in zip(middles, phase, strict=True):
            dx, dy = x - mx, y - my
            distance = np.hypot(dx, dy)
            fall = np.exp(-np.maximum(distance - _SCREW_RADIUS_MM, 0) / _STREAK_REACH_MM)
            streaks += _STREAK_HU * fall * np.cos(_RAYS * np.arctan2(dy, dx) + turn)
        left, right = min(middles), max(middles)
        if right[0] - left[0] > 2 * _SCREW_RADIUS_MM:
            between = (x > left[0]) & (x < right[0])
            line = left[1] + (right[1] - left[1]) * (x - left[0]) / (right[0] - left[0])
            streaks -= _BEAM_HARDENING_HU * between * np.exp(-0.5 * ((y - line) / _BEAM_WIDTH_MM) ** 2)
        hu[k] += streaks.astype(np.float32)


def _middle_at(solid: Solid, x_mm: Axis, y_mm: Axis, z_mm: float) -> tuple[float, float] | None:
    """The middle (x, y) of a solid in one slice; None where it does not reach the slice."""
    if not solid.box.low[2] <= z_mm <= solid.box.high[2]:
        return None
    inside = distance_on(solid, (np.array([z_mm]), y_mm, x_mm))[0] < 0
    if not inside.any():
        return None
    rows, columns = np.nonzero(inside)
    return float(x_mm[columns].mean()), float(y_mm[rows].mean())


def displace(
    voxels: npt.NDArray[Voxel],
    faults: Faults,
    spine: dict[str, Vertebra],
    axes_mm: Axes,
    *,
    outside: float,
) -> None:
    """Move the patient, but not table and phantom, in the slices above a jerk.

    Parameters
    ----------
    voxels : an image or a mask, shape (z, y, x); changed in place.
    axes_mm : positions of its voxels along z, y and x.
    outside : the value that is left where the patient was.
    """
    jerk = faults.jerk
    if jerk is None:
        return
    z_mm, y_mm, x_mm = axes_mm
    above = z_mm > spine[jerk.level].body.centre[2]
    patient = y_mm < SKIN_BACK_MM + 1.0
    there = voxels[np.ix_(above, patient)]
    ahead = round(jerk.forward_mm / float(y_mm[1] - y_mm[0]))
    left = round(jerk.left_mm / float(x_mm[1] - x_mm[0]))
    moved = np.roll(there, (-ahead, left), axis=(1, 2))
    if ahead:
        moved[:, -ahead:] = outside
    if left:
        moved[:, :, slice(None, left) if left > 0 else slice(left, None)] = outside
    voxels[np.ix_(above, patient)] = moved


def starve(
    hu: npt.NDArray[np.float32],
    faults: Faults,
    spine: dict[str, Vertebra],
    axes_mm: Axes,
    *,
    seed: int,
) -> None:
    """Streaks from side to side at the height of each starved level, strongest in the middle of the body.

    Parameters
    ----------
    hu : shape (z, y, x); changed in place.
    axes_mm : positions of its voxels along z, y and x.
    seed : of the streaks.
    """
    z_mm, y_mm, x_mm = axes_mm
    for fault in faults.starved:
        body = spine[fault.level].body
        for k in np.flatnonzero(np.abs(z_mm - body.centre[2]) <= body.height / 2):
            grain = np.random.default_rng([seed, 19, int(k)]).standard_normal(hu.shape[1:])
            grain = gaussian_filter1d(grain, _STREAK_MM / float(x_mm[1] - x_mm[0]), axis=1, mode="wrap")
            grain *= np.exp(-0.5 * ((y_mm - body.centre[1]) / _STREAK_DEPTH_MM) ** 2)[:, None] / grain.std()
            hu[k] += (fault.streak_hu * grain).astype(np.float32)


def spurs(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Solid]:
    """Osteophytes at both rims of every disc from L1 to S1; two of them at each disc bridge it.

    Source: no measurement; their reach is the specification's `spurs_mm`.
    """
    reach_mm = spec.faults.spurs_mm
    if not reach_mm:
        return
    rng = np.random.default_rng([spec.seed, 17])
    for upper, lower in pairwise((*LUMBAR, "S1")):
        bridged = set(rng.choice(len(_SPURS_AT), _BRIDGED, replace=False).tolist())
        for place, degrees in enumerate(_SPURS_AT):
            length_mm = reach_mm * rng.uniform(0.5, 1.0)
            above = _spur(spine[upper].body, -1.0, degrees, length_mm)
            below = _spur(spine[lower].body, 1.0, degrees, length_mm)
            if place in bridged:
                yield tube([*above, *reversed(below)], _SPUR_RADIUS_MM)
            else:
                yield tube(above, _SPUR_RADIUS_MM)
                if lower != "S1":
                    yield tube(below, _SPUR_RADIUS_MM)


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
            point_on(path, min(share + along, len(path) - 1.001))
            + np.array([wall * cos(angle), wall * sin(angle), 0])
            for angle, along in zip(around, (0.0, rng.uniform(0.1, 0.5)), strict=True)
        ]
        yield Painted(solid=tube(piece, thick_mm), hu=CHALK_HU)


def _spur(body: VertebralSolid, end: float, degrees: float, length_mm: float) -> list[Point]:
    """The path of a spur: from inside the rim outwards, and a little towards the disc.

    `end` is 1 at the upper endplate, -1 at the lower one.
    """
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
