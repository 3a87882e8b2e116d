"""The table that a clinical paper opens with: each variable in both classes, and the test between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from node.research.tables import Matrix, clinical_values
from scoring.bmd import StudyClass
from scoring.training.cohort import Patient
from scoring.training.discrimination import Labels
from scoring.training.errors import CohortUnusable
from scoring.training.groups import GroupTest, compare_counted, compare_measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One row of Table 1: a variable in the two classes of some patients."""

    name: str
    of_osteoporosis: str
    of_osteopenia: str
    test: GroupTest | None  # None where it cannot be tested


def table1(patients: Sequence[Patient], variables: Sequence[str]) -> tuple[Variable, ...]:
    """Sex and every variable in both classes: mean and SD (or counts) and the test between them."""
    ill = [one.label is StudyClass.OSTEOPOROSIS for one in patients]
    rows = [_sexes(patients, np.array(ill))]
    for name, column in zip(variables, clinical_values(patients, variables).T, strict=True):
        groups = [column[np.array(ill) & np.isfinite(column)], column[~np.array(ill) & np.isfinite(column)]]
        try:
            test: GroupTest | None = compare_measured(*groups)
        except CohortUnusable:
            test = None
        rows.append(
            Variable(
                name=name, of_osteoporosis=_mean_sd(groups[0]), of_osteopenia=_mean_sd(groups[1]), test=test
            )
        )
    return tuple(rows)


def _sexes(patients: Sequence[Patient], ill: Labels) -> Variable:
    sexes = np.array([one.sex for one in patients])
    counts = np.array([[(sexes[group] == sex).sum() for sex in "FM"] for group in (ill, ~ill)], np.int64)
    try:
        test: GroupTest | None = compare_counted(counts)
    except CohortUnusable:
        test = None
    told = [f"{women} F, {men} M" for women, men in counts]
    return Variable(name="sex", of_osteoporosis=told[0], of_osteopenia=told[1], test=test)


def _mean_sd(values: Matrix) -> str:
    if len(values) < 2:
        return f"n = {len(values)}"
    return f"{values.mean():.2f} (SD {values.std(ddof=1):.2f}), n = {len(values)}"
