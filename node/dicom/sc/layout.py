"""A page: measured text that wraps and fits, boxes, lines. Coordinates are pixels from the top left."""

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

# The fonts of the pages: DejaVu Sans, and a font that the site has installed for the signs it lacks.


DPI = 100
_POINTS_PER_PIXEL = 72 / DPI
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_REGULAR = _FONTS / "DejaVuSans.ttf"
_BOLD = _FONTS / "DejaVuSans-Bold.ttf"
# Whatever a user's matplotlibrc says, the same bytes; and text as wide when measured as when drawn.
DRAWING = {"text.hinting": "force_autohint", "text.antialiased": True, "path.simplify": True}
_HINTING = LoadFlags.FORCE_AUTOHINT  # what "force_autohint" means to FreeType
_SUBPIXELS = 64.0  # of FreeType's lengths, in a pixel


@dataclass(frozen=True, slots=True, kw_only=True)
class Typeface:
    """What words are drawn with; a sign that neither font has becomes a question mark."""

    wide: Path | None = None  # font file for Chinese and whatever else DejaVu Sans lacks

    def font(self, size: float, *, bold: bool = False) -> FontProperties:
        """The font, `size` pixels high. Chinese has one weight only."""
        families = [_family(path) for path in self.files(bold=bold)]
        return FontProperties(family=families, size=size * _POINTS_PER_PIXEL)

    def files(self, *, bold: bool) -> tuple[Path, ...]:
        """Where signs come from: from the first that has them."""
        return (_BOLD if bold else _REGULAR, *((self.wide,) if self.wide else ()))

    def drawable(self, words: str) -> str:
        """`words` with a question mark for every sign that has no glyph."""
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
    """A family name that means this one file, whatever fonts a machine has and matplotlib remembers of them.

    matplotlib takes signs that one font lacks from the next only where fonts are named by family.
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


# Where a line of text may end: at spaces, and between Chinese signs.


# Never first in a line, never last in a line (GB/T 15834-2011, 5.1).
_CLOSING = frozenset("，。、；：？！）》」』】〕”’…·,.;:?!)]}%")
_OPENING = frozenset("（《「『【〔“‘([{")
_FIRST_GUESS = 12  # units of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Signs that stay in one line."""

    text: str
    after_space: bool  # whether a space parts it from the unit before in the same line


def lines_of(words: str, fits: Callable[[str], bool]) -> list[str]:
    """`words` in lines that fit; a unit longer than a line is broken. One empty line where there are none.

    Parameters
    ----------
    fits : costs far more than all else here, so each line begins with as many units as the one before had.
        What is shorter than a line that fits has to fit, too.
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
    """What may not be parted, in order."""
    return [
        Unit(text=part, after_space=place == 0)
        for word in words.split()
        for place, part in enumerate(_parts(word))
    ]


def _parts(word: str) -> list[str]:
    parts = [word[0]]
    for before, sign in pairwise(word):
        if _may_part(before, sign):
            parts.append("")
        parts[-1] += sign
    return parts


def _may_part(before: str, after: str) -> bool:
    if before in _OPENING or after in _CLOSING:
        return False
    return _is_wide(before) or _is_wide(after)


def _is_wide(sign: str) -> bool:
    """Whether it stands in a square of its own: a Chinese sign, or punctuation among them."""
    return "\u2e80" <= sign <= "\u9fff" or "\uf900" <= sign <= "\ufaff" or "\uff01" <= sign <= "\uff60"


def _pieces(unit: str, fits: Callable[[str], bool]) -> list[str]:
    pieces = [""]
    for sign in unit:
        if pieces[-1] and not fits(pieces[-1] + sign):
            pieces.append("")
        pieces[-1] += sign
    return pieces


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


# What every page has: title, marks, and who made it.


MARGIN = 24
# Viewers write patient and study over the four corners of an image, in up to six lines: there a page has
# neither its badge nor its title, and nothing else that a reader must not miss.
CORNER_WIDTH, CORNER_HEIGHT = WIDTH / 4, 108.0
CONTENT_BOTTOM = HEIGHT - 44  # above the footer
FOOTER_RULE = HEIGHT - 34
_FOOTER = Box(left=MARGIN, top=HEIGHT - 32, right=WIDTH - MARGIN, bottom=HEIGHT - 2)
_REASON_SEPARATOR = "; "  # between the reasons for an amendment
_FOOTER_SIZES = (12.0, 11.0, 10.0, 9.0)  # pixels; two lines from 11 down


def framed_page(
    report: Report, title: str, typeface: Typeface, say: Phrasebook | None = None
) -> tuple[Page, float]:
    """A page with its head and foot; returns it and where its content may start.

    Parameters
    ----------
    title : the id of its phrase.
    say : the phrases of the page; by default the shipped ones in the report's language.
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
