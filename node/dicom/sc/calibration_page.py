"""Page 4: the rods against the calibration's line, and on the image that they were read in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from config.phrases import Phrasebook
from node.dicom.sc.images import axial_extent, axial_marks, draw_rod, grey, label, limit, rod_circles, show
from node.dicom.sc.layout import (
    ACCENT,
    CAUTION,
    CONTENT_BOTTOM,
    LATIN,
    MARGIN,
    QUIET,
    RULE,
    TEXT,
    WIDTH,
    Box,
    Page,
    Typeface,
    framed_page,
)
from node.dicom.sc.words import GRADES, MINERALS, MINUS, equation, equivalent, named_in, number
from node.dicom.seg import rods_in_view
from node.study_report import Report
from scoring.calibration import Calibration, FitPoint, fit_line, fit_points
from segmentation.ct_volume import CtVolume, canonical

_LEFT_WIDTH = 470.0
_AXIS = 62.0  # pixels left of a plot, for its numbers
_FACTS = 84.0  # above the footer
_AROUND_MM = 32.0  # shown about the rods
_COLUMNS = (0.0, 180.0, 310.0, 430.0)  # of the table: rod (left edge), then right edges of numbers
_NEAR = 9.0  # pixels between a point and its name


def compose_fit(
    report: Report, volume: CtVolume, typeface: Typeface = LATIN, *, say: Phrasebook | None = None
) -> Page:
    """The calibration page.

    Parameters
    ----------
    volume : that the report measured; a rod of an earlier scan is not drawn on it.
    say : the phrases; by default the shipped ones in the report's language.

    Raises
    ------
    ValueError
        If the report has no calibration by rods.
    """
    if report.calibration is None or not report.calibration.rods:
        raise ValueError("the report has no calibration by rods")
    page, top = framed_page(report, "title-calibration", typeface, say)
    say = page.say
    calibration = named_in(say, report.calibration)
    report = replace(report, calibration=calibration)
    points = fit_points(calibration)
    bottom = CONTENT_BOTTOM - _FACTS
    middle = top + 0.62 * (bottom - top)
    left = MARGIN + _LEFT_WIDTH
    plot = Box(left=MARGIN + _AXIS, top=top + 26, right=left, bottom=middle - 58)
    _line_plot(page, say, plot, calibration)
    fitted = [point for point in points if point.fitted]
    plot = Box(left=MARGIN + _AXIS, top=middle + 32, right=left, bottom=bottom - 24)
    _distances(page, say, plot, fitted)
    right = Box(left=left + 34, top=top, right=WIDTH - MARGIN, bottom=bottom)
    table = bottom - 24 - 19.0 * (len(points) + 1)
    _image(page, Box(left=right.left, top=top + 24, right=right.right, bottom=table - 14), report, volume)
    _table(page, say, (right.left, table), points, MINERALS[calibration.equivalent])
    _facts(page, say, calibration, bottom + 8)
    return page


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """A box of the page with a scale on either side."""

    box: Box
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value lies, in pixels from the page's top left."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.box.left + across * (self.box.right - self.box.left),
            self.box.bottom - up * (self.box.bottom - self.box.top),
        )


def _scaled(box: Box, x: Sequence[float], y: Sequence[float]) -> _Plot:
    """A plot with room for all values and a margin."""

    def span(values: Sequence[float]) -> tuple[float, float]:
        low, high = min(values), max(values)
        margin = 0.10 * (high - low)
        return low - margin, high + margin

    return _Plot(box=box, x=span(x), y=span(y))


def _line_plot(page: Page, say: Phrasebook, box: Box, calibration: Calibration) -> None:
    line, points = fit_line(calibration), fit_points(calibration)
    densities = [point.rod.density_mg_cm3 for point in points]
    plot = _scaled(box, [0.0, *densities], [point.hu for point in points])
    page.text(MARGIN, box.top - 26, say("rods-and-line"), size=16, bold=True, colour=ACCENT)
    _horizontals(page, plot)
    for value in _ticks(plot.x):
        x, _ = plot.at(value, plot.y[0])
        page.line(x, box.bottom, x, box.bottom + 5)
        page.text(x, box.bottom + 7, _short(value), size=13, colour=QUIET, align="center")
    ends = (min(0.0, *densities), max(densities))
    (x0, y0), (x1, y1) = (plot.at(end, line.hu(end)) for end in ends)
    page.line(x0, y0, x1, y1, colour=ACCENT, width=1.6)
    taken: list[Box] = []
    for point in points:
        _point(page, plot, point, taken)
    words = (
        say("across-density", mineral=MINERALS[calibration.equivalent]),
        say("up-hu-less-water") if line.without_water else say("up-hu"),
    )
    page.text(MARGIN, box.bottom + 25, "   ·   ".join(words), size=13, colour=QUIET)


def _point(page: Page, plot: _Plot, point: FitPoint, taken: list[Box]) -> None:
    """A rod's mark, full where it determines the line, and its name where there is room."""
    x, y = plot.at(point.rod.density_mg_cm3, point.hu)
    _dot(page, x, y, full=point.fitted)
    taken.append(Box(left=x - 5, top=y - 5, right=x + 5, bottom=y + 5))
    name, size = point.rod.name, 14.0
    width, height = page.text_width(name, size=size, bold=True), size * 1.3
    places = [
        (x + _NEAR, y + 2),
        (x - _NEAR - width, y - height - 1),
        (x - width / 2, y - height - _NEAR),
        (x - width / 2, y + _NEAR),
        (x - _NEAR - width, y + 2),
        (x + _NEAR, y - height),
    ]
    boxes = [Box(left=left, top=top, right=left + width, bottom=top + height) for left, top in places]
    inside = [
        box for box in boxes if box.left >= plot.box.left and box.right <= plot.box.right + _NEAR
    ] or boxes
    free = (box for box in inside if not any(box.overlaps(other) for other in taken))
    chosen = next(free, inside[0])
    taken.append(chosen)
    page.text(chosen.left, chosen.top, name, size=size, bold=True)


