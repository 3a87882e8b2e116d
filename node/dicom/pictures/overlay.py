"""Page 3: where density was read, on the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Circle

from config.phrases import Phrasebook
from node.dicom.pictures.frame import CONTENT_BOTTOM, MARGIN, framed_page
from node.dicom.pictures.layout import ACCENT, CAUTION, QUIET, WIDTH, Box, Page, Pixels
from node.dicom.pictures.panel import blend, grey, label, limit, orientation, outline, scale_bar, show
from node.dicom.pictures.rods import rod_circles
from node.dicom.pictures.typeface import LATIN, Typeface
from node.dicom.pictures.words import MINERALS, REGIONS, number, region_of
from node.dicom.rods import rods_in_view
from node.report import Report
from scoring.bmd import RegionKind
from segmentation.vertebrae import Regions, Vertebrae
from segmentation.volume import CtVolume, Grid, Mask, canonical

_SAGITTAL_HALF_DEPTH_MM = 85.0
_MARGIN_MM = 15.0
_SECOND_LINE_MM = 8.0  # of a rod's label
_PANEL_GAP = 20
_SAGITTAL_SHARE = 0.40  # of the width
_ONE_ROW = 3  # rods whose labels fit beside each other
_LABEL_OFFSET_MM = 28.0  # level names stand behind the bodies


def draw_overlay(
    report: Report,
    volume: CtVolume,
    vertebrae: Vertebrae,
    regions: Sequence[Regions],
    typeface: Typeface = LATIN,
    *,
    say: Phrasebook | None = None,
) -> Pixels:
    """The overlay page as RGB, shape (768, 1024, 3)."""
    return compose_overlay(report, volume, vertebrae, regions, typeface, say=say).pixels()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What both planes show, with array axes towards superior, posterior and left."""

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
    page, top = framed_page(report, "title-overlay", typeface, say)
    say = page.say
    scene = _scene(report, volume, vertebrae, regions)
    bottom = CONTENT_BOTTOM - 30
    middle = MARGIN + (WIDTH - 2 * MARGIN) * _SAGITTAL_SHARE
    page.text(MARGIN, top, say("plane-sagittal"), size=16, bold=True, colour=ACCENT)
    _sagittal(page, Box(left=MARGIN, top=top + 24, right=middle, bottom=bottom), scene)
    left = middle + _PANEL_GAP
    axial = say("plane-axial", level=scene.level or say("middle-of-volume"))
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
        label(axes, (y - centre[1]) * sy + _LABEL_OFFSET_MM, z * sz, level.name, page.typeface)
    orientation(axes, left="A", right="P", top="H", bottom="F")
    scale_bar(axes)


def _axial(page: Page, box: Box, scene: _Scene) -> None:
    """The plane z = centre as a radiologist sees it: anterior up, the patient's right on the left."""
    grid, centre = scene.volume.grid, scene.centre
    row = int(np.clip(round(centre[0]), 0, grid.shape[0] - 1))
    _, sy, sx = grid.spacing_mm
    _, ny, nx = grid.shape
    plane = blend(grey(scene.volume.hu[row]), scene.fill[row])
    axes = page.axes(box)
    left, right = (-0.5 - centre[2]) * sx, (nx - 0.5 - centre[2]) * sx
    front, back = (-0.5 - centre[1]) * sy, (ny - 0.5 - centre[1]) * sy
    show(axes, plane, (left, right, back, front), scene.bodies[row])
    outline(axes, scene.ellipse[row], (left, right, back, front))
    calibration = scene.report.calibration
    mineral = MINERALS[calibration.equivalent] if calibration else ""
    circles = rod_circles(rods_in_view(calibration), grid, row, centre)
    reach_x = max([85.0, *(abs(one.x_mm) + one.radius_mm + _MARGIN_MM for one in circles)])
    narrow = len(circles) > _ONE_ROW
    below = (3 if narrow else 2) * _MARGIN_MM + _SECOND_LINE_MM  # room for labels above the scale
    reach_y = max([60.0, *(one.y_mm + one.radius_mm + below for one in circles)])
    limit(axes, box, (-reach_x, reach_x), (reach_y, -75.0))
    for place, one in enumerate(circles):
        at = (one.x_mm, one.y_mm)
        axes.add_patch(Circle(at, one.radius_mm, fill=False, edgecolor=CAUTION, linewidth=1.6))
        words = f"{number(one.rod.density_mg_cm3, 0)} mg/cm³\n{mineral}"
        away = one.radius_mm + 11
        above = narrow and place % 2  # labels of a narrow row stand below and above by turns
        label(axes, one.x_mm, one.y_mm + (-away if above else away), words, page.typeface, align="center")
    orientation(axes, left="R", right="L", top="A", bottom="P")
    scale_bar(axes)
