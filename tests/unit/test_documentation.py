"""Every setting and every command is documented, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.main import get_command

from config.settings import Settings
from node.cli import build
from tools.write_default_toml import all_settings, all_tables, page_text

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented_once_and_every_documented_setting_exists():
    """Those that a site decides come first, all others under a heading for experts."""
    site, heading, expert = (
        (ROOT / "docs/configuration.md").read_text("utf-8").partition("## Expert settings\n")
    )
    assert heading
    for part, for_sites in ((site, True), (expert, False)):
        documented = re.findall(r"^\| `(\w+(?:\.\w+)+)` \|", part, re.MULTILINE)
        assert sorted(documented) == sorted(one.path for one in all_settings() if one.site is for_sites)


def test_the_page_states_the_defaults_that_hold():
    """`make defaults` writes them, and the tables of limits whole."""
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert page == page_text(page)


def _named_in(text: str) -> list[str]:
    """What stands in backticks as `section.key`, with or without a value behind it."""
    return re.findall(r"`([a-z]\w*(?:\.[A-Za-z_]\w*)+)(?: = [^`]*)?`", text)


def _is_setting(parts: Sequence[str]) -> bool:
    """Whether names lead from `Settings` to a setting, or to a table of settings."""
    return ".".join(parts) in {one.path for one in (*all_settings(), *all_tables())}


def _is_in_the_code(parts: Sequence[str]) -> bool:
    """Whether names are a room or module of the code, or what a module defines."""
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        for source in (place.with_suffix(".py"), place / "__init__.py"):
            if not source.is_file():
                continue
            names = parts[length:]
            return not names or bool(
                re.search(rf"^(def|class) {names[0]}\b", source.read_text("utf-8"), re.M)
            )
    return False


# Of a section's own name, but something else: what a result holds, and other programs' words.
_NO_SETTINGS = {"selection.json", "segmentation.npz", "segmentation.dcm", "calibration.png"}


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_every_setting_that_a_page_names_exists(page):
    sections = set(Settings.model_fields)
    named = [one.split(".") for one in _named_in(page.read_text("utf-8")) if one not in _NO_SETTINGS]
    unknown = [
        ".".join(parts)
        for parts in named
        if parts[0] in sections and not _is_setting(parts) and not _is_in_the_code(parts)
    ]
    assert unknown == []


@pytest.mark.parametrize(
    "wrong", ["worker.give_up_after_s", "node.nonesuch", "calibration.asynchronous.nonesuch"]
)
def test_a_setting_that_does_not_exist_is_noticed(wrong):
    (found,) = _named_in(f"until `{wrong}`; and")
    parts = found.split(".")
    assert not _is_setting(parts)
    assert not _is_in_the_code(parts)


def test_every_command_is_documented_and_every_documented_command_exists():
    documented = set(
        re.findall(r"^\| `osteonode (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    )
    assert documented == set(get_command(build()).commands)


def test_every_item_of_the_profile_has_a_test_under_its_name_and_each_test_its_item():
    section = (ROOT / "docs/conformance.md").read_text("utf-8").partition("### 9.5 ")[2]
    stated = re.findall(r"\| `(test_\w+)` \|$", section, re.MULTILINE)
    source = (ROOT / "tests/dicom/test_ihe_air.py").read_text("utf-8")
    written = re.findall(r"^def (test_\w+)", source, re.MULTILINE)
    assert sorted(stated) == sorted(written)


def test_every_control_of_the_safety_page_is_held_by_a_test_that_exists():
    text = (ROOT / "docs/safety.md").read_text("utf-8")
    files = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert len(files) >= 10
    assert [name for name in files if not (ROOT / name).is_file()] == []
    for name, test in re.findall(r"`(tests/[\w/]+\.py)` \(`(test_\w+)_\.\.\.`", text):
        assert f"def {test}_" in (ROOT / name).read_text("utf-8"), test


PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_a_page_are_under_120_characters_but_rows_of_tables_and_code(page):
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.M | re.S)
    assert [line for line in prose.splitlines() if len(line) >= 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_first_what_it_is_for(page):
    """A heading, then a paragraph: no table, list, code or second heading."""
    heading, _, first = page.read_text("utf-8").partition("\n\n")
    assert re.fullmatch(r"# .+", heading)
    assert re.match(r"\w", first)
