"""Page 3: where density was read, on the images themselves.

Of a volume a sagittal and an axial plane, of single-slice QCT every slice; with the parts that pages share:
grey values, masks and rods drawn on them, orientation marks and a scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, pi, sqrt

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle

from config.findings import level_in_words
from config.phrases import Phrasebook
from node.dicom.ct.slice_reading import DrawnSlice
from node.dicom.sc.layout import (
    ACCENT,
    CAUTION,
    CONTENT_BOTTOM,
    LATIN,
    MARGIN,
    QUIET,
    TEXT,
    WIDTH,
    Box,
    Page,
    Typeface,
    framed_page,
)
from node.dicom.sc.words import MINERALS, REGIONS, level_briefly, number, region_of
from node.dicom.seg import centre_in, read_radius_mm, rods_in_view
from node.study_report import Report, SliceResult
from scoring.calibration import RodReading
from segmentation.ct_volume import CtVolume, Grid, Mask, canonical
from segmentation.vertebrae import RegionKind, Regions, Vertebrae

_WINDOW_HU = (-160.0, 440.0)
_FILL_OPACITY = 0.40
_BACKDROP = {"facecolor": "black", "alpha": 0.55, "pad": 2, "edgecolor": "none"}

Image = npt.NDArray[np.float64]


def grey(plane: npt.NDArray[np.float32]) -> Image:
    """HU as grey values, in a window that shows bone and muscle.

    Parameters
    ----------
    plane : HU, shape (rows, columns).

    Returns
    -------
    RGB between 0 and 1, shape (rows, columns, 3).
    """
    low, high = _WINDOW_HU
    grey = np.clip((plane.astype(float) - low) / (high - low), 0, 1)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def blend(image: Image, mask: npt.NDArray[np.bool_]) -> Image:
    """The image with a mask laid over it, in a translucent colour.

    Parameters
    ----------
    image : RGB between 0 and 1, shape (rows, columns, 3).
    mask : shape (rows, columns).
    """
    colour = np.asarray(to_rgb(CAUTION))
    blended = image.copy()
    blended[mask] = (1 - _FILL_OPACITY) * image[mask] + _FILL_OPACITY * colour
    return blended


def show(
    axes: Axes, image: Image, extent: tuple[float, float, float, float], bodies: npt.NDArray[np.bool_]
) -> None:
    """Draw one plane with the outline of the bodies in it.

    Parameters
    ----------
    image : RGB, shape (rows, columns, 3); row 0 is drawn at the top.
    extent : (left, right, bottom, top) in mm.
    bodies : shape (rows, columns).
    """
    axes.imshow(np.clip(image, 0, 1), extent=extent, interpolation="bilinear", aspect="equal")
    _contour(axes, bodies, extent, colour=ACCENT, style="solid")


def axial_extent(grid: Grid, centre: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The extent of an axial plane of an upright grid, for `show`.

    Parameters
    ----------
    centre : fractional index (z, y, x) that millimetres are counted from.

    Returns
    -------
    (left, right, back, front) in mm.
    """
    _, rows, columns = grid.shape
    _, dy, dx = grid.spacing_mm
    return (
        (-0.5 - centre[2]) * dx,
        (columns - 0.5 - centre[2]) * dx,
        (rows - 0.5 - centre[1]) * dy,
        (-0.5 - centre[1]) * dy,
    )


def outline(axes: Axes, mask: npt.NDArray[np.bool_], extent: tuple[float, float, float, float]) -> None:
    """Draw a dashed outline of a part of the plane, lighter than the bodies' so that both differ in grey.

    Parameters
    ----------
    mask : shape (rows, columns).
    extent : (left, right, bottom, top) in mm.
    """
    _contour(axes, mask, extent, colour=TEXT, style="dashed")


def _contour(
    axes: Axes,
    mask: npt.NDArray[np.bool_],
    extent: tuple[float, float, float, float],
    *,
    colour: str,
    style: str,
) -> None:
    if not mask.any():
        return
    left, right, bottom, top = extent
    rows, columns = mask.shape
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    axes.contour(x, y, mask.astype(float), levels=[0.5], colors=[colour], linewidths=1.3, linestyles=style)


