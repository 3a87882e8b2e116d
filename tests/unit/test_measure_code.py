"""tools/measure_code.py on a tree whose every number is known."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "measure_code.py"
SETTINGS = """
from dataclasses import dataclass
from pydantic import BaseModel
from scoring.rules import Grown

class Window(BaseModel):
    low_hu: float
    high_hu: float

class Web(BaseModel):
    port: int

class Settings(BaseModel):
    window: Window
    grown: tuple[Grown, ...] = ()
    web: Web
    name: str
"""
RULES = '''"""Text of two
lines."""

# a comment
class Base:
    first: int

class Grown(Base):
    """Says nothing more."""

    second: int

    def area(self, scale: int) -> int:
        """An area.

        Raises
        ------
        ValueError
            Never.
        """
        return (
            scale
            * 2
        )

    def _hidden(self): pass

class Window:  # of the same fields as the settings'
    low_hu: float
    high_hu: float

class Port:  # one name in common is none
    port: int
'''
LISTENER = """
from pynetdicom.association import Association

class Slots:
    def __init__(self):
        self._lock = 1

class Ours(Association):
    def _run_reactor(self):
        self.dul._kill_thread = self._own_business

def wait(association):
    return association._is_paused
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_code", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for place, text in {
        "config/__init__.py": "",
        "config/settings.py": SETTINGS,
        "scoring/settings.py": "",
        "scoring/rules.py": RULES,
        "node/net/listener.py": LISTENER,
        "segmentation/listener.py": "x = 1\n",
        "node/store/migrations/0001.py": "y = 1\n" * 1000,
        "tests/other.py": "z = 1\n",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text, "utf-8")
    return tmp_path


def test_each_number_of_a_known_tree_is_right(tool: ModuleType, tree: Path) -> None:
    found = tool.measure(tree)
    assert found.files == 6  # no migration, no test
    assert found.lines == 17 + 33 + 13 + 1
    assert (found.longest_file, found.longest_file_lines) == ("scoring/rules.py", 33)
    assert found.median_file_lines == 7
    assert found.code_lines == 13 + 15 + 9 + 1
    assert found.functions == 5
    assert found.median_function_lines == 2
    assert found.p90_function_lines == pytest.approx(0.6 * 12 + 0.4 * 2)
    assert found.repeated_file_names == ["listener.py"]  # settings.py and __init__.py may
    assert found.repeated_class_names == ["Window"]
    assert found.public_definitions == 11
    assert found.docstring_percent == pytest.approx(100 * 2 / 11, abs=0.05)
    assert found.sections_percent == 50.0


def test_a_setting_that_another_class_states_is_found(tool: ModuleType, tree: Path) -> None:
    found = tool.measure(tree)
    assert found.settings == 6  # window.low_hu, window.high_hu, grown.first, grown.second, web.port, name
    assert found.settings_stated_again == ["window.high_hu", "window.low_hu"]


def test_private_names_of_the_library_are_told_from_own_ones(tool: ModuleType, tree: Path) -> None:
    found = tool.measure(tree)
    assert found.private_attributes_of_pynetdicom == ["_is_paused", "_kill_thread", "_run_reactor"]


def test_two_trees_stand_side_by_side(tool: ModuleType, tree: Path) -> None:
    found = tool.measure(tree)
    lines = tool.table({"before": found, "after": found}).splitlines()
    assert lines[0].split() == ["before", "after"]
    assert lines[1].split() == ["files", "6", "6"]
    assert "repeated class names: Window" in lines


@pytest.mark.slow
def test_the_working_tree_is_measured(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main(["--json", "."])
    found = json.loads(capsys.readouterr().out)["."]
    assert found["files"] > 100
    assert found["settings"] > 200
    assert found["settings_stated_again"] == sorted(found["settings_stated_again"])
