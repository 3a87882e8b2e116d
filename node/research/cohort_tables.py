"""Cohort and feature tables: reading, checks, joining, Table 1, and the technique that a model covers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.phrases import in_english
from node.csv_table import TableUnreadable, read_table
from node.research.extraction import ABOUT, made_with_sha256
from scoring.calibration import Mineral
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, Spectrum, energy_phrase
from scoring.density.bmd import StudyClass
from scoring.errors import CohortUnusable, RadiomicsSettingsInvalid
from scoring.models.applicability import technique_reasons
from scoring.models.card import Applicability, Range
from scoring.radiomics import feature_names, parse_settings
from scoring.training import decimal
from scoring.training.cohort import Cohort, GroupTest, Patient, compare_counted, compare_measured
from scoring.training.discrimination import Labels
from segmentation.ct_volume import known_kvp
from segmentation.phrase import clauses

# CSV files of text cells, in which every row must be usable.


_SHOWN = 5  # of many like problems


def read_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows, cells without blanks at their ends.

    Raises
    ------
    CohortUnusable
        If it cannot be read, is separated by other signs than commas, names a column twice, or has a row that
        does not fit its head.
    """
    try:
        table = read_table(path)
    except TableUnreadable as error:
        raise CohortUnusable(f"{path}: {error}") from error
    if table.odd:
        raise CohortUnusable(f"{path}: {first_of([in_english(one.reason) for one in table.odd])}")
    return [dict(row.cells) for row in table.rows]


def repeated(keys: Sequence[str]) -> list[str]:
    """Keys that occur more than once, each once."""
    return [key for key, count in Counter(keys).items() if count > 1]


def first_of(told: Sequence[str]) -> str:
    """The first few, and that there are more."""
    return ", ".join(told[:_SHOWN]) + (", ..." if len(told) > _SHOWN else "")


# The table of `osteonode features` with its description: checked before use.


SPECTRUM = ("energy", "beam_filter")  # which a table of an earlier version, or made by hand, may lack
MEASURES = ("kvp", "slice_spacing_mm", "pixel_spacing_mm")  # of a study's technique; may be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeWith:
    """What a table's features were made with, as far as a model depends on it.

    Attributes
    ----------
    provided : names of the features that these settings give.
    packages : version by name.
    """

    radiomics_settings_sha256: str
    provided: frozenset[str]
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Features by study.

    Attributes
    ----------
    rows : by the study's resolved path.
    """

    names: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    made_with: MadeWith

    @property
    def silent(self) -> int:
        """How many studies with features state no energy type: they count as conventional images."""
        return sum(not row["energy"] for row in self.rows.values() if not row["reason"])


def study_key(study: str, folder: Path) -> str:
    """A study's resolved path, as a table in `folder` names it."""
    return str((folder / study).resolve())


def read_features(path: Path) -> FeatureTable:
    """A table of features with the settings beside it. A relative study counts from the table's own folder.

    Raises
    ------
    CohortUnusable
        If it is none, holds a study twice, a feature that the settings beside it do not give, or what is no
        number, no such mineral or no such settings, or rows were made with settings that differ, or are not
        those beside it.
    """
    rows = read_rows(path)
    lacking = [name for name in ABOUT if not rows or name not in {*rows[0], *SPECTRUM}]
    if lacking:
        raise CohortUnusable(f"{path} is not a table of osteonode features: it lacks {', '.join(lacking)}")
    if len({row["settings_sha256"] for row in rows}) > 1:
        raise CohortUnusable(f"{path} holds features made with different settings")
    names = tuple(name for name in rows[0] if name not in ABOUT)
    made_with = _made_with(path.with_name(path.name + ".json"), rows[0]["settings_sha256"])
    if unknown := [name for name in names if name not in made_with.provided]:
        raise CohortUnusable(
            f"{path} has columns that are not features of these settings: {first_of(unknown)}"
        )
    rows = [dict.fromkeys(SPECTRUM, "") | row for row in rows]
    keys = [study_key(row["study"], path.parent) for row in rows]
    if twice := repeated(keys):
        raise CohortUnusable(f"{path} holds these studies twice: {', '.join(twice)}")
    odd = [told for row in rows if not row["reason"] for told in _odd_cells(row, names)]
    if odd:
        raise CohortUnusable(f"{path}: {len(odd)} values cannot be: {first_of(odd)}")
    return FeatureTable(names=names, rows=dict(zip(keys, rows, strict=True)), made_with=made_with)


