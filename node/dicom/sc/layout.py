"""The layout of a page: fonts, line breaking, a canvas with text and lines, and the frame of every page.

Coordinates are pixels from the top left. Fonts are DejaVu Sans, and one that the site has installed for the
characters it lacks. Lines break at spaces and between Chinese characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, fontManager, get_font
from matplotlib.ft2font import LoadFlags
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text

from config.phrases import Phrasebook, load_phrases
from node.dicom.sc.words import banners, provenance_line, term
from node.study_report import Report

DPI = 100
_POINTS_PER_PIXEL = 72 / DPI
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_REGULAR = _FONTS / "DejaVuSans.ttf"
_BOLD = _FONTS / "DejaVuSans-Bold.ttf"
# The same bytes whatever a user's matplotlibrc sets, and text as wide when measured as when drawn.
DRAWING = {"text.hinting": "force_autohint", "text.antialiased": True, "path.simplify": True}
_HINTING = LoadFlags.FORCE_AUTOHINT  # what "force_autohint" means to FreeType
_SUBPIXELS = 64.0  # of FreeType's lengths, in a pixel


@dataclass(frozen=True, slots=True, kw_only=True)
class Typeface:
    """The fonts that words are drawn with.

    Attributes
    ----------
    wide : font file for Chinese and whatever else DejaVu Sans lacks; None for DejaVu Sans alone.
    """

    wide: Path | None = None

    def font(self, size: float, *, bold: bool = False) -> FontProperties:
        """The font for matplotlib. Chinese has one weight only.

        Parameters
        ----------
        size : height in pixels.
        """
        families = [_family(path) for path in self.files(bold=bold)]
        return FontProperties(family=families, size=size * _POINTS_PER_PIXEL)

    def files(self, *, bold: bool) -> tuple[Path, ...]:
        """The font files; a character is drawn from the first that has it."""
        return (_BOLD if bold else _REGULAR, *((self.wide,) if self.wide else ()))

    def drawable(self, words: str) -> str:
        """`words` with a question mark for every character that has no glyph."""
        known = [_glyphs(path) for path in self.files(bold=False)]
        return "".join(
            sign if sign == "\n" or any(ord(sign) in glyphs for glyphs in known) else "?" for sign in words
        )

    def width(self, words: str, size: float, *, bold: bool = False) -> float:
        """Width in pixels of one line."""
        return _measured_width(self, words, size, bold)


LATIN = Typeface()


@lru_cache
def _family(path: Path) -> str:
    """A family name for this one file, whatever fonts a machine has and matplotlib has cached.

    matplotlib takes characters that one font lacks from the next only where fonts are named by family.
    """
    name = f"osteonode:{path}"
    fontManager.ttflist.append(FontEntry(fname=str(path), name=name))
    return name


@lru_cache
def _glyphs(path: Path) -> frozenset[int]:
    return frozenset(get_font(str(path)).get_charmap())


@lru_cache(maxsize=8192)
def _measured_width(typeface: Typeface, words: str, size: float, bold: bool) -> float:
    """As matplotlib's Agg backend measures it, without the settings that it would look up for each line."""
    font = get_font([str(path) for path in typeface.files(bold=bold)])
    font.clear()
    font.set_size(size * _POINTS_PER_PIXEL, DPI)
    font.set_text(typeface.drawable(words), 0.0, flags=_HINTING)
    width, _ = font.get_width_height()
    return float(width) / _SUBPIXELS


# ---- line breaking ----

