"""Selection of features: mRMR, LASSO with cross-validation, and the agreement of repeated measurements (ICC).

mRMR (minimum redundancy, maximum relevance): Peng, Long and Ding, IEEE TPAMI 2005;27:1226 (the difference
form), with mRMRe's estimator of mutual information for continuous data, ``-0.5 ln(1 - rho^2)`` with Pearson's
rho (De Jay et al., Bioinformatics 2013;29:2365).

LASSO: logistic regression with glmnet's objective, path and choices (Friedman, Hastie and Tibshirani, J Stat
Softw 2010;33(1)): ``-log-likelihood / n + lambda * |beta|_1`` with the intercept free, columns scaled to
variance 1 (by n), a hundred penalties evenly spaced in their logarithm, deviance as the measure.

ICC: ICC(2,1) of Shrout and Fleiss (Psychol Bull 1979;86:420), called ICC(A,1) by McGraw and Wong (Psychol
Methods 1996;1:30): two-way random effects, absolute agreement, a single measurement. Xie et al. 2022 do not
state their form. The interval is McGraw and Wong's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, fdtri, logit
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lasso_path

from scoring.errors import CohortUnusable
from scoring.training.discrimination import Labels

Matrix = npt.NDArray[np.float64]

# Two equal columns have no finite mutual information; this caps it, far above any real pair.
_LARGEST_RHO2 = 1.0 - 1e-12


def mrmr(features: Matrix, outcome: npt.NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Columns in the order of choice: each maximises ``I(i; y) - mean I(i; s)`` over those chosen before it.

    Parameters
    ----------
    features : shape (patients, features), finite, no column constant.
    outcome : shape (patients,); a class as 0 and 1.
    count : how many; all where there are fewer. Of equals the first column is taken.

    Raises
    ------
    CohortUnusable
        If the outcome or a column does not vary.
    """
    relevance = mutual_information(features, outcome[:, None])[:, 0]
    chosen: list[int] = []
    redundancy = np.zeros(features.shape[1])
    while len(chosen) < min(count, features.shape[1]):
        merit = relevance - (redundancy / len(chosen) if chosen else 0.0)
        merit[chosen] = -np.inf
        best = int(np.argmax(merit))
        chosen.append(best)
        redundancy += mutual_information(features, features[:, [best]])[:, 0]
    return tuple(chosen)


def mutual_information(left: Matrix, right: Matrix) -> Matrix:
    """In nats, of every column of `left` with every column of `right`, taken as jointly normal.

    Raises
    ------
    CohortUnusable
        If a column does not vary.
    """
    rho2 = (_standardised(left).T @ _standardised(right)) ** 2
    information: Matrix = -0.5 * np.log1p(-np.minimum(rho2, _LARGEST_RHO2))
    return information


def _standardised(columns: Matrix) -> Matrix:
    """Columns with mean 0 and length 1."""
    centred = columns - columns.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    if not (length > 1e-12 * np.maximum(np.abs(columns).max(axis=0), 1e-300) * np.sqrt(len(columns))).all():
        raise CohortUnusable("a column does not vary")
    unit: Matrix = centred / length
    return unit


PENALTIES = 100
_TOLERANCE = 1e-8  # of coefficients, between two reweightings
_INNER_TOLERANCE = 1e-10
_ROUNDS = 10_000
_REWEIGHTINGS = 50
_PROBABILITY_MARGIN = 1e-6  # probabilities are kept this far off 0 and 1 while weights are made of them
_UNEXPLAINED = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LassoPath:
    """One model for each penalty, in the units of the columns that were given.

    Attributes
    ----------
    penalties : (penalties,), falling.
    intercepts : (penalties,).
    coefficients : (penalties, columns).
    """

    penalties: Matrix
    intercepts: Matrix
    coefficients: Matrix

    def probabilities(self, columns: Matrix) -> Matrix:
        """Probability of the positive class.

        Parameters
        ----------
        columns : (patients, columns).

        Returns
        -------
        (patients, penalties).
        """
        found: Matrix = expit(columns @ self.coefficients.T + self.intercepts)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LassoChoice:
    """Cross-validated deviance along the path, and the two penalties it selects.

    Attributes
    ----------
    path : fitted to all patients.
    deviance : (penalties,), mean per patient in the folds left out.
    deviance_error : (penalties,), standard error of that mean over the folds.
    at_minimum : index of lambda.min, the penalty of least deviance.
    at_one_error : index of lambda.1se, the largest penalty within one standard error of it.
    """

    path: LassoPath
    deviance: Matrix
    deviance_error: Matrix
    at_minimum: int
    at_one_error: int


def penalty_path(columns: Matrix, labels: Labels, count: int = PENALTIES) -> Matrix:
    """glmnet's penalties: from the least that leaves no column down to 1e-4 of it (few patients: 1e-2).

    Returns
    -------
    (count,), falling.
    """
    scaled = _scaled(columns)[0]
    largest = float(np.abs(scaled.T @ (labels - labels.mean())).max()) / len(labels)
    least = 1e-4 if len(labels) > columns.shape[1] else 1e-2
    return np.asarray(largest * least ** np.linspace(0.0, 1.0, count), np.float64)


