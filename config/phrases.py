"""Phrases by their ids in each language: the words of the pictures, and those that findings fill in.

``config/phrases/LANGUAGE.ftl`` (Project Fluent) holds one message for each id. A site may have a file of
the same name: its messages take the place of the shipped ones.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fluent.runtime import FluentBundle
from fluent.runtime.types import fluent_number
from fluent.syntax import FluentParser, ast
from fluent.syntax.visitor import Visitor

from config.sections import NodeSettings
from config.settings import ConfigurationError
from segmentation.phrase import Phrase, Value

ENGLISH = "en"
LANGUAGES = (ENGLISH, "zh")
_FOLDER = "phrases"


class UnknownPhrase(KeyError):
    """An id that the phrases of a language lack."""


class PhraseIncomplete(ValueError):
    """A phrase was said without a value that its words need."""


class Phrasebook:
    """Says phrases in one language."""

    def __init__(self, language: str, bundle: FluentBundle) -> None:
        self.language = language
        self._bundle = bundle

    def __call__(self, id_: str, /, **values: Value) -> str:
        """The words of one phrase, filled in.

        Raises
        ------
        UnknownPhrase, PhraseIncomplete
        """
        if not self._bundle.has_message(id_):
            raise UnknownPhrase(id_)
        pattern = self._bundle.get_message(id_).value
        if pattern is None:
            raise UnknownPhrase(id_)
        said, errors = self._bundle.format_pattern(
            pattern, {name: self._argument(value) for name, value in values.items()}
        )
        if errors:
            raise PhraseIncomplete(f"{id_}: {errors[0]}")
        return str(said)

    def words(self, value: Value) -> str:
        """A value in this language: a phrase in its words, a text or a number as it is."""
        return self(value.id, **value.values) if isinstance(value, Phrase) else str(value)

    def _argument(self, value: Value) -> Any:
        if isinstance(value, int):
            return fluent_number(value, useGrouping=False)  # a number, so that words can follow its plural
        return self.words(value)


@lru_cache
def load_phrases(language: str = ENGLISH, site: Path | None = None) -> Phrasebook:
    """The shipped phrases of a language, overlaid by ``phrases/LANGUAGE.ftl`` of a site's folder.

    Raises
    ------
    ConfigurationError
        If the site's file cannot be read, names a phrase that does not exist, or fills in what the phrase
        does not have; with every such message.
    """
    bundle = FluentBundle([language], use_isolating=False)
    shipped = parse_phrases(_shipped(language))
    bundle.add_resource(shipped)
    if (own := _of_site(language, site)) is not None:
        bundle.add_resource(_checked(own, arguments_of(shipped)), allow_overrides=True)
    return Phrasebook(language, bundle)


def in_english(value: Value) -> str:
    """A value in the shipped English words."""
    return load_phrases().words(value)


def error_in_words(error: BaseException) -> str:
    """What an error says, in English: its `reason` where that is a phrase, else its message."""
    reason = getattr(error, "reason", None)
    return in_english(reason) if isinstance(reason, Phrase) else str(error)


def phrase_files(site: Path | None) -> dict[str, bytes]:
    """Every file of phrases that counts, shipped or a site's, by a name for it."""
    found = {f"shipped phrases/{language}": _shipped(language).encode() for language in LANGUAGES}
    for language in LANGUAGES:
        if (own := _of_site(language, site)) is not None:
            found[f"phrases/{language}"] = own.read_bytes()
    return found


def parse_phrases(text: str) -> ast.Resource:
    """The messages of a file of phrases. What is no message stays in it as junk."""
    return FluentParser().parse(text)


def arguments_of(resource: ast.Resource) -> dict[str, frozenset[str]]:
    """Each message's id, and the names of what fills it in."""
    arguments = {}
    for entry in resource.body:
        if isinstance(entry, ast.Message):
            variables = _Variables()
            variables.visit(entry)
            arguments[entry.id.name] = frozenset(variables.found)
    return arguments


class _Variables(Visitor):
    """The names of what a message fills in."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_VariableReference(self, node: ast.VariableReference) -> None:  # noqa: N802 (the library's name)
        self.found.add(node.id.name)


def _shipped(language: str) -> str:
    return files("config").joinpath(_FOLDER, f"{language}.ftl").read_text("utf-8")


def _of_site(language: str, site: Path | None) -> Path | None:
    own = site / _FOLDER / f"{language}.ftl" if site is not None else None
    return own if own is not None and own.exists() else None


def _checked(own: Path, known: dict[str, frozenset[str]]) -> ast.Resource:
    try:
        resource = parse_phrases(own.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{own}: {error}") from error
    wrong = [
        f"{one.content.strip().splitlines()[0]!r} is not a message"
        for one in resource.body
        if isinstance(one, ast.Junk) and one.content
    ]
    for name, arguments in arguments_of(resource).items():
        if name not in known:
            wrong.append(f"{name}: no phrase has this id")
        elif unknown := arguments - known[name]:
            wrong.append(f"{name} fills in {', '.join(sorted(unknown))}: the phrase has none such")
    if wrong:
        raise ConfigurationError(f"{own}: {'; '.join(wrong)}")
    return resource


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
