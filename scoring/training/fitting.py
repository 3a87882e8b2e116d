"""From features and laboratory values to rad-score, clinical and combined model, as Xie et al. 2022 do.

Centre and scale come from the training patients alone, as does every choice: mRMR to twenty features, LASSO
along glmnet's path, the penalty by cross-validation. The rad-score is the LASSO's linear predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from scoring.training.discrimination import Labels
from scoring.training.errors import CohortUnusable, FitImpossible
from scoring.training.lasso import LassoChoice, choose_penalty
from scoring.training.logistic import LogisticModel, fit_logistic
from scoring.training.selection import mrmr

Matrix = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]

RELEVANT = 20  # features that mRMR leaves to LASSO (Xie et al. 2022)
RAD_SCORE = "rad_score"
# R: of a feature's largest value; what varies less is the rounding of its sums, not the patients.
LEAST_VARIATION = 1e-9


class PenaltyChoice(StrEnum):
    """Which penalty the cross-validation speaks for. Xie et al. 2022 do not say which they took."""

    MINIMUM = "lambda.min"
    ONE_ERROR = "lambda.1se"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledFeature:
    """``coefficient * (value - mean) / sd``."""

    name: str
    mean: float
    sd: float
    coefficient: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RadScoreFit:
    """The rad-score and how it came about."""

    relevant: tuple[str, ...]  # what mRMR chose, in its order
    choice: LassoChoice  # over `relevant`, in standard deviations
    penalty: PenaltyChoice
    intercept: float
    features: tuple[ScaledFeature, ...]  # with a coefficient other than 0, in mRMR's order

    def score(self, values: Matrix, names: tuple[str, ...]) -> Matrix:
        """Of patients, shape (patients,); `values` has a column for each of `names`."""
        found = np.full(len(values), self.intercept)
        for one in self.features:
            found += one.coefficient * (values[:, names.index(one.name)] - one.mean) / one.sd
        return found


def fit_rad_score(
    values: Matrix,
    names: tuple[str, ...],
    labels: Labels,
    folds: Folds,
    penalty: PenaltyChoice = PenaltyChoice.ONE_ERROR,
) -> RadScoreFit:
    """mRMR, then LASSO.

    Parameters
    ----------
    values : of the training patients, shape (patients, features), none missing.
    labels : True for the positive class.
    folds : of the cross-validation.

    Raises
    ------
    CohortUnusable
        If a feature is missing somewhere or is the same in all patients.
    FitImpossible
        If the chosen penalty leaves no feature.
    """
    _require_variation(values, names)
    centre, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    scaled = (values - centre) / spread
    relevant = list(mrmr(scaled, labels.astype(float), RELEVANT))
    choice = choose_penalty(scaled[:, relevant], labels, folds)
    at = choice.at_minimum if penalty is PenaltyChoice.MINIMUM else choice.at_one_error
    weights = choice.path.coefficients[at]
    if not weights.any():
        raise FitImpossible(_without_features(penalty, choice))
    return RadScoreFit(
        relevant=tuple(names[column] for column in relevant),
        choice=choice,
        penalty=penalty,
        intercept=float(choice.path.intercepts[at]),
        features=tuple(
            ScaledFeature(
                name=names[column],
                mean=float(centre[column]),
                sd=float(spread[column]),
                coefficient=float(weight),
            )
            for column, weight in zip(relevant, weights, strict=True)
            if weight != 0.0
        ),
    )


def _without_features(penalty: PenaltyChoice, choice: LassoChoice) -> str:
    kept = int((choice.path.coefficients[choice.at_minimum] != 0).sum())
    if kept:
        return f"{penalty} leaves no feature; {PenaltyChoice.MINIMUM} would keep {kept}"
    return f"{penalty} leaves no feature: none tells the classes apart better than chance would"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFits:
    """The three models of the paper."""

    rad_score: RadScoreFit
    clinical: LogisticModel
    combined: LogisticModel  # the rad-score first


def fit_models(
    rad_score: RadScoreFit,
    scores: Matrix,
    clinical: Matrix,
    clinical_names: tuple[str, ...],
    labels: Labels,
) -> ModelFits:
    """Clinical and combined model on the training patients whose clinical values are all known.

    Parameters
    ----------
    scores : rad-scores, shape (patients,).
    clinical : shape (patients, values); NaN where a value is missing.

    Raises
    ------
    FitImpossible
        If a regression has no finite answer.
    """
    known = np.isfinite(clinical).all(axis=1)
    lacking = [
        name
        for name, of_class in (("osteoporosis", labels), ("osteopenia", ~labels))
        if not of_class[known].any()
    ]
    if lacking:
        raise FitImpossible(f"no patient with {' or '.join(lacking)} has all clinical values")
    return ModelFits(
        rad_score=rad_score,
        clinical=fit_logistic(clinical[known], labels[known], clinical_names),
        combined=fit_logistic(
            np.column_stack([scores, clinical])[known], labels[known], (RAD_SCORE, *clinical_names)
        ),
    )


def _require_variation(values: Matrix, names: tuple[str, ...]) -> None:
    missing = [name for name, column in zip(names, values.T, strict=True) if not np.isfinite(column).all()]
    if missing:
        raise CohortUnusable(f"features without a value in some patients: {', '.join(missing)}")
    same = [
        name
        for name, column in zip(names, values.T, strict=True)
        if np.ptp(column) <= LEAST_VARIATION * np.abs(column).max()
    ]
    if same:
        raise CohortUnusable(f"features that are the same in all patients: {', '.join(same)}")
