"""How much a model flatters itself: Harrell's bootstrap with every step repeated, selection included.

Source: Harrell, Lee and Mark, Stat Med 1996;15:361. In each resample the whole fit is made anew; its AUC
there less its AUC on the original patients is the optimism, whose mean is taken off the apparent AUC.

Two thirds of the original patients are in each resample. Where features are many and patients few, a
model knows these too well, and the correction is too small. The AUC on the patients not drawn is free of
that, and a little too low, for it is of models made from fewer patients (Efron and Tibshirani, J Am Stat
Assoc 1997;92:548).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.training.discrimination import Labels, Scores, auc
from scoring.training.errors import CohortUnusable, FitImpossible

# R: share of resamples without a model beyond which the rest no longer stand for all. Mostly these are the
# ones whose classes a model separates, in which it flatters itself most: without them optimism is too small.
MOST_FAILED = 0.1

# Fits models to patients (by row, repeats included) and scores all patients with each; a model that cannot be
# fitted to them is left out, a patient whom a model cannot score has NaN.
Refit = Callable[[npt.NDArray[np.intp]], Mapping[str, Scores]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    apparent: float  # AUC on the patients of the fit
    optimism: float | None  # None where no resample gave a model
    not_drawn: float | None  # mean AUC on the patients not drawn; None where no resample gave one
    resamples: int  # that gave a fit
    failed: int  # in which no model could be fitted

    @property
    def corrected(self) -> float | None:
        """AUC less its optimism; None where more resamples than `MOST_FAILED` gave no model."""
        if self.optimism is None or self._too_many_failed:
            return None
        return self.apparent - self.optimism

    @property
    def fresh(self) -> float | None:
        """AUC on patients not drawn, under the same condition as `corrected`."""
        return None if self._too_many_failed else self.not_drawn

    @property
    def _too_many_failed(self) -> bool:
        return self.failed > MOST_FAILED * (self.resamples + self.failed)

    @property
    def told(self) -> str:
        """Corrected AUC and that on patients not drawn, or why there is neither; failures counted."""
        share = f"{self.failed} of {self.resamples + self.failed} resamples gave no model"
        if self.corrected is None:
            return (
                f"unknown: {share}, such as those whose classes it separates, where it flatters itself most"
            )
        fresh = "" if self.fresh is None else f", {self.fresh:.3f} on patients not drawn"
        return f"{self.corrected:.3f}{fresh} ({share})"


def optimism_of_auc(refit: Refit, labels: Labels, *, resamples: int, seed: int) -> Mapping[str, Optimism]:
    """The bootstrap estimate of each model that can be fitted to all patients.

    Raises
    ------
    CohortUnusable, FitImpossible
        If no model can be fitted to all patients.
    """
    apparent = {name: _auc(scores, labels) for name, scores in refit(np.arange(len(labels))).items()}
    gains: dict[str, list[float]] = {name: [] for name in apparent}
    fresh: dict[str, list[float]] = {name: [] for name in apparent}
    for rows in _resamples(labels, resamples, seed):
        try:
            found = refit(rows)
        except (CohortUnusable, FitImpossible):
            continue
        for name in gains.keys() & found.keys():
            scores = found[name]
            gains[name].append(_auc(scores[rows], labels[rows]) - _auc(scores, labels))
            fresh[name] += _auc_of_others(scores, labels, rows)
    return {
        name: Optimism(
            apparent=apparent[name],
            optimism=float(np.mean(of_model)) if of_model else None,
            not_drawn=float(np.mean(fresh[name])) if fresh[name] else None,
            resamples=len(of_model),
            failed=resamples - len(of_model),
        )
        for name, of_model in gains.items()
    }


def _auc(scores: Scores, labels: Labels) -> float:
    known = np.isfinite(scores)
    return auc(scores[known], labels[known]).value


def _auc_of_others(scores: Scores, labels: Labels, drawn: npt.NDArray[np.intp]) -> list[float]:
    """The AUC of those not drawn; nothing where a class has too few of them."""
    others = np.setdiff1d(np.flatnonzero(np.isfinite(scores)), drawn)
    try:
        return [auc(scores[others], labels[others]).value]
    except CohortUnusable:
        return []


def _resamples(labels: Labels, count: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Patients drawn with replacement, each class by itself: its share stays what it is."""
    rng = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    for _ in range(count):
        drawn = np.concatenate([rng.choice(part, len(part)) for part in (positive, negative)])
        yield np.sort(drawn)
