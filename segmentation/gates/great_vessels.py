"""Contrast medium in the blood: HU of the great vessels in front of the lumbar spine, found by their shape.

Headers may omit contrast medium. Aorta and vena cava are detected as round tubes close in front of the
vertebral bodies that keep their place over several centimetres of height. The shape alone decides what is a
vessel; its HU are read afterwards. Bowel with oral contrast bends away, or lies further in front. Without a
vessel there is no observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, pi, sin

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, FloatArray, LabelMap, canonical
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Lengths, Observation, Vertebrae, spine_course

# Levels beside the great vessels; the aorta divides in front of L4, the vena cava begins in front of L5.
_BESIDE_VESSELS = ("T11", "T12", "L1", "L2", "L3", "L4")
_DIRECTIONS = 16
_BEYOND_MM = 15.0  # above and below the bodies in view the vessels still lie in one line with them
_BONE_SHARE = 0.25  # of a cell: nothing of a body, nor of an osteophyte drawn with it, is part of a vessel
_CELL_MM = 1.5  # of the straightened images that vessels are looked for in
# All proposals (R):
_RADIUS_MM = (6.0, 15.0)
_BESIDE_MM = 32.0  # from the middle of the body to the vessel's axis, to either side
_NEAREST_MM = 3.0  # from the body's front to the vessel's axis; the psoas lies behind this
_GAP_MM = 10.0  # at most, between body and vessel: bowel lies further in front
_STEP_MM = 4.0  # height over which slices are averaged
_INTERRUPTION_MM = 8.0  # over which a vessel may be hidden, where another crosses it
_OPEN_SHARE = 0.6  # of the circumference that must show an edge; the rest may touch something
_EVEN_HU = 15.0  # the inside is even within this and ...
_EVEN_SHARE = 0.2  # ... this share of its own HU
_DRIFT_MM = 3.0  # sideways, per step, against the spine


@dataclass(frozen=True, slots=True, kw_only=True)
class Vessel:
    """A great vessel as it was found.

    Attributes
    ----------
    hu : median over its height of the medians of its inner part, without a calcified wall.
    height_mm : length over which it can be followed.
    """

    hu: float
    height_mm: float
    radius_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Straightened:
    """The region in front of the spine: slices moved so that the bodies' front lies in one place."""

    hu: FloatArray  # shape (steps, y, x), cells of _CELL_MM; NaN in bodies and outside the volume
    front_mm: Lengths  # of each row, before the body's front
    left_mm: Lengths  # of each column, from the middle of the body
    step_mm: float


