"""Whom a model may be judged on: patients to whom a node would give its numbers, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from config.findings import FindingTable
from node.research.rows import first_of
from node.research.tables import Measured
from scoring.applicability import input_observations, score_observations
from scoring.bmd import StudyClass
from scoring.modelcard import CardTerm
from scoring.training.cohort import CLINICAL, Patient
from scoring.training.discrimination import Labels
from scoring.training.errors import CohortUnusable
from segmentation.observation import Observation

FEWEST_OF_A_CLASS = 2  # that an AUC and its interval need


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What of a card says how far it goes, beside the technique, and the words in which a node says it."""

    model: str  # the card's name
    terms: Sequence[CardTerm]
    findings: FindingTable

    def why_not_scored(self, score: float) -> str:
        """Why there is no rad-score; "" where there is."""
        (term,) = [one for one in self.terms if one.name == "rad_score"]
        return self._words(score_observations(term, score, model=self.model))

    def why_no_probability(self, score: float, patient: Patient) -> str:
        """Why the nomogram gives none; "" where it does."""
        age, alp, homocysteine = (patient.values[name] for name in CLINICAL)
        return self._words(
            input_observations(self.terms, rad_score=score, age=age, alp=alp, homocysteine=homocysteine)
        )

    def _words(self, observations: Iterable[Observation]) -> str:
        return " ".join(self.findings.describe(one).text for one in observations)


def osteoporosis_of(patients: Measured) -> Labels:
    """True for the positive class."""
    return np.array([one.label is StudyClass.OSTEOPOROSIS for one in patients.patients], dtype=bool)


def require_enough(judged: Measured, left_out: Mapping[str, str]) -> None:
    """Make sure that both classes have patients enough for an AUC.

    Parameters
    ----------
    left_out : who is not judged, and why.

    Raises
    ------
    CohortUnusable
    """
    ill = int(osteoporosis_of(judged).sum())
    counts = {"osteoporosis": ill, "osteopenia": len(judged.patients) - ill}
    if min(counts.values()) >= FEWEST_OF_A_CLASS:
        return
    left = " and ".join(f"{count} with {name}" for name, count in counts.items())
    told = [f"{name}: {why}" for name, why in left_out.items()]
    raise CohortUnusable(
        f"{left} can be judged by this model; {FEWEST_OF_A_CLASS} of each are needed"
        + (f". Left out: {first_of(told)}" if told else "")
    )
