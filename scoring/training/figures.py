"""Figures of training and validation, with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scoring.models.card import NomogramAxis, NomogramScale
from scoring.training.fitting import RadScoreFit
from scoring.training.validation import Validation

# Distinguishable without colour.
_STYLES = (("#1b4f9c", "-"), ("#c2541a", "--"), ("#2e7d4f", "-."), ("#6a3d9a", ":"))
_SIZE_INCHES = (6.4, 5.0)


# Probabilities on a nomogram's axis, in order of precedence: later ones without room are left out.
_PROBABILITIES = (0.5, 0.01, 0.99, 0.1, 0.9, 0.05, 0.95, 0.2, 0.8, 0.3, 0.7)
_WORD = 7.0  # hundredths of its width that a number takes
_UNITS = {"a": "years", "1": "", "umol/L": "µmol/L"}  # as a reader writes them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One axis of a nomogram; positions run from 0 to 100."""

    label: str
    ends: tuple[float, float]
    ticks: Mapping[float, str]
    beside: str = ""  # at its right end, where it is too short for numbers below


def roc_figure(validation: Validation, title: str) -> Figure:
    """ROC curves of all models with their AUCs and 95 % intervals."""
    figure, axes = _page(title)
    for (name, model), (colour, line) in zip(validation.models.items(), _STYLES, strict=False):
        area = model.auc
        axes.plot(
            model.roc.false_positive_rate,
            model.roc.true_positive_rate,
            color=colour,
            linestyle=line,
            label=f"{name}: AUC {area.summary}",
        )
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axes.set(
        xlabel="1 - specificity", ylabel="sensitivity (osteoporosis positive)", xlim=(0, 1), ylim=(0, 1.01)
    )
    axes.set_aspect("equal")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def calibration_figure(validation: Validation, title: str) -> Figure:
    """Observed share of osteoporosis against predicted risk, by tenths of risk."""
    figure, axes = _page(title)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="perfect")
    for (name, model), (colour, line) in zip(validation.models.items(), _STYLES, strict=False):
        if model.calibration is None:
            continue
        groups = model.calibration.groups
        axes.plot(
            [group.expected / group.patients for group in groups],
            [group.observed / group.patients for group in groups],
            color=colour,
            linestyle=line,
            marker="o",
            markersize=4,
            label=f"{name}: Hosmer-Lemeshow p {model.calibration.p_text}, Brier {model.brier:.3f}",
        )
    axes.set(
        xlabel="predicted probability of osteoporosis",
        ylabel="observed share",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    figure.legend(loc="outside lower center", fontsize=8)  # curves may lie anywhere
    return figure


def decision_figure(validation: Validation, title: str) -> Figure:
    """Net benefit by threshold probability, beside treating all and none."""
    figure, axes = _page(title)
    curves = [model.decision for model in validation.models.values()]
    for name, curve, (colour, line) in zip(validation.models, curves, _STYLES, strict=False):
        axes.plot(curve.thresholds, curve.model, color=colour, linestyle=line, label=name)
    axes.plot(
        curves[0].thresholds, curves[0].treat_all, color="0.4", linewidth=1, linestyle=":", label="treat all"
    )
    axes.axhline(0.0, color="0.1", linewidth=0.8, label="treat none")
    top = max(float(curve.model.max()) for curve in curves)
    axes.set(
        xlabel="threshold probability",
        ylabel="net benefit per patient",
        xlim=(0, 1),
        ylim=(-0.1, max(0.1, top * 1.15)),
    )
    axes.legend(fontsize=8)
    return figure


def lasso_path_figure(fit: RadScoreFit, title: str) -> Figure:
    """Coefficients of standardised features against log lambda, with both choices marked."""
    figure, axes = _page(title)
    logs = np.log(fit.choice.path.penalties)
    for column in range(fit.choice.path.coefficients.shape[1]):
        axes.plot(logs, fit.choice.path.coefficients[:, column], linewidth=1)
    _mark_choices(axes, fit)
    axes.set(xlabel="ln lambda", ylabel="coefficient per standard deviation")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def lasso_deviance_figure(fit: RadScoreFit, title: str) -> Figure:
    """Cross-validated deviance with its standard error against log lambda."""
    figure, axes = _page(title)
    choice = fit.choice
    axes.errorbar(
        np.log(choice.path.penalties),
        choice.deviance,
        yerr=choice.deviance_error,
        color="#1b4f9c",
        ecolor="0.75",
        markersize=2,
        fmt="o",
    )
    _mark_choices(axes, fit)
    axes.set(xlabel="ln lambda", ylabel="deviance per patient, left out")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)  # error bars may reach anywhere
    return figure


