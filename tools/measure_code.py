"""Measures the production code of a tree or commit: files, lines, functions, names, docstrings, settings.

    tools/measure_code.py                     this working tree
    tools/measure_code.py COMMIT              a commit
    tools/measure_code.py COMMIT COMMIT       two commits, side by side; "." is the working tree

Production code is every *.py file of node, config, scoring and segmentation but the migrations. Nothing of
the measured tree is imported: all is read from its syntax.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[1]
ROOMS = ("node", "config", "scoring", "segmentation")
# Names that every package may have.
COMMON_FILE_NAMES = frozenset({"__init__.py", "settings.py", "errors.py"})
# numpydoc's headings, each underlined, and this project's line of a source.
_SECTION = re.compile(
    r"^[ \t]*(?:(?:Parameters|Returns|Raises|Yields|Attributes|Source|Warns|Notes|References)"
    r"[ \t]*\n[ \t]*-{3,}|Source: )",
    re.MULTILINE,
)
_NO_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.NEWLINE,
        tokenize.NL,
    }
)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is counted of a tree.

    Attributes
    ----------
    files : Python files of the rooms, migrations apart.
    lines : lines of all files.
    code_lines : lines without docstrings, comments and blank lines.
    median_file_lines, longest_file_lines, longest_file : of the files.
    functions, median_function_lines, p90_function_lines : of functions and methods, from `def` to the end.
    repeated_file_names : names that more than one file has, `COMMON_FILE_NAMES` apart.
    repeated_class_names : names that more than one public class at a module's top has.
    public_definitions : public classes, functions and methods of public classes.
    docstring_percent : share of these that have a docstring.
    sections_percent : share of the docstrings that have a section of numpydoc's. A class may have it in the
        docstring of its `__init__`, as highdicom's do: 55.7 % there, of version 0.28.2.
    settings : leaf settings of `config.settings.Settings`.
    settings_stated_again : those whose field another class states again (`stated_again`).
    private_attributes_of_pynetdicom : distinct names; None where pynetdicom is not installed.
    """

    files: int
    lines: int
    code_lines: int
    median_file_lines: float
    longest_file_lines: int
    longest_file: str
    functions: int
    median_function_lines: float
    p90_function_lines: float
    repeated_file_names: Sequence[str]
    repeated_class_names: Sequence[str]
    public_definitions: int
    docstring_percent: float
    sections_percent: float
    settings: int
    settings_stated_again: Sequence[str]
    private_attributes_of_pynetdicom: Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One file, parsed."""

    name: str  # as it is imported
    path: Path  # from the tree's root
    source: str
    tree: ast.Module


def read_modules(root: Path) -> list[Module]:
    """The production files of a tree, in the order of their paths."""
    modules = []
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        place = path.relative_to(root)
        if "migrations" in place.parts:
            continue
        source = path.read_text("utf-8")
        name = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        modules.append(Module(name=name, path=place, source=source, tree=ast.parse(source)))
    return modules


def measure(root: Path) -> Measures:
    """Measure the tree whose root this is.

    Raises
    ------
    SystemExit
        If there is no production file.
    """
    modules = read_modules(root)
    if not modules:
        raise SystemExit(f"{root} has no Python file in {', '.join(ROOMS)}")
    lengths = {str(one.path): len(one.source.splitlines()) for one in modules}
    longest = max(lengths, key=lengths.__getitem__)
    nodes = [node for one in modules for node in ast.walk(one.tree)]
    functions = [_length(node) for node in nodes if isinstance(node, Function)]
    public = [node for one in modules for node in public_definitions(one.tree)]
    stated = [node for node in public if ast.get_docstring(node)]
    file_names = Counter(one.path.name for one in modules if one.path.name not in COMMON_FILE_NAMES)
    class_names = Counter(
        node.name
        for one in modules
        for node in one.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    settings = SettingsTree(modules)
    return Measures(
        files=len(modules),
        lines=sum(lengths.values()),
        code_lines=sum(count_code_lines(one.source) for one in modules),
        median_file_lines=median(lengths.values()),
        longest_file_lines=lengths[longest],
        longest_file=longest,
        functions=len(functions),
        median_function_lines=median(functions or [0]),
        p90_function_lines=_p90(functions),
        repeated_file_names=_repeated(file_names),
        repeated_class_names=_repeated(class_names),
        public_definitions=len(public),
        docstring_percent=_percent(len(stated), len(public)),
        sections_percent=_percent(sum(map(has_sections, stated)), len(stated)),
        settings=len(settings.leaves),
        settings_stated_again=sorted(settings.stated_again()),
        private_attributes_of_pynetdicom=private_attributes(modules),
    )


def count_code_lines(source: str) -> int:
    """Lines that hold code: no docstring, no comment alone, no blank line."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | Definition) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            docstrings.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def public_definitions(tree: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Classes, functions and methods whose names, and whose classes' names, have no underscore in front."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def has_sections(node: Definition) -> bool:
    """Whether a docstring, a class's own or that of its `__init__`, has a section."""
    initialisers = [
        one
        for one in (node.body if isinstance(node, ast.ClassDef) else ())
        if isinstance(one, ast.FunctionDef) and one.name == "__init__"
    ]
    return any(_SECTION.search(ast.get_docstring(one) or "") for one in (node, *initialisers))


