"""Slices in space: their positions, their order and spacing, and what makes them no volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from scipy.optimize import minimize_scalar

from config.sections import SelectionSettings
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import text_of
from segmentation.ct_volume import Grid, Vector
from segmentation.phrase import Phrase, phrase, together

# Scanners write positions with a few decimals: closer than this is the same place.
_SAME_POSITION_MM = 0.01
# A slice may lie beside the best even grid by rounding, no more; half a step more is a missing slice.
_SPACING_TOLERANCE = 0.02
_GAP_FACTOR = 1.5
# The steps that archives round positions to, coarsest first: that far may two slices lie beside an even grid.
_ROUNDED_TO_MM = (0.1, 0.05, 0.02, 0.01)
_SAME_NUMBER_MM = 1e-5
# Cosines are written with six or so digits.
_COSINE_TOLERANCE = 1e-3
# Slices that shift sideways from one to the next (a tilted gantry shears the volume).
_SHEAR_TOLERANCE_DEGREES = 0.2
_OFF_LINE_MM = 0.5  # R: of a slice's corner from the straight line that all of them should lie on
TILT_TOLERANCE_DEGREES = SelectionSettings().gantry_tilt_degrees

_MOST_PASSES = 4  # that positions alone are searched for
_LEAST_TURNS = 3  # how often the steps must repeat to be those of passes
_NAMED_POSITIONS = 3  # in a reason

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStack:
    """Slices in ascending order along the normal, and the grid they span.

    Attributes
    ----------
    order : order[k] is the index of slice k in the input.
    grid : axis 0 steps along the normal, axis 1 down the image, axis 2 along a row.
    """

    order: tuple[int, ...]
    grid: Grid


def _vector(header: Dataset, keyword: str, length: int, slices: int) -> FloatArray:
    value: Any = header.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != length:
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, keyword, slices=slices)
    vector = np.asarray([float(part) for part in value])
    if not bool(np.isfinite(vector).all()):
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, keyword, slices=slices)
    return vector


def _size(header: Dataset, slices: int) -> tuple[int, int]:
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns:
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, phrase("rows-or-columns"), slices=slices)
    return int(rows), int(columns)


def normal_of(orientation: FloatArray) -> FloatArray:
    """The unit normal (row x column) of an image plane.

    Parameters
    ----------
    orientation : ImageOrientationPatient: six cosines, along a row, then along a column.

    Returns
    -------
    Shape (3,), LPS; NaN where the cosines are no two directions.
    """
    normal: FloatArray = np.cross(orientation[:3], orientation[3:]).astype(np.float64)
    normal /= np.linalg.norm(normal)
    return normal


def grid_direction(orientation: FloatArray) -> tuple[Vector, Vector, Vector]:
    """The axes of a grid of images with six cosines.

    Returns
    -------
    Unit vectors in patient coordinates (LPS) of axes 0, 1 and 2: the normal, down the image, along a row.
    """
    return as_vector(normal_of(orientation)), as_vector(orientation[3:]), as_vector(orientation[:3])


def as_vector(values: FloatArray) -> Vector:
    """Three numbers as plain floats, as a `Grid` holds them."""
    return float(values[0]), float(values[1]), float(values[2])


def stack_slices(
    headers: Sequence[Dataset], *, tilt_tolerance_degrees: float = TILT_TOLERANCE_DEGREES
) -> SliceStack:
    """Order the slices of one series and make sure that they form a regular grid.

    Array axis 0 steps along the normal (row x column), axis 1 down the image, axis 2 along a row. Archives
    round positions: slices are held to the best even grid, and may lie beside it as far as the digits of
    their positions explain.

    Parameters
    ----------
    tilt_tolerance_degrees : by how much GantryDetectorTilt may contradict the tilt that the cosines show.

    Raises
    ------
    SeriesUnusable
        If geometry is missing, or the slices repeat, leave a gap, change orientation, spacing or size, or
        are sheared by a tilted gantry or shifted against one another.
    """
    count = len(headers)
    if count == 0:
        raise SeriesUnusable(Unusable.NO_SLICES, "", slices=0)
    orientations = np.stack([_vector(h, "ImageOrientationPatient", 6, count) for h in headers])
    positions = np.stack([_vector(h, "ImagePositionPatient", 3, count) for h in headers])
    spacings = np.stack([_vector(h, "PixelSpacing", 2, count) for h in headers])
    sizes = {_size(h, count) for h in headers}
    orientation = orientations[0]
    if not np.allclose(orientations, orientation, atol=_COSINE_TOLERANCE):
        raise SeriesUnusable(Unusable.ORIENTATION_VARIES, "", slices=count)
    if len(sizes) != 1 or not np.allclose(spacings, spacings[0], rtol=1e-4):
        raise SeriesUnusable(Unusable.SIZE_VARIES, "", slices=count)
    _require_cosines(orientation, spacings[0], count)
    _require_stated_tilt(headers, orientation, tilt_tolerance_degrees)
    if count == 1:
        raise SeriesUnusable(Unusable.SINGLE_SLICE, "", slices=1)
    normal = normal_of(orientation)
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    rounding_mm = _rounding(positions, normal)
    step_mm = _regular_step(depths[order], rounding_mm)
    _require_straight(positions[order], normal, rounding_mm)
    rows, columns = next(iter(sizes))
    return SliceStack(
        order=tuple(int(place) for place in order),
        grid=Grid(
            shape=(count, rows, columns),
            # PixelSpacing is (between rows, between columns): y before x.
            spacing_mm=(step_mm, float(spacings[0][0]), float(spacings[0][1])),
            origin_mm=as_vector(positions[order[0]]),
            direction=grid_direction(orientation),
        ),
    )


def single_slice_grid(header: Dataset, thickness_mm: float) -> Grid:
    """The grid of a slice that is measured by itself, as tilted as its cosines say.

    Position and cosines place the slice; GantryDetectorTilt is a nominal value beside them.

    Returns
    -------
    Grid of shape (1, rows, columns); its first spacing is `thickness_mm`.

    Raises
    ------
    SeriesUnusable
        If geometry is missing.
    """
    orientation = _vector(header, "ImageOrientationPatient", 6, 1)
    position, spacing = _vector(header, "ImagePositionPatient", 3, 1), _vector(header, "PixelSpacing", 2, 1)
    _require_cosines(orientation, spacing, 1)
    return Grid(
        shape=(1, *_size(header, 1)),
        spacing_mm=(thickness_mm, float(spacing[0]), float(spacing[1])),
        origin_mm=as_vector(position),
        direction=grid_direction(orientation),
    )


def _require_cosines(orientation: FloatArray, spacing: FloatArray, count: int) -> None:
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(float(row @ column)) > 1e-2:
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, phrase("orientation-odd"), slices=count)
    if not bool(np.all(spacing > 0)):
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, phrase("pixel-spacing-odd"), slices=count)


def _require_stated_tilt(headers: Sequence[Dataset], orientation: FloatArray, tolerance: float) -> None:
    """Refuse a stated tilt that the cosines do not show: their orientation may have been lost.

    Sheared slices are found by their positions, whatever the header states.
    """
    # Several values are against the standard; the largest of them counts.
    stated = [h.GantryDetectorTilt for h in headers if h.get("GantryDetectorTilt") not in (None, "")]
    worst = max((float(np.abs(np.asarray(tilt, dtype=float)).max()) for tilt in stated), default=0.0)
    shown = float(np.degrees(np.arccos(np.clip(np.abs(normal_of(orientation)[2]), 0.0, 1.0))))
    if not min(worst, abs(worst - shown)) <= tolerance:
        detail = phrase("tilt-contradicted", stated=f"{worst:.1f}", shown=f"{shown:.1f}")
        raise SeriesUnusable(Unusable.GANTRY_TILT, detail, slices=len(headers))


def _rounding(positions: FloatArray, normal: FloatArray) -> float:
    """How far rounding of positions may shift two slices apart along the normal, in mm."""
    return float(np.abs(normal) @ [_rounding_step(coordinates) for coordinates in positions.T])


def _rounding_step(coordinates: FloatArray) -> float:
    """The step that some coordinates are rounded to, in mm; 0 where it is finer than any known rounding."""
    for digit in _ROUNDED_TO_MM:
        if bool(np.all(np.abs(coordinates - np.round(coordinates / digit) * digit) < _SAME_NUMBER_MM)):
            return digit
    return 0.0


def _regular_step(depths_mm: FloatArray, rounding_mm: float) -> float:
    """The step of the even grid that the slices lie on, from their ascending depths."""
    count = len(depths_mm)
    steps = np.diff(depths_mm)
    if bool(np.any(steps < _SAME_POSITION_MM)):
        repeated = depths_mm[1:][steps < _SAME_POSITION_MM]
        detail = phrase("different-images-at", places=_positions_in_words(repeated))
        raise SeriesUnusable(Unusable.DUPLICATE_POSITIONS, detail, slices=count)
    _require_one_pass(steps, rounding_mm)
    median = float(np.median(steps))
    typical = float(steps[steps <= _GAP_FACTOR * median + rounding_mm].mean())
    has_gap = steps > _GAP_FACTOR * typical + rounding_mm
    if bool(np.any(has_gap)):
        before = depths_mm[:-1][has_gap]
        detail = phrase("image-missing-after", step=f"{typical:.2f}", places=_positions_in_words(before))
        raise SeriesUnusable(Unusable.SLICE_GAP, detail, slices=count)
    allowed_mm = max(_SPACING_TOLERANCE * typical + _SAME_POSITION_MM, rounding_mm) + _SAME_NUMBER_MM
    if _strip_width_mm(depths_mm) > allowed_mm:
        off_mm = _off_even_grid_mm(depths_mm)
        displaced = depths_mm[off_mm > max(allowed_mm, 0.5 * off_mm.max())]
        detail = phrase(
            "spacing-uneven",
            least=f"{steps.min():.3f}",
            most=f"{steps.max():.3f}",
            places=_positions_in_words(displaced),
        )
        raise SeriesUnusable(Unusable.SPACING_VARIES, detail, slices=count)
    return float((depths_mm[-1] - depths_mm[0]) / (count - 1))


def _require_one_pass(steps: FloatArray, rounding_mm: float) -> None:
    """Refuse uneven steps that repeat in turn: interleaved even passes that no attribute tells apart.

    Steps that are multiples of the least may belong to one pass that lacks images, which is another reason.
    """
    for passes in range(2, _MOST_PASSES + 1):
        if len(steps) < _LEAST_TURNS * passes:
            return
        turns = [steps[turn::passes] for turn in range(passes)]
        typical = np.array([np.median(turn) for turn in turns])
        allowed_mm = _SPACING_TOLERANCE * float(typical.sum()) + _SAME_POSITION_MM + rounding_mm
        ratios = typical / typical.min()
        is_whole = np.abs(ratios - np.round(ratios)) * typical.min() <= allowed_mm
        if is_whole.all() or any(float(np.ptp(turn)) > allowed_mm for turn in turns):
            continue
        detail = phrase("passes-woven", steps=together(f"{step:.2f}" for step in typical))
        raise SeriesUnusable(Unusable.SEVERAL_PASSES, detail, slices=len(steps) + 1)


def _strip_width_mm(depths_mm: FloatArray) -> float:
    """Width of the narrowest strip about an even grid that holds all slices."""
    places = np.arange(len(depths_mm))
    steps = np.diff(depths_mm)

    def spread(step: float) -> float:
        return float(np.ptp(depths_mm - step * places))

    limits = float(steps.min()), float(steps.max())
    found = minimize_scalar(spread, bounds=limits, method="bounded", options={"xatol": 1e-9})
    return min(float(found.fun), spread((depths_mm[-1] - depths_mm[0]) / places[-1]))


def _off_even_grid_mm(depths_mm: FloatArray) -> FloatArray:
    """Distance of each slice from the even grid that most of them lie on."""
    places = np.arange(len(depths_mm))
    half = len(depths_mm) // 2
    step = float(np.median((depths_mm[half:] - depths_mm[:-half]) / half))
    rest = depths_mm - step * places
    beside: FloatArray = np.abs(rest - np.median(rest))
    return beside


def _positions_in_words(depths_mm: FloatArray) -> Phrase:
    """Positions along the slice normal, in words; the first few where there are many."""
    named = ", ".join(f"{depth:.1f}" for depth in depths_mm[:_NAMED_POSITIONS])
    more = len(depths_mm) - _NAMED_POSITIONS
    return phrase("places-and-more", depths=named, more=more) if more > 0 else phrase("places", depths=named)


def _require_straight(positions: FloatArray, normal: FloatArray, rounding_mm: float) -> None:
    count = len(positions)
    travel = positions[-1] - positions[0]
    along = float(travel @ normal)
    sideways = float(np.linalg.norm(travel - along * normal))
    degrees = float(np.degrees(np.arctan2(max(0.0, sideways - rounding_mm), along)))
    if degrees > _SHEAR_TOLERANCE_DEGREES:
        detail = phrase("slices-sheared", degrees=f"{degrees:.1f}")
        raise SeriesUnusable(Unusable.GANTRY_TILT, detail, slices=count)
    depths = (positions - positions[0]) @ normal
    line = positions[0] + np.outer(depths / along, travel)
    off_mm = np.linalg.norm(positions - line, axis=1)
    if bool(np.any(off_mm > _OFF_LINE_MM)):
        detail = phrase("beside-line", distance=f"{off_mm.max():.1f}")
        raise SeriesUnusable(Unusable.OFF_LINE, detail, slices=count)


_POSITION_KEYWORDS = ["SeriesInstanceUID", "ImageType", "ImagePositionPatient", "ImageOrientationPatient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePosition:
    """One CT instance in space, to see whether a slice of a study is missing.

    Attributes
    ----------
    series_instance_uid : "" where the header states none.
    is_localizer : by value 3 of ImageType.
    position_mm : three coordinates (LPS) of the first voxel; None where the header does not state them, or
        where the instance holds several slices.
    orientation : six cosines, along a row and along a column; None likewise.
    """

    series_instance_uid: str
    is_localizer: bool
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None


def slice_positions(paths: Iterable[Path]) -> tuple[SlicePosition, ...]:
    """The positions of CT files, from their headers alone. A file that cannot be read has none.

    Returns
    -------
    One for each path, in the same order.
    """
    return tuple(_position(_header(path)) for path in paths)


def _header(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=_POSITION_KEYWORDS)
    except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to; select reports them
        return Dataset()


def _position(header: Dataset) -> SlicePosition:
    image_type = text_of(header, "ImageType").split()
    return SlicePosition(
        series_instance_uid=text_of(header, "SeriesInstanceUID"),
        is_localizer="LOCALIZER" in image_type[2:3],  # PS3.3 C.8.2.1.1.1: value 3
        position_mm=_numbers(header, "ImagePositionPatient", 3),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
    )


def _numbers(header: Dataset, keyword: str, length: int) -> tuple[float, ...] | None:
    try:
        values: Any = header.get(keyword)
        numbers = tuple(float(value) for value in values or ())
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length and all(map(isfinite, numbers)) else None
