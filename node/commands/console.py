"""`--config` wherever it stands: before a command, between it and its subcommand, or after both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Config = Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", dir_okay=False)]


def hand_down(context: typer.Context, config: Path | None) -> None:
    """Make what stands before a subcommand its default; what stands after it goes first.

    Raises
    ------
    typer.BadParameter
        If the command that follows reads no configuration.
    """
    if config is None:
        return
    defaults = _defaults(context.command, str(config.resolve()))
    followed = context.invoked_subcommand
    if followed is not None and followed not in defaults:
        raise typer.BadParameter(f"`{followed}` reads no configuration", param_hint="--config")
    context.default_map = defaults


def _defaults(command: Any, config: str) -> dict[str, Any]:
    """For click: of each subcommand that has the option, or has subcommands with it, what it is."""
    subcommands: Mapping[str, Any] = getattr(command, "commands", {})
    return dict(_of_each(subcommands, config))


def _of_each(subcommands: Mapping[str, Any], config: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in subcommands.items():
        below = _defaults(one, config)
        if any(option.name == "config" for option in one.params):
            below["config"] = config
        if below:
            yield name, below


# The terminal that commands print on.


def terminal(*, stderr: bool = False) -> Console:
    """A console that takes what it prints as it stands.

    Kernels, names and paths come from elsewhere: a bracket in one of them is no markup of ours, which rich
    would swallow or stumble over. Styles are given beside the text.
    """
    return Console(stderr=stderr, markup=False, highlight=False)


# Where a command's results may go: never over what it reads.


# A result for a terminal. It names numbers and findings, never the patient.
