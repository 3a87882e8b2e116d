"""What every page has: title, marks, and who made it."""

from __future__ import annotations

from config.phrases import Phrasebook, load_phrases
from node.dicom.pictures.layout import (
    ACCENT,
    BACKGROUND,
    CAUTION,
    HEIGHT,
    QUIET,
    TEXT,
    WIDTH,
    Box,
    Page,
)
from node.dicom.pictures.typeface import Typeface
from node.dicom.pictures.words import banners, provenance_line, term
from node.report import Report

MARGIN = 24
# Viewers write patient and study over the four corners of an image, in up to six lines: there a page has
# neither its badge nor its title, and nothing else that a reader must not miss.
CORNER_WIDTH, CORNER_HEIGHT = WIDTH / 4, 108.0
CONTENT_BOTTOM = HEIGHT - 44  # above the footer
FOOTER_RULE = HEIGHT - 34
_FOOTER = Box(left=MARGIN, top=HEIGHT - 32, right=WIDTH - MARGIN, bottom=HEIGHT - 2)
_REASON_SEPARATOR = "; "  # between the reasons for an amendment
_FOOTER_SIZES = (12.0, 11.0, 10.0, 9.0)  # pixels; two lines from 11 down


def framed_page(
    report: Report, title: str, typeface: Typeface, say: Phrasebook | None = None
) -> tuple[Page, float]:
    """A page with its head and foot; returns it and where its content may start.

    Parameters
    ----------
    title : the id of its phrase.
    say : the phrases of the page; by default the shipped ones in the report's language.
    """
    say = say or load_phrases(report.language)
    page = Page(typeface, say)
    _badge(page, 5, say("research-use-only"))
    page.text(WIDTH / 2, 33, say(title), size=20, bold=True, align="center")
    scanned = report.study.study_date.isoformat() if report.study.study_date else say("unknown-date")
    status = (
        say("study-of-date", date=scanned),
        say("issued-at", time=f"{report.issued_at:%Y-%m-%d %H:%M %Z}"),
        say("preliminary-result"),
    )
    page.text(WIDTH / 2, 60, "   ·   ".join(status), size=13, colour=QUIET, align="center")
    y = 82.0
    for banner in banners(report, say):
        page.box(Box(left=MARGIN, top=y, right=WIDTH - MARGIN, bottom=y + 24), fill=CAUTION)
        page.text(WIDTH / 2, y + 3, banner, size=15, bold=True, colour=BACKGROUND, align="center")
        y += 28
    if report.predecessor_uid is not None:
        width = WIDTH - 2 * MARGIN
        y = page.text(MARGIN, y + 2, _amendment(report, say), size=15, bold=True, colour=ACCENT, width=width)
    page.line(MARGIN, FOOTER_RULE, WIDTH - MARGIN, FOOTER_RULE)
    page.text_within(_FOOTER, provenance_line(report, say), sizes=_FOOTER_SIZES, colour=QUIET)
    return page, max(y + 6, CORNER_HEIGHT)


def _amendment(report: Report, say: Phrasebook) -> str:
    issued_at = report.predecessor_issued_at
    if issued_at is None:
        words = say("amended-earlier")
    else:
        words = say("amended-report-of", time=f"{issued_at:%Y-%m-%d %H:%M %Z}")
    if not report.amendment_reason:
        return words
    reasons = (term(say, reason) for reason in report.amendment_reason.split(_REASON_SEPARATOR))
    return f"{words}: {_REASON_SEPARATOR.join(reasons)}"


def _badge(page: Page, top: float, words: str) -> None:
    half = page.text_width(words, size=15, bold=True) / 2 + 10
    page.box(Box(left=WIDTH / 2 - half, top=top, right=WIDTH / 2 + half, bottom=top + 26), fill=TEXT)
    page.text(WIDTH / 2, top + 4, words, size=15, bold=True, colour=BACKGROUND, align="center")
