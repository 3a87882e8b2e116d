"""The one page of a study that could not be measured: what, and why."""

from __future__ import annotations

from config.findings import Severity
from config.phrases import Phrasebook
from node.dicom.pictures.findings import draw_findings
from node.dicom.pictures.frame import CONTENT_BOTTOM, MARGIN, framed_page
from node.dicom.pictures.layout import ACCENT, QUIET, REFUSAL, WIDTH, Box, Page, Pixels
from node.dicom.pictures.typeface import LATIN, Typeface
from node.dicom.pictures.words import technique_line
from node.report import Report


def draw_refusal(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Pixels:
    """The refusal page as RGB, shape (768, 1024, 3)."""
    return compose_refusal(report, typeface, say=say).pixels()


def compose_refusal(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Page:
    page, y = framed_page(report, "title-answer", typeface, say)
    say = page.say
    title = say("title-refusal")
    y = page.text(MARGIN, y + 16, title, size=34, bold=True, colour=REFUSAL) + 14
    reasons = [finding for finding in report.findings if finding.severity is Severity.REFUSAL]
    others = [finding for finding in report.findings if finding.severity is not Severity.REFUSAL]
    width = WIDTH - 2 * MARGIN
    box = Box(left=MARGIN, top=y, right=MARGIN + width, bottom=y + 300)
    y = draw_findings(page, box, reasons, sizes=(24.0, 21.0, 18.0, 15.0, 13.0)) + 16
    technique = technique_line(report, say)
    foot = CONTENT_BOTTOM - (page.height_of(technique, width, size=13) if technique else 0)
    if others and foot - y > 60:
        page.text(MARGIN, y, say("also-noted"), size=16, bold=True, colour=ACCENT)
        box = Box(left=MARGIN, top=y + 26, right=MARGIN + width, bottom=foot - 8)
        draw_findings(page, box, others)
    if technique:
        page.text(MARGIN, foot, technique, size=13, colour=QUIET, width=width)
    return page
