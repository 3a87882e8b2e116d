"""Patients for training or validation: what a cohort's table must say, and what is made of gaps in it.

A row is one patient::

    patient               any name, once each
    label | t_score       one of the two columns: "normal", "osteopenia" or "osteoporosis"; or the T-score,
                          from which the class follows by the rule of Xie et al. 2022
    age                   years
    sex                   M or F
    alp_u_l               alkaline phosphatase, U/L
    homocysteine_umol_l   homocysteine, umol/L
    split                 optional: train or test, for every patient or none
    fold                  optional: whole numbers, of the training patients' cross-validation

A column of another name holds numbers; it is compared between the classes like the laboratory values, counts
for missing values too, and enters no model. One of them has a range of its own: calcium_mmol_l.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scoring.assessment import study_class
from scoring.bmd import StudyClass
from scoring.decimals import decimal
from scoring.training.errors import CohortUnusable

MOST_MISSING = 3  # of a patient's values; more excludes (Xie et al. 2022)
CLINICAL = ("age", "alp_u_l", "homocysteine_umol_l")
# Beyond these a number is a unit mistaken or a digit lost (R). The calcium of Xie et al.'s Table 1 (SD 5.9
# mmol/L) is of that kind; it enters no model, and is held to a range because of that.
PLAUSIBLE = {
    "age": (18.0, 110.0),
    "alp_u_l": (5.0, 2000.0),
    "homocysteine_umol_l": (1.0, 300.0),
    "calcium_mmol_l": (0.5, 5.0),
    "t_score": (-10.0, 10.0),  # of quantitative CT: no bone at all is about -6
}
_WHOLE = re.compile("[+-]?[0-9]+")
# What is no further variable, though the table may hold it.
_NAMES = frozenset({"patient", "study", "label", "t_score", "sex", "split", "fold"})


class Split(StrEnum):
    TRAIN = "train"
    TEST = "test"


class LabelKind(StrEnum):
    """How the classes came about."""

    STATED = "label"
    BY_T_SCORE = "t_score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    name: str
    study: str  # "" where the table names none
    label: StudyClass
    sex: str  # "M", "F", or "" where it is missing
    values: Mapping[str, float | None]  # age, laboratory and further variables
    split: Split | None
    fold: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The patients that take part, and what stood in others' way."""

    patients: tuple[Patient, ...]
    label_kind: LabelKind
    variables: tuple[str, ...]  # numeric columns, the clinical ones first
    excluded: Mapping[str, str]  # patient -> reason
    missing: Mapping[str, int]  # column -> patients without a value, of all in the table


def read_cohort(rows: Sequence[Mapping[str, str]]) -> Cohort:
    """The cohort of a table whose cells are text; an empty cell is a missing value.

    Raises
    ------
    CohortUnusable
        If a column is missing, a cell cannot be read or is implausible, or a patient comes twice. The message
        names every such patient and column.
    """
    if not rows:
        raise CohortUnusable("the table has no patients")
    columns = tuple(rows[0])
    kind = _label_kind(columns)
    absent = [name for name in ("patient", "sex", *CLINICAL) if name not in columns]
    if absent:
        raise CohortUnusable(f"missing columns: {', '.join(absent)}")
    variables = (*CLINICAL, *(name for name in columns if name not in _NAMES and name not in CLINICAL))
    problems: list[str] = []
    patients: list[Patient] = []
    for row in rows:
        try:
            patients.append(_patient(row, kind, variables))
        except CohortUnusable as error:
            problems.append(f"{row['patient'] or 'a patient without a name'}: {error}")
    names = [row["patient"] for row in rows]
    problems += [f"{name}: stands there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise CohortUnusable("; ".join(problems))
    _require_whole("split", [one.split for one in patients])
    _require_whole("fold", [one.fold for one in patients if one.split is not Split.TEST])
    excluded = {
        one.name: f"{gaps} values missing"
        for one in patients
        if (gaps := sum(value is None for value in one.values.values()) + (not one.sex)) > MOST_MISSING
    }
    return Cohort(
        patients=tuple(one for one in patients if one.name not in excluded),
        label_kind=kind,
        variables=variables,
        excluded=excluded,
        missing={
            "sex": sum(not one.sex for one in patients),
            **{name: sum(one.values[name] is None for one in patients) for name in variables},
        },
    )


def _label_kind(columns: Sequence[str]) -> LabelKind:
    given = [kind for kind in LabelKind if kind.value in columns]
    if len(given) != 1:
        raise CohortUnusable("exactly one of the columns label and t_score is needed")
    return given[0]


def _patient(row: Mapping[str, str], kind: LabelKind, variables: Sequence[str]) -> Patient:
    if not row["patient"]:
        raise CohortUnusable("patient is empty")
    if row["sex"] not in ("M", "F", ""):
        raise CohortUnusable(f"sex must be M or F, not {row['sex']!r}")
    return Patient(
        name=row["patient"],
        study=row.get("study", ""),
        label=_label(row[kind.value], kind),
        sex=row["sex"],
        values={name: _value(name, row[name]) for name in variables},
        split=_split(row.get("split", "")),
        fold=_fold(row.get("fold", "")),
    )


def _label(cell: str, kind: LabelKind) -> StudyClass:
    if kind is LabelKind.BY_T_SCORE:
        t_score = _value("t_score", cell)
        if t_score is None:
            raise CohortUnusable("t_score is empty")
        return study_class(t_score)
    try:
        return StudyClass(cell)
    except ValueError as error:
        allowed = ", ".join(StudyClass)
        raise CohortUnusable(f"label must be one of {allowed}, not {cell!r}") from error


def _split(cell: str) -> Split | None:
    if not cell:
        return None
    try:
        return Split(cell)
    except ValueError as error:
        raise CohortUnusable(f"split must be train or test, not {cell!r}") from error


def _fold(cell: str) -> int | None:
    if not cell:
        return None
    if _WHOLE.fullmatch(cell) is None:
        raise CohortUnusable(f"fold must be a whole number, not {cell!r}")
    return int(cell)


def _value(name: str, cell: str) -> float | None:
    if not cell:
        return None
    value = decimal(cell)
    if value is None:
        raise CohortUnusable(f"{name} is no number: {cell!r}")
    lower, upper = PLAUSIBLE.get(name, (-float("inf"), float("inf")))
    if not lower <= value <= upper:
        raise CohortUnusable(f"{name} {value:g} is not between {lower:g} and {upper:g}")
    return value


def _require_whole(column: str, given: Sequence[object]) -> None:
    stated = sum(one is not None for one in given)
    if 0 < stated < len(given):
        raise CohortUnusable(f"{column} must be given for every patient or for none; {stated} have one")
