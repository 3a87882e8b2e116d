"""The densities of page 1: one row for each level, or for each single slice."""

from __future__ import annotations

from config.findings import level_in_words
from config.phrases import Phrasebook
from node.dicom.pictures.layout import ACCENT, CAUTION, QUIET, RULE, TEXT, Box, Page
from node.dicom.pictures.words import REGIONS, equivalent, number, region_of
from node.report import LevelResult, Report, SliceResult
from scoring.bmd import BmdResult

_COLUMNS = (32.0, 178.0, 312.0, 425.0, 536.0)  # level (left edge); then right edges of the numbers


def draw_table(page: Page, report: Report, box: Box, *, row: float) -> float:
    """The densities within the width of `box`, from its top; returns where they end.

    Parameters
    ----------
    row : pixels between two levels.
    """
    say, y = page.say, box.top
    calibrations = [report.calibration, *(one.calibration for one in report.unnamed)]
    calibration = next((one for one in calibrations if one is not None), None)
    title = say("bmd")
    if calibration is not None:
        title = say("bmd-in", mineral=equivalent(say, calibration.equivalent))
    if (region := region_of(report)) is not None:
        title = f"{title}, {say.words(REGIONS[region])}"
    page.text(box.left, y, title, size=16, bold=True, colour=ACCENT)
    y += 26
    for place, head in enumerate(_heads(report, say)):
        page.text(_COLUMNS[place], y, head, size=13, colour=QUIET, align="right" if place else "left")
    y += 20
    page.line(box.left, y, box.right, y, colour=RULE)
    y += 5
    ellipse = _has_ellipse(report)
    for level in report.levels:
        _row(page, report, level, y, ellipse=ellipse)
        y += row
    for one in report.unnamed:
        _slice_row(page, report, one, y)
        y += row
    if not report.levels and not report.unnamed:
        y = page.text(_COLUMNS[0], y, say("no-level-measured"), size=15, colour=CAUTION)
    page.line(box.left, y, box.right, y, colour=RULE)
    if calibration is None:
        return y
    # Here, not among the findings alone, of which those that do not fit are cut.
    words = say("interval95-holds")
    return page.text(box.left, y + 3, words, size=13, colour=QUIET, width=box.right - box.left)


def _has_ellipse(report: Report) -> bool:
    return any(level.ellipse for level in report.levels)


def _heads(report: Report, say: Phrasebook) -> tuple[str, ...]:
    if report.unnamed:
        return (say("level-unknown"), say("bmd"), say("interval95"), "HU ± SD", say("region-column"))
    last = say("ellipse-column") if _has_ellipse(report) else say("volume-column")
    return (say("level"), say("bmd"), say("interval95"), "HU ± SD", last)


def _row(page: Page, report: Report, level: LevelResult, y: float, *, ellipse: bool) -> None:
    """One level; the last column holds the body's volume, or the second density where there is one."""
    say = page.say
    name = level.name if report.numbering_confirmed else f"{level.name} ?"
    _cell(page, 0, y, name, size=17, bold=True)
    if not level.complete:
        _cell(page, 1, y, say("level-cut-off"), colour=CAUTION)
        return
    _density_cells(page, say, level.measured, y)
    if ellipse:
        _cell(page, 4, y, _in_ellipse(say, level.ellipse))
    elif level.volume_mm3 is not None:
        _cell(page, 4, y, number(level.volume_mm3 / 1000, 1))


def _in_ellipse(say: Phrasebook, read: BmdResult | None) -> str:
    if read is None or read.bmd_mg_cm3 is None:
        return say("withheld")
    uncertainty = read.bmd_uncertainty_mg_cm3
    return number(read.bmd_mg_cm3, 1) + (f" ± {number(uncertainty, 1)}" if uncertainty is not None else "")


def _slice_row(page: Page, report: Report, one: SliceResult, y: float) -> None:
    _cell(page, 0, y, level_in_words(one.name, report.language), size=17, bold=True)
    _density_cells(page, page.say, one.measured, y)
    if one.region_mm2 is not None:
        _cell(page, 4, y, number(one.region_mm2, 0))


def _density_cells(page: Page, say: Phrasebook, measured: BmdResult | None, y: float) -> None:
    if measured is None or measured.bmd_mg_cm3 is None:
        _cell(page, 1, y, say("withheld"), colour=CAUTION)
    else:
        _cell(page, 1, y, number(measured.bmd_mg_cm3, 1), size=18, bold=True)
        if (interval := measured.bmd_interval95_mg_cm3) is not None:
            low, high = (number(end, 1) for end in interval)
            _cell(page, 2, y, say("interval", low=low, high=high))
    if measured is not None:
        _cell(page, 3, y, f"{number(measured.hu_mean, 1)} ± {number(measured.hu_sd, 1)}")


def _cell(
    page: Page,
    column: int,
    y: float,
    words: str,
    *,
    size: float = 15,
    bold: bool = False,
    colour: str = TEXT,
) -> None:
    # One baseline for the row, whatever the size.
    align = "left" if column == 0 else "right"
    page.text(_COLUMNS[column], y + 18 - size, words, size=size, bold=bold, colour=colour, align=align)
