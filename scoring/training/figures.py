"""Figures of training and validation, with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoring.training.fitting import RadScoreFit
from scoring.training.validation import Validation

# Told apart without colour too.
_STYLES = (("#1b4f9c", "-"), ("#c2541a", "--"), ("#2e7d4f", "-."), ("#6a3d9a", ":"))
_SIZE_INCHES = (6.4, 5.0)


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
            label=f"{name}: AUC {area.told}",
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
            label=f"{name}: Hosmer-Lemeshow p = {model.calibration.p:.3f}, Brier {model.brier:.3f}",
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
    axes.plot(curves[0].thresholds, curves[0].treat_all, color="0.5", linewidth=0.8, label="treat all")
    axes.axhline(0.0, color="0.2", linewidth=0.8, label="treat none")
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
    axes.legend(fontsize=8)
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
    axes.legend(fontsize=8)
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
