"""docker/: no Docker engine runs where these tests run, so what can be read is checked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from config.settings import load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
COMPOSE = (ROOT / "docker" / "compose.yaml").read_text("utf-8")


def test_everything_that_is_copied_exists():
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in shlex.split(line)[:-1]
    ]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_every_package_of_the_wheel_is_copied():
    packages = re.search(r"packages = \[(.+?)\]", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert packages is not None
    for package in re.findall(r'"(\w+)"', packages[1]):
        assert f"COPY {package}/ {package}/" in DOCKERFILE


def test_the_container_runs_as_an_ordinary_user_and_on_the_locked_versions():
    assert re.search(r"^USER osteonode$", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes requirements/runtime.txt" in DOCKERFILE


def test_the_container_s_settings_are_valid_and_ship_no_invented_model():
    settings = load_settings(ROOT / "docker" / "osteonode.toml")
    assert (settings.scoring.reference, settings.scoring.model) == ("", "")
    assert str(settings.storage.root) == "/var/lib/osteonode"


@pytest.mark.parametrize("section", ["node", "web"])
def test_published_ports_are_the_node_s_own(section):
    port = getattr(load_settings(), section).port
    assert re.search(rf'"(127\.0\.0\.1:)?{port}:{port}"', COMPOSE)
    assert re.search(rf"^EXPOSE .*\b{port}\b", DOCKERFILE, re.MULTILINE)


def test_the_page_is_published_on_loopback_only():
    assert '"127.0.0.1:8080:8080"' in COMPOSE
