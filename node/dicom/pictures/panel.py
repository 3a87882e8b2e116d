"""One image on a page: grey values, what is drawn on them, orientation marks and a scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from node.dicom.pictures.layout import ACCENT, CAUTION, TEXT, Box
from node.dicom.pictures.typeface import LATIN, Typeface

_WINDOW_HU = (-160.0, 440.0)
_FILL_OPACITY = 0.40
_BACKDROP = {"facecolor": "black", "alpha": 0.55, "pad": 2, "edgecolor": "none"}

Image = npt.NDArray[np.float64]


def grey(plane: npt.NDArray[np.float32]) -> Image:
    """HU as RGB between 0 and 1, in a window that shows bone and muscle."""
    low, high = _WINDOW_HU
    grey = np.clip((plane.astype(float) - low) / (high - low), 0, 1)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def blend(image: Image, mask: npt.NDArray[np.bool_]) -> Image:
    """The image with a mask laid over it."""
    colour = np.asarray(to_rgb(CAUTION))
    blended = image.copy()
    blended[mask] = (1 - _FILL_OPACITY) * image[mask] + _FILL_OPACITY * colour
    return blended


def show(
    axes: Axes, image: Image, extent: tuple[float, float, float, float], bodies: npt.NDArray[np.bool_]
) -> None:
    """Draw one plane; `extent` is (left, right, bottom, top) in mm, row 0 of the image at the top."""
    axes.imshow(np.clip(image, 0, 1), extent=extent, interpolation="bilinear", aspect="equal")
    _contour(axes, bodies, extent, colour=ACCENT, style="solid")


def outline(axes: Axes, mask: npt.NDArray[np.bool_], extent: tuple[float, float, float, float]) -> None:
    """A dashed outline of a part of the plane, light enough to be told from the bodies' in grey."""
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


def label(axes: Axes, x: float, y: float, words: str, typeface: Typeface, *, align: str = "left") -> None:
    """Words, of one line or several, at a place given in the axes' own millimetres."""
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