def _distances(page: Page, say: Phrasebook, box: Box, points: Sequence[FitPoint]) -> None:
    """Distance of each fitted rod from the line, with its standard error; two rods have none."""
    page.text(MARGIN, box.top - 42, say("distance-from-line"), size=16, bold=True, colour=ACCENT)
    reach = max(0.5, *(abs(point.residual_hu) + point.rod.hu_standard_error for point in points))
    plot = _Plot(box=box, x=(0.0, float(len(points))), y=(-1.15 * reach, 1.15 * reach))
    note = say("bars-are-errors")
    if len(points) < 3:
        note = f"{note}; {say('two-rods-on-line')}"
    page.text(MARGIN, box.top - 20, note, size=13, colour=QUIET)
    _horizontals(page, plot)
    _, zero = plot.at(0, 0)
    page.line(box.left, zero, box.right, zero, colour=ACCENT, width=1.6)
    for place, point in enumerate(points):
        error = point.rod.hu_standard_error
        x, y = plot.at(place + 0.5, point.residual_hu)
        _, high = plot.at(0, point.residual_hu + error)
        _, low = plot.at(0, point.residual_hu - error)
        page.line(x, low, x, high, colour=TEXT, width=1.4)
        for end in (low, high):
            page.line(x - 6, end, x + 6, end, colour=TEXT, width=1.4)
        _dot(page, x, y, full=True)
        page.text(x, box.bottom + 4, point.rod.name, size=13, bold=True, align="center")


def _dot(page: Page, x: float, y: float, *, full: bool) -> None:
    axes = page.axes(Box(left=x - 8, top=y - 8, right=x + 8, bottom=y + 8))
    axes.set_xlim(-8, 8)
    axes.set_ylim(-8, 8)
    axes.add_patch(Circle((0, 0), 5, facecolor=CAUTION if full else "none", edgecolor=CAUTION, linewidth=1.5))


def _horizontals(page: Page, plot: _Plot) -> None:
    """The scale at the left, with a faint line across the plot at each of its numbers."""
    for value in _ticks(plot.y):
        _, y = plot.at(plot.x[0], value)
        page.line(plot.box.left, y, plot.box.right, y, colour=RULE, width=0.6)
        page.text(plot.box.left - 8, y - 8, _short(value), size=13, colour=QUIET, align="right")


