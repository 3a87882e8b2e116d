"""`--config` wherever it stands: before a command, between it and its subcommand, or after both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.findings import Severity
from node.research.extraction import ABOUT
from node.result_document import DensityEntry, ResultDocument
from node.study_report import Outcome
from scoring.models.card import NEGATIVE_CLASS

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


_LONGEST_HEAD = 1 << 20  # characters: 851 names take 40,000


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
                f"{out} lies in {study}, which is read: results would stand among the images, and an earlier "
                "run's be deleted there. Name a folder outside of it",
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
                    f"{place.name} in {out} is read, and would be replaced by a result of that name: "
                    "name another folder",
                    param_hint=option,
                )


def require_table_of_features(out: Path, *, option: str = "--out") -> None:
    """Refuse to replace a file that is no table of features: a cohort's, say, or an image.

    Raises
    ------
    typer.BadParameter
    """
    if not out.is_file() or not out.stat().st_size:
        return
    try:
        with out.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline(_LONGEST_HEAD)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {out}: {error.strerror}", param_hint=option) from error
    if not head.startswith(",".join(ABOUT)):
        raise typer.BadParameter(
            f"{out} is there and is no table of features: name another place", param_hint=option
        )


# A result for a terminal. It names numbers and findings, never the patient.


_COLOUR = {Severity.REFUSAL: "red", Severity.CAUTION: "yellow", Severity.INFO: "dim"}


def print_result(console: Console, result: ResultDocument) -> None:
    """BMD per level, calibration, scores and findings."""
    if result.outcome is Outcome.REFUSED:
        console.print("Refused: this study could not be measured.", style="bold red")
    elif result.levels:
        console.print(_levels(result))
    elif result.unnamed:
        console.print(_slices(result))
    for label, text in _facts(result):
        console.print(Text.assemble((f"{label:<14}", "bold"), text), soft_wrap=True)
    if result.findings:
        console.print("Findings", style="bold")
    for finding in result.findings:
        colour = _COLOUR[finding.severity]
        console.print(
            Text.assemble("  ", (f"{finding.severity.value:<8}", colour), f" {finding.text}"),
            soft_wrap=True,
        )


def _levels(result: ResultDocument) -> Table:
    equivalent = f" {result.calibration.equivalent.value}" if result.calibration else ""
    table = Table(box=None, pad_edge=False)
    ellipse = any(level.ellipse for level in result.levels.values())
    read_in = f", {result.region.value}" if result.region else ""
    besides = ("ellipse",) if ellipse else ()
    for heading in ("level", f"BMD mg/cm3{equivalent}{read_in}", "HU", *besides, "body cm3"):
        table.add_column(heading, justify="left" if heading == "level" else "right")
    for name, level in result.levels.items():
        table.add_row(
            name if result.numbering.confirmed else f"{name}?",
            *_read(level),
            *([_read(level.ellipse or DensityEntry())[0]] if ellipse else []),
            f"{level.volume_mm3 / 1000:.1f}" if level.volume_mm3 is not None else "not available",
        )
    return table


def _slices(result: ResultDocument) -> Table:
    table = Table(box=None, pad_edge=False)
    equivalents = {one.equivalent.value for one in result.unnamed if one.equivalent}
    for heading in ("level not known", " ".join(["BMD mg/cm3", *equivalents]), "HU", "region mm2"):
        table.add_column(heading, justify="left" if heading == "level not known" else "right")
    for one in result.unnamed:
        region = f"{one.region_mm2:.0f}" if one.region_mm2 is not None else "not available"
        table.add_row(one.name, *_read(one), region)
    return table


def _read(read: DensityEntry) -> tuple[str, str]:
    """Density and HU of one vertebra."""
    density, hu = "not available", "not available"
    if read.bmd_mg_cm3 is not None:
        sigma = read.bmd_uncertainty_mg_cm3
        density = f"{read.bmd_mg_cm3:.1f}" + (f" ± {sigma:.1f}" if sigma is not None else "")
    if read.hu_mean is not None:
        hu = f"{read.hu_mean:.0f} (SD {read.hu_sd:.0f})"
    return density, hu


def _facts(result: ResultDocument) -> list[tuple[str, str]]:
    facts = []
    used, categories = result.provenance, result.categories
    if found := result.calibration:
        grade = f" ({found.grade.value})" if found.grade else ""
        facts.append(
            (
                "calibration",
                f"{found.method}, {found.phantom_named}{grade}: "
                f"BMD = {found.slope:.4f} x HU {found.intercept:+.2f} mg/cm3 {found.equivalent.value}",
            )
        )
    if result.t_score is not None:
        facts.append(("T-score", f"{result.t_score:+.2f} (reference {used.reference})"))
    if result.z_score is not None:
        facts.append(("Z-score", f"{result.z_score:+.2f} (reference {used.reference})"))
    if density := categories.density:
        facts.append(("density", f"{density.category.value} ({'+'.join(density.levels)})"))
    if categories.study_class:
        facts.append(("study rule", f"{categories.study_class.value} (Xie 2022, by T-score)"))
    if result.rad_score is not None:
        facts.append(("rad-score", f"{result.rad_score:+.3f} (model {used.model})"))
    if found_nomogram := result.nomogram:
        points = ", ".join(f"{one.name} {one.points:.0f}" for one in found_nomogram.inputs)
        facts.append(
            (
                "nomogram",
                f"{found_nomogram.total_points:.0f} points ({points}): "
                f"probability {found_nomogram.probability:.2f} of {found_nomogram.positive_class} "
                f"rather than {NEGATIVE_CLASS} (T rule)",
            )
        )
    return facts
