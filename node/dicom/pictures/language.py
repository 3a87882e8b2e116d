"""The language of the pages: their English words, and what stands for them in another language."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from node.report import Report

ENGLISH = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrasebook:
    """Says English words in one language."""

    translations: Mapping[str, str] = field(default_factory=dict)  # English -> the language's; empty: English

    def __call__(self, english: str, **values: str) -> str:
        """`english` in this language, its {placeholders} filled. What has no translation stays English."""
        phrase = self.translations.get(english, english)
        return phrase.format(**values) if values else phrase


@lru_cache
def phrasebook(language: str) -> Phrasebook:
    """The words of ``config/pages_<language>.toml``; English needs no file."""
    if language == ENGLISH:
        return Phrasebook()
    text = files("config").joinpath(f"pages_{language}.toml").read_text("utf-8")
    sections = tomllib.loads(text).values()
    return Phrasebook(
        translations={english: said for section in sections for english, said in section.items()}
    )


def words_of(report: Report) -> Phrasebook:
    """The language that a report's pages speak."""
    return phrasebook(report.language)
