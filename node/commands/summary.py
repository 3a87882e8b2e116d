"""A report for a terminal. It names numbers and findings, never the patient."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.findings import Severity
from node.report import Outcome, Report
from scoring.bmd import BmdResult
from scoring.modelcard import NEGATIVE_CLASS

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
