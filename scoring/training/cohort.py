"""Cohorts: reading the table of patients, comparing groups, splitting into training, test and folds.

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

A column of another name holds numbers. It is compared between the classes like the laboratory values, counts
for missing values, and enters no model. Of these calcium_mmol_l alone has a plausible range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.model_selection import StratifiedKFold, train_test_split

from scoring.density.bmd import StudyClass
from scoring.density.scores import study_class
from scoring.errors import CohortUnusable
from scoring.training import decimal
from scoring.training.discrimination import Labels

MOST_MISSING = 3  # of a patient's values; more excludes (Xie et al. 2022)
CLINICAL = ("age", "alp_u_l", "homocysteine_umol_l")
# Beyond these a number has another unit or lacks a digit (R). The calcium of Xie et al.'s Table 1 (SD 5.9
# mmol/L) is such a number: therefore it has a range, though it enters no model.
PLAUSIBLE = {
    "age": (18.0, 110.0),
    "alp_u_l": (5.0, 2000.0),
    "homocysteine_umol_l": (1.0, 300.0),
    "calcium_mmol_l": (0.5, 5.0),
    "t_score": (-10.0, 10.0),  # of quantitative CT: no bone at all is about -6
}
_WHOLE = re.compile("[+-]?[0-9]+")
# Columns that are no further variables.
_NAMES = frozenset({"patient", "study", "label", "t_score", "sex", "split", "fold"})


class Split(StrEnum):
    TRAIN = "train"
    TEST = "test"


class LabelKind(StrEnum):
    """Origin of the classes."""

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
    """The patients that take part, and the reasons for exclusions.

    Attributes
    ----------
    variables : numeric columns, the clinical ones first.
    excluded : reason by patient.
    missing : number of patients without a value, by column, of all in the table.
    """

    patients: tuple[Patient, ...]
    label_kind: LabelKind
    variables: tuple[str, ...]
    excluded: Mapping[str, str]
    missing: Mapping[str, int]


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
    problems += [f"{name}: occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
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
        raise CohortUnusable(f"{name} is not a number: {cell!r}")
    lower, upper = PLAUSIBLE.get(name, (-float("inf"), float("inf")))
    if not lower <= value <= upper:
        raise CohortUnusable(f"{name} {value:g} is not between {lower:g} and {upper:g}")
    return value


def _require_whole(column: str, given: Sequence[object]) -> None:
    stated = sum(one is not None for one in given)
    if 0 < stated < len(given):
        raise CohortUnusable(f"{column} must be given for every patient or for none; {stated} have one")


# Comparison of two groups of patients, one variable at a time.
NORMALITY_P = 0.05

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTest:
    """A test of one variable between two groups.

    Attributes
    ----------
    test : "Welch t", "Mann-Whitney U" or "chi-squared".
    """

    test: str
    statistic: float
    p: float


def compare_measured(first: Values, second: Values) -> GroupTest:
    """Welch's t where Shapiro and Wilk's test finds both groups normal (p > 0.05), else Mann and Whitney's U.

    Parameters
    ----------
    first, second : values of the two groups, none missing, at least three each.

    Raises
    ------
    CohortUnusable
        If a group is too small.
    """
    if min(len(first), len(second)) < 3:
        raise CohortUnusable("a group of fewer than three patients cannot be compared")
    if _normal(first) and _normal(second):
        found = stats.ttest_ind(first, second, equal_var=False)
        return GroupTest(test="Welch t", statistic=float(found.statistic), p=float(found.pvalue))
    if np.ptp(np.concatenate([first, second])) == 0.0:
        return GroupTest(test="Mann-Whitney U", statistic=len(first) * len(second) / 2, p=1.0)
    found = stats.mannwhitneyu(first, second, alternative="two-sided")
    return GroupTest(test="Mann-Whitney U", statistic=float(found.statistic), p=float(found.pvalue))


def compare_counted(table: npt.NDArray[np.int64]) -> GroupTest:
    """Pearson's chi-squared test without continuity correction.

    Parameters
    ----------
    table : counts, shape (2, categories).

    Raises
    ------
    CohortUnusable
        If a group or every category but one is empty.
    """
    kept = table[:, table.sum(axis=0) > 0]
    if kept.shape[1] < 2 or not (kept.sum(axis=1) > 0).all():
        raise CohortUnusable("a comparison needs two groups and two categories")
    statistic, p, *_ = stats.chi2_contingency(kept, correction=False)
    return GroupTest(test="chi-squared", statistic=float(statistic), p=float(p))


def _normal(values: Values) -> bool:
    return bool(np.ptp(values) > 0 and stats.shapiro(values).pvalue > NORMALITY_P)


# Splits: the same seed gives the same split.
TEST_SHARE = 0.3  # Xie et al. 2022
FOLDS = 10
FEWEST_OF_A_CLASS = 10  # R: with fewer, folds of the training part may lack a class


def stratified_split(labels: Labels, seed: int) -> Labels:
    """True for the patients to train on: seven of ten of each class.

    Raises
    ------
    CohortUnusable
        If a class has fewer than ten patients.
    """
    require_enough(labels)
    train, _ = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=seed
    )
    chosen = np.zeros(len(labels), bool)
    chosen[train] = True
    return chosen


def stratified_folds(labels: Labels, seed: int) -> npt.NDArray[np.int64]:
    """A fold's number for each patient: ten folds, fewer where a class is small.

    Raises
    ------
    CohortUnusable
        If a class has fewer than three patients.
    """
    rarest = int(min(labels.sum(), (~labels).sum()))
    if rarest < 3:
        raise CohortUnusable(f"a class has {rarest} patients to train on; three folds need three")
    folds = np.zeros(len(labels), np.int64)
    chosen = StratifiedKFold(n_splits=min(FOLDS, rarest), shuffle=True, random_state=seed)
    for number, (_, out) in enumerate(chosen.split(np.zeros(len(labels)), labels)):
        folds[out] = number
    return folds


def require_enough(labels: Labels) -> None:
    """Require enough patients of each class for a split.

    Raises
    ------
    CohortUnusable
        If a class has fewer than `FEWEST_OF_A_CLASS`.
    """
    positive, negative = int(labels.sum()), int((~labels).sum())
    if min(positive, negative) < FEWEST_OF_A_CLASS:
        raise CohortUnusable(
            f"{positive} patients with osteoporosis and {negative} with osteopenia; "
            f"{FEWEST_OF_A_CLASS} of each are needed"
        )
