"""Content items of a structured report, and its summary: the answer in a few lines of text.

The summary is for a viewer, or a reader, that shows a report as text. The coded content below it holds the
same numbers and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from highdicom.sr import (
    CodeContentItem,
    ContentItem,
    ContentSequence,
    FindingSite,
    Measurement,
    NumContentItem,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.coding import Code

from config.findings import Output, Severity
from node.dicom import codes
from node.dicom.header_text import to_ascii
from node.study_report import LevelResult, Outcome, Report
from scoring.calibration import Mineral
from scoring.density.bmd import BmdResult, Reference, ReferenceScore, StudyClass
from scoring.models.card import NEGATIVE_CLASS
from segmentation.vertebrae import is_unnamed

PROPERTY = RelationshipTypeValues.HAS_PROPERTIES
MODIFIER = RelationshipTypeValues.HAS_CONCEPT_MOD
CONTAINS = RelationshipTypeValues.CONTAINS


def text_item(name: Code, text: str, relation: RelationshipTypeValues = CONTAINS) -> TextContentItem:
    """A text, in ASCII, as a content item.

    Parameters
    ----------
    relation : to the item that it becomes a child of.
    """
    return TextContentItem(name=name, value=to_ascii(text), relationship_type=relation)


def number_item(
    name: Code,
    value: float,
    unit: Code,
    relation: RelationshipTypeValues,
    *,
    details: Sequence[ContentItem] = (),
) -> NumContentItem:
    """A number with its unit: readable as text, exact as FloatingPointValue.

    Parameters
    ----------
    relation : to the item that it becomes a child of.
    details : become its children.
    """
    item = NumContentItem(name=name, value=float(value), unit=unit, relationship_type=relation)
    _make_readable(item)
    if details:
        item.ContentSequence = ContentSequence(list(details))
    return item


def _make_readable(item: NumContentItem) -> None:
    measured = item.MeasuredValueSequence[0]
    # Ten digits fit a DS; highdicom's would read 23224.3199999999 for 23224.32.
    measured.NumericValue = f"{measured.FloatingPointValue:.10g}"


def measurement(
    name: Code,
    value: float,
    unit: Code,
    *,
    derivation: Code | None = None,
    uncertainty: float | None = None,
    site: Code | None = None,
    details: Sequence[ContentItem] = (),
) -> Measurement:
    """A measurement (TID 300).

    Parameters
    ----------
    uncertainty : a standard uncertainty (k = 1) in `unit`.
    site : anatomic location, where it differs from the group's.
    details : become its children.
    """
    result = Measurement(
        name=name,
        value=float(value),
        unit=unit,
        derivation=derivation,
        finding_sites=[FindingSite(anatomic_location=site)] if site else None,
    )
    _make_readable(result[0])
    children = list(details)
    if uncertainty is not None:
        # highdicom's MeasurementProperties would give an uncertainty without a unit.
        children.append(number_item(codes.UNCERTAINTY, uncertainty, unit, PROPERTY))
    if children:
        existing = list(result[0].get("ContentSequence") or ())
        result[0].ContentSequence = ContentSequence([*existing, *children])
    return result


def comment(text: str) -> TextContentItem:
    """A remark on the item that it is a child of."""
    return text_item(codes.COMMENT, text, PROPERTY)


def modifier(name: Code, value: Code) -> CodeContentItem:
    """What narrows the concept of the item that it is a child of."""
    return CodeContentItem(name=name, value=value, relationship_type=MODIFIER)


def coded_property(name: Code, value: Code) -> CodeContentItem:
    """A coded property of the item that it is a child of."""
    return CodeContentItem(name=name, value=value, relationship_type=PROPERTY)


def evaluation(name: Code, value: Code, *, details: Sequence[ContentItem] = ()) -> QualitativeEvaluation:
    """A coded question and its coded answer.

    Parameters
    ----------
    details : become children of the item.
    """
    result = QualitativeEvaluation(name=name, value=value)
    if details:
        result[0].ContentSequence = ContentSequence(list(details))
    return result


_STUDY_CLASSES = {
    StudyClass.NORMAL: "normal (T >= -1)",
    StudyClass.OSTEOPENIA: "osteopenia (-2.5 < T < -1)",
    StudyClass.OSTEOPOROSIS: "osteoporosis (T <= -2.5)",
}


def summary_lines(report: Report) -> tuple[str, ...]:
    """The answer in lines, in the order in which a reader needs it.

    A suspected fracture first; then density category, BMD, scores, and the class by the study's rule. A
    withheld value is replaced by the text of the gravest finding that withholds it.

    Returns
    -------
    Of a refusal one line for each of its reasons.
    """
    if report.outcome is Outcome.REFUSED:
        reasons = (one.text for one in report.findings if one.severity is Severity.REFUSAL)
        return tuple(f"Not measured: {reason}" for reason in reasons)
    return (
        *(one.text for one in report.fractures),
        _category(report),
        *_densities(report),
        _score("T-score", report.t_score, report.reference) or _withheld(report, "T-score", Output.T_SCORE),
        _score("Z-score", report.z_score, report.reference) or _withheld(report, "Z-score", Output.Z_SCORE),
        _study_class(report),
        *_model(report),
    )


def _withheld(report: Report, name: str, output: Output) -> str:
    found = report.withheld_by(output)
    return f"{name}: not reported. {found.text}" if found else f"{name}: not reported."


def _category(report: Report) -> str:
    density = report.density
    if density is None:
        return _withheld(report, "QCT density category", Output.DENSITY_CATEGORY)
    converted = f", converted from {density.converted_from.value}" if density.converted_from else ""
    first, second = density.levels
    return (
        f"QCT density category = {density.category.value}: mean of {first} and {second} "
        f"{density.mean_mg_cm3:.1f} mg/cm3 {density.equivalent.value}{converted}."
    )


def _densities(report: Report) -> Iterable[str]:
    if report.calibration is not None:
        for level in report.levels:
            yield _density(_name_of(report, level), level.measured, report.calibration.equivalent)
    for one in report.unnamed:
        yield _density(one.name, one.measured, one.calibration.equivalent if one.calibration else None)


def _name_of(report: Report, level: LevelResult) -> str:
    if is_unnamed(level.name):
        return f"{level.name} (name not determined)"
    return level.name if report.numbering_confirmed else f"{level.name} (level not confirmed)"


def _density(name: str, measured: BmdResult | None, equivalent: Mineral | None) -> str:
    if measured is None or measured.bmd_mg_cm3 is None or equivalent is None:
        return f"{name}: BMD not reported, see findings."
    interval = measured.bmd_interval95_mg_cm3
    held = "" if interval is None else f", 95 % interval {interval[0]:.1f} to {interval[1]:.1f}"
    return f"{name}: BMD {measured.bmd_mg_cm3:.1f} mg/cm3 {equivalent.value}{held}."


def _score(name: str, score: ReferenceScore | None, reference: Reference | None) -> str | None:
    if score is None or reference is None:
        return None
    mark = "DEMONSTRATION REFERENCE, NOT FOR CLINICAL USE: " if reference.demonstration else ""
    return (
        f"{name} {score.value:.2f} by {mark}{reference.name} ({reference.population}), from "
        f"{', '.join(score.levels)}; not equivalent to DXA."
    )


def _study_class(report: Report) -> str:
    if report.study_class is None:
        return _withheld(report, "Class by study rule, Xie 2022", Output.STUDY_CLASS)
    words = _STUDY_CLASSES[report.study_class]
    return f"Study rule, Xie 2022: {words}. Study class, not a diagnosis."


def _model(report: Report) -> Iterable[str]:
    if report.rad_score is None:
        yield _withheld(report, "Rad-score and nomogram", Output.RAD_SCORE)
        return
    mark = "DEMONSTRATION MODEL, NOT FOR CLINICAL USE: " if report.rad_score.demonstration else ""
    yield f"{mark}Rad-score {report.rad_score.value:.2f}."
    if report.nomogram is None:
        yield _withheld(report, "Nomogram", Output.NOMOGRAM)
        return
    yield (
        f"{mark}Nomogram {report.nomogram.total_points:.1f} points: "
        f"{100 * report.nomogram.probability:.0f} % for {report.nomogram.positive_class} versus "
        f"{NEGATIVE_CLASS} (T rule)."
    )
