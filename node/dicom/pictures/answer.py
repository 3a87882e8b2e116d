"""Page 1: the answer, what it rests on, and its caveats."""

from __future__ import annotations

from config.findings import Output
from node.dicom.pictures.findings import draw_findings
from node.dicom.pictures.frame import CONTENT_BOTTOM, MARGIN, framed_page
from node.dicom.pictures.layout import ACCENT, CAUTION, QUIET, RULE, TEXT, WIDTH, Box, Page, Pixels
from node.dicom.pictures.words import (
    EQUIVALENTS,
    MINERALS,
    REGIONS,
    STUDY_CLASSES,
    calibration_line,
    levels_in_words,
    number,
    probability_in_words,
    region_of,
    technique_line,
)
from node.report import LevelResult, Report, SliceResult
from scoring.bmd import BmdResult, ReferenceScore

_LEFT_WIDTH = 520
_COLUMNS = (MARGIN + 8, 200.0, 290.0, 420.0, 536.0)  # level (left edge); then right edges of the numbers


def draw_answer(report: Report) -> Pixels:
    """The answer page as RGB, shape (768, 1024, 3)."""
    return compose_answer(report).pixels()


def compose_answer(report: Report) -> Page:
    page, y = framed_page(report, "Lumbar QCT: bone density")
    y = _headline(page, report, y)
    foot = _foot(page, report)
    left_end = MARGIN + _LEFT_WIDTH
    bottom = _table(page, report, y)
    _scores(page, report, bottom + 8, left_end)
    page.line(left_end + 14, y, left_end + 14, foot - 8)
    column = Box(left=left_end + 28, top=y + 26, right=WIDTH - MARGIN, bottom=foot - 8)
    page.text(column.left, y, "Findings and caveats", size=16, bold=True, colour=ACCENT)
    draw_findings(page, column, report.findings)
    return page


def _headline(page: Page, report: Report, y: float) -> float:
    """The one leading answer: the density category, or why there is none."""
    density = report.density
    if density is not None:
        y = page.text(MARGIN, y, f"QCT density category = {density.category.value}", size=28, bold=True)
        converted = f", converted from {MINERALS[density.converted_from]}" if density.converted_from else ""
        basis = (
            f"mean of {density.levels[0]} and {density.levels[1]}: {number(density.mean_mg_cm3, 1)} mg/cm³ "
            f"({EQUIVALENTS[density.equivalent]}{converted}); "
            "rule: > 120 normal, 80 to 120 low, < 80 osteoporosis"
        )
        return page.text(MARGIN, y, basis, size=15, colour=QUIET, width=WIDTH - 2 * MARGIN) + 8
    y = page.text(MARGIN, y, "QCT density category: withheld", size=26, bold=True, colour=CAUTION)
    withheld = report.withheld_by(Output.DENSITY_CATEGORY)
    reason = withheld.text if withheld else "see the findings"
    return page.text(MARGIN, y, reason, size=15, colour=TEXT, width=WIDTH - 2 * MARGIN) + 8


def _table(page: Page, report: Report, y: float) -> float:
    calibrations = [report.calibration, *(one.calibration for one in report.unnamed)]
    calibration = next((one for one in calibrations if one is not None), None)
    title = f"BMD, mg/cm³ ({EQUIVALENTS[calibration.equivalent]})" if calibration else "BMD"
    if (region := region_of(report)) is not None:
        title = f"{title}, {REGIONS[region]}"
    page.text(MARGIN, y, title, size=16, bold=True, colour=ACCENT)
    y += 26
    ellipse = any(level.ellipse for level in report.levels)
    heads = ("Level", "BMD", "± (k=1)", "HU ± SD", "Ellipse BMD" if ellipse else "Body, cm³")
    if report.unnamed:
        heads = ("Level not known", "BMD", "± (k=1)", "HU ± SD", "Region, mm²")
    for place, head in enumerate(heads):
        align = "left" if place == 0 else "right"
        page.text(_COLUMNS[place], y, head, size=13, colour=QUIET, align=align)
    y += 20
    page.line(MARGIN, y, MARGIN + _LEFT_WIDTH, y, colour=RULE)
    y += 5
    for level in report.levels:
        _row(page, report, level, y, ellipse=ellipse)
        y += 27
    for one in report.unnamed:
        _slice_row(page, one, y)
        y += 27
    if not report.levels and not report.unnamed:
        y = page.text(_COLUMNS[0], y, "no lumbar level measured", size=15, colour=CAUTION)
    page.line(MARGIN, y, MARGIN + _LEFT_WIDTH, y, colour=RULE)
    if calibration is None:
        return y
    # Here, not among the findings alone, of which those that do not fit are cut.
    words = "± is one standard uncertainty; it excludes marrow-fat error"
    return page.text(MARGIN, y + 3, words, size=13, colour=QUIET, width=_LEFT_WIDTH)


