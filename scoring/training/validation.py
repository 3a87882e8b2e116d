"""What a model is worth on some patients: every figure that its card and its page give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.training.classification import Counts, counts_at
from scoring.training.decision import DecisionCurve, decision_curve
from scoring.training.discrimination import (
    Auc,
    AucComparison,
    Labels,
    RocCurve,
    Scores,
    auc,
    compare,
    roc_curve,
)
from scoring.training.errors import CohortUnusable
from scoring.training.reliability import HosmerLemeshow, brier_score, hosmer_lemeshow


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelValidation:
    """One model on one set of patients. The positive class is osteoporosis throughout."""

    auc: Auc
    roc: RocCurve
    cutoff: float  # a probability: positive is at least that
    counts: Counts
    calibration: HosmerLemeshow | None  # None where risks do not allow its test
    brier: float
    decision: DecisionCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Several models on the same patients."""

    patients: int
    positives: int
    models: Mapping[str, ModelValidation]
    comparisons: Mapping[tuple[str, str], AucComparison]  # of each pair, by DeLong


def validate(
    probabilities: Mapping[str, Scores], labels: Labels, cutoffs: Mapping[str, float], *, development: bool
) -> Validation:
    """Judge models on patients whose class is known.

    Parameters
    ----------
    probabilities : of osteoporosis by each model, shape (patients,); every model of every patient.
    labels : True for osteoporosis.
    cutoffs : of each model, chosen on the training patients.
    development : whether the models were fitted to these patients.

    Raises
    ------
    CohortUnusable
        If a class has fewer than two patients, or a probability is missing.
    """
    names = tuple(probabilities)
    return Validation(
        patients=len(labels),
        positives=int(labels.sum()),
        models={
            name: _validate_one(probabilities[name], labels, cutoffs[name], development) for name in names
        },
        comparisons={
            (first, second): compare(probabilities[first], probabilities[second], labels)
            for place, first in enumerate(names)
            for second in names[place + 1 :]
        },
    )


def _validate_one(probabilities: Scores, labels: Labels, cutoff: float, development: bool) -> ModelValidation:
    area = auc(probabilities, labels)  # first: it refuses what cannot be judged
    try:
        calibration = hosmer_lemeshow(probabilities, labels, development=development)
    except CohortUnusable:
        calibration = None
    return ModelValidation(
        auc=area,
        roc=roc_curve(probabilities, labels),
        cutoff=cutoff,
        counts=counts_at(probabilities, labels, cutoff),
        calibration=calibration,
        brier=brier_score(probabilities, labels),
        decision=decision_curve(probabilities, labels),
    )


def subgroup_aucs(scores: Scores, classes: npt.NDArray[np.str_]) -> Mapping[tuple[str, str], Auc]:
    """AUC of a score for the first of each pair against the second: osteoporosis against osteopenia, and the
    three comparisons with normal bone of Xie et al. 2022, one of which joins the two classes.

    Parameters
    ----------
    scores : higher speaks for osteoporosis.
    classes : "normal", "osteopenia" or "osteoporosis" of each patient.

    Returns
    -------
    By (positive class, negative class); pairs of which one has fewer than two patients are left out.
    """
    found = {}
    for positive, negative in (
        (("osteoporosis",), "osteopenia"),
        (("osteoporosis",), "normal"),
        (("osteoporosis", "osteopenia"), "normal"),
        (("osteopenia",), "normal"),
    ):
        among = np.isin(classes, positive)
        chosen = among | (classes == negative)
        labels = among[chosen]
        if labels.sum() >= 2 and (~labels).sum() >= 2:
            found[" or ".join(positive), negative] = auc(scores[chosen], labels)
    return found
