"""Page 2: the nomogram, drawn as the R package rms draws it, with this patient's values marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log

from matplotlib.ticker import MaxNLocator

from config.findings import Output
from config.phrases import Phrasebook
from node.dicom.sc.answer_page import draw_findings
from node.dicom.sc.layout import (
    ACCENT,
    CAUTION,
    CONTENT_BOTTOM,
    LATIN,
    MARGIN,
    QUIET,
    TEXT,
    WIDTH,
    Box,
    Page,
    Typeface,
    framed_page,
)
from node.dicom.sc.words import (
    STUDY_CLASSES,
    number,
    probability_in_words,
    term,
    unit_in_words,
    value_with_unit,
)
from node.study_report import Laboratory, Report
from scoring.models.card import NomogramAxis, NomogramInput, NomogramResult, NomogramScale

_SCALE_LEFT, _SCALE_RIGHT = 232.0, 792.0
_VALUE_RIGHT, _POINTS_RIGHT = 916.0, WIDTH - MARGIN
_PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
_TICK = 6.0
_LABEL_SIZE = 13.0
_LABEL_GAP = 8.0
_ANSWER_LINES = 59.0  # pixels: probability and measured T-score
_ANSWER_LEAST = 84.0
_ANSWER_GAP = 28.0
_NOTICE_SIZE = 13.0
_NOTICE_LINES = 2  # a longer notice is cut: the structured report has it whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A tick of a scale with its label.

    Attributes
    ----------
    x : in pixels from the page's left.
    label : a number.
    shift : of the label to the right of the tick, in pixels.
    """

    x: float
    label: str
    shift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Text below the answer.

    Attributes
    ----------
    words : of one or several lines.
    size : height of the font in pixels.
    colour : as matplotlib names it.
    """

    words: str
    size: float
    colour: str


def compose_nomogram(report: Report, typeface: Typeface = LATIN, *, say: Phrasebook | None = None) -> Page:
    """The nomogram page; where there is no nomogram, why not.

    Parameters
    ----------
    say : the phrases; by default the shipped ones in the report's language.
    """
    page, y = framed_page(report, "title-nomogram", typeface, say)
    if report.nomogram is None:
        _not_available(page, report, y + 20)
    else:
        _drawing(page, report, report.nomogram, y)
    return page


def _not_available(page: Page, report: Report, y: float) -> None:
    width, say = WIDTH - 2 * MARGIN, page.say
    title = say("nomogram-missing")
    y = page.text(MARGIN, y, title, size=30, bold=True, colour=CAUTION) + 10
    reasons = [finding for finding in report.findings if Output.NOMOGRAM in finding.withholds]
    box = Box(left=MARGIN, top=y, right=MARGIN + width, bottom=y + 260)
    y = draw_findings(page, box, reasons, sizes=(19.0, 17.0, 15.0, 13.0)) + 24
    if report.rad_score is not None:
        words = say("rad-score-alone", value=number(report.rad_score.value, 2))
        y = page.text(MARGIN, y, words, size=30, bold=True)
        words = say("made-with-model", name=report.rad_score.model_name)
        y = page.text(MARGIN, y, words, size=15, colour=QUIET, width=width)
        for one in _notice(page, report):
            y = page.text(MARGIN, y, one.words, size=one.size, colour=one.colour, width=width)


def _drawing(page: Page, report: Report, nomogram: NomogramResult, y: float) -> None:
    scale, say = nomogram.scale, page.say
    rows = 3 + len(scale.axes)
    remarks = [_class_remark(page, report, nomogram), *_notice(page, report)]
    width = WIDTH - 2 * MARGIN
    remarks_height = sum(page.height_of(one.words, width, size=one.size) for one in remarks)
    answer_top = CONTENT_BOTTOM - max(_ANSWER_LEAST, _ANSWER_LINES + remarks_height)
    height = (answer_top - _ANSWER_GAP - y) / rows
    page.text(_VALUE_RIGHT, y, say("this-patient"), size=_LABEL_SIZE, colour=ACCENT, align="right")
    page.text(_POINTS_RIGHT, y, say("points-column"), size=_LABEL_SIZE, colour=ACCENT, align="right")
    line = y + height * 0.55
    points = [Tick(x=_points_x(p), label=f"{p:g}") for p in range(0, 101, 10)]
    _axis(page, (say("points-axis"), ""), line, points, span=(_SCALE_LEFT, _SCALE_RIGHT))
    total_x = _total_x(scale, nomogram.total_points)
    given = {entry.name: entry for entry in nomogram.inputs}
    for axis in scale.axes:
        line += height
        _predictor(page, report, axis, given.get(axis.name), line)
    line += height
    _axis(page, (say("total-points-axis"), ""), line, _total_ticks(scale), span=(_SCALE_LEFT, _SCALE_RIGHT))
    _mark(page, total_x, line)
    page.text(_POINTS_RIGHT, line - 12, number(nomogram.total_points, 1), size=20, bold=True, align="right")
    line += height
    probabilities = _probability_ticks(page, scale)
    ends = [tick.x for tick in probabilities] or [_SCALE_LEFT]
    labels = (say("probability-axis"), term(say, nomogram.positive_class))
    _axis(page, labels, line, probabilities, span=(min(ends), max(ends)))
    page.line(total_x, line - height + 26, total_x, line - 18, colour=CAUTION, dashed=True)
    _mark(page, total_x, line)
    percent = f"{100 * nomogram.probability:.0f} %"
    page.text(_POINTS_RIGHT, line - 12, percent, size=20, bold=True, align="right")
    y = _answer(page, report, nomogram, answer_top)
    for one in remarks:
        y = page.text(MARGIN, y, one.words, size=one.size, colour=one.colour, width=width)


def _dates(say: Phrasebook, laboratory: Laboratory) -> dict[str, str]:
    """When each laboratory value was taken, by the name of its axis."""
    taken = {"alp": laboratory.alp_taken_on, "homocysteine": laboratory.homocysteine_taken_on}
    return {
        name: say("taken-on", date=day.isoformat()) if day else say("date-not-stated")
        for name, day in taken.items()
    }


def _answer(page: Page, report: Report, nomogram: NomogramResult, y: float) -> float:
    say = page.say
    points, probability = number(nomogram.total_points, 1), probability_in_words(say, nomogram)
    words = say("total-points-are", points=points, probability=probability)
    y = page.text(MARGIN, y, words, size=22, bold=True)
    if report.t_score is not None:
        measured = say("measured-t-score", value=number(report.t_score.value, 2))
        if report.study_class is not None:
            measured += f": {say.words(STUDY_CLASSES[report.study_class])}"
        y = page.text(MARGIN, y, measured, size=22, bold=True)
    return y


def _class_remark(page: Page, report: Report, nomogram: NomogramResult) -> Remark:
    denied = next((one.shown for one in report.findings if one.code == "contradiction"), None)
    if denied is not None:
        return Remark(words=denied, size=15.0, colour=CAUTION)
    words = page.say("classes-of-model", name=nomogram.model_name)
    return Remark(words=words, size=13.0, colour=QUIET)


def _notice(page: Page, report: Report) -> list[Remark]:
    """The notice that the model's card requires on every page with its numbers, if any."""
    notice = next((one.shown for one in report.findings if one.code == "model_notice"), None)
    if notice is None:
        return []
    lines = page.wrap(notice, WIDTH - 2 * MARGIN, size=_NOTICE_SIZE)
    if len(lines) > _NOTICE_LINES:
        lines = [*lines[: _NOTICE_LINES - 1], page.say("more-in-report")]
    return [Remark(words=line, size=_NOTICE_SIZE, colour=CAUTION) for line in lines]


