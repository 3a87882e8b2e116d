"""Page 3: where density was read, on the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle

from node.dicom.pictures.frame import CONTENT_BOTTOM, MARGIN, framed_page
from node.dicom.pictures.layout import ACCENT, CAUTION, QUIET, TEXT, WIDTH, Box, Page, Pixels, font
from node.dicom.pictures.words import number
from node.report import Report
from scoring.calibration import RodReading
from segmentation.vertebrae import Regions, Vertebrae
from segmentation.volume import CtVolume, Grid, Mask, canonical

_WINDOW_HU = (-160.0, 440.0)
_FILL_OPACITY = 0.40
_SAGITTAL_HALF_DEPTH_MM = 85.0
_MARGIN_MM = 15.0
_PANEL_GAP = 20
_BACKDROP = {"facecolor": "black", "alpha": 0.55, "pad": 2, "edgecolor": "none"}
_SAGITTAL_SHARE = 0.40  # of the width
_LABEL_OFFSET_MM = 28.0  # level names stand behind the bodies

Image = npt.NDArray[np.float64]


def draw_overlay(
    report: Report, volume: CtVolume, vertebrae: Vertebrae, regions: Sequence[Regions]
) -> Pixels:
    """The overlay page as RGB, shape (768, 1024, 3)."""
    return compose_overlay(report, volume, vertebrae, regions).pixels()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What both planes show, with array axes towards superior, posterior and left."""

    report: Report
    volume: CtVolume
    bodies: Mask
    fill: Mask  # where BMD is read
    level: str  # that the axial plane cuts
    centre: npt.NDArray[np.float64]  # fractional index (z, y, x) that both planes pass through


def compose_overlay(
    report: Report, volume: CtVolume, vertebrae: Vertebrae, regions: Sequence[Regions]
) -> Page:
    page, top = framed_page(report, "Measured regions")
    scene = _scene(report, volume, vertebrae, regions)
    bottom = CONTENT_BOTTOM - 30
    middle = MARGIN + (WIDTH - 2 * MARGIN) * _SAGITTAL_SHARE
    page.text(MARGIN, top, "Sagittal", size=16, bold=True, colour=ACCENT)
    _sagittal(page, Box(left=MARGIN, top=top + 24, right=middle, bottom=bottom), scene)
    left = middle + _PANEL_GAP
    page.text(left, top, f"Axial through {scene.level}", size=16, bold=True, colour=ACCENT)
    _axial(page, Box(left=left, top=top + 24, right=WIDTH - MARGIN, bottom=bottom), scene)
    legend = (
        "outline: vertebral body   ·   filled: region where BMD is read   ·   circles: where rods are read"
    )
    page.text(MARGIN, CONTENT_BOTTOM - 22, legend, size=14, colour=QUIET)
    return page


