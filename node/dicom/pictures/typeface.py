"""The fonts of the pages: DejaVu Sans, and a font that the site has installed for the signs it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontEntry, FontProperties, fontManager, get_font
from matplotlib.ft2font import LoadFlags

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
