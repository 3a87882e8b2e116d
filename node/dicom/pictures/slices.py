"""Page 3 of single-slice QCT: every slice, with the region in which its vertebra was read."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, pi, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from config.findings import level_in_words
from config.phrases import Phrasebook
from node.dicom.pictures.frame import CONTENT_BOTTOM, MARGIN, framed_page
from node.dicom.pictures.layout import ACCENT, CAUTION, QUIET, TEXT, WIDTH, Box, Page, Pixels
from node.dicom.pictures.panel import blend, grey, label, limit, orientation, scale_bar, show
from node.dicom.pictures.typeface import LATIN, Typeface
from node.dicom.pictures.words import MINERALS, number
from node.dicom.slices import DrawnSlice
from node.report import Report, SliceResult
from segmentation.volume import Grid, canonical

_ROW = 3  # slices side by side
_GAP = 14
_CAPTION = 62.0  # above each slice
_REACH_MM = (75.0, 60.0)  # shown at least: to either side of the middle, and in front of it
_MARGIN_MM = 15.0
_TECHNIQUE_SIZES = (13.0, 12.0, 11.0, 10.0)


def draw_slices(
    report: Report, slices: Sequence[DrawnSlice], typeface: Typeface = LATIN, say: Phrasebook | None = None
) -> Pixels:
    """The page as RGB, shape (768, 1024, 3)."""
    return compose_slices(report, slices, typeface, say=say).pixels()


def compose_slices(
    report: Report, slices: Sequence[DrawnSlice], typeface: Typeface = LATIN, say: Phrasebook | None = None
) -> Page:
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
            report,
            results[drawn.name],
            Box(left=left, top=upper, right=left + width, bottom=upper + _CAPTION),
        )
        box = Box(left=left, top=upper + _CAPTION, right=left + width, bottom=upper + height)
        _slice(page, box, results[drawn.name], drawn)
    page.text(MARGIN, CONTENT_BOTTOM - 22, legend(report, page.say), size=14, colour=QUIET)
    return page


def legend(report: Report, say: Phrasebook) -> str:
    """What the drawings mean, with the unit and mineral of the numbers beside the rods."""
    used = {one.calibration.equivalent for one in report.unnamed if one.calibration}
    minerals = " / ".join(MINERALS[mineral] for mineral in sorted(used))
    parts = (
        say("legend-slice-body"),
        say("legend-slice-region"),
        say("legend-slice-rods", mineral=minerals) if used else say("no-rods"),
    )
    return "   ·   ".join(parts)


def _caption(page: Page, report: Report, result: SliceResult, box: Box) -> None:
    """Three lines above a slice."""
    say, left, top = page.say, box.left, box.top
    title = say("slice-level-unknown", slice=level_in_words(result.name, report.language))
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
    _, rows, columns = plane.shape
    _, dy, dx = plane.spacing_mm
    extent = (
        (-0.5 - centre[2]) * dx,
        (columns - 0.5 - centre[2]) * dx,
        (rows - 0.5 - centre[1]) * dy,
        (-0.5 - centre[1]) * dy,
    )
    axes = page.axes(box)
    show(axes, image, extent, body)
    circles = _rods(result, plane)
    side = max([_REACH_MM[0], *(abs(x) + radius + _MARGIN_MM for x, _, radius in circles)])
    back = max([_REACH_MM[1], *(y + radius + _MARGIN_MM for _, y, radius in circles)])
    limit(axes, box, (-side, side), (back, -_REACH_MM[1]))
    _draw_rods(page, axes, result, circles)
    orientation(axes, left="R", right="L", top="A", bottom="P")
    scale_bar(axes)


def _rods(result: SliceResult, plane: Grid) -> list[tuple[float, float, float]]:
    """Where each rod is read: x and y in mm from the body's middle, and the radius."""
    if result.calibration is None:
        return []
    centre = plane.to_index(result.position_mm)
    _, dy, dx = plane.spacing_mm
    circles = []
    for rod in result.calibration.rods:
        _, y, x = plane.to_index(rod.axis_points_mm[0])
        radius = sqrt(rod.voxels * dy * dx / pi)
        circles.append((float((x - centre[2]) * dx), float((y - centre[1]) * dy), radius))
    return circles


def _draw_rods(
    page: Page, axes: Axes, result: SliceResult, circles: Sequence[tuple[float, float, float]]
) -> None:
    if result.calibration is None:
        return
    for rod, (x, y, radius) in zip(result.calibration.rods, circles, strict=True):
        axes.add_patch(Circle((x, y), radius, fill=False, edgecolor=CAUTION, linewidth=1.6))
        label(axes, x, y - radius - 9, number(rod.density_mg_cm3, 0), page.typeface, align="center")