def _ticks(span: tuple[float, float]) -> list[float]:
    low, high = span
    return [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


def _short(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)


def _image(page: Page, box: Box, report: Report, volume: CtVolume) -> None:
    """The axial slice through the middle of the rods: anterior up, the patient's right on the left."""
    calibration, say = report.calibration, page.say
    rods = rods_in_view(calibration)
    if not rods:
        scanned = calibration.scanned_on if calibration else None
        words = say(
            "rods-elsewhere",
            date=scanned.isoformat() if scanned else say("earlier"),
        )
        page.text(box.left, box.top, words, size=16, colour=CAUTION, width=box.right - box.left)
        return
    upright, _ = canonical(volume)
    grid = upright.grid
    ends = grid.to_index(np.concatenate([np.asarray(rod.axis_points_mm) for rod in rods]))
    row = int(np.clip(round(float(np.median(ends[:, 0]))), 0, grid.shape[0] - 1))
    circles = rod_circles(rods, grid, row, ends.mean(axis=0))
    page.text(box.left, box.top - 24, say("rods-axial"), size=16, bold=True, colour=ACCENT)
    axes = page.axes(box)
    image = grey(upright.hu[row])
    show(axes, image, axial_extent(grid, ends.mean(axis=0)), np.zeros(image.shape[:2], bool))
    side = max([abs(one.x_mm) + one.radius_mm for one in circles], default=0.0) + _AROUND_MM
    limit(axes, box, (-side, side), (_AROUND_MM, -_AROUND_MM))
    for place, one in enumerate(circles):
        draw_rod(axes, one)
        # Above and below by turns: long names of a narrow row stand clear of each other.
        away = one.radius_mm + 0.16 * side
        y_mm = one.y_mm + (away if place % 2 else -away)
        label(axes, one.x_mm, y_mm, one.rod.name, page.typeface, align="center")
    axial_marks(axes)


def _table(
    page: Page, say: Phrasebook, corner: tuple[float, float], points: Sequence[FitPoint], mineral: str
) -> None:
    left, top = corner
    heads = (say("rod-column"), f"mg/cm³ {mineral}", "HU ± SE", say("distance-column"))
    for place, head in enumerate(heads):
        align = "left" if place == 0 else "right"
        page.text(left + _COLUMNS[place], top, head, size=13, colour=QUIET, align=align)
    y = top + 18
    page.line(left, y, left + _COLUMNS[-1], y, colour=RULE)
    for point in points:
        rod = point.rod
        cells = (
            rod.name,
            number(rod.density_mg_cm3, 1),
            f"{number(rod.hu_mean, 1)} ± {number(rod.hu_standard_error, 2)}",
            number(point.residual_hu, 1) if point.fitted else say("not-in-fit"),
        )
        for place, cell in enumerate(cells):
            align = "left" if place == 0 else "right"
            page.text(left + _COLUMNS[place], y + 3, cell, size=14, bold=place == 0, align=align)
        y += 19


def _facts(page: Page, say: Phrasebook, calibration: Calibration, top: float) -> None:
    words = f"{equation(calibration)}, {equivalent(say, calibration.equivalent)}"
    y = page.text(MARGIN, top, words, size=18, bold=True)
    facts = [
        say("fact-method", name=calibration.method),
        say("fact-phantom", name=calibration.phantom_named),
        say("fact-grade", grade=GRADES[calibration.grade]),
    ]
    if calibration.r2 is not None:
        facts.append(f"R² {calibration.r2:.5f}")
    if calibration.max_residual_hu is not None:
        largest = number(calibration.max_residual_hu, 1)
        facts.append(say("fact-largest-distance", hu=largest))
    if calibration.left_out:
        facts.append(say("rods-not-in-fit", rods=", ".join(calibration.left_out)))
    page.text(MARGIN, y + 2, "   ·   ".join(facts), size=14, colour=QUIET, width=WIDTH - 2 * MARGIN)
