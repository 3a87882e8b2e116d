"""What this node uses of pynetdicom's private parts: a table, and no more."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from node.net.event_driven import PRIVATE_ATTRIBUTES, PYNETDICOM, PrivateAttribute

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "node" / "net" / "event_driven"
# Both the package and the stand-in PACS, which shares nothing with it, send on associations.
CHECKPOINT = ROOT / "node" / "checkpoint.py"
_CONFIG = "_config"  # a module of the documented interface, though its name begins like a private one


def test_pynetdicom_is_pinned_to_the_release_that_the_table_describes() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"pynetdicom=={PYNETDICOM}" in declared
    assert importlib.metadata.version("pynetdicom") == PYNETDICOM
    for lock in ("runtime", "dev", "totalsegmentator"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
        assert re.findall(r"(?m)^pynetdicom==(\S+)", text) == [PYNETDICOM]


@pytest.mark.parametrize("one", PRIVATE_ATTRIBUTES, ids=lambda one: one.name)
def test_each_private_attribute_is_there_and_of_its_kind(one: PrivateAttribute) -> None:
    module, _, name = one.owner.rpartition(".")
    owner = getattr(importlib.import_module(module), name)
    association = Association(AE(), "acceptor")
    held: Any = next(part for part in (association, association.dul) if isinstance(part, owner))
    if one.kind == "function":
        assert inspect.isfunction(inspect.getattr_static(owner, one.name))
    else:
        assert type(getattr(held, one.name)).__name__ == one.kind


def test_nothing_outside_the_package_touches_a_private_attribute_of_pynetdicom() -> None:
    touched = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "node").rglob("*.py")
        if not path.is_relative_to(PACKAGE) and path != CHECKPOINT
        for name in _touched(path)
    }
    assert touched == set()


def test_the_package_touches_what_the_table_names_and_no_more() -> None:
    touched = {name for path in (CHECKPOINT, *PACKAGE.glob("*.py")) for name in _touched(path)}
    assert touched == {one.name for one in PRIVATE_ATTRIBUTES}


def test_the_search_finds_what_it_is_to_find(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "from pynetdicom import _globals\n"
        "from pynetdicom.association import Association as Base\n"
        "class Mine(Base):\n"
        "    def _run_reactor(self): return self._accepted_cx, self._mine\n"
        "class Other:\n"
        "    def _kill(self): self._sent_abort = event.assoc._rejected_cx\n"
        "class Further(Mine):\n"
        "    def more(self): setattr(self, '_is_paused', getattr(self.dul, '_recv_pdu'))\n"
    )
    assert _touched(module) == {
        "_globals",
        "_run_reactor",
        "_accepted_cx",
        "_rejected_cx",
        "_is_paused",
        "_recv_pdu",
    }


# ---- the search


def _touched(path: Path) -> set[str]:
    """Private names of pynetdicom that a file imports, overrides, reads or sets."""
    tree = ast.parse(path.read_text("utf-8"))
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pynetdicom"
        for alias in node.names
    ]
    found = {name for name in imported if _is_private(name) and name != _CONFIG}
    derived = _derived_classes(tree)
    own = {id(node) for one in ast.walk(tree) if isinstance(one, ast.ClassDef) for node in _of_self(one)}
    for one in ast.walk(tree):
        if isinstance(one, ast.ClassDef) and one.name in derived:
            names = {name for node in _of_self(one) if (name := _name_of(node))}
            names |= {node.name for node in one.body if isinstance(node, ast.FunctionDef)}
            found |= names & _private_names_of(derived[one.name])
    found |= {
        name
        for node in ast.walk(tree)
        if id(node) not in own and (name := _name_of(node)) and name in _all_private_names()
    }
    return found


def _name_of(node: ast.AST) -> str | None:
    """The private attribute that an expression names: x._y, getattr(x, "_y"), setattr(x, "_y", z)."""
    if isinstance(node, ast.Attribute) and _is_private(node.attr):
        return node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
        named = node.args[1] if len(node.args) > 1 else None
        if isinstance(named, ast.Constant) and isinstance(named.value, str) and _is_private(named.value):
            return named.value
    return None


def _of_self(of: ast.ClassDef) -> Iterator[ast.AST]:
    """Expressions of a class about its own instances."""
    for node in ast.walk(of):
        subject: ast.AST | None = None
        if isinstance(node, ast.Attribute):
            subject = node.value
        elif isinstance(node, ast.Call) and node.args:
            subject = node.args[0]
        if isinstance(subject, ast.Name) and subject.id in ("self", "cls"):
            yield node


def _derived_classes(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Classes of a file by name, with the classes of pynetdicom that they derive from."""
    bases: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pynetdicom"):
            bases |= {alias.asname or alias.name: (f"{node.module}.{alias.name}",) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("node.net"):
            path = ROOT.joinpath(*node.module.split(".")).with_suffix(".py")
            if path.exists():
                there = _derived_classes(ast.parse(path.read_text("utf-8")))
                bases |= {a.asname or a.name: there[a.name] for a in node.names if a.name in there}
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            known = bases | found
            above = [known[one.id] for one in node.bases if isinstance(one, ast.Name) and one.id in known]
            if above:
                found[node.name] = tuple(name for names in above for name in names)
    return found


@cache
def _private_names_of(classes: tuple[str, ...]) -> frozenset[str]:
    """Private attributes that classes of pynetdicom have or set, inherited ones among them."""
    found: set[str] = set()
    for one in classes:
        module, _, name = one.rpartition(".")
        for above in getattr(importlib.import_module(module), name).__mro__:
            if above.__module__.startswith("pynetdicom"):
                found |= _private_names_in(ast.parse(inspect.getsource(above)))
    return frozenset(found)


@cache
def _all_private_names() -> frozenset[str]:
    folder = Path(pynetdicom.__file__).parent
    return frozenset(
        name for path in folder.glob("*.py") for name in _private_names_in(ast.parse(path.read_text("utf-8")))
    )


def _private_names_in(tree: ast.Module) -> set[str]:
    return {
        name
        for node in ast.walk(tree)
        for name in (
            getattr(node, "name", None)
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            else node.attr
            if isinstance(node, ast.Attribute)
            else None,
        )
        if name and _is_private(name)
    }


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
