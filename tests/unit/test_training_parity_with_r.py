"""What R answers to the same questions: tests/unit/parity_with_r/make.R wrote it down."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config.catalog import load_model_card
from scoring.models.card import (
    CLINICAL_INPUTS,
    CardTerm,
    ClinicalModel,
    apply_nomogram,
    nomogram_scale,
    parse_model_card,
    rad_score,
)
from scoring.training.cohort import compare_counted, compare_measured
from scoring.training.discrimination import auc, compare
from scoring.training.feature_selection import choose_penalty, fit_path, penalty_path
from scoring.training.fitting import fit_logistic
from scoring.training.validation import Rate, brier_score, hosmer_lemeshow

FOLDER = Path(__file__).parent / "parity_with_r"
PREDICTORS = ("f01", "age", "alp", "hcy")


def expected() -> dict[str, list[float]]:
    found = defaultdict(list)
    lines = (FOLDER / "expected.csv").read_text("utf-8").splitlines()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        found[row["name"].rpartition(".")[0]].append(float(row["value"]))
    return found


R = expected()


@pytest.fixture(scope="module")
def cohort() -> dict[str, np.ndarray]:
    with (FOLDER / "cohort.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def labels(cohort):
    return cohort["y"] == 1


@pytest.fixture(scope="module")
def features(cohort):
    return np.column_stack([cohort[f"f{number:02d}"] for number in range(1, 13)])


@pytest.fixture(scope="module")
def model(cohort, labels):
    return fit_logistic(np.column_stack([cohort[name] for name in PREDICTORS]), labels, PREDICTORS)


@pytest.fixture(scope="module")
def risk(model, cohort):
    return model.probability(np.column_stack([cohort[name] for name in PREDICTORS]))


def test_the_penalties_are_those_of_glmnet(features, labels):
    assert penalty_path(features, labels) == pytest.approx(R["lasso.lambda"], rel=1e-6)


@pytest.mark.parametrize("at", [10, 30, 60, 100])
def test_lasso_at_equal_penalty_has_the_coefficients_of_glmnet(features, labels, at):
    path = fit_path(features, labels, np.array(R["lasso.lambda"]))
    found = [path.intercepts[at - 1], *path.coefficients[at - 1]]
    assert found == pytest.approx(R[f"lasso.{at}"], rel=1e-4, abs=1e-6)


def test_cross_validation_on_equal_folds_is_that_of_glmnet(features, labels, cohort):
    choice = choose_penalty(features, labels, cohort["fold"].astype(np.int64), np.array(R["lasso.lambda"]))
    assert choice.deviance == pytest.approx(R["lasso.cvm"], rel=1e-4)
    assert choice.deviance[1:] == pytest.approx(R["lasso.cvm"][1:], rel=1e-6)  # the first differs by 2e-5
    assert choice.deviance_error == pytest.approx(R["lasso.cvsd"], rel=1e-3)
    assert choice.path.penalties[choice.at_minimum] == pytest.approx(R["lasso.min"][0])
    assert choice.path.penalties[choice.at_one_error] == pytest.approx(R["lasso.1se"][0])


def test_logistic_regression_is_that_of_glm(model):
    found = (model.intercept, *model.terms)
    assert [one.value for one in found] == pytest.approx(R["logistic.coef"], rel=1e-6)
    assert [one.standard_error for one in found] == pytest.approx(R["logistic.se"], rel=1e-6)
    assert [one.p for one in found] == pytest.approx(R["logistic.p"], rel=1e-6)
    assert [one.odds_ratio_interval95[0] for one in found] == pytest.approx(R["logistic.or.lower"], rel=1e-6)
    assert [one.odds_ratio_interval95[1] for one in found] == pytest.approx(R["logistic.or.upper"], rel=1e-6)
    assert model.deviance == pytest.approx(R["logistic.deviance"][0], rel=1e-9)


def test_delong_is_that_of_proc(risk, cohort, labels):
    for name, scores in (("first", risk), ("second", cohort["age"])):
        found = auc(scores, labels)
        lower, upper = found.interval95
        answer = (found.value, found.standard_error, lower, found.value, upper)
        assert answer == pytest.approx(R[f"auc.{name}"], rel=1e-6)
    test = compare(risk, cohort["age"], labels)
    assert (test.z, test.p) == pytest.approx(R["auc.test"], rel=1e-6)


def test_hosmer_and_lemeshow_has_eight_degrees_where_fitted_and_ten_elsewhere(risk, labels):
    statistic, p_development, p_validation = R["hl"]
    development = hosmer_lemeshow(risk, labels, development=True)
    validation = hosmer_lemeshow(risk, labels, development=False)
    assert (development.degrees_of_freedom, validation.degrees_of_freedom) == (8, 10)
    assert (development.statistic, development.p) == pytest.approx((statistic, p_development), rel=1e-6)
    assert validation.p == pytest.approx(p_validation, rel=1e-6)
    assert brier_score(risk, labels) == pytest.approx(R["brier"][0], rel=1e-6)


@pytest.mark.parametrize(("hits", "of"), [(43, 47), (0, 12), (9, 9)])
def test_exact_intervals_are_those_of_binom_test(hits, of):
    assert Rate(hits=hits, of=of).interval95 == pytest.approx(R[f"exact.{hits}.{of}"], rel=1e-6)


def test_single_variables_are_compared_as_r_does(cohort, labels):
    t = compare_measured(cohort["f02"][~labels], cohort["f02"][labels])
    assert t.test == "Welch t"
    assert (t.statistic, t.p) == pytest.approx(R["welch"], rel=1e-6)
    ranks = compare_measured(cohort["alp"][~labels] ** 4, cohort["alp"][labels] ** 4)  # skewed, ranks kept
    assert ranks.test == "Mann-Whitney U"
    assert ranks.p == pytest.approx(R["wilcoxon"][0], rel=1e-6)
    old = cohort["age"] > 65
    table = np.array([[(~old & group).sum(), (old & group).sum()] for group in (~labels, labels)])
    counted = compare_counted(table)
    assert (counted.statistic, counted.p) == pytest.approx(R["chisq"], rel=1e-6)


def test_nomogram_points_and_total_are_those_of_rms():
    intercept, *coefficients = R["nomogram.coef"]
    axes = {"f01": (-1.0, 8.0), "age": (50.0, 90.0), "alp": (40.0, 140.0), "hcy": (5.0, 25.0)}
    terms = tuple(
        CardTerm(name=name, label=name, unit="1", coefficient=value, axis=axis, plausible=axis)
        for name, axis, value in zip(CLINICAL_INPUTS, axes.values(), coefficients, strict=True)
    )
    card, _ = load_model_card("demonstration")
    scale = nomogram_scale(replace(card, clinical=ClinicalModel(intercept=intercept, terms=terms)))
    for name, axis in zip(axes, scale.axes, strict=True):
        ends = (axis.points_at_lower, axis.points_at_upper)
        assert ends == pytest.approx(R[f"nomogram.{name}"], rel=1e-6)
    found = [(lp - scale.lp_at_zero_points) * scale.points_per_lp for lp in R["nomogram.lp"]]
    assert found == pytest.approx(R["nomogram.lp.points"], rel=1e-6)


def test_a_card_exported_from_r_predicts_what_r_predicts(cohort, features):
    card = parse_model_card((FOLDER / "card.json").read_text("utf-8"))
    names = [
        f"original_firstorder_{name}"
        for name in (
            "10Percentile", "90Percentile", "Energy", "Entropy", "Kurtosis", "Maximum",
            "Mean", "Median", "Minimum", "Range", "Skewness", "Variance",
        )
    ]  # fmt: skip
    with (FOLDER / "predictions.csv").open(encoding="utf-8") as file:
        predicted = list(csv.DictReader(file))
    for row, values, number in zip(predicted, features.tolist(), range(len(features)), strict=True):
        score = rad_score(card, dict(zip(names, values, strict=True))).value
        assert score == pytest.approx(float(row["rad_score"]), rel=1e-6, abs=1e-9)
        found = apply_nomogram(
            card,
            rad_score=score,
            age=cohort["age"][number],
            alp=cohort["alp"][number],
            homocysteine=cohort["hcy"][number],
        )
        assert found.probability == pytest.approx(float(row["probability"]), rel=1e-6)