def _predictor(page: Page, report: Report, axis: NomogramAxis, entry: NomogramInput | None, y: float) -> None:
    say = page.say
    labels = (term(say, axis.label), unit_in_words(say, axis.unit))
    span = (_points_x(axis.points_at_lower), _points_x(axis.points_at_upper))
    _axis(page, labels, y, predictor_ticks(page, axis), span=span)
    if entry is None:
        return
    _mark(page, _points_x(min(max(entry.points, 0.0), 100.0)), y)
    shown = value_with_unit(say, entry.value, entry.unit)
    page.text(_VALUE_RIGHT, y - 10, shown, size=16, align="right")
    if date := _dates(say, report.laboratory).get(axis.name):
        page.text(_VALUE_RIGHT, y + 10, date, size=_LABEL_SIZE, colour=QUIET, align="right")
    page.text(_POINTS_RIGHT, y - 10, number(entry.points, 1), size=16, bold=True, align="right")


def predictor_ticks(page: Page, axis: NomogramAxis) -> list[Tick]:
    """Round values along an axis, as many as their labels leave room for; else its two ends.

    Where not even these have room, the right label is shifted to the right of its tick.

    Returns
    -------
    At least two ticks.
    """
    for most in (9, 7, 5, 4, 3, 2):
        values = [
            float(v)
            for v in MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(axis.lower, axis.upper)
            if axis.lower - 1e-9 <= v <= axis.upper + 1e-9
        ]
        ticks = [_value_tick(axis, value) for value in values]
        if len(ticks) > 1 and _fit(page, ticks):
            return ticks
    left, right = sorted(
        (_value_tick(axis, axis.lower), _value_tick(axis, axis.upper)), key=lambda one: one.x
    )
    return [left, replace(right, shift=max(0.0, _apart(page, left, right) - (right.x - left.x)))]


