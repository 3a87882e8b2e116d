"""CSV files of text cells, read strictly; and how many like problems are told of."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scoring.training.errors import CohortUnusable

_SHOWN = 5  # of many like problems


def read_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows, cells without blanks at their ends.

    Raises
    ------
    CohortUnusable
        If it cannot be read, is separated by other signs than commas, names a column twice, or has a row of
        another length than its head.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            head = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortUnusable(f"{path} cannot be read: {error}") from error
    if len(head) == 1 and (other := "".join(sign for sign in ";\t|" if sign in head[0])):
        raise CohortUnusable(f"{path} has its columns separated by {other!r}: commas are needed")
    if len(set(head)) < len(head):
        raise CohortUnusable(f"{path} names a column twice")
    odd = [str(number) for number, cells in lines if len(cells) != len(head)]
    if odd:
        raise CohortUnusable(f"{path} has {len(head)} columns, but not in line {', '.join(odd)}")
    return [dict(zip(head, (cell.strip() for cell in cells), strict=True)) for _, cells in lines]


def repeated(keys: Sequence[str]) -> list[str]:
    """Those that come more than once, each once."""
    return [key for key, count in Counter(keys).items() if count > 1]


def first_of(told: Sequence[str]) -> str:
    """The first few, and that there are more."""
    return ", ".join(told[:_SHOWN]) + (", ..." if len(told) > _SHOWN else "")
