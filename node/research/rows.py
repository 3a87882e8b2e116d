"""CSV files of text cells, of which every row must be usable; and how many like problems are told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from node.csv_table import TableUnreadable, read_table
from scoring.training.errors import CohortUnusable

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
        raise CohortUnusable(f"{path}: {first_of([one.reason for one in table.odd])}")
    return [dict(row.cells) for row in table.rows]


def repeated(keys: Sequence[str]) -> list[str]:
    """Those that come more than once, each once."""
    return [key for key, count in Counter(keys).items() if count > 1]


def first_of(told: Sequence[str]) -> str:
    """The first few, and that there are more."""
    return ", ".join(told[:_SHOWN]) + (", ..." if len(told) > _SHOWN else "")
