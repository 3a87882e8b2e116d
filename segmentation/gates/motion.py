"""Motion during the scan: neighbouring slices that are displaced relative to one another.

From slice to slice the section of a spine shifts steadily with lordosis and scoliosis. Motion of the patient
adds a jump. The shift between neighbours is measured on the spine and the muscles beside it, which neither
breathing nor bowel moves, and compared with the shifts around it. A movement over more than some 10 mm of
table travel resembles a bend of the spine, and is not detected.

Two passes interleaved in one stack give a zigzag: every second slice is displaced to the same side or, where
the patient moved along the table, resembles one of its neighbours more than the other.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, FloatArray, LabelMap, canonical
from segmentation.phrase import phrase
from segmentation.settings import ImageSettings
from segmentation.vertebrae import (
    ABOVE_SACRUM,
    Lengths,
    Observation,
    SpineCourse,
    Vertebrae,
    is_lumbar,
    slices_showing,
    spine_course,
)

_CELL_MM = 1.5  # of the part of a slice that is compared
_ROUNDS = 8  # of Gauss and Newton's method; it settles within four or five
_SETTLED_MM = 0.02
_LONGEST_STEP_MM = 3.0
_LEAST_ALTERNATING = 8  # steps from which an alternation is no coincidence
# Relative difference of every second slice to its neighbours: usually 0.03, at most 0.06 was seen (R).
_ALTERNATE_SHARE = 0.25
_ALTERNATE_STEPS = 64  # that are compared, about the middle of the bodies
_BESIDE_MM = 60.0  # of the bodies' middle: spine, psoas, erector
_BEFORE_MM = 12.0  # of the bodies' front
_BEHIND_MM = 60.0  # of the bodies' front: the phantom lies further back
_WINDOW_HU = (-150.0, 150.0)  # bone changes from slice to slice more than its outline
_BLUR_MM = 2.0
_TOGETHER_MM = 3.0  # height of what is compared: thinner slices are averaged
# The usual shift is measured beside a step, beyond the slices that are averaged with it: nearer, a jump would
# be part of its own background.
_AROUND_MM = 9.0
_LEAST_AROUND = 2  # steps to either side, however far apart slices are
_NEAR_MM = 5.0  # a body so close to a jump is displaced with it


def motion_observations(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> tuple[Observation, ...]:
    """`motion_suspected` for each lumbar body that a jump goes through, superior to inferior.

    `alternate_images_displaced` alone where two passes are woven.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    volume.grid.require_same(vertebrae.grid)
    rules = settings or ImageSettings()
    turned, turn = canonical(volume)
    bodies = turn.forward(vertebrae.bodies)
    course = spine_course(turned, bodies, ABOVE_SACRUM)
    if course is None or turned.grid.spacing_mm[0] > rules.motion_thickest_mm:
        return ()
    woven = _alternation_observation(turned, course, rules)
    if woven is not None:
        return (woven,)
    together = ceil(_TOGETHER_MM / turned.grid.spacing_mm[0])
    places, shifts, _ = _shifts(turned, course, together)
    if len(places) < 3:
        return ()
    jumps_mm = _beyond_the_usual(shifts, turned.grid.spacing_mm[0])
    displaced: dict[str, float] = {}
    for place in np.flatnonzero(jumps_mm > rules.motion_mm):
        for name in _bodies_at(bodies, vertebrae, float(places[place]), turned.grid.spacing_mm[0]):
            displaced[name] = max(displaced.get(name, 0.0), float(jumps_mm[place]))
    return tuple(
        Observation(code="motion_suspected", level=name, values={"jump_mm": round(displaced[name], 1)})
        for name in (level.name for level in vertebrae.levels)
        if name in displaced
    )


