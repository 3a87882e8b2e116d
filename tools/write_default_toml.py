"""Writes config/default.toml, and what docs/configuration.md says of defaults and limits, from the settings.

Each setting is a field of a dataclass or model that `config.settings.Settings` leads to. Its `#:` comments,
on its own line or above it, are its text. Limits (tables within a section) are written whole into
docs/configuration.md; of other settings the page's rows are written by hand, and their defaults from here.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from config.sections import Destination, Peer
from config.settings import Settings
from segmentation.settings import SITE

ROOT = Path(__file__).parents[1]
TOML = ROOT / "config/default.toml"
PAGE = ROOT / "docs/configuration.md"
LIMITS = re.compile(r"(<!-- limits: written by `make defaults` -->\n).*?(<!-- end of limits -->)", re.DOTALL)
ROW = re.compile(r"^\| `(?P<path>\w+(?:\.\w+)+)` \| (?P<default>.*?) \| (?P<text>.+) \|$", re.MULTILINE)
_HEAD = """\
# Every setting with its default, written by `make defaults`. A site copies the lines it changes into a file
# of its own and names that file with --config; OSTEONODE_<SECTION>__<KEY> in the environment goes before it.
# docs/configuration.md explains each. (R): a proposal, for a site to confirm. (V): published.
"""
_COLUMN = 26
_WIDTH = 119


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as it is stated."""

    path: str  # as in TOML: "segmentation.regions.erosion_mm"
    default: object
    text: str
    site: bool  # whether a site decides it; else it is for experts

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def line(self) -> str:
        return f"{self.name} = {toml_value(self.default)}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A section, or a table within one."""

    path: str
    text: str
    cls: type
    settings: tuple[Setting, ...]
    tables: tuple[Table, ...]

    def everything(self) -> Iterator[Table]:
        yield self
        for table in self.tables:
            yield from table.everything()


@cache
def tables() -> tuple[Table, ...]:
    """All sections, in the order in which they are written; `[[destinations]]` and `[[peers]]` last."""
    root = _table(Settings, "", "")
    return root.tables


def all_tables() -> tuple[Table, ...]:
    """Sections, and the tables within them."""
    return tuple(table for section in tables() for table in section.everything())


def all_settings() -> tuple[Setting, ...]:
    return tuple(one for table in all_tables() for one in table.settings)


def _table(cls: type, path: str, text: str) -> Table:
    texts, hints = comments_of(cls), get_type_hints(cls, include_extras=True)
    settings, within = [], []
    for name, default in _defaults(cls):
        place = f"{path}.{name}" if path else name
        if name in ("destinations", "peers"):
            within.append(_table({"destinations": Destination, "peers": Peer}[name], name, texts[name]))
        elif _is_table(type(default)):
            within.append(_table(type(default), place, texts[name]))
        else:
            marks = get_args(hints[name])[1:] if get_origin(hints[name]) is Annotated else ()
            settings.append(
                Setting(path=place, default=default, text=texts.get(name, ""), site=SITE in marks)
            )
    return Table(path=path, text=text, cls=cls, settings=tuple(settings), tables=tuple(within))


def _is_table(kind: type) -> bool:
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)


def _defaults(cls: type) -> Iterator[tuple[str, Any]]:
    """Each field's name and default; an example where the setting has none."""
    if issubclass(cls, BaseModel):
        for name, info in cls.model_fields.items():
            example = (info.examples or [""])[0]
            yield name, example if info.is_required() else info.get_default(call_default_factory=True)
    else:
        instance: Any = cls()
        for one in dataclasses.fields(instance):
            yield one.name, getattr(instance, one.name)


def comments_of(cls: type) -> Mapping[str, str]:
    """The `#:` comments of a class's fields, those that it inherits among them."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith(("config.", "scoring.", "segmentation.")):
            found |= _comments_in(textwrap.dedent(inspect.getsource(base)))
    return found


def _comments_in(source: str) -> dict[str, str]:
    beside: dict[int, str] = {}
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.string.startswith("#:"):
            before = token.line[: token.start[1]]
            (beside if before.strip() else alone)[token.start[0]] = token.string.removeprefix("#:").strip()
    (stated,) = ast.parse(source).body
    assert isinstance(stated, ast.ClassDef)
    found = {}
    for field in stated.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            last = field.end_lineno or field.lineno
            lines = [beside[at] for at in range(field.lineno, last + 1) if at in beside]
            above = field.lineno - 1
            while above in alone:
                lines.insert(0, alone[above])
                above -= 1
            if lines:
                found[field.target.id] = " ".join(lines)
    return found


def toml_value(value: object) -> str:
    """A default as TOML has it."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Path) and not value.is_absolute():
        value = f"./{value}"
    if isinstance(value, str | Path):
        return json.dumps(str(value))
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping) and not value:
        return "{}"
    assert isinstance(value, bool | int | float), f"no default is written for {value!r}"
    return repr(value).lower()


def toml_text() -> str:
    """The whole of config/default.toml."""
    parts = [_HEAD]
    for section in tables():
        optional = section.cls in (Destination, Peer)
        for table in section.everything():
            heading = f"[[{table.path}]]" if optional else f"[{table.path}]"
            lines = [*_commented(heading, table.text)]
            for one in table.settings:
                lines += _commented(one.line, one.text)
            parts.append("".join(f"{'# ' if optional else ''}{line}\n" for line in lines))
    return "\n".join(parts)


def _commented(statement: str, text: str) -> list[str]:
    """A line of TOML with its comment behind it, or before it where the line is long."""
    if not text:
        return [statement]
    if len(statement) > _WIDTH // 2:
        return [*(f"# {line}" for line in _wrapped(text, _WIDTH - 2)), statement]
    column = max(_COLUMN, len(statement) + 1)
    first, *others = _wrapped(text, _WIDTH - column - 2)
    return [f"{statement:<{column}}# {first}", *(f"{'':<{column}}# {line}" for line in others)]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of a text; an example in brackets or quotation marks stays on one line."""
    whole = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", lambda found: found[0].replace(" ", "\xa0"), text)
    return [line.replace("\xa0", " ") for line in textwrap.wrap(whole, width, break_on_hyphens=False)]


def page_text(page: str) -> str:
    """docs/configuration.md with the limits and the defaults of all rows as the settings state them."""
    stated = {
        one.path: one for section in tables() for table in section.everything() for one in table.settings
    }

    def with_default(row: re.Match[str]) -> str:
        one = stated.get(row["path"])
        return row[0] if one is None else f"| `{one.path}` | `{toml_value(one.default)}` | {row['text']} |"

    return LIMITS.sub(lambda found: f"{found[1]}{_limits()}{found[2]}", ROW.sub(with_default, page))


def _limits() -> str:
    """A table of documentation for each table of limits that a section holds."""
    parts = []
    for section in tables():
        for table in section.everything():
            limits = [one for one in table.settings if not one.site]
            if table is not section and limits:
                parts += [f"\n### `[{table.path}]`\n", f"{table.text[0].upper()}{table.text[1:]}.\n"]
                parts += ["| setting | default | meaning |", "|---|---|---|"]
                parts += [_row(one) for one in limits]
    return "\n".join([*parts, "\n"])


def _row(one: Setting) -> str:
    return f"| `{one.path}` | `{toml_value(one.default)}` | {one.text.replace('|', 'or')} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    TOML.write_text(toml_text(), "utf-8")
    PAGE.write_text(page_text(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
