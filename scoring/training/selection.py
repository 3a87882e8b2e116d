"""Choosing features that tell much and repeat little: minimum redundancy, maximum relevance.

Source: Peng, Long and Ding, IEEE TPAMI 2005;27:1226 (the difference form), with mRMRe's estimator of mutual
information for continuous data, ``-0.5 ln(1 - rho^2)`` with Pearson's rho (De Jay et al., Bioinformatics
2013;29:2365).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scoring.training.errors import CohortUnusable

Matrix = npt.NDArray[np.float64]

# Two columns that say the same have no finite mutual information; this caps it, far above any real pair.
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
