"""A cohort's table and its features, read and brought together."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from node.research.extraction import ABOUT
from scoring.training.cohort import Cohort, Patient
from scoring.training.errors import CohortUnusable

Matrix = npt.NDArray[np.float64]
_SHOWN = 5  # of many like problems


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """What `osteonode features` wrote, by study."""

    names: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]  # by the study's resolved path
    made_with: Mapping[str, Any]  # settings and versions

    def row(self, study: Path) -> Mapping[str, str] | None:
        """A study's row; None where it has none, or has no features."""
        found = self.rows.get(str(study.resolve()))
        return found if found is not None and not found["reason"] else None


def read_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows, cells without blanks at their ends.

    Raises
    ------
    CohortUnusable
        If it cannot be read, names a column twice, or has a row of another length than its head.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            head = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortUnusable(f"{path} cannot be read: {error}") from error
    if len(set(head)) < len(head):
        raise CohortUnusable(f"{path} names a column twice")
    odd = [str(number) for number, cells in lines if len(cells) != len(head)]
    if odd:
        raise CohortUnusable(f"{path} has {len(head)} columns, but not in line {', '.join(odd)}")
    return [dict(zip(head, (cell.strip() for cell in cells), strict=True)) for _, cells in lines]


def read_features(path: Path) -> FeatureTable:
    """A table of features with the settings beside it.

    Raises
    ------
    CohortUnusable
        If it is none, holds a study twice or what is no number, or rows were made with different settings.
    """
    rows = read_rows(path)
    if not rows or not set(ABOUT) <= rows[0].keys():
        raise CohortUnusable(f"{path} is no table of osteonode features")
    if len({row["settings_sha256"] for row in rows}) > 1:
        raise CohortUnusable(f"{path} holds features made with different settings")
    names = tuple(name for name in rows[0] if name not in ABOUT)
    keys = [str(Path(row["study"]).resolve()) for row in rows]
    if twice := _repeated(keys):
        raise CohortUnusable(f"{path} holds these studies twice: {', '.join(twice)}")
    odd = [
        f"{name} of {row['study']} ({row[name]!r})"
        for row in rows
        if not row["reason"]
        for name in names
        if not _is_number(row[name])
    ]
    if odd:
        raise CohortUnusable(
            f"{path}: {len(odd)} values are no finite numbers: {', '.join(odd[:_SHOWN])}"
            + (", ..." if len(odd) > _SHOWN else "")
        )
    beside = path.with_name(path.name + ".json")
    try:
        made_with = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CohortUnusable(f"{beside} must say how the features were made: {error}") from error
    return FeatureTable(
        names=names,
        rows=dict(zip(keys, rows, strict=True)),
        made_with=made_with,
    )


def features_of(
    cohort: Cohort, folder: Path, table: FeatureTable
) -> tuple[tuple[Patient, ...], Matrix, Mapping[str, str]]:
    """Patients with features, their values, and why others have none.

    Parameters
    ----------
    folder : of the cohort's table, from which it names studies.

    Returns
    -------
    Patients in the cohort's order; values, shape (patients, features); reasons by patient.

    Raises
    ------
    CohortUnusable
        If two patients have the same study: one of them would test what the other trained.
    """
    patients: list[Patient] = []
    values: list[list[float]] = []
    without: dict[str, str] = {}
    for patient in cohort.patients:
        row = table.row(folder / patient.study) if patient.study else None
        if row is None:
            found = table.rows.get(str((folder / patient.study).resolve())) if patient.study else None
            without[patient.name] = found["reason"] if found else "no features of this study"
            continue
        patients.append(patient)
        values.append([float(row[name]) for name in table.names])
    _require_studies_of_their_own(patients, folder, table)
    return tuple(patients), np.array(values, dtype=np.float64).reshape(len(patients), -1), without


def _require_studies_of_their_own(patients: Sequence[Patient], folder: Path, table: FeatureTable) -> None:
    """By folder, and by StudyInstanceUID where the features tell it: a copy has another folder."""
    rows = [table.rows[str((folder / one.study).resolve())] for one in patients]
    folders = [str((folder / one.study).resolve()) for one in patients]
    uids = [row["study_instance_uid"] or f"unknown: {key}" for key, row in zip(folders, rows, strict=True)]
    for keys in (folders, uids):
        if twice := _repeated(keys):
            who = [one.name for one, key in zip(patients, keys, strict=True) if key in twice]
            raise CohortUnusable(f"these patients share a study: {', '.join(who)}")


def _repeated(keys: Sequence[str]) -> list[str]:
    return [key for key, count in Counter(keys).items() if count > 1]


def _is_number(cell: str) -> bool:
    try:
        return isfinite(float(cell))
    except ValueError:
        return False


def clinical_values(patients: Sequence[Patient], names: Sequence[str]) -> Matrix:
    """Values of the named variables, shape (patients, names); NaN where one is missing."""
    return np.array(
        [[np.nan if one.values[name] is None else one.values[name] for name in names] for one in patients],
        dtype=np.float64,
    ).reshape(len(patients), len(names))


def technique(table: FeatureTable, studies: Sequence[Path]) -> dict[str, Any]:
    """Ranges of kVp and spacings, and the mineral equivalent, of the studies that have features.

    Raises
    ------
    CohortUnusable
        If densities of both minerals are among them, or a study tells no kVp or spacing.
    """
    rows = [row for study in studies if (row := table.row(study)) is not None]
    ranges: dict[str, Any] = {}
    for column in ("kvp", "slice_spacing_mm", "pixel_spacing_mm"):
        missing = [row["study"] for row in rows if not row[column]]
        if missing:
            raise CohortUnusable(f"no {column} in {', '.join(missing)}")
        values = [float(row[column]) for row in rows]
        ranges[column] = (min(values), max(values))
    minerals = sorted({row["equivalent"] for row in rows if row["equivalent"]})
    if len(minerals) != 1:
        raise CohortUnusable(f"one mineral equivalent is needed; the studies have {minerals or 'none'}")
    return ranges | {"equivalent": minerals[0]}
