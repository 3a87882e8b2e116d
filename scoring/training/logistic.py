"""Logistic regression by maximum likelihood, with what a clinical paper reports of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr, ndtri
from statsmodels.discrete.discrete_model import Logit
from statsmodels.tools.sm_exceptions import (
    ConvergenceWarning,
    PerfectSeparationError,
    PerfectSeparationWarning,
)

from scoring.training.discrimination import Labels
from scoring.training.errors import FitImpossible

Matrix = npt.NDArray[np.float64]

_ROUNDS = 50
_SETTLED = 1e-10
_LARGEST_EFFECT = 30.0  # of a linear predictor: beyond it classes are separated, and no maximum exists
_Z95 = float(ndtri(0.975))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One term of the linear predictor, by Wald."""

    name: str
    value: float
    standard_error: float

    @property
    def odds_ratio(self) -> float:
        return float(np.exp(self.value))

    @property
    def odds_ratio_interval95(self) -> tuple[float, float]:
        reach = _Z95 * self.standard_error
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
        """Log-odds; `predictors` has shape (patients, terms)."""
        found: npt.NDArray[np.float64] = self.intercept.value + predictors @ [one.value for one in self.terms]
        return found

    def probability(self, predictors: Matrix) -> npt.NDArray[np.float64]:
        """Of the positive class."""
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
        intercept=found[0],
        terms=tuple(found[1:]),
        deviance=float(-2 * fit.llf),
        patients=len(predictors),
    )


def _maximum(design: Matrix, labels: Labels, names: tuple[str, ...]) -> Any:
    separated = f"{', '.join(names)} separate the classes: no odds ratio is finite"
    signs = (PerfectSeparationError, PerfectSeparationWarning, ConvergenceWarning, RuntimeWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = Logit(labels.astype(float), design).fit(
                method="newton", maxiter=_ROUNDS, tol=_SETTLED, disp=0
            )
        except (*signs, np.linalg.LinAlgError) as error:
            raise FitImpossible(separated) from error
    if np.abs(design @ fit.params).max() > _LARGEST_EFFECT:
        raise FitImpossible(separated)
    return fit
