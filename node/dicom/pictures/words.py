"""How numbers and facts are worded on every page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from config.findings import level_in_words
from node.dicom.pictures.language import Phrasebook, words_of
from node.report import Report, SeriesFacts
from scoring.asynchronous import LENT
from scoring.bmd import RegionKind, StudyClass
from scoring.calibration import Calibration, Grade, Mineral
from scoring.modelcard import NEGATIVE_CLASS
from scoring.nomogram import NomogramResult

MINUS = "−"
RESEARCH_USE_ONLY = "RESEARCH USE ONLY"
DEMONSTRATION_MODEL = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE"
DEMONSTRATION_REFERENCE = "DEMONSTRATION REFERENCE - NOT FOR CLINICAL USE"

MINERALS = {Mineral.HA: "HA", Mineral.K2HPO4: "K₂HPO₄"}
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


def equivalent(say: Phrasebook, mineral: Mineral) -> str:
    """The mineral that a density counts as."""
    return say("{mineral} equivalent", mineral=MINERALS[mineral])


def levels_in_words(say: Phrasebook, levels: Sequence[str]) -> str:
    """What a score rests on: one level, or the mean of several."""
    return levels[0] if len(levels) == 1 else say("mean of {levels}", levels=", ".join(levels))


def value_with_unit(say: Phrasebook, value: float, unit: str) -> str:
    shown = unit_in_words(say, unit)
    return f"{value:.4g}".replace("-", MINUS) + (f" {shown}" if shown else "")


def unit_in_words(say: Phrasebook, unit: str) -> str:
    return say(UNITS.get(unit, unit))


def probability_in_words(say: Phrasebook, nomogram: NomogramResult) -> str:
    """What the probability is of, and against what: never a diagnosis by itself."""
    return say(
        "{percent} for {positive} rather than {negative} (T rule)",
        percent=f"{100 * nomogram.probability:.0f} %",
        positive=say(nomogram.positive_class),
        negative=say(NEGATIVE_CLASS),
    )


def banners(report: Report) -> list[str]:
    """Marks that stand at the top of every page that shows what they warn of."""
    say = words_of(report)
    found = []
    if (report.rad_score and report.rad_score.demonstration) or (
        report.nomogram and report.nomogram.demonstration
    ):
        found.append(say(DEMONSTRATION_MODEL))
    if report.reference is not None and report.reference.demonstration and (report.t_score or report.z_score):
        found.append(say(DEMONSTRATION_REFERENCE))
    return found


def region_of(report: Report) -> RegionKind | None:
    """The region that the report's densities lead with; None where no level was measured."""
    return next((level.measured.region for level in report.levels if level.measured), None)


def calibration_line(report: Report) -> str | None:
    """The study's calibration, or those of its single slices."""
    say = words_of(report)
    if report.calibration is not None:
        return say("Calibration: {facts}", facts=_calibration(say, report.calibration))
    own = [
        f"{level_in_words(one.name, report.language)}: {_calibration(say, one.calibration)}"
        for one in report.unnamed
        if one.calibration
    ]
    return say("Calibration of each slice by its own rods: {facts}", facts="; ".join(own)) if own else None


def named_in(say: Phrasebook, calibration: Calibration) -> Calibration:
    """A calibration whose method, rods and tissues have the names that the page's language knows."""
    method = calibration.method.removeprefix(LENT)
    lent = method != calibration.method
    return replace(
        calibration,
        phantom=say(calibration.phantom),
        method=say("asynchronous {method}", method=say(method)) if lent else say(method),
        rods=tuple(replace(rod, name=say(rod.name)) for rod in calibration.rods),
        left_out=tuple(say(name) for name in calibration.left_out),
        tissues=tuple(replace(one, name=say(one.name)) for one in calibration.tissues),
    )


def _calibration(say: Phrasebook, calibration: Calibration) -> str:
    calibration = named_in(say, calibration)
    fit = "" if calibration.r2 is None else f", R² {calibration.r2:.4f}"
    read = ", ".join(f"{rod.name} {number(rod.hu_mean, 1)} HU" for rod in calibration.rods)
    rods = say("rods: {read}", read=read) if calibration.rods else _tissues(say, calibration)
    return (
        f"{calibration.phantom_named}, {say(GRADES[calibration.grade])}, {calibration.method}, "
        f"{equation(calibration)} {MINERALS[calibration.equivalent]}{fit}; {rods}"
    )


def equation(calibration: Calibration) -> str:
    """The calibration's map from HU to density, without its mineral."""
    sign = MINUS if calibration.intercept < 0 else "+"
    return f"BMD = {calibration.slope:.4f} × HU {sign} {abs(calibration.intercept):.2f} mg/cm³"


def _tissues(say: Phrasebook, calibration: Calibration) -> str:
    read = ", ".join(f"{one.name} {number(one.hu, 0)} HU" for one in calibration.tissues)
    if calibration.effective_kev is None:
        return say("tissues: {read}", read=read)
    return say("tissues at {energy} keV: {read}", energy=f"{calibration.effective_kev:.0f}", read=read)


def technique_line(report: Report) -> str | None:
    facts, say = report.series, words_of(report)
    if facts is None:
        return None
    thickness, spacing = facts.slice_thickness_mm, facts.slice_spacing_mm
    parts = [
        f"{facts.kvp:g} kV" if facts.kvp is not None else say("kV not stated"),
        say("{mm} mm slices", mm=f"{thickness:g}") if thickness is not None else "",
        say("every {mm} mm", mm=f"{spacing:.4g}") if spacing is not None else say("each alone"),
        say("kernel {name}", name=facts.kernel) if facts.kernel else "",
        f"{facts.manufacturer} {facts.model}".strip(),
        _contrast(say, facts),
    ]
    return say("Technique: {facts}", facts=", ".join(part for part in parts if part))


def _contrast(say: Phrasebook, facts: SeriesFacts) -> str:
    """The words of a header that leaves it open stand in the finding."""
    if not facts.contrast_agent:
        return ""
    if facts.contrast_doubtful:
        return say("contrast left open")
    return say("contrast: {agent}", agent=facts.contrast_agent)


def provenance_line(report: Report) -> str:
    made_by, say = report.provenance, words_of(report)
    parts = [f"{made_by.software} {made_by.version}"]
    if made_by.engine:
        parts.append(say("segmentation {name}", name=f"{made_by.engine.name} {made_by.engine.version}"))
    if made_by.model:
        parts.append(say("model {name}", name=f"{made_by.model} ({(made_by.model_sha256 or '')[:8]})"))
    parts.append(say("configuration {hash}", hash=made_by.configuration_sha256[:8]))
    return "; ".join(parts)