# Never first in a line, never last in a line (GB/T 15834-2011, 5.1).
_CLOSING = frozenset("，。、；：？！）》」』】〕”’…·,.;:?!)]}%")
_OPENING = frozenset("（《「『【〔“‘([{")
_FIRST_GUESS = 12  # units of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Characters that stay in one line.

    Attributes
    ----------
    text : without spaces.
    after_space : whether a space separates it from the unit before in the same line.
    """

    text: str
    after_space: bool


def lines_of(words: str, fits: Callable[[str], bool]) -> list[str]:
    """`words` in lines that fit; a unit longer than a line is broken.

    Parameters
    ----------
    fits : whether a line fits. It costs far more than all else here, so each line begins with as many units
        as the one before had. What is shorter than a line that fits has to fit, too.

    Returns
    -------
    At least one line; an empty one where there are no words.
    """
    units = units_of(words)
    lines, taken, guess = [""], 0, _FIRST_GUESS
    while taken < len(units):
        longest = partial(_joined, lines[-1], units[taken:])
        count = min(guess, len(units) - taken)
        while count and not fits(longest(count)):
            count -= 1
        while count >= guess and taken + count < len(units) and fits(longest(count + 1)):
            count += 1
        if count:
            lines[-1] = longest(count)
            taken, guess = taken + count, max(count, 1)
        else:
            unit = units[taken].text
            pieces = [unit] if fits(unit) else _pieces(unit, fits)
            lines = lines + pieces if lines[-1] else pieces
            taken += 1
    return lines


def _joined(line: str, units: Sequence[Unit], count: int) -> str:
    """A line with so many units more."""
    for unit in units[:count]:
        line = f"{line} {unit.text}" if unit.after_space and line else line + unit.text
    return line


def units_of(words: str) -> list[Unit]:
    """The parts of a text that may not be broken, in order.

    Source: GB/T 15834-2011, 5.1 (punctuation that may not begin or end a line).
    """
    return [
        Unit(text=part, after_space=place == 0)
        for word in words.split()
        for place, part in enumerate(_parts(word))
    ]


def _parts(word: str) -> list[str]:
    parts = [word[0]]
    for before, sign in pairwise(word):
        if _may_break(before, sign):
            parts.append("")
        parts[-1] += sign
    return parts


def _may_break(before: str, after: str) -> bool:
    if before in _OPENING or after in _CLOSING:
        return False
    return _is_wide(before) or _is_wide(after)


def _is_wide(sign: str) -> bool:
    """Whether a character is full-width: a Chinese one, or punctuation among them."""
    return "\u2e80" <= sign <= "\u9fff" or "\uf900" <= sign <= "\ufaff" or "\uff01" <= sign <= "\uff60"


def _pieces(unit: str, fits: Callable[[str], bool]) -> list[str]:
    pieces = [""]
    for sign in unit:
        if pieces[-1] and not fits(pieces[-1] + sign):
            pieces.append("")
        pieces[-1] += sign
    return pieces


# ---- the canvas ----

WIDTH, HEIGHT = 1024, 768

# Different in lightness first, so that a grey-scale monitor shows the same.
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
    """A rectangle in pixels from the top left.

    Attributes
    ----------
    left, top, right, bottom : of its edges.
    """

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box, *, slack: float = 0.0) -> bool:
        """Whether two rectangles overlap by more than `slack` pixels."""
        return (
            self.left + slack < other.right
            and other.left + slack < self.right
            and self.top + slack < other.bottom
            and other.top + slack < self.bottom
        )


def _in_figure(box: Box) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a box in matplotlib's fractions of the figure."""
    width, height = (box.right - box.left) / WIDTH, (box.bottom - box.top) / HEIGHT
    return box.left / WIDTH, 1 - box.bottom / HEIGHT, width, height


