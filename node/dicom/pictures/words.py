"""How numbers and facts are worded on every page."""

from __future__ import annotations

from collections.abc import Sequence

from node.report import Report
from scoring.bmd import RegionKind, StudyClass
from scoring.calibration import Calibration, Grade, Mineral
from scoring.modelcard import NEGATIVE_CLASS
from scoring.nomogram import NomogramResult

MINUS = "−"
RESEARCH_USE_ONLY = "RESEARCH USE ONLY"
DEMONSTRATION_MODEL = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE"
DEMONSTRATION_REFERENCE = "DEMONSTRATION REFERENCE - NOT FOR CLINICAL USE"

MINERALS = {Mineral.HA: "HA", Mineral.K2HPO4: "K₂HPO₄"}
EQUIVALENTS = {mineral: f"{name} equivalent" for mineral, name in MINERALS.items()}
STUDY_CLASSES = {
    StudyClass.NORMAL: "normal (T ≥ −1)",
    StudyClass.OSTEOPENIA: "osteopenia (−2.5 < T < −1)",
    StudyClass.OSTEOPOROSIS: "osteoporosis (T ≤ −2.5)",
}
GRADES = {
    Grade.PHANTOM: "phantom in view",
    Grade.ASYNCHRONOUS: "phantom scanned earlier",
    Grade.INTERNAL: "the patient's own tissues, for screening only",
}
REGIONS = {RegionKind.CORE: "cancellous core", RegionKind.ELLIPSE: "mid-body ellipse"}
# Units as a reader writes them; UCUM stays in the coded report.
UNITS = {"1": "", "a": "years", "umol/L": "µmol/L"}


def number(value: float, digits: int) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", MINUS)


def levels_in_words(levels: Sequence[str]) -> str:
    """What a score rests on: one level, or the mean of several."""
    return levels[0] if len(levels) == 1 else f"mean of {', '.join(levels)}"


def value_with_unit(value: float, unit: str) -> str:
    shown = UNITS.get(unit, unit)
    return f"{value:.4g}".replace("-", MINUS) + (f" {shown}" if shown else "")


def probability_in_words(nomogram: NomogramResult) -> str:
    """What the probability is of, and against what: never a diagnosis by itself."""
    percent = f"{100 * nomogram.probability:.0f} %"
    return f"{percent} for {nomogram.positive_class} rather than {NEGATIVE_CLASS} (T rule)"


def banners(report: Report) -> list[str]:
    """Marks that stand at the top of every page that shows what they warn of."""
    found = []
    if (report.rad_score and report.rad_score.demonstration) or (
        report.nomogram and report.nomogram.demonstration
    ):
        found.append(DEMONSTRATION_MODEL)
    if report.reference is not None and report.reference.demonstration and (report.t_score or report.z_score):
        found.append(DEMONSTRATION_REFERENCE)
    return found


def region_of(report: Report) -> RegionKind | None:
    """The region that the report's densities lead with; None where no level was measured."""
    return next((level.measured.region for level in report.levels if level.measured), None)


def calibration_line(report: Report) -> str | None:
    """The study's calibration, or those of its single slices."""
    if report.calibration is not None:
        return f"Calibration: {_calibration(report.calibration)}"
    own = [f"{one.name}: {_calibration(one.calibration)}" for one in report.unnamed if one.calibration]
    return f"Calibration of each slice by its own rods: {'; '.join(own)}" if own else None


def _calibration(calibration: Calibration) -> str:
    sign = MINUS if calibration.intercept < 0 else "+"
    fit = "" if calibration.r2 is None else f", R² {calibration.r2:.4f}"
    read = ", ".join(f"{rod.name} {number(rod.hu_mean, 1)} HU" for rod in calibration.rods)
    rods = f"rods: {read}" if calibration.rods else _tissues(calibration)
    return (
        f"{calibration.phantom_named}, {GRADES[calibration.grade]}, {calibration.method}, "
        f"BMD = {calibration.slope:.4f} × HU {sign} {abs(calibration.intercept):.2f} mg/cm³ "
        f"{MINERALS[calibration.equivalent]}{fit}; {rods}"
    )


def _tissues(calibration: Calibration) -> str:
    read = ", ".join(f"{one.name} {number(one.hu, 0)} HU" for one in calibration.tissues)
    energy = "" if calibration.effective_kev is None else f" at {calibration.effective_kev:.0f} keV"
    return f"tissues{energy}: {read}"


def technique_line(report: Report) -> str | None:
    facts = report.series
    if facts is None:
        return None
    parts = [
        f"{facts.kvp:g} kV" if facts.kvp is not None else "kV not stated",
        f"{facts.slice_thickness_mm:g} mm slices" if facts.slice_thickness_mm is not None else "",
        f"every {facts.slice_spacing_mm:.4g} mm" if facts.slice_spacing_mm is not None else "each alone",
        f"kernel {facts.kernel}" if facts.kernel else "",
        f"{facts.manufacturer} {facts.model}".strip(),
        f"contrast: {facts.contrast_agent}" if facts.contrast_agent else "",
    ]
    return "Technique: " + ", ".join(part for part in parts if part)


def provenance_line(report: Report) -> str:
    made_by = report.provenance
    engine = f"; segmentation {made_by.engine.name} {made_by.engine.version}" if made_by.engine else ""
    model = f"; model {made_by.model} ({(made_by.model_sha256 or '')[:8]})" if made_by.model else ""
    settings = f"; configuration {made_by.configuration_sha256[:8]}"
    return f"{made_by.software} {made_by.version}{engine}{model}{settings}"