def _odd_cells(row: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    """Features that are no finite numbers, technique that is not positive, a mineral that is none."""
    odd = [name for name in names if not isfinite(_number(row[name]))]
    odd += [name for name in MEASURES if row[name] and not 0 < _number(row[name]) < float("inf")]
    if row["equivalent"] not in ("", *Mineral):
        odd.append("equivalent")
    return [f"{name} of {row['study']} ({row[name]!r})" for name in odd]


def _number(cell: str) -> float:
    """NaN for what is none."""
    found = decimal(cell)
    return nan if found is None else found


def _made_with(path: Path, settings_sha256: str) -> MadeWith:
    try:
        raw: Any = json.loads(path.read_text("utf-8"))
        sha256, packages = raw["radiomics_settings_sha256"], dict(raw["packages"])
        text = str(raw["radiomics_settings"])
        provided = frozenset(feature_names(parse_settings(text)))
    except (OSError, ValueError, TypeError, KeyError, RadiomicsSettingsInvalid) as error:
        raise CohortUnusable(f"{path} must say how the features were made: {error!r}") from error
    if sha256 != hashlib.sha256(text.encode()).hexdigest():
        raise CohortUnusable(f"{path}: radiomics_settings_sha256 is not of radiomics_settings")
    if not all(isinstance(one, str) and one for one in packages.values()):
        raise CohortUnusable(f"{path}: packages must name a version of each")
    if made_with_sha256(raw) != settings_sha256:
        raise CohortUnusable(f"{path} is not of the settings that the table's features were made with")
    return MadeWith(radiomics_settings_sha256=sha256, provided=provided, packages=packages)


Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Patients with features, in the cohort's order, and why others are left out.

    Attributes
    ----------
    rows : of the table, of each patient.
    values : shape (patients, features).
    left_out : reason by patient.
    """

    patients: tuple[Patient, ...]
    rows: tuple[Mapping[str, str], ...]
    values: Matrix
    left_out: Mapping[str, str]

    def where(self, chosen: Callable[[Patient], bool]) -> Measured:
        """Subset of the patients; the others do not count as left out.

        Parameters
        ----------
        chosen : whether a patient belongs to the subset.
        """
        return self._at([place for place, one in enumerate(self.patients) if chosen(one)], self.left_out)

    def without(self, reason: Callable[[Patient, Mapping[str, str]], str]) -> Measured:
        """Patients for whom `reason` gives ""; the others are left out with their reason.

        Parameters
        ----------
        reason : of a patient and the patient's row.
        """
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
    """Values of the named variables.

    Returns
    -------
    Shape (patients, names), float; NaN where a value is missing.
    """
    return np.array(
        [[np.nan if one.values[name] is None else one.values[name] for name in names] for one in patients],
        dtype=np.float64,
    ).reshape(len(patients), len(names))


# Table 1 of a clinical paper: each variable in both classes, and the test between them.


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One row of Table 1: a variable in the two classes of some patients.

    Attributes
    ----------
    test : None where it cannot be tested.
    """

    name: str
    of_osteoporosis: str
    of_osteopenia: str
    test: GroupTest | None


def table1(patients: Sequence[Patient], variables: Sequence[str]) -> tuple[Variable, ...]:
    """Sex and every variable in both classes: mean and SD, or counts, and the test between the classes.

    Parameters
    ----------
    variables : names of clinical variables, in the order of the rows.
    """
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


# The technique of a model's training studies, and which studies lie outside of it.


Row = Mapping[str, str]
KVP_MARGIN = 1.0  # R: to either side of a tube voltage; scanners of one setting state 119 to 121
SPACING_SHARE = 0.05  # R: of a spacing, to either side


def technique_of(rows: Sequence[Row]) -> Applicability:
    """What a model covers that is trained on these studies: their ranges, a little wider.

    Parameters
    ----------
    rows : of a table of features (`read_features`), of studies that have features.

    Raises
    ------
    CohortUnusable
        If densities of both minerals or images of several spectra are among them, a study tells no kVp or
        spacing, or tube voltages lie so far apart that the range would hold one that no study was made with.
    """
    minerals = sorted({row["equivalent"] for row in rows if row["equivalent"]})
    if len(minerals) != 1:
        raise CohortUnusable(f"one mineral equivalent is needed; the studies have {minerals or 'none'}")
    spectra = sorted({_spectrum(row) for row in rows}, key=lambda one: (one.energy, one.beam_filter))
    if len(spectra) != 1:
        told = ", ".join(
            f"{in_english(energy_phrase(one.energy))} with filter {one.beam_filter}" for one in spectra
        )
        raise CohortUnusable(
            f"studies to train on are of different spectra (energy type {told}): a card states one; train on "
            "those of one"
        )
    return Applicability(
        energy=spectra[0].energy,
        beam_filter=spectra[0].beam_filter,
        kvp=_tube_voltages(_values(rows, "kvp")),
        slice_spacing_mm=_around(_values(rows, "slice_spacing_mm")),
        pixel_spacing_mm=_around(_values(rows, "pixel_spacing_mm")),
        equivalent=Mineral(minerals[0]),
    )


def outside(row: Row, technique: Applicability) -> str:
    """Why a model of this technique does not cover a study.

    The table contains only the larger of the two pixel spacings.

    Returns
    -------
    "" where it covers the study.
    """
    pixel_mm = _measure(row, "pixel_spacing_mm")
    reasons = technique_reasons(
        technique,
        kvp=_measure(row, "kvp"),
        spectrum=_spectrum(row),
        slice_spacing_mm=_measure(row, "slice_spacing_mm"),
        pixel_spacing_mm=() if pixel_mm is None else (pixel_mm,),
        equivalent=Mineral(row["equivalent"]) if row["equivalent"] else None,
    )
    return in_english(clauses(reasons))


def _spectrum(row: Row) -> Spectrum:
    """Silence means a conventional image, as in headers and cards."""
    return Spectrum(energy=row["energy"] or CONVENTIONAL, beam_filter=row["beam_filter"] or NO_FILTER)


def _values(rows: Sequence[Row], column: str) -> list[float]:
    measures = [_measure(row, column) for row in rows]
    missing = [row["study"] for row, measure in zip(rows, measures, strict=True) if measure is None]
    if missing:
        raise CohortUnusable(f"no {column} in {first_of(missing)}")
    return sorted(measure for measure in measures if measure is not None)


def _measure(row: Row, column: str) -> float | None:
    """None where it is not stated, or is 0 kV: earlier versions kept what a header said."""
    stated = float(row[column]) if row[column] else None
    return known_kvp(stated) if column == "kvp" else stated


def _tube_voltages(kvp: Sequence[float]) -> Range:
    """From the lowest to the highest, sorted as given, if the margins leave no gap between."""
    gaps = [(low, high) for low, high in pairwise(kvp) if high - low > 2 * KVP_MARGIN]
    if gaps:
        low, high = gaps[0]
        raise CohortUnusable(
            f"studies to train on were made at {low:g} and at {high:g} kV, none between: a card states one "
            "range of tube voltages; train on those of one"
        )
    return kvp[0] - KVP_MARGIN, kvp[-1] + KVP_MARGIN


def _around(values: Sequence[float]) -> Range:
    return values[0] * (1 - SPACING_SHARE), values[-1] * (1 + SPACING_SHARE)