def _value_tick(axis: NomogramAxis, value: float) -> Tick:
    return Tick(x=_points_x(_points_at(axis, value)), label=f"{value:.4g}".replace("-", "−"))


def _fit(page: Page, ticks: Sequence[Tick]) -> bool:
    ordered = sorted(ticks, key=lambda tick: tick.x)
    return all(right.x - left.x >= _apart(page, left, right) for left, right in pairwise(ordered))


def _apart(page: Page, left: Tick, right: Tick) -> float:
    """Pixels between two ticks whose labels just have room side by side."""
    widths = (page.text_width(one.label, size=_LABEL_SIZE) for one in (left, right))
    return sum(widths) / 2 + _LABEL_GAP


def _points_at(axis: NomogramAxis, value: float) -> float:
    share = (value - axis.lower) / (axis.upper - axis.lower)
    return axis.points_at_lower + share * (axis.points_at_upper - axis.points_at_lower)


def _points_x(points: float) -> float:
    return _SCALE_LEFT + points / 100 * (_SCALE_RIGHT - _SCALE_LEFT)


def _total_x(scale: NomogramScale, total: float) -> float:
    share = min(max(total / scale.total_points_max, 0.0), 1.0)
    return _SCALE_LEFT + share * (_SCALE_RIGHT - _SCALE_LEFT)


def _total_ticks(scale: NomogramScale) -> list[Tick]:
    values = MaxNLocator(nbins=11, steps=[1, 2, 2.5, 5, 10]).tick_values(0, scale.total_points_max)
    return [Tick(x=_total_x(scale, v), label=f"{v:g}") for v in values if 0 <= v <= scale.total_points_max]


def _probability_ticks(page: Page, scale: NomogramScale) -> list[Tick]:
    """Usual probabilities within the scale, without those whose label would touch the one before."""
    ticks: list[Tick] = []
    for probability in _PROBABILITIES:
        total = (log(probability / (1 - probability)) - scale.lp_at_zero_points) * scale.points_per_lp
        if not 0 <= total <= scale.total_points_max:
            continue
        tick = Tick(x=_total_x(scale, total), label=f"{probability:g}")
        if not ticks or _fit(page, [ticks[-1], tick]):
            ticks.append(tick)
    return ticks


def _axis(
    page: Page, labels: tuple[str, str], y: float, ticks: Sequence[Tick], *, span: tuple[float, float]
) -> None:
    """One scale: its name and unit on the left, a line over `span`, ticks below it."""
    label, second = labels
    page.text(MARGIN, y - 14 if second else y - 8, label, size=16, bold=True)
    if second:
        page.text(MARGIN, y + 5, second, size=_LABEL_SIZE, colour=QUIET)
    page.line(span[0], y, span[1], y, colour=TEXT, width=1.4)
    for tick in ticks:
        page.line(tick.x, y, tick.x, y + _TICK, colour=TEXT)
        page.text(tick.x + tick.shift, y + _TICK + 2, tick.label, size=_LABEL_SIZE, align="center")


def _mark(page: Page, x: float, y: float) -> None:
    page.marker(x, y - 1, size=14)