class SettingsTree:
    """The fields of `config.settings.Settings`, and of the classes that these name.

    A class outside this tree restates a section where it has at least two fields of the same names, and these
    are at least half of all fields of both: a dataclass that a section is mapped to by hand.
    """

    def __init__(self, modules: Sequence[Module]) -> None:
        self._classes = {
            (one.name, node.name): node
            for one in modules
            for node in one.tree.body
            if isinstance(node, ast.ClassDef)
        }
        self._imports = {one.name: _imports(one.tree) for one in modules}
        self.leaves: dict[str, tuple[str, str]] = {}  # by path: the class that states it
        self._sections: dict[tuple[str, str], list[str]] = {}  # paths of each section's leaves
        if ("config.settings", "Settings") in self._classes:
            self._descend(("config.settings", "Settings"), "")

    def _descend(self, place: tuple[str, str], path: str) -> None:
        paths = self._sections.setdefault(place, [])
        for module, name, annotation in self._fields(place):
            below = f"{path}.{name}".lstrip(".")
            section = next(
                (found for part in ast.walk(annotation) if (found := self._resolve(module, part))), None
            )
            if section is not None and section != place and any(self._fields(section)):
                self._descend(section, below)
            else:
                self.leaves[below] = place
                paths.append(below)

    def _resolve(self, module: str, node: ast.AST) -> tuple[str, str] | None:
        if not isinstance(node, ast.Name):
            return None
        place = self._imports[module].get(node.id, (module, node.id))
        return place if place in self._classes else None

    def _bases(self, place: tuple[str, str]) -> Iterator[tuple[str, str]]:
        for base in self._classes[place].bases:
            if (above := self._resolve(place[0], base)) is not None and above != place:
                yield above

    def _fields(self, place: tuple[str, str]) -> Iterator[tuple[str, str, ast.expr]]:
        """Module, name and annotation of a class's fields, those of its bases first."""
        for above in self._bases(place):
            yield from self._fields(above)
        for node in self._classes[place].body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    if not name.startswith("_") and "ClassVar" not in ast.dump(annotation):
                        yield place[0], name, annotation

    def stated_again(self) -> Mapping[str, Sequence[str]]:
        """The leaves that another class states as well, and which classes those are."""
        found: dict[str, list[str]] = {}
        inherited = {above for place in self._sections for above in self._bases(place)}
        others = [place for place in self._classes if place not in self._sections and place not in inherited]
        names = {place: {name for _, name, _ in self._fields(place)} for place in self._classes}
        for section, paths in self._sections.items():
            for other in others:
                shared = names[section] & names[other]
                if len(shared) < 2 or 2 * len(shared) < len(names[section] | names[other]):
                    continue
                for path in paths:
                    if path.rpartition(".")[2] in shared:
                        found.setdefault(path, []).append(".".join(other))
        return found


