"""The list of findings, as large as its space allows."""

from __future__ import annotations

from collections.abc import Sequence

from config.findings import Finding, Severity, gravest_first
from node.dicom.pictures.layout import CAUTION, QUIET, REFUSAL, TEXT, Box, Page
from segmentation.observation import phrase

LABELS = {
    Severity.REFUSAL: phrase("severity-refusal"),
    Severity.CAUTION: phrase("severity-caution"),
    Severity.INFO: phrase("severity-info"),
}
_COLOURS = {Severity.REFUSAL: REFUSAL, Severity.CAUTION: CAUTION, Severity.INFO: QUIET}
_SIZES = (15.0, 14.0, 13.0, 12.0)
_GAP = 6.0


def draw_findings(
    page: Page,
    box: Box,
    findings: Sequence[Finding],
    *,
    sizes: Sequence[float] = _SIZES,
) -> float:
    """Write the findings into `box`, gravest first; returns where the list ends.

    The font shrinks until all fit; what does not fit at the smallest size is counted, for the structured
    report holds it.
    """
    ordered = gravest_first(findings)
    size = next((s for s in sizes if _height(page, box, ordered, s) <= box.bottom - box.top), sizes[-1])
    y = box.top
    for place, finding in enumerate(ordered):
        left_over = len(ordered) - place
        room = box.bottom - y - (size * 1.4 if left_over > 1 else 0)
        if _entry_height(page, box, finding, size) > room:
            more = page.say("more-findings", count=left_over)
            return page.text(box.left, y, more, size=size, bold=True, colour=CAUTION)
        colour = _COLOURS[finding.severity]
        page.text(box.left, y, page.say.words(LABELS[finding.severity]), size=size, bold=True, colour=colour)
        indent = _indent(page, size)
        width = _room(page, box, size)
        y = page.text(box.left + indent, y, finding.shown, size=size, colour=TEXT, width=width) + _GAP
    return y


def _indent(page: Page, size: float) -> float:
    return max(page.text_width(page.say.words(label), size=size, bold=True) for label in LABELS.values()) + 10


def _room(page: Page, box: Box, size: float) -> float:
    return box.right - box.left - _indent(page, size)


def _entry_height(page: Page, box: Box, finding: Finding, size: float) -> float:
    return page.height_of(finding.shown, _room(page, box, size), size=size)


def _height(page: Page, box: Box, findings: Sequence[Finding], size: float) -> float:
    return sum(_entry_height(page, box, finding, size) + _GAP for finding in findings)
