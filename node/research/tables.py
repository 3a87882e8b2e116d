"""A cohort and the features of its studies, brought together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from node.research.feature_table import FeatureTable, study_key
from node.research.rows import first_of, repeated
from scoring.training.cohort import Cohort, Patient
from scoring.training.errors import CohortUnusable

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Patients with features, in the cohort's order, and why others are left out."""

    patients: tuple[Patient, ...]
    rows: tuple[Mapping[str, str], ...]  # of the table, of each patient
    values: Matrix  # shape (patients, features)
    left_out: Mapping[str, str]  # patient -> reason

    def where(self, chosen: Callable[[Patient], bool]) -> Measured:
        """Some of these, for a purpose: the others are not left out."""
        return self._at([place for place, one in enumerate(self.patients) if chosen(one)], self.left_out)

    def without(self, reason: Callable[[Patient, Mapping[str, str]], str]) -> Measured:
        """Those for whom `reason` gives none ("")."""
        told = [reason(one, row) for one, row in zip(self.patients, self.rows, strict=True)]
        left_out = {one.name: why for one, why in zip(self.patients, told, strict=True) if why}
        return self._at([place for place, why in enumerate(told) if not why], {**self.left_out, **left_out})

    def _at(self, places: Sequence[int], left_out: Mapping[str, str]) -> Measured:
        return Measured(
            patients=tuple(self.patients[at] for at in places),
            rows=tuple(self.rows[at] for at in places),
            values=self.values[list(places)],
            left_out=left_out,
        )


def measured(cohort: Cohort, folder: Path, table: FeatureTable) -> Measured:
    """The cohort's patients with their features.

    Parameters
    ----------
    folder : of the cohort's table, from which it names studies.

    Raises
    ------
    CohortUnusable
        If no patient has features, or two have the same study: one of them would test what the other trained.
    """
    patients: list[Patient] = []
    rows: list[Mapping[str, str]] = []
    left_out = dict(cohort.excluded)
    for patient in cohort.patients:
        row = table.rows.get(study_key(patient.study, folder)) if patient.study else None
        if row is not None and not row["reason"]:
            patients.append(patient)
            rows.append(row)
        elif row is not None:
            left_out[patient.name] = row["reason"]
        else:
            left_out[patient.name] = (
                "no features of this study" if patient.study else "the table names no study"
            )
    if not patients:
        told = [f"{name}: {reason}" for name, reason in left_out.items()]
        raise CohortUnusable(f"no patient has features: {first_of(told)}")
    _require_studies_of_their_own(patients, rows)
    return Measured(
        patients=tuple(patients),
        rows=tuple(rows),
        values=np.array([[float(row[name]) for name in table.names] for row in rows], dtype=np.float64),
        left_out=left_out,
    )


def _require_studies_of_their_own(patients: Sequence[Patient], rows: Sequence[Mapping[str, str]]) -> None:
    """By the table's row, and by StudyInstanceUID where it is told: a copy has another folder."""
    uids = [row["study_instance_uid"] or f"unknown: {row['study']}" for row in rows]
    for keys in ([row["study"] for row in rows], uids):
        if twice := repeated(keys):
            who = [one.name for one, key in zip(patients, keys, strict=True) if key in twice]
            raise CohortUnusable(f"these patients share a study: {', '.join(who)}")


def clinical_values(patients: Sequence[Patient], names: Sequence[str]) -> Matrix:
    """Values of the named variables, shape (patients, names); NaN where one is missing."""
    return np.array(
        [[np.nan if one.values[name] is None else one.values[name] for name in names] for one in patients],
        dtype=np.float64,
    ).reshape(len(patients), len(names))
