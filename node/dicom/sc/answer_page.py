"""Page 1: the answer with its basis and caveats; or, of a refused study, what was not measured and why.

Also the list of findings, which other pages show as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from config.findings import Finding, Output, Severity, gravest_first, level_in_words
from config.phrases import Phrasebook
from node.dicom.sc.layout import (
    ACCENT,
    CAUTION,
    CONTENT_BOTTOM,
    LATIN,
    MARGIN,
    QUIET,
    REFUSAL,
    RULE,
    TEXT,
    WIDTH,
    Box,
    Page,
    Typeface,
    framed_page,
)
from node.dicom.sc.words import (
    MINERALS,
    REGIONS,
    STUDY_CLASSES,
    calibration_line,
    equivalent,
    level_briefly,
    levels_in_words,
    number,
    probability_in_words,
    region_of,
    technique_line,
    term,
)
from node.study_report import LevelResult, Report, SliceResult
from scoring.density.bmd import BmdResult, DensityVerdict, ReferenceScore
from segmentation.phrase import phrase
from segmentation.vertebrae import is_unnamed

_LEFT_WIDTH = 520
_ROWS = (27.0, 24.0, 21.0)  # pixels between levels: the first at which all that is below them fits
_COLUMNS = (32.0, 178.0, 312.0, 425.0, 536.0)  # level (left edge); then right edges of the numbers
_SPINE = "fracture_in_spine"
LABELS = {
    Severity.REFUSAL: phrase("severity-refusal"),
    Severity.CAUTION: phrase("severity-caution"),
    Severity.INFO: phrase("severity-info"),
}
_COLOURS = {Severity.REFUSAL: REFUSAL, Severity.CAUTION: CAUTION, Severity.INFO: QUIET}
_SIZES = (15.0, 14.0, 13.0, 12.0)
_GAP = 6.0


def draw_table(page: Page, report: Report, box: Box, *, row: float) -> float:
    """Draw the densities: one row for each level, or for each single slice.

    Parameters
    ----------
    box : its width and top are used.
    row : pixels between two levels.

    Returns
    -------
    y below the table, in pixels.
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
        _slice_row(page, one, y)
        y += row
    if not report.levels and not report.unnamed:
        y = page.text(_COLUMNS[0], y, say("no-level-measured"), size=15, colour=CAUTION)
    page.line(box.left, y, box.right, y, colour=RULE)
    if calibration is None:
        return y
    # Here too, not among the findings alone: those that do not fit are cut.
    words = say("interval95-holds")
    return page.text(box.left, y + 3, words, size=13, colour=QUIET, width=box.right - box.left)


def _has_ellipse(report: Report) -> bool:
    return any(level.ellipse for level in report.levels)


def _heads(report: Report, say: Phrasebook) -> tuple[str, ...]:
    if report.unnamed:
        return (say("level-unknown"), say("bmd"), say("interval95"), "HU ± SD", say("region-column"))
    last = say("ellipse-column") if _has_ellipse(report) else say("volume-column")
    first = say("level-unknown") if report.has_unnamed_bodies else say("level")
    return (first, say("bmd"), say("interval95"), "HU ± SD", last)


def _row(page: Page, report: Report, level: LevelResult, y: float, *, ellipse: bool) -> None:
    """One level; the last column holds the body's volume, or the second density where there is one."""
    say = page.say
    if is_unnamed(level.name):
        _cell(page, 0, y, level_briefly(level.name, say), size=17, bold=True)
    else:
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


def _slice_row(page: Page, one: SliceResult, y: float) -> None:
    _cell(page, 0, y, level_in_words(one.name, page.say), size=17, bold=True)
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


