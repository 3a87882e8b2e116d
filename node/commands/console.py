"""What the commands share: `--config` wherever it stands, the terminal, and where results may go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
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


def require_outside(out: Path, studies: Iterable[Path], *, option: str = "--out") -> None:
    """Refuse results in a folder of inputs, by whatever path or link it is named.

    Raises
    ------
    typer.BadParameter
        If `out` is one of the folders or lies in one.
    """
    place = out.resolve()
    for study in studies:
        folder = study.resolve()
        if place == folder or folder in place.parents:
            raise typer.BadParameter(
                f"{out} is inside the input folder {study}: results would mix with the images, and those of "
                "an earlier run would be deleted. Name a folder outside it",
                param_hint=option,
            )


def require_kept(
    out: Path, patterns: Iterable[str], inputs: Iterable[Path | None], *, option: str = "--out"
) -> None:
    """Refuse a folder in which the command's own files would replace one that it reads.

    Parameters
    ----------
    patterns : names of the files that the command writes or deletes in `out`.
    inputs : files that it reads; None for those that were not named.

    Raises
    ------
    typer.BadParameter
    """
    folder, names = out.resolve(), tuple(patterns)
    for path in (one for one in inputs if one is not None):
        # By its own name and by that of what it links to: deleting either loses it.
        for place in (path.parent.resolve() / path.name, path.resolve()):
            if place.parent == folder and any(fnmatchcase(place.name, name) for name in names):
                raise typer.BadParameter(
                    f"{place.name} in {out} is an input and would be replaced by a result of that name: "
                    "name another folder",
                    param_hint=option,
                )