def _row(page: Page, report: Report, level: LevelResult, y: float, *, ellipse: bool) -> None:
    """One level; the last column holds the body's volume, or the second density where there is one."""
    name = level.name if report.numbering_confirmed else f"{level.name} ?"
    _cell(page, 0, y, name, size=17, bold=True)
    if not level.complete:
        _cell(page, 1, y, "cut off", colour=CAUTION)
        return
    _density_cells(page, level.measured, y)
    if ellipse:
        _cell(page, 4, y, _in_ellipse(level.ellipse))
    elif level.volume_mm3 is not None:
        _cell(page, 4, y, number(level.volume_mm3 / 1000, 1))


def _in_ellipse(read: BmdResult | None) -> str:
    if read is None or read.bmd_mg_cm3 is None:
        return "withheld"
    uncertainty = read.bmd_uncertainty_mg_cm3
    return number(read.bmd_mg_cm3, 1) + (f" ± {number(uncertainty, 1)}" if uncertainty is not None else "")


def _slice_row(page: Page, one: SliceResult, y: float) -> None:
    _cell(page, 0, y, one.name, size=17, bold=True)
    _density_cells(page, one.measured, y)
    if one.region_mm2 is not None:
        _cell(page, 4, y, number(one.region_mm2, 0))


def _density_cells(page: Page, measured: BmdResult | None, y: float) -> None:
    if measured is None or measured.bmd_mg_cm3 is None:
        _cell(page, 1, y, "withheld", colour=CAUTION)
    else:
        _cell(page, 1, y, number(measured.bmd_mg_cm3, 1), size=18, bold=True)
        if measured.bmd_uncertainty_mg_cm3 is not None:
            _cell(page, 2, y, number(measured.bmd_uncertainty_mg_cm3, 1))
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


def _scores(page: Page, report: Report, y: float, right: float) -> float:
    width = right - MARGIN
    for name, score in (("T-score", report.t_score), ("Z-score", report.z_score)):
        y = _score(page, name, score, y, width=width)
    if report.reference is not None and (report.t_score or report.z_score):
        named = (
            f"Reference: {report.reference.name} ({report.reference.population}); not equivalent to DXA, "
            "WHO's classes do not apply"
        )
        y = page.text(MARGIN, y, named, size=13, colour=QUIET, width=width) + 4
    if report.study_class is not None:
        words = STUDY_CLASSES[report.study_class]
        y = page.text(MARGIN, y, f"Study rule, Xie 2022: {words}", size=16, bold=True, width=width)
        y = page.text(MARGIN, y, "a class of the study, not a diagnosis", size=13, colour=QUIET) + 4
    return _model(page, report, y, width)


def _score(page: Page, name: str, score: ReferenceScore | None, y: float, *, width: float) -> float:
    if score is None:
        return page.text(MARGIN, y, f"{name}: not given, see findings", size=16, colour=CAUTION) + 2
    page.text(MARGIN, y, f"{name} {number(score.value, 2)}", size=19, bold=True)
    basis = (
        f"{levels_in_words(score.levels)}: {number(score.bmd_mg_cm3, 1)}; reference "
        f"{number(score.mean_mg_cm3, 1)} ± {number(score.sd_mg_cm3, 1)} mg/cm³ {MINERALS[score.equivalent]}"
    )
    end = page.text(MARGIN + 154, y + 4, basis, size=13, colour=QUIET, width=width - 154)
    return max(end, y + 26) + 2


def _model(page: Page, report: Report, y: float, width: float) -> float:
    if report.rad_score is None:
        words = "Rad-score and nomogram: not given, see findings"
        return page.text(MARGIN, y, words, size=16, colour=CAUTION, width=width)
    page.text(MARGIN, y, f"Rad-score {number(report.rad_score.value, 2)}", size=19, bold=True)
    y += 27
    nomogram = report.nomogram
    if nomogram is None:
        words = "Not available: nomogram not computed"
        return page.text(MARGIN, y, words, size=16, colour=CAUTION, width=width)
    words = f"Nomogram {number(nomogram.total_points, 1)} points: {probability_in_words(nomogram)}"
    return page.text(MARGIN, y, words, size=16, width=width)


def _foot(page: Page, report: Report) -> float:
    """Calibration and technique, above the footer; returns where they start."""
    lines = [line for line in (calibration_line(report), technique_line(report)) if line]
    width = WIDTH - 2 * MARGIN
    y = top = CONTENT_BOTTOM - sum(page.height_of(line, width, size=13) for line in lines)
    for line in lines:
        y = page.text(MARGIN, y, line, size=13, colour=QUIET, width=width)
    return top