def private_attributes(modules: Sequence[Module]) -> Sequence[str] | None:
    """Private attributes of pynetdicom that modules which import it read, set or override.

    What a class of the project, without a base of pynetdicom's, sets on itself is its own.
    """
    theirs = _attributes_of_pynetdicom()
    if theirs is None:
        return None
    touched: set[str] = set()
    for module in modules:
        if not re.search(r"^\s*(from|import) pynetdicom", module.source, re.MULTILINE):
            continue
        classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef)]
        own = {name for node in classes for name in _own_names(node)}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr in theirs - own:
                touched.add(node.attr)
            if isinstance(node, ast.ClassDef) and node.bases:
                methods = {one.name for one in node.body if isinstance(one, Function)}
                touched |= methods & theirs - own
    return sorted(touched)


def _own_names(node: ast.ClassDef) -> Iterator[str]:
    """Names that a class without bases defines or sets on itself."""
    if node.bases:
        return
    for one in ast.walk(node):
        match one:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")):
                yield name


@cache
def _attributes_of_pynetdicom() -> frozenset[str] | None:
    spec = find_spec("pynetdicom")
    if spec is None or spec.origin is None:
        return None
    names: set[str] = set()
    for path in Path(spec.origin).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, Function):
                names.add(node.name)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return frozenset(name for name in names if name.startswith("_") and not name.startswith("__"))


def _imports(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Names that a module imports from others, and what they are there."""
    return {
        one.asname or one.name: (node.module or "", one.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    }


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _p90(values: Sequence[int]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else float(sum(values))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def _repeated(names: Counter[str]) -> list[str]:
    return sorted(name for name, times in names.items() if times > 1)


def measure_commit(commit: str) -> Measures:
    """Measure a commit of this repository, or the working tree for "."."""
    if commit == ".":
        return measure(ROOT)
    archive = subprocess.run(["git", "archive", commit, *ROOMS], cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
        return measure(Path(folder))


_ROWS: Mapping[str, Callable[[Measures], str]] = {
    "files": lambda one: f"{one.files}",
    "lines": lambda one: f"{one.lines:,}",
    "code lines": lambda one: f"{one.code_lines:,}",
    "median file": lambda one: f"{one.median_file_lines:g}",
    "longest file": lambda one: f"{one.longest_file_lines}",
    "": lambda one: one.longest_file,
    "functions": lambda one: f"{one.functions:,}",
    "median function": lambda one: f"{one.median_function_lines:g}",
    "p90 function": lambda one: f"{one.p90_function_lines:g}",
    "repeated file names": lambda one: f"{len(one.repeated_file_names)}",
    "repeated class names": lambda one: f"{len(one.repeated_class_names)}",
    "public definitions": lambda one: f"{one.public_definitions:,}",
    "with docstring": lambda one: f"{one.docstring_percent} %",
    "docstrings with sections": lambda one: f"{one.sections_percent} %",
    "settings": lambda one: f"{one.settings}",
    "settings stated again": lambda one: f"{len(one.settings_stated_again)}",
    "private names of pynetdicom": lambda one: (
        "-"
        if one.private_attributes_of_pynetdicom is None
        else f"{len(one.private_attributes_of_pynetdicom)}"
    ),
}


def table(measured: Mapping[str, Measures]) -> str:
    """The measures of each commit in a column of its own, and below what is repeated in the last."""
    rows = [("", *measured), *((name, *map(cell, measured.values())) for name, cell in _ROWS.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join(f"  {text.rjust(width)}" for text, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    *_, last = measured.values()
    for field in fields(Measures):
        value = getattr(last, field.name)
        if isinstance(value, list) and value:
            lines += ["", f"{field.name.replace('_', ' ')}: {', '.join(value)}"]
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commits", nargs="*", default=["."], metavar="COMMIT", help='"." is the working tree')
    parser.add_argument("--json", action="store_true", help="all measures, by commit")
    arguments = parser.parse_args(given)
    measured = {commit: measure_commit(commit) for commit in arguments.commits}
    if arguments.json:
        json.dump({commit: asdict(one) for commit, one in measured.items()}, sys.stdout, indent=2)
        print()
    else:
        print(table(measured))


if __name__ == "__main__":
    main()
