"""LASSO logistic regression along a path of penalties, with the penalty chosen by cross-validation.

The objective, the path and the two choices are glmnet's (Friedman, Hastie and Tibshirani, J Stat Softw
2010;33(1)): ``-log-likelihood / n + lambda * |beta|_1`` with the intercept free, columns scaled to variance 1
(by n), a hundred penalties falling evenly in their logarithm, deviance as the measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from scoring.training.discrimination import Labels
from scoring.training.errors import CohortUnusable

Matrix = npt.NDArray[np.float64]

PENALTIES = 100
_TOLERANCE = 1e-8
_ROUNDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LassoPath:
    """One model for each penalty, in the units of the columns that were given."""

    penalties: Matrix  # (penalties,), falling
    intercepts: Matrix  # (penalties,)
    coefficients: Matrix  # (penalties, columns)

    def probabilities(self, columns: Matrix) -> Matrix:
        """Of the positive class, shape (patients, penalties)."""
        found: Matrix = expit(columns @ self.coefficients.T + self.intercepts)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LassoChoice:
    """Cross-validated deviance along the path, and the penalties it speaks for."""

    path: LassoPath  # of all patients
    deviance: Matrix  # (penalties,), mean per patient in folds left out
    deviance_error: Matrix  # (penalties,), standard error of that mean over the folds
    at_minimum: int  # lambda.min: least deviance
    at_one_error: int  # lambda.1se: the largest penalty within one standard error of it


def penalty_path(columns: Matrix, labels: Labels, count: int = PENALTIES) -> Matrix:
    """glmnet's penalties: from that which leaves no column down to 1e-4 of it (few patients: 1e-2)."""
    scaled = _scaled(columns)[0]
    largest = float(np.abs(scaled.T @ (labels - labels.mean())).max()) / len(labels)
    least = 1e-4 if len(labels) > columns.shape[1] else 1e-2
    return np.asarray(largest * least ** np.linspace(0.0, 1.0, count), np.float64)


def fit_path(columns: Matrix, labels: Labels, penalties: Matrix) -> LassoPath:
    """The model at each penalty.

    Parameters
    ----------
    columns : shape (patients, columns). labels : both classes present.
    penalties : lambda, falling.

    Raises
    ------
    CohortUnusable
        If a column does not vary or a class is missing.
    """
    if labels.all() or not labels.any():
        raise CohortUnusable("all patients are of one class")
    scaled, centre, scale = _scaled(columns)
    model = LogisticRegression(
        l1_ratio=1.0,
        solver="saga",
        tol=_TOLERANCE,
        max_iter=_ROUNDS,
        warm_start=True,
        random_state=0,
    )
    intercepts, coefficients = [], []
    for penalty in penalties:
        model.set_params(C=1.0 / (len(labels) * penalty)).fit(scaled, labels)
        weights = model.coef_[0] / scale
        coefficients.append(weights)
        intercepts.append(float(model.intercept_[0]) - float(weights @ centre))
    return LassoPath(
        penalties=penalties, intercepts=np.array(intercepts), coefficients=np.array(coefficients)
    )


def choose_penalty(
    columns: Matrix, labels: Labels, folds: npt.NDArray[np.int64], penalties: Matrix | None = None
) -> LassoChoice:
    """Cross-validated deviance along the path of all patients.

    Parameters
    ----------
    folds : of each patient, any numbers; each fold is left out once.

    Raises
    ------
    CohortUnusable
        If there are fewer than three folds, or a column or class fails without one of them.
    """
    names = np.unique(folds)
    if len(names) < 3:
        raise CohortUnusable("cross-validation needs three folds")
    path = fit_path(columns, labels, penalty_path(columns, labels) if penalties is None else penalties)
    by_fold, sizes = [], []
    for name in names:
        out = folds == name
        left = fit_path(columns[~out], labels[~out], path.penalties)
        by_fold.append(_deviance(left.probabilities(columns[out]), labels[out]).mean(axis=0))
        sizes.append(int(out.sum()))
    deviances, shares = np.stack(by_fold), np.array(sizes) / len(labels)
    mean = shares @ deviances
    error = np.sqrt(shares @ (deviances - mean) ** 2 / (len(names) - 1))
    best = int(np.argmin(mean))
    return LassoChoice(
        path=path,
        deviance=mean,
        deviance_error=error,
        at_minimum=best,
        at_one_error=int(np.flatnonzero(mean <= mean[best] + error[best])[0]),
    )


def _deviance(probabilities: Matrix, labels: Labels) -> Matrix:
    """Of each prediction; probabilities are kept 1e-5 off 0 and 1, as glmnet keeps them."""
    kept = np.clip(probabilities, 1e-5, 1 - 1e-5)
    deviance: Matrix = -2 * np.where(labels[:, None], np.log(kept), np.log1p(-kept))
    return deviance


def _scaled(columns: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    if not (scale > 0).all():
        raise CohortUnusable("a column does not vary")
    return (columns - centre) / scale, centre, scale