class Page:
    """One picture being drawn, of 1024 x 768 pixels.

    Parameters
    ----------
    say : the phrases; by default the shipped English ones.
    """

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
        """Write `words` with the top of the first line at `y`.

        Parameters
        ----------
        x : of the left edge, the middle or the right edge, by `align`: "left", "center" or "right".
        size : height of the font in pixels.
        width : wrap to this many pixels; None writes one line.

        Returns
        -------
        y of a next line.
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
        """Width in pixels of one line.

        Parameters
        ----------
        size : height of the font in pixels.
        """
        return self.typeface.width(words, size, bold=bold)

    def wrap(self, words: str, width: float, *, size: float = 16, bold: bool = False) -> list[str]:
        """`words` in lines of at most `width` pixels; a word longer than a line is broken.

        Parameters
        ----------
        size : height of the font in pixels.
        """
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
        """Write `words` into `box` at the first of `sizes` at which they fit.

        What does not fit at the last size is cut, and an ellipsis marks it.

        Returns
        -------
        y of a next line.
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
        """Height in pixels that `text` would take.

        Parameters
        ----------
        width : in pixels, at which lines are wrapped.
        size : height of the font in pixels.
        """
        return len(self.wrap(words, width, size=size, bold=bold)) * size * _LINE_HEIGHT

    def box(self, box: Box, *, fill: str) -> None:
        """Fill a rectangle behind everything else."""
        left, bottom, width, height = _in_figure(box)
        self.figure.add_artist(
            Rectangle((left, bottom), width, height, facecolor=fill, edgecolor=fill, linewidth=1, zorder=-1)
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
        """Draw a line from (x0, y0) to (x1, y1), in pixels."""
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
        """Draw a triangle that stands on (x, y) with its tip.

        Parameters
        ----------
        size : height in pixels.
        """
        corners = [(x, y), (x - size * 0.6, y - size), (x + size * 0.6, y - size)]
        self.figure.add_artist(
            Polygon(
                [(px / WIDTH, 1 - py / HEIGHT) for px, py in corners], facecolor=colour, edgecolor=BACKGROUND
            )
        )

    def axes(self, box: Box) -> Axes:
        """Axes without frame or ticks that fill `box`."""
        axes = self.figure.add_axes(_in_figure(box))
        axes.set_axis_off()
        return axes

    def pixels(self) -> Pixels:
        """The page as an image, the same on every call.

        Returns
        -------
        RGB, uint8, shape (768, 1024, 3).
        """
        with matplotlib.rc_context(DRAWING):
            self._canvas.draw()
        return np.ascontiguousarray(np.asarray(self._canvas.buffer_rgba())[..., :3])

    def text_boxes(self) -> list[tuple[str, Box]]:
        """Every text on the page with the rectangle of its ink: for tests of clipping and overlap."""
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


# ---- the frame of every page: title, marks, and provenance ----

MARGIN = 24
# Viewers write patient and study over the four corners of an image, in up to six lines: neither badge nor
# title, nor anything else of importance, is there.
CORNER_WIDTH, CORNER_HEIGHT = WIDTH / 4, 108.0
CONTENT_BOTTOM = HEIGHT - 44  # above the footer
FOOTER_RULE = HEIGHT - 34
_FOOTER = Box(left=MARGIN, top=HEIGHT - 32, right=WIDTH - MARGIN, bottom=HEIGHT - 2)
_REASON_SEPARATOR = "; "  # between the reasons for an amendment
_FOOTER_SIZES = (12.0, 11.0, 10.0, 9.0)  # pixels; two lines from 11 down


def framed_page(
    report: Report, title: str, typeface: Typeface, say: Phrasebook | None = None
) -> tuple[Page, float]:
    """A page with its head and foot.

    Parameters
    ----------
    title : the id of its phrase.
    say : the phrases; by default the shipped ones in the report's language.

    Returns
    -------
    The page, and y where its content may start, in pixels.
    """
    say = say or load_phrases(report.language)
    page = Page(typeface, say)
    _badge(page, 5, say("research-use-only"))
    page.text(WIDTH / 2, 33, say(title), size=20, bold=True, align="center")
    scanned = report.study.study_date.isoformat() if report.study.study_date else say("unknown-date")
    status = (
        say("study-of-date", date=scanned),
        say("issued-at", time=f"{report.issued_at:%Y-%m-%d %H:%M %Z}"),
        say("preliminary-result"),
    )
    page.text(WIDTH / 2, 60, "   ·   ".join(status), size=13, colour=QUIET, align="center")
    y = 82.0
    for banner in banners(report, say):
        page.box(Box(left=MARGIN, top=y, right=WIDTH - MARGIN, bottom=y + 24), fill=CAUTION)
        page.text(WIDTH / 2, y + 3, banner, size=15, bold=True, colour=BACKGROUND, align="center")
        y += 28
    if report.predecessor_uid is not None:
        width = WIDTH - 2 * MARGIN
        y = page.text(MARGIN, y + 2, _amendment(report, say), size=15, bold=True, colour=ACCENT, width=width)
    page.line(MARGIN, FOOTER_RULE, WIDTH - MARGIN, FOOTER_RULE)
    page.text_within(_FOOTER, provenance_line(report, say), sizes=_FOOTER_SIZES, colour=QUIET)
    return page, max(y + 6, CORNER_HEIGHT)


def _amendment(report: Report, say: Phrasebook) -> str:
    issued_at = report.predecessor_issued_at
    if issued_at is None:
        words = say("amended-earlier")
    else:
        words = say("amended-report-of", time=f"{issued_at:%Y-%m-%d %H:%M %Z}")
    if not report.amendment_reason:
        return words
    reasons = (term(say, reason) for reason in report.amendment_reason.split(_REASON_SEPARATOR))
    return f"{words}: {_REASON_SEPARATOR.join(reasons)}"


def _badge(page: Page, top: float, words: str) -> None:
    half = page.text_width(words, size=15, bold=True) / 2 + 10
    page.box(Box(left=WIDTH / 2 - half, top=top, right=WIDTH / 2 + half, bottom=top + 26), fill=TEXT)
    page.text(WIDTH / 2, top + 4, words, size=15, bold=True, colour=BACKGROUND, align="center")
