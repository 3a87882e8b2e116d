"""Fitting rad-score and models to patients who do not exist."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.errors import CohortUnusable, FitImpossible
from scoring.training.cohort import stratified_folds, stratified_split
from scoring.training.discrimination import Optimism, auc, optimism_of_auc
from scoring.training.fitting import PenaltyChoice, fit_models, fit_rad_score

pytestmark = pytest.mark.slow

PATIENTS, FEATURES = 160, 40
NAMES = tuple(f"f{number:02d}" for number in range(FEATURES))


@pytest.fixture(scope="module")
def patients() -> tuple[np.ndarray, np.ndarray]:
    """Features of which the third and the seventh tell the class, in units of their own."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(PATIENTS, FEATURES))
    labels = rng.random(PATIENTS) < 1 / (1 + np.exp(-(1.5 * values[:, 2] - 1.2 * values[:, 6] + 0.6)))
    return values * np.arange(1, FEATURES + 1) + 100, labels


@pytest.fixture(scope="module")
def fit(patients):
    values, labels = patients
    return fit_rad_score(values, NAMES, labels, stratified_folds(labels, 1))


def test_what_tells_the_class_is_found_and_little_else(fit):
    assert {"f02", "f06"} <= {one.name for one in fit.features}
    assert len(fit.features) <= 6
    assert len(fit.relevant) == 20


def test_the_score_is_the_lassos_linear_predictor(fit, patients):
    values, _ = patients
    at = fit.choice.at_one_error
    columns = [NAMES.index(name) for name in fit.relevant]
    scaled = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    path = fit.choice.path
    assert fit.score(values, NAMES) == pytest.approx(
        path.intercepts[at] + scaled[:, columns] @ path.coefficients[at]
    )


def test_the_least_deviance_keeps_at_least_as_many_features(fit, patients):
    values, labels = patients
    other = fit_rad_score(values, NAMES, labels, stratified_folds(labels, 1), PenaltyChoice.MINIMUM)
    assert len(other.features) >= len(fit.features)


def test_units_do_not_matter(fit, patients):
    values, labels = patients
    other = fit_rad_score(values * 1000 - 7, NAMES, labels, stratified_folds(labels, 1))
    assert other.score(values * 1000 - 7, NAMES) == pytest.approx(fit.score(values, NAMES), abs=1e-6)


def test_the_same_seed_gives_the_same_patients_and_folds(patients):
    _, labels = patients
    assert (stratified_split(labels, 5) == stratified_split(labels, 5)).all()
    assert not (stratified_split(labels, 5) == stratified_split(labels, 6)).all()
    split = stratified_split(labels, 5)
    assert split.mean() == pytest.approx(0.7, abs=0.01)
    assert labels[split].mean() == pytest.approx(labels.mean(), abs=0.01)
    for number in range(10):
        assert (stratified_folds(labels, 2) == number).sum() == 16


def test_the_combined_model_takes_patients_whose_values_are_known(fit, patients):
    values, labels = patients
    rng = np.random.default_rng(8)
    age = rng.normal(65, 8, PATIENTS) + 3 * labels
    age[:20] = np.nan
    models = fit_models(fit, fit.score(values, NAMES), age[:, None], ("age",), labels)
    assert models.clinical.patients == models.combined.patients == PATIENTS - 20
    assert [one.name for one in models.combined.terms] == ["rad_score", "age"]
    assert models.combined.deviance < models.clinical.deviance


def test_features_of_little_meaning_flatter_themselves_and_the_bootstrap_says_so():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(90, 10))
    labels = values[:, 0] + 1.5 * rng.normal(size=90) > 0
    names = NAMES[:10]

    def refit(rows: np.ndarray) -> dict[str, np.ndarray]:
        found = fit_rad_score(
            values[rows], names, labels[rows], stratified_folds(labels, 1)[rows] % 4, PenaltyChoice.MINIMUM
        )
        return {"radiomics": found.score(values, names)}

    found = optimism_of_auc(refit, labels, resamples=2, seed=1)["radiomics"]
    assert found.resamples + found.failed == 2
    assert 0.02 < found.optimism < 0.2
    assert found.corrected_not_drawn < found.apparent
    assert found.corrected == pytest.approx(found.apparent - found.optimism)