def fit_path(columns: Matrix, labels: Labels, penalties: Matrix) -> LassoPath:
    """The model at each penalty, by iteratively reweighted least squares with a LASSO inside.

    Where a model explains 99.9 % of the deviance, or classes are so nearly separated that no smaller penalty
    settles, the path ends as glmnet's does: smaller penalties get the last model.

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
    share = float(labels.mean())
    null_deviance = _deviance(np.full((len(labels), 1), share), labels).sum()
    intercept, weights = float(logit(share)), np.asarray(np.zeros(columns.shape[1]))
    intercepts, coefficients = [], []
    ended = False
    for penalty in penalties:
        found = None if ended else _at_penalty(scaled, labels, float(penalty), intercept, weights)
        if found is None:
            ended = True
        else:
            intercept, weights = found
            risk = expit(intercept + scaled @ weights)[:, None]
            ended = bool(_deviance(risk, labels).sum() < _UNEXPLAINED * null_deviance)
        own = weights / scale
        coefficients.append(own)
        intercepts.append(intercept - float(own @ centre))
    return LassoPath(
        penalties=penalties, intercepts=np.array(intercepts), coefficients=np.array(coefficients)
    )


def _at_penalty(
    scaled: Matrix, labels: Labels, penalty: float, intercept: float, weights: Matrix
) -> tuple[float, Matrix] | None:
    """Intercept and weights, started from those of a larger penalty; None without convergence."""
    for _ in range(_REWEIGHTINGS):
        effect = intercept + scaled @ weights
        risk = np.clip(expit(effect), _PROBABILITY_MARGIN, 1 - _PROBABILITY_MARGIN)
        weight = risk * (1 - risk)
        response = effect + (labels - risk) / weight
        found = _weighted_lasso(
            scaled, response, weight / weight.mean(), float(penalty / weight.mean()), weights
        )
        if found is None:
            return None
        moved = max(abs(found[0] - intercept), float(np.abs(found[1] - weights).max()))
        intercept, weights = found
        if moved < _TOLERANCE:
            return intercept, weights
    return None


def _weighted_lasso(
    columns: Matrix, response: Matrix, sample_weight: Matrix, penalty: float, start: Matrix
) -> tuple[float, Matrix] | None:
    """Intercept and weights of weighted least squares with a penalty; None without convergence.

    Uses the products of columns: with few columns several times as fast as the patients' rows.

    Parameters
    ----------
    sample_weight : with a mean of 1.
    """
    centre, level = sample_weight @ columns / len(response), float(sample_weight @ response) / len(response)
    root = np.sqrt(sample_weight)
    rows = np.asfortranarray((columns - centre) * root[:, None])
    aim = (response - level) * root
    with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            _, found, _ = lasso_path(
                rows,
                aim,
                alphas=np.array([penalty]),
                precompute=rows.T @ rows,
                Xy=rows.T @ aim,
                coef_init=start.copy(),  # which it writes to
                tol=_INNER_TOLERANCE,
                max_iter=_ROUNDS,
                check_input=False,
            )
        except ConvergenceWarning:
            return None
    weights = found[:, 0].copy()
    return level - float(centre @ weights), weights


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


_ALIKE = 1e-12
ICC_FORM = "ICC(2,1), two-way random effects, absolute agreement, single measurement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Icc:
    value: float
    lower: float  # of the 95 % interval
    upper: float
    subjects: int
    raters: int


def icc(ratings: npt.NDArray[np.float64]) -> Icc:
    """ICC(2,1) with its 95 % interval.

    Parameters
    ----------
    ratings : shape (subjects, raters), none missing.

    Raises
    ------
    CohortUnusable
        If there are fewer than three subjects or two raters, a rating is not finite, or nothing varies.
    """
    n, k = ratings.shape
    if n < 3 or k < 2 or not np.isfinite(ratings).all():
        raise CohortUnusable("agreement needs three subjects, two ratings of each, and none missing")
    rows = k * float(np.var(ratings.mean(axis=1), ddof=1))
    columns = n * float(np.var(ratings.mean(axis=0), ddof=1))
    rest = ratings - ratings.mean(axis=1)[:, None] - ratings.mean(axis=0)[None] + ratings.mean()
    error = float((rest**2).sum()) / ((n - 1) * (k - 1))
    spread = rows + (k - 1) * error + k * (columns - error) / n
    if spread <= 0.0:
        raise CohortUnusable("agreement means nothing where nothing varies")
    value = (rows - error) / spread
    lower, upper = _interval(value, rows=rows, columns=columns, error=error, n=n, k=k)
    return Icc(value=value, lower=lower, upper=upper, subjects=n, raters=k)


def _interval(
    value: float, *, rows: float, columns: float, error: float, n: int, k: int
) -> tuple[float, float]:
    if 1 - value < _ALIKE:  # every rater gave the same, but for rounding
        return value, value
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * columns + b * error) ** 2 / (
        (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    shared = k * columns + (k * n - k - n) * error
    above, below = float(fdtri(n - 1, freedom, 0.975)), float(fdtri(freedom, n - 1, 0.975))
    lower = n * (rows - above * error) / (above * shared + n * rows)
    upper = n * (below * rows - error) / (shared + n * below * rows)
    return lower, upper