def rad_score_figure(scores: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Rad-scores of each class side by side: every patient a dot, the median a line."""
    figure, axes = _page(title)
    rng = np.random.default_rng(0)  # where dots lie beside one another means nothing
    for place, values in enumerate(scores.values()):
        colour = _STYLES[place % len(_STYLES)][0]
        axes.scatter(place + rng.uniform(-0.18, 0.18, len(values)), values, s=9, color=colour, alpha=0.6)
        if len(values):
            axes.hlines(float(np.median(values)), place - 0.28, place + 0.28, color="0.1", linewidth=1.5)
    axes.set_xticks(range(len(scores)), [f"{name}\nn = {len(values)}" for name, values in scores.items()])
    axes.set(ylabel="rad-score")
    return figure


def nomogram_figure(scale: NomogramScale, *, positive_class: str, negative_class: str, title: str) -> Figure:
    """The nomogram for print: points of each predictor, their total and its probability."""
    figure, axes = _page(title)
    rows = [
        _Row(label="Points", ends=(0.0, 100.0), ticks={10.0 * one: f"{10 * one}" for one in range(11)}),
        *(_predictor_row(axis) for axis in scale.axes),
        *_total_rows(scale, f"Probability of\n{positive_class}\nrather than\n{negative_class} (T rule)"),
    ]
    for depth, row in enumerate(rows):
        axes.hlines(-depth, *row.ends, color="0.1", linewidth=1)
        for place, words in row.ticks.items():
            axes.vlines(place, -depth, -depth + 0.09, color="0.1", linewidth=1)
            axes.text(place, -depth - 0.08, words, ha="center", va="top", fontsize=7)
        axes.text(-4, -depth, row.label, ha="right", va="center", fontsize=8)
        axes.text(row.ends[1] + 2, -depth, row.beside, ha="left", va="center", fontsize=7)
    axes.set(xlim=(-38, 104), ylim=(-len(rows) + 0.4, 0.5))
    axes.set_axis_off()
    return figure


def _predictor_row(axis: NomogramAxis) -> _Row:
    """Its ends in the order of its points; an axis with no room for two numbers has them beside it."""
    unit = _UNITS.get(axis.unit, axis.unit)
    label = f"{axis.label}, {unit}" if unit else axis.label
    ends = sorted([(axis.points_at_lower, axis.lower), (axis.points_at_upper, axis.upper)])
    places = (ends[0][0], ends[1][0])
    if places[1] - places[0] < _WORD:
        return _Row(label=label, ends=places, ticks={}, beside=f"{ends[0][1]:g} to {ends[1][1]:g}")
    slope = (axis.points_at_upper - axis.points_at_lower) / (axis.upper - axis.lower)
    values = _round_values(axis.lower, axis.upper, length=axis.points_at_upper - axis.points_at_lower)
    return _Row(
        label=label,
        ends=places,
        ticks={axis.points_at_lower + (value - axis.lower) * slope: f"{value:g}" for value in values},
    )


def _total_rows(scale: NomogramScale, of_what: str) -> tuple[_Row, _Row]:
    """On a scale of their own: the whole width is the largest total."""
    width = 100.0 / scale.total_points_max
    totals = {
        value * width: f"{value:g}" for value in _round_values(0.0, scale.total_points_max, length=100.0)
    }
    probabilities: dict[float, str] = {}
    for probability in _PROBABILITIES:
        place = _total_at(scale, probability) * width
        if 0.0 <= place <= 100.0 and all(abs(place - other) >= _WORD for other in probabilities):
            probabilities[place] = f"{probability:g}"
    reached = sorted(probabilities) or [0.0]
    return (
        _Row(label="Total points", ends=(0.0, 100.0), ticks=totals),
        _Row(label=of_what, ends=(reached[0], reached[-1]), ticks=probabilities),
    )


def _round_values(lower: float, upper: float, *, length: float) -> list[float]:
    """Round values within a range, as many as have room on `length`; its ends where fewer than two do."""
    locator = MaxNLocator(nbins=max(2, int(abs(length) / _WORD)), steps=[1, 2, 5, 10])
    found = [float(one) for one in locator.tick_values(lower, upper) if lower <= one <= upper]
    return found if len(found) >= 2 else [lower, upper]


def _total_at(scale: NomogramScale, probability: float) -> float:
    """Total points at a probability: the inverse of `NomogramScale.probability`."""
    log_odds = float(np.log(probability / (1.0 - probability)))
    return (log_odds - scale.lp_at_zero_points) * scale.points_per_lp


def _mark_choices(axes: Axes, fit: RadScoreFit) -> None:
    penalties = fit.choice.path.penalties
    for name, at, line in (
        ("lambda.min", fit.choice.at_minimum, "--"),
        ("lambda.1se", fit.choice.at_one_error, ":"),
    ):
        used = ", used" if name == fit.penalty else ""
        axes.axvline(
            np.log(penalties[at]),
            color="0.3",
            linestyle=line,
            linewidth=1,
            label=f"{name} {penalties[at]:.4g}{used}",
        )


def _page(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
