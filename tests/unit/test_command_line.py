"""`--config` before a command, between it and its subcommand, and after both, means the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli import build, command_in


@pytest.fixture
def config(tmp_path) -> Path:
    """A file that nothing else would take for a setting: what was read says its name."""
    file = tmp_path / "a site's.toml"
    file.write_text("[nonesuch]\n", "utf-8")
    return file


def run(*words: str) -> Result:
    return CliRunner().invoke(build([command_in(words)]), list(words))


COMMANDS = [
    tuple(line.split())
    for line in (
        "check",
        "qa",
        "serve",
        "worker",
        "studies",
        "studies list",
        "studies show 1.2.3",
        "studies retry 1.2.3",
        "studies quarantine",
        "model list",
        "model compare card",
    )
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_configuration_is_taken_wherever_it_stands(config, words):
    option = ["--config", str(config)]
    for place in range(len(words) + 1):
        if place == 2 and len(words) == 3:
            continue  # between a subcommand and its argument is after the subcommand
        found = run(*words[:place], *option, *words[place:])
        assert str(config) in str(found.exception), (place, found.output)
        assert "nonesuch" in str(found.exception)
    found = run(f"--config={config}", *words)
    assert "nonesuch" in str(found.exception)


def test_of_two_the_one_behind_the_command_counts(config, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text("[another]\n", "utf-8")
    found = run("--config", str(other), "studies", "--config", str(other), "list", "--config", str(config))
    assert "nonesuch" in str(found.exception)


def test_a_command_without_configuration_says_so(config, tmp_path):
    found = run("--config", str(config), "phantom", str(tmp_path / "out"))
    assert found.exit_code == 2
    assert "reads no configuration" in " ".join(found.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["check"], "check"),
        (["--config", "f", "studies", "list"], "studies"),
        (["--config=f", "qa"], "qa"),
        (["--config", "f"], ""),
        (["--version"], "--version"),
        ([], ""),
    ],
)
def test_the_command_is_found_behind_the_file(words, command):
    assert command_in(words) == command
