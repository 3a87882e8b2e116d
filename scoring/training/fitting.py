"""Fits of the rad-score, the clinical and the combined model, as in Xie et al. 2022.

Means, SDs and all choices are those of the training patients: mRMR selects twenty features, LASSO runs along
glmnet's path, cross-validation chooses the penalty. The rad-score is the LASSO's linear predictor. Clinical
and combined model are logistic regressions by maximum likelihood.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr
from statsmodels.discrete.discrete_model import Logit
from statsmodels.tools.sm_exceptions import (
    ConvergenceWarning,
    PerfectSeparationError,
    PerfectSeparationWarning,
)

from scoring.errors import CohortUnusable, FitImpossible
from scoring.training.discrimination import Z95, Labels
from scoring.training.feature_selection import LassoChoice, choose_penalty, mrmr

_ROUNDS = 50
_TOLERANCE = 1e-10
_LARGEST_EFFECT = 30.0  # of a linear predictor: beyond it the classes are separated, and no maximum exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One term of the linear predictor, with Wald's interval and test.

    Attributes
    ----------
    value : log-odds per unit of the term.
    standard_error : of `value`.
    """

    name: str
    value: float
    standard_error: float

    @property
    def odds_ratio(self) -> float:
        return float(np.exp(self.value))

    @property
    def odds_ratio_interval95(self) -> tuple[float, float]:
        reach = Z95 * self.standard_error
        return float(np.exp(self.value - reach)), float(np.exp(self.value + reach))

    @property
    def p(self) -> float:
        return float(2 * ndtr(-abs(self.value) / self.standard_error))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticModel:
    intercept: Coefficient
    terms: tuple[Coefficient, ...]
    deviance: float
    patients: int

    def linear_predictor(self, predictors: Matrix) -> npt.NDArray[np.float64]:
        """Log-odds of the positive class.

        Parameters
        ----------
        predictors : (patients, terms).

        Returns
        -------
        (patients,).
        """
        found: npt.NDArray[np.float64] = self.intercept.value + predictors @ [one.value for one in self.terms]
        return found

    def probability(self, predictors: Matrix) -> npt.NDArray[np.float64]:
        """Probability of the positive class.

        Parameters
        ----------
        predictors : (patients, terms).

        Returns
        -------
        (patients,).
        """
        found: npt.NDArray[np.float64] = expit(self.linear_predictor(predictors))
        return found


def fit_logistic(predictors: Matrix, labels: Labels, names: tuple[str, ...]) -> LogisticModel:
    """Maximum likelihood by Newton's method, as statsmodels does it.

    Parameters
    ----------
    predictors : shape (patients, terms), in their own units; scaled within.
    names : of the terms.

    Raises
    ------
    FitImpossible
        If a term is constant or depends on others, or the classes are separated.
    """
    centre, scale = predictors.mean(axis=0), predictors.std(axis=0)
    if not (scale > 0).all():
        raise FitImpossible(f"{names[int(np.argmin(scale))]} is the same in all patients")
    design = np.column_stack([np.ones(len(predictors)), (predictors - centre) / scale])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise FitImpossible(f"these depend on one another: {', '.join(names)}")
    fit = _maximum(design, labels, names)
    own_units = np.eye(design.shape[1])
    own_units[0, 1:] = -centre / scale
    own_units[1:, 1:] = np.diag(1 / scale)
    values = own_units @ fit.params
    errors = np.sqrt(np.diag(own_units @ fit.cov_params() @ own_units.T))
    found = [
        Coefficient(name=name, value=float(value), standard_error=float(error))
        for name, value, error in zip(("intercept", *names), values, errors, strict=True)
    ]
    return LogisticModel(
        intercept=found[0], terms=tuple(found[1:]), deviance=float(-2 * fit.llf), patients=len(predictors)
    )


def _maximum(design: Matrix, labels: Labels, names: tuple[str, ...]) -> Any:
    separated = f"{', '.join(names)} separate the classes: no odds ratio is finite"
    signs = (PerfectSeparationError, PerfectSeparationWarning, ConvergenceWarning, RuntimeWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = Logit(labels.astype(float), design).fit(
                method="newton", maxiter=_ROUNDS, tol=_TOLERANCE, disp=0
            )
        except (*signs, np.linalg.LinAlgError) as error:
            raise FitImpossible(separated) from error
    if np.abs(design @ fit.params).max() > _LARGEST_EFFECT:
        raise FitImpossible(separated)
    return fit


Matrix = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]

RELEVANT = 20  # features that mRMR leaves to LASSO (Xie et al. 2022)
RAD_SCORE = "rad_score"
# R: as a share of a feature's largest value; less variation is rounding of its sums, not of the patients.
LEAST_VARIATION = 1e-9


class PenaltyChoice(StrEnum):
    """Penalty that the cross-validation selects. Xie et al. 2022 do not state theirs."""

    MINIMUM = "lambda.min"
    ONE_ERROR = "lambda.1se"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledFeature:
    """One feature of the rad-score: ``coefficient * (value - mean) / sd``.

    Attributes
    ----------
    mean, sd : of the training patients.
    coefficient : per standard deviation.
    """

    name: str
    mean: float
    sd: float
    coefficient: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RadScoreFit:
    """The rad-score and how it came about.

    Attributes
    ----------
    relevant : features that mRMR selected, in its order.
    choice : LASSO over `relevant`, per standard deviation.
    features : those with a coefficient other than 0, in mRMR's order.
    """

    relevant: tuple[str, ...]
    choice: LassoChoice
    penalty: PenaltyChoice
    intercept: float
    features: tuple[ScaledFeature, ...]

    def score(self, values: Matrix, names: tuple[str, ...]) -> Matrix:
        """Rad-scores of patients.

        Parameters
        ----------
        values : (patients, features), a column for each of `names`.

        Returns
        -------
        (patients,).
        """
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
    return f"{penalty} leaves no feature: none separates the classes better than chance"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFits:
    """The three models of the paper.

    Attributes
    ----------
    combined : its first term is the rad-score.
    """

    rad_score: RadScoreFit
    clinical: LogisticModel
    combined: LogisticModel


def fit_models(
    rad_score: RadScoreFit, scores: Matrix, clinical: Matrix, clinical_names: tuple[str, ...], labels: Labels
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
