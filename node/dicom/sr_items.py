"""Small parts of a structured report: measurements with their particulars, evaluations, comments."""

from __future__ import annotations

from collections.abc import Sequence

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

from node.dicom import codes
from node.dicom.text import plain

PROPERTY = RelationshipTypeValues.HAS_PROPERTIES
MODIFIER = RelationshipTypeValues.HAS_CONCEPT_MOD
CONTAINS = RelationshipTypeValues.CONTAINS


def text_item(name: Code, text: str, relation: RelationshipTypeValues = CONTAINS) -> TextContentItem:
    return TextContentItem(name=name, value=plain(text), relationship_type=relation)


def number_item(
    name: Code,
    value: float,
    unit: Code,
    relation: RelationshipTypeValues,
    *,
    details: Sequence[ContentItem] = (),
) -> NumContentItem:
    """A number with its unit: readable as text, exact as FloatingPointValue. `details` become children."""
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
    """TID 300. `uncertainty` is a standard uncertainty (k = 1) in `unit`; `details` become children."""
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
    """A coded question and its coded answer."""
    result = QualitativeEvaluation(name=name, value=value)
    if details:
        result[0].ContentSequence = ContentSequence(list(details))
    return result