def limit(axes: Axes, box: Box, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Show at least these ranges, widened so that a millimetre is as long across as down.

    Parameters
    ----------
    box : of the axes, in pixels.
    x, y : in mm; the first end is drawn at the left or the bottom.
    """
    shape = (box.right - box.left) / (box.bottom - box.top)
    width, height = abs(x[1] - x[0]), abs(y[1] - y[0])
    grow_x, grow_y = max(height * shape - width, 0) / 2, max(width / shape - height, 0) / 2
    sense = 1 if y[1] > y[0] else -1
    axes.set_aspect("auto")
    axes.set_xlim(x[0] - grow_x, x[1] + grow_x)
    axes.set_ylim(y[0] - sense * grow_y, y[1] + sense * grow_y)
    axes.set_facecolor("black")
    axes.patch.set_visible(True)


def label(axes: Axes, x: float, y: float, words: str, typeface: Typeface, *, align: str = "left") -> None:
    """Write words, of one line or several, on axes.

    Parameters
    ----------
    x, y : in the axes' millimetres: the middle of the words' height, and their edge or middle by `align`.
    align : "left", "center" or "right".
    """
    axes.text(
        x,
        y,
        typeface.drawable(words),
        color=TEXT,
        fontproperties=typeface.font(15, bold=True),
        parse_math=False,
        ha=align,
        va="center",
        multialignment=align,
        linespacing=1.0,
        bbox=_BACKDROP,
    )


def orientation(axes: Axes, *, left: str, right: str, top: str, bottom: str) -> None:
    """Orientation marks at the middle of the four sides.

    Parameters
    ----------
    left, right, top, bottom : one letter each: L, R, A, P, H or F.
    """
    for x, y, mark, align in (
        (0.02, 0.5, left, "left"),
        (0.98, 0.5, right, "right"),
        (0.5, 0.97, top, "center"),
        (0.5, 0.03, bottom, "center"),
    ):
        axes.text(
            x,
            y,
            mark,
            transform=axes.transAxes,
            color=TEXT,
            fontproperties=LATIN.font(20, bold=True),
            ha=align,
            va="center",
            bbox=_BACKDROP,
        )


def scale_bar(axes: Axes) -> None:
    """50 mm, at the lower left."""
    x0, _ = axes.get_xlim()
    y0, y1 = axes.get_ylim()
    y = y0 + 0.06 * (y1 - y0)
    left = x0 + 8
    axes.plot([left, left + 50], [y, y], color=TEXT, linewidth=2)
    words_at = y + 0.018 * (y1 - y0)
    axes.text(
        left + 25, words_at, "50 mm", color=TEXT, fontproperties=LATIN.font(13), ha="center", va="bottom"
    )


def axial_marks(axes: Axes) -> None:
    """Marks and scale of an axial plane: anterior up, the patient's right on the left."""
    orientation(axes, left="R", right="L", top="A", bottom="P")
    scale_bar(axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RodCircle:
    """One rod as it is drawn on an axial plane.

    Attributes
    ----------
    rod : its reading.
    x_mm, y_mm : of its centre, from the drawn plane's centre, to the patient's left and backwards.
    radius_mm : of the part that is read.
    """

    rod: RodReading
    x_mm: float
    y_mm: float
    radius_mm: float


def rod_circles(
    rods: Sequence[RodReading], grid: Grid, row: int, centre: npt.NDArray[np.float64]
) -> list[RodCircle]:
    """Each rod where it crosses a slice of an upright grid; rods known at one point only are left out.

    Parameters
    ----------
    row : index of the slice.
    centre : fractional index (z, y, x) that millimetres are counted from.
    """
    circles = []
    for rod in rods:
        if len(rod.axis_points_mm) < 2:  # a rod of an earlier scan is not in this image
            continue
        y, x = centre_in(rod, grid, row)
        circles.append(
            RodCircle(
                rod=rod,
                x_mm=(x - float(centre[2])) * grid.spacing_mm[2],
                y_mm=(y - float(centre[1])) * grid.spacing_mm[1],
                radius_mm=read_radius_mm(rod, grid),
            )
        )
    return circles


def draw_rod(axes: Axes, circle: RodCircle) -> None:
    """Outline the read part of a rod on axes in the plane's millimetres."""
    at = (circle.x_mm, circle.y_mm)
    axes.add_patch(Circle(at, circle.radius_mm, fill=False, edgecolor=CAUTION, linewidth=1.6))


_SAGITTAL_HALF_DEPTH_MM = 85.0
_MARGIN_MM = 15.0
_SECOND_LINE_MM = 8.0  # of a rod's label
_PANEL_GAP = 20
_SAGITTAL_SHARE = 0.40  # of the width
_ONE_ROW = 3  # rods whose labels fit beside each other
_LABEL_OFFSET_MM = 28.0  # level names stand behind the bodies


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """The content of both planes, with array axes towards superior, posterior and left."""

    report: Report
    volume: CtVolume
    bodies: Mask
    fill: Mask  # where BMD is read
    ellipse: Mask  # where it is read besides
    level: str  # that the axial plane cuts; "" where none was found
    centre: npt.NDArray[np.float64]  # fractional index (z, y, x) that both planes pass through


def compose_overlay(
    report: Report,
    volume: CtVolume,
    vertebrae: Vertebrae,
    regions: Sequence[Regions],
    typeface: Typeface = LATIN,
    *,
    say: Phrasebook | None = None,
) -> Page:
    """The overlay page of a volume: a sagittal and an axial plane through the middle of L3.

    Where L3 was not measured they pass through the first level that was, else through the middle of the
    volume.

    Parameters
    ----------
    vertebrae, regions : on the volume's grid. Only regions that were measured are drawn.
    say : the phrases; by default the shipped ones in the report's language.
    """
    page, top = framed_page(report, "title-overlay", typeface, say)
    say = page.say
    scene = _scene(report, volume, vertebrae, regions)
    bottom = CONTENT_BOTTOM - 30
    middle = MARGIN + (WIDTH - 2 * MARGIN) * _SAGITTAL_SHARE
    page.text(MARGIN, top, say("plane-sagittal"), size=16, bold=True, colour=ACCENT)
    _sagittal(page, Box(left=MARGIN, top=top + 24, right=middle, bottom=bottom), scene)
    left = middle + _PANEL_GAP
    axial = say("plane-axial", level=level_in_words(scene.level, say) or say("middle-of-volume"))
    page.text(left, top, axial, size=16, bold=True, colour=ACCENT)
    _axial(page, Box(left=left, top=top + 24, right=WIDTH - MARGIN, bottom=bottom), scene)
    legend = [
        say("legend-body"),
        say("legend-region", region=REGIONS[region_of(report) or RegionKind.CORE]),
        say("legend-rods"),
    ]
    if scene.ellipse.any():
        legend.append(say("legend-second-region", region=REGIONS[RegionKind.ELLIPSE]))
    page.text(MARGIN, CONTENT_BOTTOM - 22, "   ·   ".join(legend), size=14, colour=QUIET)
    return page


def _scene(report: Report, volume: CtVolume, vertebrae: Vertebrae, regions: Sequence[Regions]) -> _Scene:
    upright, turn = canonical(volume)
    shown = [region for region in regions if _is_measured(report, region.level)]
    fill = np.zeros(volume.grid.shape, dtype=bool)
    for region in shown:
        fill |= region.bmd
    ellipse = np.zeros(volume.grid.shape, dtype=bool)
    for region in shown:
        level_result = report.level(region.level)
        if region.ellipse is not None and level_result is not None and level_result.ellipse is not None:
            ellipse |= region.ellipse
    level = _axial_level(report, [region.level for region in shown])
    return _Scene(
        report=report,
        volume=upright,
        bodies=turn.forward(vertebrae.bodies > 0),
        fill=turn.forward(fill),
        ellipse=turn.forward(ellipse),
        level=level,
        centre=upright.grid.to_index(_centre_of(level, shown, volume.grid)),
    )


def _is_measured(report: Report, name: str) -> bool:
    level = report.level(name)
    return level is not None and level.measured is not None


def _axial_level(report: Report, measured: Sequence[str]) -> str:
    """L3 if it was measured, else the first level that was, else the first that was found."""
    if "L3" in measured:
        return "L3"
    if measured:
        return measured[0]
    return report.levels[0].name if report.levels else ""


def _centre_of(name: str, regions: Sequence[Regions], grid: Grid) -> npt.NDArray[np.float64]:
    region = next((r for r in regions if r.level == name), None)
    if region is not None and region.bmd.any():
        centre: npt.NDArray[np.float64] = grid.to_patient(np.argwhere(region.bmd).mean(axis=0))
        return centre
    return grid.to_patient((np.asarray(grid.shape) - 1) / 2)


def _sagittal(page: Page, box: Box, scene: _Scene) -> None:
    """The plane x = centre, superior up, anterior left; mm along y from the centre, along z from slice 0."""
    grid, centre = scene.volume.grid, scene.centre
    column = int(np.clip(round(centre[2]), 0, grid.shape[2] - 1))
    sz, sy, _ = grid.spacing_mm
    nz, ny, _ = grid.shape
    plane = blend(grey(scene.volume.hu[:, :, column]), scene.fill[:, :, column])[::-1]
    axes = page.axes(box)
    low, high = -0.5 * sz, (nz - 0.5) * sz
    extent = ((-0.5 - centre[1]) * sy, (ny - 0.5 - centre[1]) * sy, low, high)
    show(axes, plane, extent, scene.bodies[::-1, :, column])
    outline(axes, scene.ellipse[::-1, :, column], extent)
    half = min(_SAGITTAL_HALF_DEPTH_MM, ny * sy)
    limit(axes, box, (-half, half), (low, high))
    for level in scene.report.levels:
        z, y, _ = grid.to_index(level.centroid_mm)
        name = level_briefly(level.name, page.say)
        label(axes, (y - centre[1]) * sy + _LABEL_OFFSET_MM, z * sz, name, page.typeface)
    orientation(axes, left="A", right="P", top="H", bottom="F")
    scale_bar(axes)


def _axial(page: Page, box: Box, scene: _Scene) -> None:
    """The plane z = centre as a radiologist sees it: anterior up, the patient's right on the left."""
    grid, centre = scene.volume.grid, scene.centre
    row = int(np.clip(round(centre[0]), 0, grid.shape[0] - 1))
    plane = blend(grey(scene.volume.hu[row]), scene.fill[row])
    axes = page.axes(box)
    extent = axial_extent(grid, centre)
    show(axes, plane, extent, scene.bodies[row])
    outline(axes, scene.ellipse[row], extent)
    calibration = scene.report.calibration
    mineral = MINERALS[calibration.equivalent] if calibration else ""
    circles = rod_circles(rods_in_view(calibration), grid, row, centre)
    reach_x = max([85.0, *(abs(one.x_mm) + one.radius_mm + _MARGIN_MM for one in circles)])
    narrow = len(circles) > _ONE_ROW
    below = (3 if narrow else 2) * _MARGIN_MM + _SECOND_LINE_MM  # room for labels above the scale
    reach_y = max([60.0, *(one.y_mm + one.radius_mm + below for one in circles)])
    limit(axes, box, (-reach_x, reach_x), (reach_y, -75.0))
    for place, one in enumerate(circles):
        draw_rod(axes, one)
        words = f"{number(one.rod.density_mg_cm3, 0)} mg/cm³\n{mineral}"
        away = one.radius_mm + 11
        above = narrow and place % 2  # labels of a narrow row stand below and above by turns
        label(axes, one.x_mm, one.y_mm + (-away if above else away), words, page.typeface, align="center")
    axial_marks(axes)


_ROW = 3  # slices side by side
_GAP = 14
_CAPTION = 62.0  # above each slice
_REACH_MM = (75.0, 60.0)  # shown at least: to either side of the middle, and in front of it
_TECHNIQUE_SIZES = (13.0, 12.0, 11.0, 10.0)


def compose_slices(
    report: Report, slices: Sequence[DrawnSlice], typeface: Typeface = LATIN, *, say: Phrasebook | None = None
) -> Page:
    """The overlay page of single-slice QCT: every slice, with the region that its vertebra was read in.

    Parameters
    ----------
    slices : in the order of the report; at least one.
    say : the phrases; by default the shipped ones in the report's language.
    """
    page, top = framed_page(report, "title-slices", typeface, say)
    bottom = CONTENT_BOTTOM - 30
    rows, columns = ceil(len(slices) / _ROW), min(len(slices), _ROW)
    width = (WIDTH - 2 * MARGIN - (columns - 1) * _GAP) / columns
    height = (bottom - top - (rows - 1) * _GAP) / rows
    results = {one.name: one for one in report.unnamed}
    for place, drawn in enumerate(slices):
        row, column = divmod(place, _ROW)
        left, upper = MARGIN + column * (width + _GAP), top + row * (height + _GAP)
        _caption(
            page,
            results[drawn.name],
            Box(left=left, top=upper, right=left + width, bottom=upper + _CAPTION),
        )
        box = Box(left=left, top=upper + _CAPTION, right=left + width, bottom=upper + height)
        _slice(page, box, results[drawn.name], drawn)
    page.text(MARGIN, CONTENT_BOTTOM - 22, legend(report, page.say), size=14, colour=QUIET)
    return page


def legend(report: Report, say: Phrasebook) -> str:
    """The meaning of the drawings, with unit and mineral of the numbers beside the rods."""
    used = {one.calibration.equivalent for one in report.unnamed if one.calibration}
    minerals = " / ".join(MINERALS[mineral] for mineral in sorted(used))
    parts = (
        say("legend-slice-body"),
        say("legend-slice-region"),
        say("legend-slice-rods", mineral=minerals) if used else say("no-rods"),
    )
    return "   ·   ".join(parts)


def _caption(page: Page, result: SliceResult, box: Box) -> None:
    """Three lines above a slice."""
    say, left, top = page.say, box.left, box.top
    title = say("slice-level-unknown", slice=level_in_words(result.name, say))
    page.text(left, top, title, size=16, bold=True, colour=ACCENT)
    measured = result.measured
    if measured is None or measured.bmd_mg_cm3 is None or result.calibration is None:
        page.text(left, top + 22, say("slice-bmd-withheld"), size=18, bold=True, colour=CAUTION)
    else:
        mineral = MINERALS[result.calibration.equivalent]
        words = say("slice-bmd", value=number(measured.bmd_mg_cm3, 1), mineral=mineral)
        page.text(left, top + 22, words, size=18, bold=True, colour=TEXT)
    thickness, tilt = f"{result.thickness_mm:g}", number(result.tilt_degrees, 0)
    technique = say("slice-technique", mm=thickness, degrees=tilt)
    if measured is not None:
        technique = f"{number(measured.hu_mean, 0)} ± {number(measured.hu_sd, 0)} HU; {technique}"
    line = Box(left=left, top=top + 44, right=box.right, bottom=box.bottom)
    page.text_within(line, technique, sizes=_TECHNIQUE_SIZES, colour=QUIET)


def _slice(page: Page, box: Box, result: SliceResult, drawn: DrawnSlice) -> None:
    """As a radiologist sees it: anterior up, the patient's right on the left; mm from the body's middle."""
    upright, turn = canonical(drawn.series.volume)
    plane = upright.grid
    centre = plane.to_index(result.position_mm)
    image = grey(upright.hu[0])
    if drawn.region is not None and result.measured is not None:
        image = blend(image, turn.forward(drawn.region)[0])
    body = np.zeros(image.shape[:2], bool) if drawn.body is None else turn.forward(drawn.body)[0]
    axes = page.axes(box)
    show(axes, image, axial_extent(plane, centre), body)
    circles = _rods_in_slice(result, plane)
    side = max([_REACH_MM[0], *(abs(one.x_mm) + one.radius_mm + _MARGIN_MM for one in circles)])
    back = max([_REACH_MM[1], *(one.y_mm + one.radius_mm + _MARGIN_MM for one in circles)])
    limit(axes, box, (-side, side), (back, -_REACH_MM[1]))
    for one in circles:
        draw_rod(axes, one)
        words = number(one.rod.density_mg_cm3, 0)
        label(axes, one.x_mm, one.y_mm - one.radius_mm - 9, words, page.typeface, align="center")
    axial_marks(axes)


def _rods_in_slice(result: SliceResult, plane: Grid) -> list[RodCircle]:
    """Each rod where it was read in a single slice; its radius follows from its voxels."""
    centre = plane.to_index(result.position_mm)
    _, dy, dx = plane.spacing_mm
    circles = []
    for rod in result.calibration.rods if result.calibration else ():
        _, y, x = plane.to_index(rod.axis_points_mm[0])
        circles.append(
            RodCircle(
                rod=rod,
                x_mm=float((x - centre[2]) * dx),
                y_mm=float((y - centre[1]) * dy),
                radius_mm=sqrt(rod.voxels * dy * dx / pi),
            )
        )
    return circles
