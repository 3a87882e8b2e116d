"""`osteonode`: the command line. Exit status: 0 done, 1 failed, 2 used wrongly, 3 the study was refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import typer

from config.settings import ConfigurationError
from node import __version__
from node.commands.console import Config, hand_down, terminal

# Where each command lives. A module is imported when its command is used: `serve` runs for as long as the
# node does and must not hold the image libraries in memory.
COMMANDS = {
    "demo": "demo",
    "serve": "serve",
    "worker": "serve",
    "process": "process",
    "phantom": "phantom",
    "features": "train",
    "train": "train",
    "evaluate": "train",
    "model": "model",
    "studies": "studies",
    "qa": "qa",
    "check": "check",
}


def build(commands: Sequence[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command line with some of its commands."""
    app = typer.Typer(
        name="osteonode",
        help="Turns lumbar quantitative CT into a calibrated bone report, by DICOM.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_root)
    for name in commands:
        module = import_module(f"node.commands.{COMMANDS[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"osteonode {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: bool = typer.Option(  # noqa: ARG001 - its callback answers
        False, "--version", callback=_print_version, is_eager=True, help="Say which version this is."
    ),
    config: Config = None,
) -> None:
    hand_down(context, config)


def command_in(words: Sequence[str]) -> str:
    """The command that follows `--config FILE`, "" where there is none: its module alone is imported."""
    rest = list(words)
    while rest and rest[0].startswith("--config"):
        del rest[: 1 if "=" in rest[0] else 2]
    return rest[0] if rest else ""


def main() -> NoReturn:
    """Entry point of the console script."""
    first = command_in(sys.argv[1:])
    if first in COMMANDS:
        wanted: Sequence[str] = (first,)
    else:
        wanted = () if first == "--version" else tuple(COMMANDS)
    try:
        build(wanted)()
    except ConfigurationError as error:
        terminal(stderr=True).print(str(error), style="red", soft_wrap=True)
        sys.exit(2)
    raise AssertionError("typer exits by itself")


if __name__ == "__main__":
    main()
