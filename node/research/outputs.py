"""Output of a training or validation: tables, figures, the TRIPOD items and one page with all of them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import matplotlib
from matplotlib.figure import Figure

from config.phrases import in_english
from node.research.cohort_tables import Variable
from node.research.evaluation import CIRCULARITY
from node.research.model_training import AGREEMENT, COMBINED, Plan, Trained
from scoring.calibration.spectrum import energy_phrase
from scoring.errors import CohortUnusable
from scoring.models.card import ModelCard, nomogram_scale
from scoring.training.cohort import MOST_MISSING, PLAUSIBLE, Split
from scoring.training.discrimination import Auc, Optimism
from scoring.training.feature_selection import ICC_FORM, Icc
from scoring.training.figures import (
    calibration_figure,
    decision_figure,
    lasso_deviance_figure,
    lasso_path_figure,
    nomogram_figure,
    rad_score_figure,
    roc_figure,
)
from scoring.training.fitting import RELEVANT, Coefficient, LogisticModel
from scoring.training.validation import Counts, Rate, Validation

Table = Sequence[Mapping[str, object]]
_RATES = (
    "accuracy", "sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value"
)  # fmt: skip
_DPI = 150


# Files of a run in its folder, beside the table of features, which later runs may use.
_LEFT = ("model.json", "model_card.md", "index.html", "tables", "figures")


def require_fresh(out: Path) -> None:
    """Make sure that a folder holds no earlier run's outputs: of two runs, files of the first would stand
    among those of the second, and its model beside the second's refusal.

    Raises
    ------
    CohortUnusable
    """
    if found := [name for name in _LEFT if (out / name).exists()]:
        raise CohortUnusable(
            f"{out} holds what an earlier run left ({', '.join(found)}): name another folder"
        )


def training_tables(trained: Trained) -> dict[str, Table]:
    """Every table of a training, by name."""
    tables: dict[str, Table] = {}
    for split, variables in trained.table1.items():
        tables[f"table1_{split}"] = [_variable(one) for one in variables]
    for name, found in trained.agreement.items():
        tables[f"agreement_{name}"] = [_icc(feature, one) for feature, one in found.items()]
    fit = trained.fits.rad_score
    tables["rad_score"] = [
        {"feature": one.name, "mean": one.mean, "sd": one.sd, "coefficient": one.coefficient}
        for one in fit.features
    ]
    tables["mrmr"] = [{"rank": rank, "feature": name} for rank, name in enumerate(fit.relevant, 1)]
    tables["lasso_path"] = [
        {
            "lambda": float(penalty),
            "deviance": float(fit.choice.deviance[at]),
            "deviance_se": float(fit.choice.deviance_error[at]),
            "features": int((fit.choice.path.coefficients[at] != 0).sum()),
            "choice": ", ".join(
                name
                for name, place in (
                    ("lambda.min", fit.choice.at_minimum),
                    ("lambda.1se", fit.choice.at_one_error),
                )
                if place == at
            ),
        }
        for at, penalty in enumerate(fit.choice.path.penalties)
    ]
    tables["logistic_clinical"] = _coefficients(trained.fits.clinical)
    tables["logistic_combined"] = _coefficients(trained.fits.combined)
    for split, validation in trained.validations.items():
        tables |= validation_tables(validation, str(split))
    tables["subgroups"] = subgroup_table(trained.subgroups)
    tables["optimism"] = [
        {
            "model": name,
            "apparent_auc": one.apparent,
            "optimism": _or_blank(one.optimism),
            "corrected_auc": _or_blank(one.corrected),
            "auc_not_drawn": _or_blank(one.corrected_not_drawn),
            "resamples": one.resamples,
            "failed": one.failed,
        }
        for name, one in trained.optimism.items()
    ]
    cohort = trained.cohort
    tables["missing"] = [{"column": name, "patients": count} for name, count in cohort.missing.items()]
    tables["left_out"] = left_out_table({**trained.left_out, **trained.without_probability})
    return tables


def validation_tables(validation: Validation, name: str) -> dict[str, Table]:
    """Discrimination, rates at the cut-off, calibration and DeLong's tests of the models.

    Parameters
    ----------
    name : of the validation; part of each table's name.
    """
    performance, calibration = [], []
    for model, found in validation.models.items():
        row: dict[str, object] = {
            "model": model,
            "positive_class": "osteoporosis",
            "patients": validation.patients,
            "positives": validation.positives,
            "auc": found.auc.value,
            "auc_95": _interval(found.auc.interval95) if found.auc.interval95 else "",
            "cutoff": found.cutoff,
            **_counts(found.counts),
        }
        for rate in _RATES:
            row |= _rate(rate, getattr(found.counts, rate))
        performance.append(row | {"brier": found.brier})
        if found.calibration is not None:
            calibration.append(
                {
                    "model": model,
                    "chi_squared": found.calibration.statistic,
                    "degrees_of_freedom": found.calibration.degrees_of_freedom,
                    "p": found.calibration.p,
                }
            )
    compared = [
        {
            "first": first,
            "second": second,
            "difference": one.difference,
            "z": _or_blank(one.z),
            "p": _or_blank(one.p),
        }
        for (first, second), one in validation.comparisons.items()
    ]
    return {
        f"performance_{name}": performance,
        f"delong_{name}": compared,
        f"hosmer_lemeshow_{name}": calibration,
    }


def subgroup_table(subgroups: Mapping[tuple[str, str], Auc]) -> Table:
    """The rad-score between each two classes."""
    return [
        {"positive_class": positive, "negative_class": negative, "auc_95": area.summary}
        | {"positives": area.positives, "negatives": area.negatives}
        for (positive, negative), area in subgroups.items()
    ]


def left_out_table(left_out: Mapping[str, str]) -> Table:
    """Who is left out, and why."""
    return [{"patient": name, "reason": reason} for name, reason in left_out.items()]


def training_figures(trained: Trained, card: ModelCard) -> dict[str, Figure]:
    """Every figure of a training and of the card that it gives, by name."""
    fit = trained.fits.rad_score
    figures = {
        "nomogram": nomogram_figure(
            nomogram_scale(card),
            positive_class=card.positive_class,
            negative_class=card.negative_class,
            title=f"Nomogram of {card.name} {card.version}",
        ),
        "lasso_path": lasso_path_figure(fit, "LASSO: coefficients along the path"),
        "lasso_deviance": lasso_deviance_figure(fit, "LASSO: cross-validated deviance"),
        "rad_score": rad_score_figure(trained.rad_scores, "Rad-score by class, all patients"),
    }
    for split, validation in trained.validations.items():
        figures |= validation_figures(validation, str(split))
    return figures


def validation_figures(validation: Validation, name: str) -> dict[str, Figure]:
    """ROC, calibration and decision curves."""
    about = f"{name}: {validation.patients} patients, {validation.positives} with osteoporosis"
    return {
        f"roc_{name}": roc_figure(validation, f"ROC, {about}"),
        f"calibration_{name}": calibration_figure(validation, f"Calibration, {about}"),
        f"decision_{name}": decision_figure(validation, f"Decision curves, {about}"),
    }


def write_outputs(
    out: Path,
    *,
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Table],
    figures: Mapping[str, Figure],
    about: Sequence[tuple[str, str]] = (),
) -> None:
    """tables/*.csv, figures/*.png and *.svg, and index.html, which needs none of them.

    Parameters
    ----------
    about : headings and texts of what the page says first.
    """
    for folder in ("tables", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        _write_csv(out / "tables" / f"{name}.csv", rows)
    pictures = {}
    for name, figure in figures.items():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once for both files: it takes longer than to draw them
        # Without a date, and with fixed ids, equal figures are equal files.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(out / "figures" / f"{name}.svg", metadata={"Date": None})
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        (out / "figures" / f"{name}.png").write_bytes(png.getvalue())
        pictures[name] = base64.b64encode(png.getvalue()).decode("ascii")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("node.research"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _cell
    page = environment.get_template("index.html").render(
        title=title,
        notes=notes,
        about=about,
        tables={name: rows for name, rows in tables.items() if rows},
        pictures=pictures,
    )
    (out / "index.html").write_text(page, "utf-8")


def _write_csv(path: Path, rows: Table) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _cell(value: object) -> str:
    """A number as a reader wants it; the CSV has all digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _or_blank(value: float | None) -> float | str:
    return "" if value is None else value


def _variable(one: Variable) -> dict[str, object]:
    return {
        "variable": one.name,
        "osteoporosis": one.of_osteoporosis,
        "osteopenia": one.of_osteopenia,
        "test": one.test.test if one.test else "not tested",
        "p": one.test.p if one.test else "",
    }


def _icc(feature: str, one: Icc) -> dict[str, object]:
    return {
        "feature": feature,
        "icc": one.value,
        "icc_95": _interval((one.lower, one.upper)),
        "studies": one.subjects,
    }


def _coefficients(model: LogisticModel) -> Table:
    """The intercept has no odds ratio: it compares nobody with nobody."""
    return [
        {
            "term": one.name,
            "coefficient": one.value,
            "standard_error": one.standard_error,
            "odds_ratio": "" if one is model.intercept else one.odds_ratio,
            "odds_ratio_95": "" if one is model.intercept else _odds_interval(one),
            "p": one.p,
        }
        for one in (model.intercept, *model.terms)
    ]


def _odds_interval(one: Coefficient) -> str:
    """With digits that do not depend on its size: per unit, an odds ratio may be 40 or 0.9996."""
    return " to ".join(f"{end:.4g}" for end in one.odds_ratio_interval95)


def _counts(counts: Counts) -> dict[str, object]:
    return {
        "tp": counts.true_positive,
        "fn": counts.false_negative,
        "fp": counts.false_positive,
        "tn": counts.true_negative,
    }


def _rate(name: str, rate: Rate) -> dict[str, object]:
    value, interval = rate.value, rate.interval95
    if value is None or interval is None:
        return {name: "", f"{name}_95": ""}
    return {name: value, f"{name}_95": _interval(interval)}


def _interval(ends: Iterable[float]) -> str:
    return " to ".join(f"{end:.3f}" for end in ends)


# What a reader of a new model must know, in the order of the TRIPOD statement.
#
# Source: Collins, Reitsma, Altman and Moons, Ann Intern Med 2015;162:55. What only the site knows
# (setting, dates, who was eligible) is named as missing, never supposed.


Item = tuple[str, str]

_SITE = "The site states this; the table of the cohort does not."


def tripod_items(trained: Trained, card: ModelCard, plan: Plan) -> Sequence[Item]:
    """Items of the TRIPOD statement, filled in from the training.

    Source: Collins, Reitsma, Altman and Moons, Ann Intern Med 2015;162:55.
    """
    return (
        (
            "Title",
            f"{card.name} {card.version}: prediction of {card.positive_class} against {card.negative_class} "
            "from radiomic features of L3, age, ALP and homocysteine; development, with a test on patients "
            "of the same cohort.",
        ),
        ("Intended use", _use(card)),
        ("Source of data, setting, dates", _SITE),
        ("Participants", _participants(trained)),
        ("Outcome", f"{card.positive_class} (positive) or {card.negative_class}: {card.label}."),
        ("Circularity", CIRCULARITY[0].upper() + CIRCULARITY[1:] + "."),
        ("Predictors", _predictors(trained)),
        ("Missing data", _missing(trained)),
        ("Split and folds", _split(trained, plan)),
        (
            "Statistical method",
            f"Scaled by the training patients; mRMR to {RELEVANT}, LASSO logistic regression with "
            f"{plan.penalty} of the cross-validation, then logistic regression (Xie et al., BMC Med Imaging "
            "2022;22:140).",
        ),
        ("Model", _equation(card)),
        ("Performance", _performance(trained)),
        ("Optimism", _optimism(trained, plan)),
        (
            "Limitations",
            "One cohort: a test on other patients, scanners and hospitals is still to be made (osteonode "
            "evaluate). The cut-offs are Youden's, of the training part.",
        ),
        ("Made with", _made_with(card)),
    )


def tripod_text(items: Sequence[Item]) -> str:
    """As Markdown."""
    title, *rest = items
    return "\n".join([f"# {title[1]}", "", *(f"**{name}.** {text}\n" for name, text in rest)])


def _use(card: ModelCard) -> str:
    limits = card.applicability
    return (
        f"{card.notice}. For patients with a T-score below -1; refused outside {_range(limits.kvp)} kV, "
        f"energy type {in_english(energy_phrase(limits.spectrum.energy))}, "
        f"spectral filter {limits.spectrum.beam_filter}, "
        f"slices {_range(limits.slice_spacing_mm)} mm apart, pixels of {_range(limits.pixel_spacing_mm)} mm, "
        f"{limits.equivalent}."
    )


def _split(trained: Trained, plan: Plan) -> str:
    parts = "as the table says" if trained.own_split else f"drawn 7:3 of each class, seed {plan.seed}"
    folds = "as the table says" if trained.own_folds else "drawn"
    return f"Parts: {parts}. Folds: {folds}."


def _made_with(card: ModelCard) -> str:
    software = ", ".join(f"{name} {version}" for name, version in sorted(card.software.items()))
    return (
        f"{software}; radiomics settings sha256 {card.radiomics_settings_sha256}; card sha256 {card.sha256}."
    )


def _participants(trained: Trained) -> str:
    counted = [
        f"{split}: {sum(one.label == 'osteoporosis' for one in patients)} with osteoporosis, "
        f"{sum(one.label == 'osteopenia' for one in patients)} with osteopenia"
        for split, patients in trained.splits.items()
    ]
    normal = len(trained.rad_scores.get("normal", ()))
    return (
        f"{'; '.join(counted)}. {normal} with normal bone train and test nothing; their rad-scores are "
        f"compared. {len(trained.left_out)} were left out (tables/left_out.csv). Eligibility: {_SITE}"
    )


def _predictors(trained: Trained) -> str:
    agreement = (
        f"{len(trained.kept)} agree between repeated masks ({ICC_FORM}; at least {AGREEMENT})"
        if trained.agreement
        else "agreement between observers was not assessed"
    )
    asked = {*trained.cohort.variables, trained.cohort.label_kind.value}
    ranges = ", ".join(f"{name} {_range(PLAUSIBLE[name])}" for name in PLAUSIBLE if name in asked)
    return f"Radiomic features of L3's cancellous bone: {agreement}. Accepted: {ranges}."


def _missing(trained: Trained) -> str:
    gaps = ", ".join(f"{name} {count}" for name, count in trained.cohort.missing.items() if count) or "none"
    return (
        f"Patients without a value: {gaps}. More than {MOST_MISSING} missing values exclude a patient; "
        "clinical and combined model take patients whose values are all known. Nothing is imputed."
    )


def _equation(card: ModelCard) -> str:
    score = " ".join(f"{one.coefficient:+.4g} x {one.name}" for one in card.features)
    clinical = " ".join(f"{one.coefficient:+.4g} x {one.name}" for one in card.terms)
    return (
        f"Rad-score = {card.rad_score.intercept:.4g} {score}, features in standard deviations from their "
        f"means (tables/rad_score.csv). Log-odds of {card.positive_class} = {card.clinical.intercept:.4g} "
        f"{clinical}."
    )


def _performance(trained: Trained) -> str:
    parts = []
    for split, validation in trained.validations.items():
        areas = ", ".join(f"{name} {model.auc.summary}" for name, model in validation.models.items())
        combined = validation.models[COMBINED]
        fit = f", Hosmer-Lemeshow p {combined.calibration.p_text}" if combined.calibration else ""
        parts.append(
            f"{split} ({validation.patients} patients): AUC {areas}; Brier {combined.brier:.3f}{fit}"
        )
    sizes = {split: len(patients) for split, patients in trained.splits.items()}
    small = (
        f" The test part has {sizes[Split.TEST]} patients: mind the intervals."
        if sizes[Split.TEST] < 100
        else ""
    )
    beyond = len(trained.without_probability)
    unjudged = (
        f" {beyond} of the test part have no probability, as the node would give none (a value is missing or "
        "beyond the card's axes), and are not judged."
        if beyond
        else ""
    )
    return ". ".join(parts) + "." + unjudged + small


def _optimism(trained: Trained, plan: Plan) -> str:
    if not trained.optimism:
        return "Not estimated."
    told = [_of_model(name, one) for name, one in trained.optimism.items()]
    return f"Bootstrap of {plan.resamples} resamples, every step repeated. {' '.join(told)}"


def _of_model(name: str, one: Optimism) -> str:
    return f"{name}: AUC {one.apparent:.3f}, less optimism {one.summary}."


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"