def _scene(report: Report, volume: CtVolume, vertebrae: Vertebrae, regions: Sequence[Regions]) -> _Scene:
    upright, turn = canonical(volume)
    shown = [region for region in regions if _is_measured(report, region.level)]
    fill = np.zeros(volume.grid.shape, dtype=bool)
    for region in shown:
        fill |= region.bmd
    level = _axial_level(report, [region.level for region in shown])
    return _Scene(
        report=report,
        volume=upright,
        bodies=turn.forward(vertebrae.bodies > 0),
        fill=turn.forward(fill),
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
    return report.levels[0].name if report.levels else "the middle of the volume"


def _centre_of(name: str, regions: Sequence[Regions], grid: Grid) -> npt.NDArray[np.float64]:
    region = next((r for r in regions if r.level == name), None)
    if region is not None and region.bmd.any():
        centre: npt.NDArray[np.float64] = grid.to_patient(np.argwhere(region.bmd).mean(axis=0))
        return centre
    return grid.to_patient((np.asarray(grid.shape) - 1) / 2)


def _grey(plane: npt.NDArray[np.float32]) -> Image:
    low, high = _WINDOW_HU
    grey = np.clip((plane.astype(float) - low) / (high - low), 0, 1)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def _blend(image: Image, mask: Mask) -> Image:
    colour = np.asarray(to_rgb(CAUTION))
    blended = image.copy()
    blended[mask] = (1 - _FILL_OPACITY) * image[mask] + _FILL_OPACITY * colour
    return blended


def _show(axes: Axes, image: Image, extent: tuple[float, float, float, float], bodies: Mask) -> None:
    """Draw one plane; `extent` is (left, right, bottom, top) in mm, row 0 of the image at the top."""
    axes.imshow(np.clip(image, 0, 1), extent=extent, interpolation="bilinear", aspect="equal")
    if bodies.any():
        left, right, bottom, top = extent
        rows, columns = bodies.shape
        x = left + (np.arange(columns) + 0.5) * (right - left) / columns
        y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
        axes.contour(x, y, bodies.astype(float), levels=[0.5], colors=[ACCENT], linewidths=1.3)


def _sagittal(page: Page, box: Box, scene: _Scene) -> None:
    """The plane x = centre, superior up, anterior left; mm along y from the centre, along z from slice 0."""
    grid, centre = scene.volume.grid, scene.centre
    column = int(np.clip(round(centre[2]), 0, grid.shape[2] - 1))
    sz, sy, _ = grid.spacing_mm
    nz, ny, _ = grid.shape
    plane = _blend(_grey(scene.volume.hu[:, :, column]), scene.fill[:, :, column])[::-1]
    axes = page.axes(box)
    low, high = -0.5 * sz, (nz - 0.5) * sz
    extent = ((-0.5 - centre[1]) * sy, (ny - 0.5 - centre[1]) * sy, low, high)
    _show(axes, plane, extent, scene.bodies[::-1, :, column])
    half = min(_SAGITTAL_HALF_DEPTH_MM, ny * sy)
    _limit(axes, box, (-half, half), (low, high))
    for level in scene.report.levels:
        z, y, _ = grid.to_index(level.centroid_mm)
        _label(axes, (y - centre[1]) * sy + _LABEL_OFFSET_MM, z * sz, level.name)
    _orientation(axes, left="A", right="P", top="H", bottom="F")
    _scale_bar(axes)


def _axial(page: Page, box: Box, scene: _Scene) -> None:
    """The plane z = centre as a radiologist sees it: anterior up, the patient's right on the left."""
    grid, centre = scene.volume.grid, scene.centre
    row = int(np.clip(round(centre[0]), 0, grid.shape[0] - 1))
    _, sy, sx = grid.spacing_mm
    _, ny, nx = grid.shape
    plane = _blend(_grey(scene.volume.hu[row]), scene.fill[row])
    axes = page.axes(box)
    left, right = (-0.5 - centre[2]) * sx, (nx - 0.5 - centre[2]) * sx
    front, back = (-0.5 - centre[1]) * sy, (ny - 0.5 - centre[1]) * sy
    _show(axes, plane, (left, right, back, front), scene.bodies[row])
    circles = _rod_circles(scene.report, grid, row, centre)
    reach_x = max([85.0, *(abs(x) + radius + _MARGIN_MM for _, x, _, radius in circles)])
    reach_y = max([60.0, *(y + radius + 2 * _MARGIN_MM for _, _, y, radius in circles)])
    _limit(axes, box, (-reach_x, reach_x), (reach_y, -75.0))
    for rod, x, y, radius in circles:
        axes.add_patch(Circle((x, y), radius, fill=False, edgecolor=CAUTION, linewidth=1.6))
        _label(axes, x, y + radius + 9, f"{number(rod.density_mg_cm3, 0)} mg/cm³", align="center")
    _orientation(axes, left="R", right="L", top="A", bottom="P")
    _scale_bar(axes)


def _rod_circles(
    report: Report, grid: Grid, row: int, centre: npt.NDArray[np.float64]
) -> list[tuple[RodReading, float, float, float]]:
    """Each rod where it crosses axial slice `row`: x and y in mm from the plane's centre, and its radius."""
    circles = []
    for rod in report.calibration.rods if report.calibration else ():
        points = grid.to_index(np.asarray(rod.axis_points_mm))
        if len(points) < 2:
            continue
        points = points[np.argsort(points[:, 0])]
        x = float(np.interp(row, points[:, 0], points[:, 2]))
        y = float(np.interp(row, points[:, 0], points[:, 1]))
        length_mm = float(np.ptp(points[:, 0])) * grid.spacing_mm[0]
        volume_mm3 = rod.voxels * grid.voxel_volume_mm3
        radius = float(np.sqrt(volume_mm3 / (np.pi * max(length_mm, grid.spacing_mm[0]))))
        circles.append(
            (rod, (x - centre[2]) * grid.spacing_mm[2], (y - centre[1]) * grid.spacing_mm[1], radius)
        )
    return circles


def _limit(axes: Axes, box: Box, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Show at least the ranges given, widened so that a millimetre is as long across as down."""
    shape = (box.right - box.left) / (box.bottom - box.top)
    width, height = abs(x[1] - x[0]), abs(y[1] - y[0])
    grow_x, grow_y = max(height * shape - width, 0) / 2, max(width / shape - height, 0) / 2
    sense = 1 if y[1] > y[0] else -1
    axes.set_aspect("auto")
    axes.set_xlim(x[0] - grow_x, x[1] + grow_x)
    axes.set_ylim(y[0] - sense * grow_y, y[1] + sense * grow_y)
    axes.set_facecolor("black")
    axes.patch.set_visible(True)


def _label(axes: Axes, x: float, y: float, words: str, *, align: str = "left") -> None:
    axes.text(
        x, y, words, color=TEXT, fontproperties=font(15, bold=True), ha=align, va="center", bbox=_BACKDROP
    )


def _orientation(axes: Axes, *, left: str, right: str, top: str, bottom: str) -> None:
    """Orientation marks at the middle of the four sides."""
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
            fontproperties=font(20, bold=True),
            ha=align,
            va="center",
            bbox=_BACKDROP,
        )


def _scale_bar(axes: Axes) -> None:
    x0, _ = axes.get_xlim()
    y0, y1 = axes.get_ylim()
    y = y0 + 0.06 * (y1 - y0)
    left = x0 + 8
    axes.plot([left, left + 50], [y, y], color=TEXT, linewidth=2)
    words_at = y + 0.018 * (y1 - y0)
    axes.text(left + 25, words_at, "50 mm", color=TEXT, fontproperties=font(13), ha="center", va="bottom")
