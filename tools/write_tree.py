"""Writes the tree of packages and modules into docs/architecture.md, and keeps the descriptions there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
PACKAGES = ("segmentation", "scoring", "config", "node")
_TREE = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- end of tree -->)", re.DOTALL)
_WIDTH, _COLUMN = 116, 28


def with_tree(page: str) -> str:
    """The page with the tree as it is now.

    Parameters
    ----------
    page : with the comments `tree` and `end of tree` around a code block, in which a line that begins with
        `name/` holds a package and its description. A package without a line gets none.
    """
    descriptions = {}
    folders: list[str] = []
    for line in _TREE.findall(page)[0].splitlines():
        name, _, description = line.strip().partition("/")
        if "/" in line and " " not in name:
            folders = [*folders[: (len(line) - len(line.lstrip())) // 4], name]
            descriptions["/".join(folders)] = description.strip()
    lines = [line for package in PACKAGES for line in _lines(ROOT / package, descriptions, "")]
    return _TREE.sub(lambda _: "\n".join(lines) + "\n", page)


def _lines(package: Path, descriptions: dict[str, str], indent: str) -> Iterator[str]:
    described = descriptions.get(package.relative_to(ROOT).as_posix(), "")
    yield f"{indent + package.name + '/':<{_COLUMN}}{described}".rstrip()
    inner = indent + "    "
    modules = sorted(path.stem for path in package.glob("*.py") if path.stem != "__init__")
    yield from textwrap.wrap(" ".join(modules), _WIDTH, initial_indent=inner, subsequent_indent=inner)
    for folder in sorted(path.parent for path in package.glob("*/__init__.py")):
        yield from _lines(folder, descriptions, inner)


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text("utf-8")), "utf-8")