def contrast_observations(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> tuple[Observation, ...]:
    """`contrast_suspected` where aorta or vena cava read brighter than unenhanced blood can.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    rules = settings or ImageSettings()
    brightest = brightest_vessel(volume, vertebrae, rules)
    if brightest is None or brightest.hu <= rules.contrast_hu:
        return ()
    values: dict[str, str | int | float] = {"hu": round(brightest.hu), "limit": round(rules.contrast_hu)}
    return (Observation(code="contrast_suspected", values=values),)


def brightest_vessel(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> Vessel | None:
    """The great vessel with the highest HU; None where none is found.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    return max(great_vessels(volume, vertebrae, settings), key=lambda one: one.hu, default=None)


def great_vessels(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> tuple[Vessel, ...]:
    """At most two tubes before the bodies from T11 to L4, the better visible one first.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    volume.grid.require_same(vertebrae.grid)
    rules = settings or ImageSettings()
    turned, turn = canonical(volume)
    image = _straightened(turned, turn.forward(vertebrae.bodies), rules)
    if image is None:
        return ()
    shape, radius_mm = _roundness(image, rules)
    found = []
    for _ in range(2):
        path = _best_path(shape, round(_DRIFT_MM / _CELL_MM))
        vessel = _follow(image, shape, radius_mm, path, rules)
        if vessel is None:
            break
        found.append(vessel)
        _mask_out(shape, path, radius_mm)
    return tuple(found)


def _straightened(volume: CtVolume, bodies: LabelMap, rules: ImageSettings) -> _Straightened | None:
    """None where too little of the spine is in view."""
    course = spine_course(volume, bodies, _BESIDE_VESSELS, beyond_mm=_BEYOND_MM)
    if course is None:
        return None
    z = course.slices
    dz, dy, dx = volume.grid.spacing_mm
    together = ceil(_STEP_MM / dz)
    steps = len(z) // together
    if steps * together * dz < rules.contrast_length_mm:
        return None
    reach = 2 * _RADIUS_MM[1] + _GAP_MM + 4.0
    behind_mm: Lengths = np.arange(-reach, _RADIUS_MM[1] + 4.0, _CELL_MM, dtype=np.float64)
    wide = _BESIDE_MM + _RADIUS_MM[1] + 4.0
    left_mm: Lengths = np.arange(-wide, wide, _CELL_MM, dtype=np.float64)
    hu = np.empty((steps, len(behind_mm), len(left_mm)), np.float32)
    for step in range(steps):
        part = slice(step * together, (step + 1) * together)
        mean = volume.hu[z[part]].mean(axis=0)
        # Blurred to the cell's size, so that sampling takes single pixels' noise away.
        ndimage.gaussian_filter(mean, (_CELL_MM / 2 / dy, _CELL_MM / 2 / dx), output=mean)
        rows = (course.front_mm[part].mean() + behind_mm) / dy
        columns = (course.middle_mm[part].mean() + left_mm) / dx
        at = np.meshgrid(rows, columns, indexing="ij")
        hu[step] = ndimage.map_coordinates(mean, at, order=1, mode="constant", cval=np.nan)
        bone = (bodies[z[part]] > 0).mean(axis=0, dtype=np.float32)
        hu[step][ndimage.map_coordinates(bone, at, order=1) > _BONE_SHARE] = np.nan
    return _Straightened(hu=hu, front_mm=-behind_mm, left_mm=left_mm, step_mm=together * dz)


def _roundness(image: _Straightened, rules: ImageSettings) -> tuple[FloatArray, Lengths]:
    """How much of a circle about each cell is a vessel's wall, and the radius at which it is most.

    Cells that cannot be a vessel's axis have none of it.
    """
    centre = _mean_around(image.hu)
    spread = _EVEN_HU + _EVEN_SHARE * np.abs(centre)
    angles = [number * 2 * pi / _DIRECTIONS for number in range(_DIRECTIONS)]
    best = np.zeros(image.hu.shape, np.float32)
    best_radius = np.zeros(image.hu.shape)
    for radius in np.arange(_RADIUS_MM[0], _RADIUS_MM[1] + 0.1, _CELL_MM).tolist():
        walls = np.zeros(image.hu.shape, np.float32)
        for angle in angles:
            inner = _moved(image.hu, angle, radius - 1.5 * _CELL_MM)
            outer = _moved(image.hu, angle, radius + 1.5 * _CELL_MM)
            walls += (np.abs(inner - centre) <= spread) & (inner - outer >= rules.contrast_edge_hu)
        allowed = (
            (image.front_mm[:, None] >= _NEAREST_MM)
            & (image.front_mm[:, None] <= radius + _GAP_MM)
            & (np.abs(image.left_mm[None, :]) <= _BESIDE_MM)
        )
        walls *= allowed / np.float32(_DIRECTIONS)
        better = walls > best
        best[better], best_radius[better] = walls[better], radius
    return best, best_radius


def _mean_around(hu: FloatArray) -> FloatArray:
    """The mean of the cells about each one that have a value; NaN where the cell itself has none.

    A filter that sums while it runs would carry one NaN through the rest of its row.
    """
    known = np.isfinite(hu)
    size = (1, 3, 3)
    total = ndimage.uniform_filter(np.where(known, hu, 0), size=size, mode="nearest")
    weight = ndimage.uniform_filter(known.astype(np.float32), size=size, mode="nearest")
    mean: FloatArray = np.full_like(hu, np.nan)
    np.divide(total, weight, out=mean, where=known)
    return mean


def _moved(hu: FloatArray, angle: float, distance_mm: float) -> FloatArray:
    """At each cell the value found so far away in the plane of its slice; NaN beyond the image."""
    down = round(sin(angle) * distance_mm / _CELL_MM)
    across = round(cos(angle) * distance_mm / _CELL_MM)
    rows, columns = hu.shape[1:]
    there = np.full_like(hu, np.nan)
    there[:, max(0, -down) : rows - max(0, down), max(0, -across) : columns - max(0, across)] = hu[
        :, max(0, down) : rows - max(0, -down), max(0, across) : columns - max(0, -across)
    ]
    return there


def _best_path(shape: FloatArray, drift: int) -> npt.NDArray[np.intp]:
    """The course (row, column for each step) along which `shape` sums up to most, by dynamic programming."""
    total = shape[0]
    came_from = []
    size = 2 * drift + 1
    offsets = np.indices((size, size)).reshape(2, -1) - drift
    for layer in shape[1:]:
        padded = np.pad(total, drift, constant_values=-np.inf)
        around = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
        flat = around.reshape(*layer.shape, -1)
        # A straight path takes precedence over a bent one of the same sum.
        chosen = (flat - 1e-3 * np.hypot(*offsets).astype(np.float32)).argmax(axis=-1)
        total = layer + np.take_along_axis(flat, chosen[..., None], axis=-1)[..., 0]
        came_from.append(chosen)
    place = np.array(np.unravel_index(int(total.argmax()), total.shape))
    path = [place]
    for chosen in reversed(came_from):
        place = place + offsets[:, chosen[tuple(place)]]
        path.append(place)
    return np.array(path[::-1])


def _follow(
    image: _Straightened,
    shape: FloatArray,
    radius_mm: Lengths,
    path: npt.NDArray[np.intp],
    rules: ImageSettings,
) -> Vessel | None:
    """The longest part of a path that shows a vessel, if it is long enough."""
    along = (np.arange(len(path)), path[:, 0], path[:, 1])
    shown = shape[along] >= _OPEN_SHARE
    # Short interruptions are closed; the ends stay where they are.
    gap = int(_INTERRUPTION_MM / image.step_mm)
    closed = ndimage.binary_closing(np.pad(shown, gap), np.ones(gap + 1))[gap : gap + len(shown)] | shown
    pieces, count = ndimage.label(closed)
    if count == 0:
        return None
    longest = pieces == 1 + int(np.argmax(np.bincount(pieces)[1:]))
    height_mm = float(longest.sum() * image.step_mm)
    used = longest & shown
    if height_mm < rules.contrast_length_mm or used.sum() < longest.sum() / 2:
        return None
    radii = radius_mm[along][used]
    hu = [
        _inside(image.hu[step], path[step], radius)
        for step, radius in zip(np.flatnonzero(used), radii, strict=True)
    ]
    return Vessel(hu=float(np.median(hu)), height_mm=height_mm, radius_mm=float(np.median(radii)))


def _inside(hu: FloatArray, place: npt.NDArray[np.intp], radius_mm: float) -> float:
    """The median within 0.6 of the radius: a calcified wall and partial volume stay outside."""
    rows, columns = np.indices(hu.shape)
    distance_mm = np.hypot(rows - place[0], columns - place[1]) * _CELL_MM
    return float(np.nanmedian(hu[distance_mm <= 0.6 * radius_mm]))


def _mask_out(shape: FloatArray, path: npt.NDArray[np.intp], radius_mm: Lengths) -> None:
    """Set a vessel to 0 in `shape`, in place, for the next search."""
    rows, columns = np.indices(shape.shape[1:])
    found = radius_mm[np.arange(len(path)), path[:, 0], path[:, 1]]
    reach_mm = max(float(np.median(found)), 6.0) + 6.0
    for layer, (row, column) in zip(shape, path, strict=True):
        layer[np.hypot(rows - row, columns - column) * _CELL_MM <= reach_mm] = 0
