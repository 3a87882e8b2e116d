"""Agreement of repeated measurements: the intraclass correlation coefficient.

The form is ICC(2,1) of Shrout and Fleiss (Psychol Bull 1979;86:420), called ICC(A,1) by McGraw and Wong
(Psychol Methods 1996;1:30): two-way random effects, absolute agreement, a single measurement. Xie et al. 2022
do not say which they used. The interval is McGraw and Wong's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import fdtri

from scoring.training.errors import CohortUnusable

_ALIKE = 1e-12

FORM = "ICC(2,1), two-way random effects, absolute agreement, single measurement"


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