def draw_findings(
    page: Page,
    box: Box,
    findings: Sequence[Finding],
    *,
    sizes: Sequence[float] = _SIZES,
) -> float:
    """Write the findings into `box`, gravest first.

    The font shrinks until all fit. Findings that do not fit at the smallest size are counted: the structured
    report holds them.

    Parameters
    ----------
    sizes : of the font in pixels, largest first.

    Returns
    -------
    y below the list, in pixels.
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


def compose_answer(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Page:
    """The answer page: categories, densities and scores at the left, findings at the right.

    Parameters
    ----------
    say : the phrases; by default the shipped ones in the report's language.
    """
    for row in _ROWS:
        page, end, foot = _composed(report, typeface, say, row)
        if end <= foot:
            break
    return page


def _composed(
    report: Report, typeface: Typeface, say: Phrasebook | None, row: float
) -> tuple[Page, float, float]:
    """The page with `row` pixels for each level, where its left column ends, and where that should."""
    page, y = framed_page(report, "title-answer", typeface, say)
    y = _fractures(page, report.fractures, y)
    y = _headline(page, report, y)
    foot = _foot(page, report)
    left_end = MARGIN + _LEFT_WIDTH
    bottom = draw_table(page, report, Box(left=MARGIN, top=y, right=left_end, bottom=foot), row=row)
    end = _scores(page, report, bottom + 8, left_end)
    page.line(left_end + 14, y, left_end + 14, foot - 8)
    column = Box(left=left_end + 28, top=y + 26, right=WIDTH - MARGIN, bottom=foot - 8)
    page.text(column.left, y, page.say("findings-title"), size=16, bold=True, colour=ACCENT)
    draw_findings(page, column, report.findings)
    return page, end, foot


def _fractures(page: Page, fractures: Sequence[Finding], y: float) -> float:
    """A suspected fracture leads whatever the density is.

    A finding on the whole spine names its levels; single levels are shown where there is none.
    """
    leading = [one for one in fractures if one.code == _SPINE] or fractures
    for one in leading:
        y = page.text(MARGIN, y, one.shown, size=19, bold=True, colour=REFUSAL, width=WIDTH - 2 * MARGIN)
    return y + 4 if leading else y


def _headline(page: Page, report: Report, y: float) -> float:
    """The one leading answer: the density category, or why there is none."""
    say, width = page.say, WIDTH - 2 * MARGIN
    density = report.density
    if density is not None:
        words = say("category-is", category=term(say, density.category))
        y = page.text(MARGIN, y, words, size=28, bold=True)
        return page.text(MARGIN, y, _density_basis(say, density), size=15, colour=QUIET, width=width) + 8
    words = say("category-withheld")
    y = page.text(MARGIN, y, words, size=26, bold=True, colour=CAUTION)
    withheld = report.withheld_by(Output.DENSITY_CATEGORY)
    if withheld in report.fractures:  # shown above already
        return y + 8
    reason = withheld.shown if withheld else say("see-findings")
    return page.text(MARGIN, y, reason, size=15, colour=TEXT, width=width) + 8


def _density_basis(say: Phrasebook, density: DensityVerdict) -> str:
    mineral = equivalent(say, density.equivalent)
    if density.converted_from:
        mineral = f"{mineral}, {say('converted-from', mineral=MINERALS[density.converted_from])}"
    first, second = density.levels
    mean = say(
        "mean-of-two-levels",
        first=first,
        second=second,
        bmd=number(density.mean_mg_cm3, 1),
        mineral=mineral,
    )
    return f"{mean}; {say('density-rule')}"


def _scores(page: Page, report: Report, y: float, right: float) -> float:
    width, say = right - MARGIN, page.say
    for name, score in ((say("t-score"), report.t_score), (say("z-score"), report.z_score)):
        y = _score(page, say, name, score, Box(left=MARGIN, top=y, right=right, bottom=y))
    if report.reference is not None and (report.t_score or report.z_score):
        named = say(
            "reference-named",
            name=report.reference.name,
            population=report.reference.population,
        )
        y = page.text(MARGIN, y, named, size=13, colour=QUIET, width=width) + 4
    if report.study_class is None:
        words = say("not-given", name=say("study-rule"))
        y = page.text(MARGIN, y, words, size=16, colour=CAUTION) + 2
    else:
        words = say("study-rule-is", study_class=STUDY_CLASSES[report.study_class])
        y = page.text(MARGIN, y, words, size=16, bold=True, width=width)
        y = page.text(MARGIN, y, say("study-rule-caveat"), size=13, colour=QUIET) + 4
    return _model(page, report, y, width)


def _score(page: Page, say: Phrasebook, name: str, score: ReferenceScore | None, box: Box) -> float:
    y, width = box.top, box.right - box.left
    if score is None:
        words = say("not-given", name=name)
        return page.text(MARGIN, y, words, size=16, colour=CAUTION) + 2
    page.text(MARGIN, y, f"{name} {number(score.value, 2)}", size=19, bold=True)
    basis = say(
        "score-basis",
        levels=levels_in_words(say, score.levels),
        bmd=number(score.bmd_mg_cm3, 1),
        mean=number(score.mean_mg_cm3, 1),
        sd=number(score.sd_mg_cm3, 1),
        mineral=MINERALS[score.equivalent],
    )
    end = page.text(MARGIN + 154, y + 4, basis, size=13, colour=QUIET, width=width - 154)
    return max(end, y + 26) + 2


def _model(page: Page, report: Report, y: float, width: float) -> float:
    say = page.say
    if report.rad_score is None:
        words = say("not-given", name=say("model-results"))
        return page.text(MARGIN, y, words, size=16, colour=CAUTION, width=width)
    words = say("rad-score-is", value=number(report.rad_score.value, 2))
    page.text(MARGIN, y, words, size=19, bold=True)
    y += 27
    nomogram = report.nomogram
    if nomogram is None:
        words = say("nomogram-missing")
        return page.text(MARGIN, y, words, size=16, colour=CAUTION, width=width)
    points, probability = number(nomogram.total_points, 1), probability_in_words(say, nomogram)
    words = say("nomogram-is", points=points, probability=probability)
    return page.text(MARGIN, y, words, size=16, width=width)


def _foot(page: Page, report: Report) -> float:
    """Calibration and technique, above the footer; returns y of their first line."""
    lines = [line for line in (calibration_line(report, page.say), technique_line(report, page.say)) if line]
    width = WIDTH - 2 * MARGIN
    y = top = CONTENT_BOTTOM - sum(page.height_of(line, width, size=13) for line in lines)
    for line in lines:
        y = page.text(MARGIN, y, line, size=13, colour=QUIET, width=width)
    return top


def compose_refusal(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Page:
    """The only page of a study that could not be measured: what, and why.

    Parameters
    ----------
    say : the phrases; by default the shipped ones in the report's language.
    """
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
