"""What every page has: title, marks, and who made it."""

from __future__ import annotations

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
from node.dicom.pictures.words import RESEARCH_USE_ONLY, banners, provenance_line
from node.report import Report

MARGIN = 24
CONTENT_BOTTOM = HEIGHT - 44  # above the footer


def framed_page(report: Report, title: str) -> tuple[Page, float]:
    """A page with its head and foot; returns it and where its content may start."""
    page = Page()
    page.text(MARGIN, 12, title, size=22, bold=True)
    _tag(page, WIDTH - MARGIN, 12, RESEARCH_USE_ONLY)
    scanned = report.study.study_date.isoformat() if report.study.study_date else "unknown date"
    issued = f"issued {report.issued_at:%Y-%m-%d %H:%M %Z}"
    status = f"Study of {scanned}   ·   {issued}   ·   preliminary, unverified result of software"
    page.text(MARGIN, 42, status, size=13, colour=QUIET)
    y = 66.0
    for banner in banners(report):
        page.box(Box(left=MARGIN, top=y, right=WIDTH - MARGIN, bottom=y + 24), fill=CAUTION)
        page.text(WIDTH / 2, y + 3, banner, size=15, bold=True, colour=BACKGROUND, align="center")
        y += 28
    if report.predecessor_uid is not None:
        reason = f": {report.amendment_reason}" if report.amendment_reason else ""
        y = page.text(
            MARGIN,
            y + 2,
            f"AMENDED, replaces {_predecessor(report)}{reason}",
            size=15,
            bold=True,
            colour=ACCENT,
            width=WIDTH - 2 * MARGIN,
        )
    page.line(MARGIN, HEIGHT - 34, WIDTH - MARGIN, HEIGHT - 34)
    footer = page.wrap(provenance_line(report), WIDTH - 2 * MARGIN, size=12)[0]
    page.text(MARGIN, HEIGHT - 28, footer, size=12, colour=QUIET)
    return page, y + 6


def _predecessor(report: Report) -> str:
    issued_at = report.predecessor_issued_at
    return f"the report of {issued_at:%Y-%m-%d %H:%M %Z}" if issued_at else "an earlier report"


def _tag(page: Page, right: float, top: float, words: str) -> None:
    width = page.text_width(words, size=15, bold=True)
    page.box(Box(left=right - width - 20, top=top - 2, right=right, bottom=top + 24), fill=TEXT)
    page.text(right - 10, top + 2, words, size=15, bold=True, colour=BACKGROUND, align="right")
