"""Words for numbers, terms and facts, the same on every page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from config.findings import level_in_words
from config.phrases import Phrasebook
from node.study_report import Report, SeriesFacts
from scoring.calibration import INTERNAL, PATIENT_TISSUES, Calibration, Grade, Mineral
from scoring.calibration.methods import LEAST_SQUARES, MINDWAYS, TWO_POINT
from scoring.calibration.prior_scan import BY_PRIOR_SCAN
from scoring.calibration.spectrum import Tissue
from scoring.density.bmd import DensityCategory, StudyClass
from scoring.models.card import NEGATIVE_CLASS, NomogramResult
from segmentation.phrase import Phrase, Value, phrase
from segmentation.vertebrae import RegionKind, place_of_unnamed

MINUS = "−"
MINERALS = {Mineral.HA: "HA", Mineral.K2HPO4: "K₂HPO₄"}
STUDY_CLASSES = {
    StudyClass.NORMAL: phrase("class-normal"),
    StudyClass.OSTEOPENIA: phrase("class-osteopenia"),
    StudyClass.OSTEOPOROSIS: phrase("class-osteoporosis"),
}
GRADES = {
    Grade.PHANTOM: phrase("grade-phantom"),
    Grade.ASYNCHRONOUS: phrase("grade-asynchronous"),
    Grade.INTERNAL: phrase("grade-internal"),
}
REGIONS = {RegionKind.CORE: phrase("region-core"), RegionKind.ELLIPSE: phrase("region-ellipse")}
# Units as a reader writes them; UCUM stays in the coded report.
UNITS: Mapping[str, Value] = {"1": "", "a": phrase("years"), "umol/L": "µmol/L"}
# Terms that results, stored reports and the data that sites edit hold as English text.
_TERMS: Mapping[str, Phrase] = {
    DensityCategory.NORMAL: phrase("normal"),
    DensityCategory.LOW: phrase("low-bone-mass"),
    DensityCategory.OSTEOPOROSIS: phrase("osteoporosis"),
    StudyClass.OSTEOPENIA: phrase("osteopenia"),
    TWO_POINT: phrase("method-two-point"),
    LEAST_SQUARES: phrase("method-least-squares"),
    MINDWAYS: phrase("method-mindways"),
    INTERNAL: phrase("method-internal"),
    PATIENT_TISSUES: phrase("own-tissues"),
    "water": phrase("water"),  # as phantoms' files name their rod
    Tissue.AIR: phrase("air"),
    Tissue.ADIPOSE: phrase("adipose"),
    Tissue.BLOOD: phrase("blood"),
    Tissue.MUSCLE: phrase("muscle"),
    "Rad-score": phrase("rad-score-axis"),  # as model cards label their axes
    "Age": phrase("age-axis"),
    "ALP": phrase("alp-axis"),
    "Alkaline phosphatase": phrase("alkaline-phosphatase-axis"),
    "Homocysteine": phrase("homocysteine-axis"),
    "images arrived later": phrase("amended-images"),  # as stored reports say why they amend another
    "a segmentation arrived later": phrase("amended-segmentation"),
    "the identification of the patient or the order was corrected": phrase("amended-identity"),
    "an archive holds an earlier report of which this node has no record": phrase("amended-unrecorded"),
}


def term(say: Phrasebook, name: str) -> str:
    """A term of results or of a site's files in the page's language.

    Returns
    -------
    The name itself where it is no known term.
    """
    return say.words(_TERMS.get(name, name))


def number(value: float, digits: int) -> str:
    """A number with a true minus sign.

    Parameters
    ----------
    digits : after the decimal point.
    """
    return f"{value:.{digits}f}".replace("-", MINUS)


def equivalent(say: Phrasebook, mineral: Mineral) -> str:
    """The mineral that a density counts as."""
    return say("equivalent-of", mineral=MINERALS[mineral])


def level_briefly(level: str, say: Phrasebook) -> str:
    """What a level, or a body without a name, is called where there is little room."""
    place = place_of_unnamed(level)
    return level if place is None else say("body-briefly", number=place[0], count=place[1])


def levels_in_words(say: Phrasebook, levels: Sequence[str]) -> str:
    """The levels of a score: one level, or the mean of several.

    Parameters
    ----------
    levels : at least one.
    """
    return levels[0] if len(levels) == 1 else say("mean-of-levels", levels=", ".join(levels))


def value_with_unit(say: Phrasebook, value: float, unit: str) -> str:
    """A value of four significant digits with its unit.

    Parameters
    ----------
    unit : UCUM; "1" is not shown.
    """
    shown = unit_in_words(say, unit)
    return f"{value:.4g}".replace("-", MINUS) + (f" {shown}" if shown else "")


def unit_in_words(say: Phrasebook, unit: str) -> str:
    """A unit as a reader writes it.

    Parameters
    ----------
    unit : UCUM.
    """
    return say.words(UNITS.get(unit, unit))


def probability_in_words(say: Phrasebook, nomogram: NomogramResult) -> str:
    """The probability with its class and the class it is compared with: never a diagnosis by itself."""
    return say(
        "probability-of-class",
        percent=f"{100 * nomogram.probability:.0f} %",
        positive=term(say, nomogram.positive_class),
        negative=term(say, NEGATIVE_CLASS),
    )


def banners(report: Report, say: Phrasebook) -> list[str]:
    """The warnings for the top of every page: demonstration model, demonstration reference."""
    found = []
    if (report.rad_score and report.rad_score.demonstration) or (
        report.nomogram and report.nomogram.demonstration
    ):
        found.append(say("demonstration-model"))
    if report.reference is not None and report.reference.demonstration and (report.t_score or report.z_score):
        found.append(say("demonstration-reference"))
    return found


def region_of(report: Report) -> RegionKind | None:
    """The region of the report's leading densities.

    Returns
    -------
    None where no level was measured.
    """
    return next((level.measured.region for level in report.levels if level.measured), None)


def calibration_line(report: Report, say: Phrasebook) -> str | None:
    """The study's calibration, or those of its single slices, in one line.

    Returns
    -------
    None where there is none.
    """
    if report.calibration is not None:
        return say("calibration-line", facts=_calibration(say, report.calibration))
    own = [
        f"{level_in_words(one.name, say)}: {_calibration(say, one.calibration)}"
        for one in report.unnamed
        if one.calibration
    ]
    return say("calibration-of-slices", facts="; ".join(own)) if own else None


def named_in(say: Phrasebook, calibration: Calibration) -> Calibration:
    """A calibration whose phantom, method, rods and tissues are named in the page's language."""
    method = calibration.method.removeprefix(BY_PRIOR_SCAN)
    by_prior_scan = method != calibration.method
    return replace(
        calibration,
        phantom=term(say, calibration.phantom),
        method=say("method-asynchronous", method=term(say, method)) if by_prior_scan else term(say, method),
        rods=tuple(replace(rod, name=term(say, rod.name)) for rod in calibration.rods),
        left_out=tuple(term(say, name) for name in calibration.left_out),
        tissues=tuple(replace(one, name=term(say, one.name)) for one in calibration.tissues),
    )


