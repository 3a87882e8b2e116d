"""Where a line of text may end: at spaces, and between Chinese signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

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
