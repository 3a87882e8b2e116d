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
from node.study_report import Outcome, Report
from scoring.density.bmd import BmdResult
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


# A report for a terminal. It names numbers and findings, never the patient.


_COLOUR = {Severity.REFUSAL: "red", Severity.CAUTION: "yellow", Severity.INFO: "dim"}


def print_report(console: Console, report: Report) -> None:
    """BMD per level, calibration, scores and findings."""
    if report.outcome is Outcome.REFUSED:
        console.print("Refused: this study could not be measured.", style="bold red")
    elif report.levels:
        console.print(_levels(report))
    elif report.unnamed:
        console.print(_slices(report))
    for label, text in _facts(report):
        console.print(Text.assemble((f"{label:<14}", "bold"), text), soft_wrap=True)
    if report.findings:
        console.print("Findings", style="bold")
    for finding in report.findings:
        colour = _COLOUR[finding.severity]
        console.print(
            Text.assemble("  ", (f"{finding.severity.value:<8}", colour), f" {finding.text}"),
            soft_wrap=True,
        )


def _levels(report: Report) -> Table:
    equivalent = f" {report.calibration.equivalent.value}" if report.calibration else ""
    table = Table(box=None, pad_edge=False)
    ellipse = any(level.ellipse for level in report.levels)
    read_in = next((f", {level.measured.region.value}" for level in report.levels if level.measured), "")
    besides = ("ellipse",) if ellipse else ()
    for heading in ("level", f"BMD mg/cm3{equivalent}{read_in}", "HU", *besides, "body cm3"):
        table.add_column(heading, justify="left" if heading == "level" else "right")
    for level in report.levels:
        table.add_row(
            level.name if report.numbering_confirmed else f"{level.name}?",
            *_read(level.measured),
            *([_read(level.ellipse)[0]] if ellipse else []),
            f"{level.volume_mm3 / 1000:.1f}" if level.volume_mm3 is not None else "not available",
        )
    return table


def _slices(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    equivalents = {one.calibration.equivalent.value for one in report.unnamed if one.calibration}
    for heading in ("level not known", " ".join(["BMD mg/cm3", *equivalents]), "HU", "region mm2"):
        table.add_column(heading, justify="left" if heading == "level not known" else "right")
    for one in report.unnamed:
        region = f"{one.region_mm2:.0f}" if one.region_mm2 is not None else "not available"
        table.add_row(one.name, *_read(one.measured), region)
    return table


def _read(read: BmdResult | None) -> tuple[str, str]:
    """Density and HU of one vertebra."""
    density = "not available"
    if read and read.bmd_mg_cm3 is not None:
        sigma = read.bmd_uncertainty_mg_cm3
        density = f"{read.bmd_mg_cm3:.1f}" + (f" ± {sigma:.1f}" if sigma is not None else "")
    return density, f"{read.hu_mean:.0f} (SD {read.hu_sd:.0f})" if read else "not available"


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = []
    if found := report.calibration:
        facts.append(
            (
                "calibration",
                f"{found.method}, {found.phantom_named} ({found.grade.value}): "
                f"BMD = {found.slope:.4f} x HU {found.intercept:+.2f} mg/cm3 {found.equivalent.value}",
            )
        )
    if report.t_score and report.reference:
        facts.append(("T-score", f"{report.t_score.value:+.2f} (reference {report.reference.name})"))
    if report.z_score and report.reference:
        facts.append(("Z-score", f"{report.z_score.value:+.2f} (reference {report.reference.name})"))
    if report.density:
        facts.append(("density", f"{report.density.category.value} ({'+'.join(report.density.levels)})"))
    if report.study_class:
        facts.append(("study rule", f"{report.study_class.value} (Xie 2022, by T-score)"))
    if report.rad_score:
        facts.append(("rad-score", f"{report.rad_score.value:+.3f} (model {report.rad_score.model_name})"))
    if found_nomogram := report.nomogram:
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
