"""Every setting and every command is documented, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from config.settings import Destination, Peer, Settings
from node.cli import build

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented_and_every_documented_setting_exists():
    documented = set(
        re.findall(r"^\| `(\w+\.\w+)` \|", (ROOT / "docs/configuration.md").read_text("utf-8"), re.MULTILINE)
    )
    existing = {f"destinations.{name}" for name in Destination.model_fields}
    existing |= {f"peers.{name}" for name in Peer.model_fields}
    for section, field in Settings.model_fields.items():
        if section not in ("destinations", "peers"):
            existing |= {f"{section}.{name}" for name in field.annotation.model_fields}
    assert documented == existing


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