def test_a_model_that_no_resample_gives_has_no_optimism_and_the_others_have():
    labels = np.arange(20) % 2 == 0
    scores = np.where(labels, 1.0, 0.0) + np.linspace(0, 1.5, 20)
    with_gap = np.where(np.arange(20) == 3, np.nan, scores)  # a patient who cannot be scored

    def refit(rows: np.ndarray) -> dict[str, np.ndarray]:
        everybody = len(np.unique(rows)) == len(labels)
        return {"always": with_gap} | ({"only of everybody": scores} if everybody else {})

    found = optimism_of_auc(refit, labels, resamples=5, seed=1)
    assert found["always"].resamples == 5
    assert found["always"].apparent == auc(np.delete(scores, 3), np.delete(labels, 3)).value
    assert found["only of everybody"].corrected is None
    assert found["only of everybody"].failed == 5
    assert found["only of everybody"].summary.startswith("unknown: 5 of 5 resamples gave no model")


def test_noise_has_an_auc_of_a_half_on_patients_not_drawn_though_the_corrected_one_flatters_it():
    """A model that knows its patients by heart, and of others nothing."""
    rng = np.random.default_rng(4)
    labels = np.arange(200) % 2 == 0

    def refit(rows: np.ndarray) -> dict[str, np.ndarray]:
        known = np.isin(np.arange(200), rows)
        return {"by heart": np.where(known, labels, rng.random(200))}

    found = optimism_of_auc(refit, labels, resamples=40, seed=1)["by heart"]
    assert found.corrected_not_drawn == pytest.approx(0.5, abs=0.03)
    assert found.corrected > 0.8


@pytest.mark.parametrize(
    ("failed", "told"),
    [(3, "0.850, 0.800 on patients not drawn (3 of 30 resamples gave no model)"), (4, "unknown")],
)
def test_a_corrected_auc_counts_its_failures_and_is_not_given_for_too_many(failed, told):
    """Of resamples without a model most are those in which it would flatter itself most."""
    found = Optimism(apparent=0.95, optimism=0.1, not_drawn=0.8, resamples=30 - failed, failed=failed)
    assert (found.corrected is None) is (found.corrected_not_drawn is None) is (told == "unknown")
    assert found.summary.startswith(told)
    assert f"{failed} of 30 resamples" in found.summary


def test_nothing_but_noise_gives_no_rad_score():
    rng = np.random.default_rng(12)
    values, labels = rng.normal(size=(60, 5)), np.arange(60) % 2 == 0
    with pytest.raises(FitImpossible, match="leaves no feature"):
        fit_rad_score(values, NAMES[:5], labels, stratified_folds(labels, 1))


def test_a_penalty_that_leaves_no_feature_says_what_the_other_would_keep():
    """At this strength the standard error reaches up to no feature at all."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(60, 5))
    labels = values[:, 0] + 2.5 * rng.normal(size=60) > 0
    folds = stratified_folds(labels, 1)
    kept = len(fit_rad_score(values, NAMES[:5], labels, folds, PenaltyChoice.MINIMUM).features)
    with pytest.raises(FitImpossible, match=f"leaves no feature; lambda.min would keep {kept}"):
        fit_rad_score(values, NAMES[:5], labels, folds)


def test_the_class_without_complete_patients_is_named(fit, patients):
    values, labels = patients
    age = np.where(labels, np.nan, 60.0 + np.arange(len(labels)))[:, None]
    with pytest.raises(FitImpossible, match="no patient with osteoporosis has all clinical values"):
        fit_models(fit, fit.score(values, NAMES), age, ("age",), labels)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.nan, "without a value in some patients: f03"),
        (None, "same in all patients: f03"),
        (4.0, "same in all patients: f03"),
    ],
)
def test_a_feature_without_values_or_variation_is_named(patients, value, told):
    values, labels = patients
    spoilt = values.copy()
    if value is None:
        spoilt[:, 3] = 4.0
    elif np.isfinite(value):
        spoilt[:, 3] = value + 2e-14 * np.arange(len(values))  # as sums round
    else:
        spoilt[5, 3] = value
    with pytest.raises(CohortUnusable, match=told):
        fit_rad_score(spoilt, NAMES, labels, stratified_folds(labels, 1))


def test_ten_patients_are_too_few():
    with pytest.raises(CohortUnusable, match="10 of each are needed"):
        stratified_split(np.arange(10) % 2 == 0, 1)


def test_one_class_is_no_cohort():
    with pytest.raises(CohortUnusable, match="0 with osteopenia"):
        stratified_split(np.ones(40, bool), 1)


def test_the_rad_score_tells_new_patients_apart(fit):
    rng = np.random.default_rng(77)
    values = rng.normal(size=(200, FEATURES))
    labels = rng.random(200) < 1 / (1 + np.exp(-(1.5 * values[:, 2] - 1.2 * values[:, 6] + 0.6)))
    assert auc(fit.score(values * np.arange(1, FEATURES + 1) + 100, NAMES), labels).value > 0.75
