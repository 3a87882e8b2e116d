"""A page: measured text that wraps and fits, boxes, lines. Coordinates are pixels from the top left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text

from config.phrases import Phrasebook, load_phrases
from node.dicom.pictures.breaking import lines_of
from node.dicom.pictures.typeface import DPI, DRAWING, LATIN, Typeface

WIDTH, HEIGHT = 1024, 768

# Told apart by lightness first, so that a grey-scale monitor shows the same.
BACKGROUND = "#0e1116"
RULE = "#4a5565"
TEXT = "#f2f5f8"
QUIET = "#a9b4c2"
CAUTION = "#ffc857"
REFUSAL = "#ff8f7a"
ACCENT = "#6fd3ff"

_LINE_HEIGHT = 1.32
_ELLIPSIS = "…"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in pixels from the top left."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box, *, slack: float = 0.0) -> bool:
        return (
            self.left + slack < other.right
            and other.left + slack < self.right
            and self.top + slack < other.bottom
            and other.top + slack < self.bottom
        )


class Page:
    """One picture being drawn."""

    def __init__(self, typeface: Typeface = LATIN, say: Phrasebook | None = None) -> None:
        self.typeface = typeface
        self.say = say or load_phrases()
        self.figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=BACKGROUND)
        self._canvas = FigureCanvasAgg(self.figure)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 16,
        colour: str = TEXT,
        bold: bool = False,
        align: str = "left",
        width: float | None = None,
    ) -> float:
        """Write `words` with the top of the first line at `y`; returns where the next line would start.

        Parameters
        ----------
        size : height of the font in pixels.
        width : wrap to this many pixels; None writes one line.
        """
        words = self.typeface.drawable(words)
        lines = [words] if width is None else self.wrap(words, width, size=size, bold=bold)
        for line in lines:
            self.figure.text(
                x / WIDTH,
                1 - (y + size) / HEIGHT,
                line,
                fontproperties=self.typeface.font(size, bold=bold),
                color=colour,
                ha=align,
                va="baseline",
                parse_math=False,
            )
            y += size * _LINE_HEIGHT
        return y

    def text_width(self, words: str, *, size: float = 16, bold: bool = False) -> float:
        """Width in pixels of one line."""
        return self.typeface.width(words, size, bold=bold)

    def wrap(self, words: str, width: float, *, size: float = 16, bold: bool = False) -> list[str]:
        """`words` in lines of at most `width` pixels; a word longer than a line is broken."""
        return lines_of(words, lambda line: self.text_width(line, size=size, bold=bold) <= width)

    def text_within(
        self,
        box: Box,
        words: str,
        *,
        sizes: Sequence[float],
        colour: str = TEXT,
        bold: bool = False,
    ) -> float:
        """Write `words` into `box` at the first of `sizes` that fits; returns where a next line would start.

        What does not fit at the last size is cut, and an ellipsis says so.
        """
        width, height = box.right - box.left, box.bottom - box.top
        size = next(
            (one for one in sizes if self.height_of(words, width, size=one, bold=bold) <= height), sizes[-1]
        )
        lines = self.wrap(words, width, size=size, bold=bold)
        room = max(int(height / (size * _LINE_HEIGHT)), 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], self._cut(lines[room - 1], width, size=size, bold=bold)]
        y = box.top
        for line in lines:
            y = self.text(box.left, y, line, size=size, colour=colour, bold=bold)
        return y

    def _cut(self, line: str, width: float, *, size: float, bold: bool) -> str:
        while line and self.text_width(line + _ELLIPSIS, size=size, bold=bold) > width:
            line = line[:-1]
        return line.rstrip() + _ELLIPSIS

    def height_of(self, words: str, width: float, *, size: float = 16, bold: bool = False) -> float:
        """Height in pixels that `text` would take."""
        return len(self.wrap(words, width, size=size, bold=bold)) * size * _LINE_HEIGHT

    def box(self, box: Box, *, fill: str) -> None:
        self.figure.add_artist(
            Rectangle(
                (box.left / WIDTH, 1 - box.bottom / HEIGHT),
                (box.right - box.left) / WIDTH,
                (box.bottom - box.top) / HEIGHT,
                facecolor=fill,
                edgecolor=fill,
                linewidth=1,
                zorder=-1,
            )
        )

    def line(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        *,
        colour: str = RULE,
        width: float = 1,
        dashed: bool = False,
    ) -> None:
        self.figure.add_artist(
            Line2D(
                [x0 / WIDTH, x1 / WIDTH],
                [1 - y0 / HEIGHT, 1 - y1 / HEIGHT],
                color=colour,
                linewidth=width,
                linestyle=(0, (3, 3)) if dashed else "solid",
            )
        )

    def marker(self, x: float, y: float, *, size: float = 11, colour: str = CAUTION) -> None:
        """A triangle that stands on (x, y) with its tip."""
        corners = [(x, y), (x - size * 0.6, y - size), (x + size * 0.6, y - size)]
        self.figure.add_artist(
            Polygon(
                [(px / WIDTH, 1 - py / HEIGHT) for px, py in corners], facecolor=colour, edgecolor=BACKGROUND
            )
        )

    def axes(self, box: Box) -> Axes:
        """Axes without frame or ticks that fill `box`."""
        axes = self.figure.add_axes(
            (
                box.left / WIDTH,
                1 - box.bottom / HEIGHT,
                (box.right - box.left) / WIDTH,
                (box.bottom - box.top) / HEIGHT,
            )
        )
        axes.set_axis_off()
        return axes

    def pixels(self) -> Pixels:
        """The page as RGB, shape (768, 1024, 3), the same on every call."""
        with matplotlib.rc_context(DRAWING):
            self._canvas.draw()
        return np.ascontiguousarray(np.asarray(self._canvas.buffer_rgba())[..., :3])

    def text_boxes(self) -> list[tuple[str, Box]]:
        """Every text on the page and where its ink lies: for tests of clipping and overlap."""
        renderer = self._canvas.get_renderer()
        written = [one for one in self.figure.findobj(Text) if one.get_text() and one.get_visible()]
        with matplotlib.rc_context(DRAWING):
            extents = [artist.get_window_extent(renderer) for artist in written]
        return [
            (
                artist.get_text(),
                Box(left=ink.x0, top=HEIGHT - ink.y1, right=ink.x1, bottom=HEIGHT - ink.y0),
            )
            for artist, ink in zip(written, extents, strict=True)
        ]