def _calibration(say: Phrasebook, calibration: Calibration) -> str:
    calibration = named_in(say, calibration)
    fit = "" if calibration.r2 is None else f", R² {calibration.r2:.4f}"
    read = ", ".join(f"{rod.name} {number(rod.hu_mean, 1)} HU" for rod in calibration.rods)
    rods = say("rods-read", read=read) if calibration.rods else _tissues(say, calibration)
    return (
        f"{calibration.phantom_named}, {say.words(GRADES[calibration.grade])}, {calibration.method}, "
        f"{equation(calibration)} {MINERALS[calibration.equivalent]}{fit}; {rods}"
    )


def equation(calibration: Calibration) -> str:
    """The calibration's map from HU to density, without its mineral."""
    sign = MINUS if calibration.intercept < 0 else "+"
    return f"BMD = {calibration.slope:.4f} × HU {sign} {abs(calibration.intercept):.2f} mg/cm³"


def _tissues(say: Phrasebook, calibration: Calibration) -> str:
    read = ", ".join(f"{one.name} {number(one.hu, 0)} HU" for one in calibration.tissues)
    if calibration.effective_kev is None:
        return say("tissues-read", read=read)
    return say("tissues-read-at", energy=f"{calibration.effective_kev:.0f}", read=read)


def technique_line(report: Report, say: Phrasebook) -> str | None:
    """Voltage, slices, kernel, scanner and contrast medium in one line.

    Returns
    -------
    None where no series was read.
    """
    facts = report.series
    if facts is None:
        return None
    thickness, spacing = facts.slice_thickness_mm, facts.slice_spacing_mm
    parts = [
        f"{facts.kvp:g} kV" if facts.kvp is not None else say("kv-not-stated"),
        say("slice-thickness", mm=f"{thickness:g}") if thickness is not None else "",
        say("slice-distance", mm=f"{spacing:.4g}") if spacing is not None else say("slices-alone"),
        say("kernel-named", name=facts.kernel) if facts.kernel else "",
        f"{facts.manufacturer} {facts.model}".strip(),
        _contrast(say, facts),
    ]
    return say("technique-line", facts=", ".join(part for part in parts if part))


def _contrast(say: Phrasebook, facts: SeriesFacts) -> str:
    """Contrast medium; where the header leaves it open, the finding quotes its words."""
    if not facts.contrast_agent:
        return ""
    if facts.contrast_doubtful:
        return say("contrast-left-open")
    return say("contrast-agent", agent=facts.contrast_agent)


def provenance_line(report: Report, say: Phrasebook) -> str:
    """Software, engine, model and configuration in one line."""
    made_by = report.provenance
    parts = [f"{made_by.software} {made_by.version}"]
    if made_by.engine:
        parts.append(say("made-with-segmentation", name=f"{made_by.engine.name} {made_by.engine.version}"))
    if made_by.model:
        parts.append(say("made-with-model", name=f"{made_by.model} ({(made_by.model_sha256 or '')[:8]})"))
    parts.append(say("made-with-configuration", hash=made_by.configuration_sha256[:8]))
    return "; ".join(parts)
