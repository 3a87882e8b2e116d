"""Laboratory values from a CSV file: patient_id, issuer, date, alp_u_l, homocysteine_umol_l."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import structlog

from node.csv_table import TableRow, TableUnreadable, read_table
from node.study_report import Laboratory
from scoring.training import decimal
from segmentation.phrase import Value, clauses, phrase

log = structlog.get_logger(__name__)

COLUMNS = ("patient_id", "issuer", "date", "alp_u_l", "homocysteine_umol_l")
_LOGGED = 10  # of the lines that do not fit the head
_VALUES = ("alp_u_l", "homocysteine_umol_l")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    value: float
    taken_on: date


class CsvLaboratory:
    """Laboratory values of a patient from a CSV file.

    The file is read anew each time: a laboratory may append to it. A value counts if its patient ID
    matches, its issuer matches where both sides name one, and its date lies within `max_age_days` of the
    study date. Of each analyte the value nearest to the study is taken. A value that cannot be read is
    reported in `Laboratory.problems` by its line number, and never guessed. A row that does not fit the
    head is assigned to no patient: a patient whose ID occurs anywhere in it gets a problem.

    Parameters
    ----------
    path : of a table with at least `COLUMNS`.
    max_age_days : between value and study, either way.
    """

    def __init__(self, path: Path, *, max_age_days: int) -> None:
        self._path = path
        self._max_age_days = max_age_days

    def laboratory(self, patient_id: str, issuer: str, study_date: str | None) -> Laboratory:
        """The values nearest to the study date.

        Parameters
        ----------
        issuer : of the patient ID; "" if unknown.
        study_date : ISO 8601; None if unknown, which no value then counts for.
        """
        if not patient_id:
            return Laboratory()
        if study_date is None:
            return Laboratory(source="CSV", problems=(phrase("study-without-date-laboratory"),))
        try:
            table = read_table(self._path)
        except TableUnreadable as error:
            return Laboratory(source="CSV", problems=(error.reason,))
        if absent := [name for name in COLUMNS if name not in table.columns]:
            problem = phrase("columns-missing", names=", ".join(absent))
            return Laboratory(source="CSV", problems=(problem,))
        if table.odd:
            log.warning(
                "laboratory_rows_not_used",
                rows=len(table.odd),
                lines=[one.line for one in table.odd][:_LOGGED],
            )
        unused = phrase("row-not-used")
        unusable = [clauses([one.reason, unused]) for one in table.odd if patient_id in one.words]
        mine = [row for row in table.rows if _is_of(row.cells, patient_id, issuer)]
        return self._nearest(mine, date.fromisoformat(study_date), unusable)

    def _nearest(self, rows: Iterable[TableRow], study: date, problems: list[Value]) -> Laboratory:
        best: dict[str, _Value] = {}
        for row in rows:
            try:
                taken_on = date.fromisoformat(row.cells["date"])
            except ValueError:
                problems.append(phrase("line-date", line=row.line))
                continue
            distance = abs((taken_on - study).days)
            if distance > self._max_age_days:
                continue
            for name in _VALUES:
                cell = row.cells[name]
                if not cell:
                    continue
                value = decimal(cell)
                if value is None:
                    problems.append(phrase("line-number", line=row.line, name=name))
                    continue
                known = best.get(name)
                # Of two values of one day the later row counts: laboratories append corrections.
                if known is None or distance <= abs((known.taken_on - study).days):
                    best[name] = _Value(value=value, taken_on=taken_on)
        alp, homocysteine = best.get("alp_u_l"), best.get("homocysteine_umol_l")
        return Laboratory(
            alp_u_l=alp.value if alp else None,
            alp_taken_on=alp.taken_on if alp else None,
            homocysteine_umol_l=homocysteine.value if homocysteine else None,
            homocysteine_taken_on=homocysteine.taken_on if homocysteine else None,
            source="CSV",
            problems=tuple(problems),
        )


class NoLaboratory:
    """The laboratory of a node without a configured source: no values."""

    def laboratory(self, patient_id: str, issuer: str, study_date: str | None) -> Laboratory:  # noqa: ARG002
        return Laboratory()


def _is_of(cells: Mapping[str, str], patient_id: str, issuer: str) -> bool:
    named = cells["issuer"]
    return cells["patient_id"] == patient_id and (not named or not issuer or named == issuer)
