"""A page: measured text that wraps and fits, boxes, lines. Coordinates are pixels from the top left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text

WIDTH, HEIGHT = 1024, 768
_DPI = 100
_POINTS_PER_PIXEL = 72 / _DPI

# Told apart by lightness first, so that a grey-scale monitor shows the same.
BACKGROUND = "#0e1116"
RULE = "#4a5565"
TEXT = "#f2f5f8"
QUIET = "#a9b4c2"
CAUTION = "#ffc857"
REFUSAL = "#ff8f7a"
ACCENT = "#6fd3ff"

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_REGULAR = FontProperties(fname=str(_FONTS / "DejaVuSans.ttf"))
_BOLD = FontProperties(fname=str(_FONTS / "DejaVuSans-Bold.ttf"))
_LINE_HEIGHT = 1.32

_RULER = RendererAgg(1, 1, _DPI)  # measures text, draws nothing
_GLYPHS = frozenset(get_font(str(_FONTS / "DejaVuSans.ttf")).get_charmap())

Pixels = npt.NDArray[np.uint8]


def font(size: float, *, bold: bool = False) -> FontProperties:
    """DejaVu Sans as matplotlib ships it, `size` pixels high, whatever the machine's own fonts are."""
    properties = (_BOLD if bold else _REGULAR).copy()
    properties.set_size(size * _POINTS_PER_PIXEL)
    return properties


def drawable(words: str) -> str:
    """`words` with a question mark for every sign that the font has no glyph for."""
    return "".join(sign if ord(sign) in _GLYPHS else "?" for sign in words)


@lru_cache(maxsize=8192)
def _measured_width(words: str, size: float, bold: bool) -> float:
    """Wrapping measures the same words again and again."""
    width, _, _ = _RULER.get_text_width_height_descent(words, font(size, bold=bold), ismath=False)
    return float(width)


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

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=BACKGROUND)
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
        words = drawable(words)
        lines = [words] if width is None else self.wrap(words, width, size=size, bold=bold)
        for line in lines:
            self.figure.text(
                x / WIDTH,
                1 - (y + size) / HEIGHT,
                line,
                fontproperties=font(size, bold=bold),
                color=colour,
                ha=align,
                va="baseline",
                parse_math=False,
            )
            y += size * _LINE_HEIGHT
        return y

    def text_width(self, words: str, *, size: float = 16, bold: bool = False) -> float:
        """Width in pixels of one line."""
        return _measured_width(drawable(words), size, bold)

    def wrap(self, words: str, width: float, *, size: float = 16, bold: bool = False) -> list[str]:
        """`words` in lines of at most `width` pixels; a word longer than a line is broken."""
        lines = [""]
        for word in words.split():
            joined = f"{lines[-1]} {word}".strip()
            if self.text_width(joined, size=size, bold=bold) <= width:
                lines[-1] = joined
                continue
            pieces = self._pieces(word, width, size=size, bold=bold)
            lines += pieces if lines[-1] else []
            if not lines[0]:
                lines = pieces
        return lines

    def _pieces(self, word: str, width: float, *, size: float, bold: bool) -> list[str]:
        pieces = [""]
        for sign in word:
            if self.text_width(pieces[-1] + sign, size=size, bold=bold) > width and pieces[-1]:
                pieces.append("")
            pieces[-1] += sign
        return pieces

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
        # Whatever a user's matplotlibrc says, the same bytes.
        with matplotlib.rc_context(
            {"text.hinting": "force_autohint", "text.antialiased": True, "path.simplify": True}
        ):
            self._canvas.draw()
        return np.ascontiguousarray(np.asarray(self._canvas.buffer_rgba())[..., :3])

    def text_boxes(self) -> list[tuple[str, Box]]:
        """Every text on the page and where its ink lies: for tests of clipping and overlap."""
        renderer = self._canvas.get_renderer()
        boxes = []
        for artist in self.figure.findobj(Text):
            if not artist.get_text() or not artist.get_visible():
                continue
            extent = artist.get_window_extent(renderer)
            box = Box(left=extent.x0, top=HEIGHT - extent.y1, right=extent.x1, bottom=HEIGHT - extent.y0)
            boxes.append((artist.get_text(), box))
        return boxes
