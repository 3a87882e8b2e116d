"""A result for a terminal. It names numbers and findings, never the patient."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.findings import Severity
from node.result_document import DensityEntry, ResultDocument
from node.study_report import Outcome
from scoring.models.card import NEGATIVE_CLASS

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
                f"versus {NEGATIVE_CLASS} (T rule)",
            )
        )
    return facts