def _alternation_observation(
    volume: CtVolume, course: SpineCourse, rules: ImageSettings
) -> Observation | None:
    """What every second slice has in common against its neighbours; None where it has nothing."""
    first = max(0, (len(course.slices) - _ALTERNATE_STEPS) // 2)
    part = slice(first, first + _ALTERNATE_STEPS + 1)
    middle = SpineCourse(
        slices=course.slices[part], middle_mm=course.middle_mm[part], front_mm=course.front_mm[part]
    )
    _, shifts, unlike = _shifts(volume, middle, 1)
    if len(shifts) < _LEAST_ALTERNATING:
        return None
    displaced_mm = float(np.linalg.norm(_alternating(shifts)))
    share = float(abs(_alternating(unlike[:, np.newaxis])[0]) / max(float(np.median(unlike)), 1e-9))
    if displaced_mm > rules.alternate_mm:
        difference = phrase("displaced-by", distance=f"{displaced_mm:.1f}")
    elif share > _ALTERNATE_SHARE:
        difference = phrase("nearer-by", share=f"{share:.0%}")
    else:
        return None
    return Observation(code="alternate_images_displaced", values={"difference": difference})


def _alternating(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What changes its sign at each step, without what bends from step to step; shape (n, m) -> (m,)."""
    bends = (values[:-2] - 2 * values[1:-1] + values[2:]) / 4
    signs = np.where(np.arange(len(bends)) % 2, -1.0, 1.0)[:, np.newaxis]
    found: npt.NDArray[np.float64] = np.median(bends * signs, axis=0)
    return found


def _shifts(
    volume: CtVolume, course: SpineCourse, together: int
) -> tuple[Lengths, npt.NDArray[np.float64], Lengths]:
    """The number of the slice above each step, by how much (y, x in mm) it is shifted there, and how unlike
    the two sides are (mean of absolute differences in HU, unshifted).

    Compared are the means of `together` slices above and below the step.
    """
    _, dy, dx = volume.grid.spacing_mm
    down = np.arange(-_BEFORE_MM, _BEHIND_MM, _CELL_MM)
    across = np.arange(-_BESIDE_MM, _BESIDE_MM, _CELL_MM)
    hu, first_row, first_column = _window(volume, course)
    places, shifts, unlike = [], [], []
    for step in range(together, len(course.slices) - together + 1):
        upper = int(course.slices[step - 1]) + 1
        rows = (course.front_mm[step - 1] + down) / dy - first_row
        columns = (course.middle_mm[step - 1] + across) / dx - first_column
        at = np.array(np.meshgrid(rows, columns, indexing="ij"))
        pair = []
        for part in (slice(upper - together, upper), slice(upper, upper + together)):
            mean = np.clip(hu[part], *_WINDOW_HU).mean(axis=0)
            pair.append(ndimage.gaussian_filter(mean, (_BLUR_MM / dy, _BLUR_MM / dx)))
        places.append(float(upper))
        shifts.append(_shift_between(pair[0], pair[1], at, (dy, dx)))
        differs = ndimage.map_coordinates(pair[1] - pair[0], at, order=1, mode="nearest")
        unlike.append(float(np.abs(differs).mean()))
    return np.array(places), np.array(shifts).reshape(-1, 2), np.array(unlike)


def _window(volume: CtVolume, course: SpineCourse) -> tuple[FloatArray, int, int]:
    """The part of every slice that is compared, with room for the blur; its first row and column."""
    _, dy, dx = volume.grid.spacing_mm
    room = 4 * _BLUR_MM
    first_row = max(0, int((course.front_mm.min() - _BEFORE_MM - room) / dy))
    first_column = max(0, int((course.middle_mm.min() - _BESIDE_MM - room) / dx))
    last_row = int((course.front_mm.max() + _BEHIND_MM + room) / dy)
    last_column = int((course.middle_mm.max() + _BESIDE_MM + room) / dx)
    return volume.hu[:, first_row : last_row + 1, first_column : last_column + 1], first_row, first_column


def _shift_between(
    lower: FloatArray, upper: FloatArray, at: npt.NDArray[np.float64], spacing_mm: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """The translation from `lower` to `upper` (y, x in mm) that leaves the least difference.

    Source: Lucas and Kanade 1981, with half of the translation given to each side.
    """
    shift: npt.NDArray[np.float64] = np.zeros(2)
    for _ in range(_ROUNDS):
        half = shift / 2 / spacing_mm
        below = ndimage.map_coordinates(lower, [at[0] - half[0], at[1] - half[1]], order=1, mode="nearest")
        above = ndimage.map_coordinates(upper, [at[0] + half[0], at[1] + half[1]], order=1, mode="nearest")
        differs = above - below
        slopes = np.gradient((above + below) / 2, _CELL_MM)
        weight = 1 / (1 + (differs / 30.0) ** 2)  # what appears or ends between two slices counts for little
        normal = np.array([[float((weight * a * b).sum()) for b in slopes] for a in slopes])
        if float(np.linalg.det(normal)) < 1e-6 * float(np.trace(normal)) ** 2 + 1e-9:
            return np.zeros(2)  # nothing there that could be followed
        step = -np.linalg.solve(normal, [float((weight * a * differs).sum()) for a in slopes])
        shift = shift + np.clip(step, -_LONGEST_STEP_MM, _LONGEST_STEP_MM)
        if float(np.abs(step).max()) < _SETTLED_MM:
            break
    return shift


def _beyond_the_usual(shifts_mm: npt.NDArray[np.float64], step_mm: float) -> Lengths:
    """How far each shift lies from the median of those around it, in mm; 0 where there are none."""
    together = ceil(_TOGETHER_MM / step_mm)
    last = together + max(_LEAST_AROUND, ceil(_AROUND_MM / step_mm))
    places = np.arange(len(shifts_mm))
    jumps: Lengths = np.zeros(len(shifts_mm))
    for place in places:
        away = np.abs(places - place)
        # A jump between two averages reaches into all that share a slice with either.
        beside = shifts_mm[(away >= together) & (away <= last)]
        if len(beside):
            jumps[place] = np.linalg.norm(shifts_mm[place] - np.median(beside, axis=0))
    return jumps


def _bodies_at(bodies: LabelMap, vertebrae: Vertebrae, upper: float, step_mm: float) -> list[str]:
    """The lumbar bodies that a jump below slice `upper` goes through or comes near; else the nearest one."""
    away: dict[str, float] = {}
    for level in vertebrae.levels:
        shown = slices_showing(bodies, level.name)
        if is_lumbar(level.name) and len(shown):
            away[level.name] = max(shown[0] - upper + 0.5, upper - 0.5 - shown[-1], 0.0) * step_mm
    if not away:
        return []
    limit_mm = max(_NEAR_MM, min(away.values()))
    return [name for name, distance_mm in away.items() if distance_mm <= limit_mm]
