"""Page 1: the answer, what it rests on, and its caveats."""

from __future__ import annotations

from collections.abc import Sequence

from config.findings import Finding, Output
from config.phrases import Phrasebook
from node.dicom.pictures.answer_table import draw_table
from node.dicom.pictures.findings import draw_findings
from node.dicom.pictures.frame import CONTENT_BOTTOM, MARGIN, framed_page
from node.dicom.pictures.layout import ACCENT, CAUTION, QUIET, REFUSAL, TEXT, WIDTH, Box, Page, Pixels
from node.dicom.pictures.typeface import LATIN, Typeface
from node.dicom.pictures.words import (
    MINERALS,
    STUDY_CLASSES,
    calibration_line,
    equivalent,
    levels_in_words,
    number,
    probability_in_words,
    technique_line,
    term,
)
from node.report import Report
from scoring.bmd import DensityVerdict, ReferenceScore

_LEFT_WIDTH = 520
_ROWS = (27.0, 24.0, 21.0)  # pixels between levels: the first at which all that stands below them fits
_SPINE = "fracture_in_spine"


def draw_answer(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Pixels:
    """The answer page as RGB, shape (768, 1024, 3)."""
    return compose_answer(report, typeface, say=say).pixels()


def compose_answer(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Page:
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

    What is said of the whole spine names its levels; single levels are told where it is not said.
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
    if withheld in report.fractures:  # it stands above, and says so
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
    """Calibration and technique, above the footer; returns where they start."""
    lines = [line for line in (calibration_line(report, page.say), technique_line(report, page.say)) if line]
    width = WIDTH - 2 * MARGIN
    y = top = CONTENT_BOTTOM - sum(page.height_of(line, width, size=13) for line in lines)
    for line in lines:
        y = page.text(MARGIN, y, line, size=13, colour=QUIET, width=width)
    return top
