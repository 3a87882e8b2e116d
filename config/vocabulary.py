"""Words that findings fill in, said in another language: names, reasons, and lists of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from string import Formatter

from config.sections import NodeSettings
from config.settings import ConfigurationError

# How lists are joined in English, and in Chinese punctuation.
_CLAUSES, _LIST, _AND, _COLON = ("; ", "；"), (", ", "、"), (" and ", "和"), (": ", "：")


class Vocabulary:
    """English -> what stands for it; unknown parts of a value stay as they are.

    Parameters
    ----------
    words : phrases with their translations. A phrase may hold {placeholders} that its translation holds, too:
        what stands there in a value is said in its turn.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words

    def __call__(self, value: str) -> str:
        if value in self._words:
            return self._words[value]
        return self._as_clauses(value) or self._as_phrase(value) or self._as_list(value) or value

    def _as_clauses(self, value: str) -> str | None:
        joint, said = _CLAUSES
        clauses = value.split(joint)
        translated = [self(clause) for clause in clauses] if len(clauses) > 1 else clauses
        return said.join(translated) if translated != clauses else None

    def _as_phrase(self, value: str) -> str | None:
        for pattern, said in self._patterns:
            if found := pattern.fullmatch(value):
                return said.format(**{name: self(filled) for name, filled in found.groupdict().items()})
        head, colon, rest = value.partition(_COLON[0])
        return f"{self._words[head]}{_COLON[1]}{self(rest)}" if colon and head in self._words else None

    def _as_list(self, value: str) -> str | None:
        """Only where every part is known: a comma may belong to a name."""
        for joint, said in (_LIST, _AND):
            parts = [(part, self(part)) for part in value.split(joint)] if joint in value else []
            if parts and all(part != translated for part, translated in parts):
                return said.join(translated for _, translated in parts)
        return None

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """The phrases with placeholders, those that fix most of a value first."""
        phrases = [english for english in self._words if "{" in english]
        phrases.sort(key=lambda english: -sum(len(text) for text, *_ in Formatter().parse(english)))
        return [(_pattern(english), self._words[english]) for english in phrases]


def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(
        "".join(
            re.escape(text) + (f"(?P<{name}>.+?)" if name else "")
            for text, name, *_ in Formatter().parse(phrase)
        )
    )


# The font that Chinese pictures need, which comes with the operating system.


_CHINESE = "zh"
# What a file of TrueType or OpenType outlines begins with, or a collection of them (OpenType 1.9, "otff").
_SIGNATURES = (b"\x00\x01\x00\x00", b"OTTO", b"ttcf", b"true")


def wide_font(node: NodeSettings) -> Path | None:
    """The font for signs that DejaVu Sans lacks; None where it is not installed and the pages are English.

    Raises
    ------
    ConfigurationError
        If Chinese pages are asked for and there is no such font.
    """
    path = Path(node.wide_font)
    if _is_font(path):
        return path
    if node.language != _CHINESE:
        return None
    raise ConfigurationError(
        f"node.language is {node.language!r}, for which node.wide_font must be a TrueType or OpenType font "
        f"with Chinese signs: {path} is none. Install Debian's package fonts-wqy-microhei, or name another."
    )


def _is_font(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _SIGNATURES
    except OSError:
        return False
