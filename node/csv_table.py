"""CSV files of text cells, read strictly: a row that does not fit the head is reported and never used.

A decimal comma without quotation marks splits a number over two cells and shifts all that follow: such a row
would be read with wrong values, not without values.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.phrases import in_english
from segmentation.phrase import Phrase, phrase


class TableUnreadable(Exception):
    """A file that holds no table.

    Attributes
    ----------
    reason : without any content of its rows.
    """

    def __init__(self, reason: Phrase) -> None:
        super().__init__(in_english(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One row whose cells belong to the columns.

    Attributes
    ----------
    line : of the file, from 1: its last, where a cell holds line breaks.
    cells : by column, without blanks at their ends.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OddRow:
    """A row whose cells cannot be assigned to columns.

    Attributes
    ----------
    line : of the file, from 1.
    reason : without any content of the row.
    words : between its separators; only to find out whom the row may concern.
    """

    line: int
    reason: Phrase
    words: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """The rows of a file.

    Attributes
    ----------
    columns : that have a name, as in the head.
    rows : that fit the head, in order.
    odd : the others, in order.
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    odd: tuple[OddRow, ...]


def read_table(path: Path) -> CsvTable:
    """A CSV file: comma, UTF-8 with or without byte order mark, a head. Empty lines are passed over.

    Raises
    ------
    TableUnreadable
        If the file cannot be read, is separated by other signs than commas, or names a column twice.
    """
    try:
        return parse_table(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise TableUnreadable(phrase("file-unreadable", error=type(error).__name__)) from error


def parse_table(text: str) -> CsvTable:
    """The text of a CSV file; see `read_table`.

    Raises
    ------
    TableUnreadable
        If it is separated by other signs than commas, or names a column twice.
    """
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    head: tuple[str, ...] | None = None
    rows: list[TableRow] = []
    odd: list[OddRow] = []
    while True:
        start = reader.line_num
        unmatched = False
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error:  # of a quotation mark, which may have consumed the lines after it
            cells, unmatched = [], True
        line = reader.line_num
        if unmatched and head is None:
            raise TableUnreadable(phrase("first-line-quotation"))
        if head is None:
            head = _head(cells)
        elif unmatched:
            odd.append(_odd(start + 1, phrase("line-quotation", line=start + 1), lines[start:line]))
        elif reason := _misfit(head, cells, line):
            odd.append(_odd(line, reason, lines[start:line]))
        elif any(cells):
            named = {name: cell for name, cell in zip(head, cells, strict=False) if name}
            rows.append(TableRow(line=line, cells=named))
    columns = tuple(name for name in head or () if name)
    return CsvTable(columns=columns, rows=tuple(rows), odd=tuple(odd))


def _head(cells: list[str]) -> tuple[str, ...]:
    if len(cells) == 1 and (other := "".join(sign for sign in ";\t|" if sign in cells[0])):
        raise TableUnreadable(phrase("separator-wrong", sign=repr(other)))
    named = [name for name in cells if name]
    if len(set(named)) < len(named):
        raise TableUnreadable(phrase("column-twice"))
    return tuple(cells)


def _misfit(head: tuple[str, ...], cells: list[str], line: int) -> Phrase | None:
    """Why these cells do not belong to these columns; None of an empty line.

    Columns without a name at the end, which spreadsheets leave behind, stay empty: a shifted row ends there.
    """
    if not any(cells):
        return None
    named = max((place for place, name in enumerate(head, start=1) if name), default=0)
    if not named <= len(cells) <= len(head):
        return phrase("line-cells", line=line, cells=len(cells), columns=len(head))
    return phrase("line-beyond-columns", line=line) if any(cells[named:]) else None


def _odd(line: int, reason: Phrase, lines: list[str]) -> OddRow:
    words = re.split(r'[,;"\t\r\n]+', "".join(lines))
    return OddRow(line=line, reason=reason, words=frozenset(word.strip() for word in words) - {""})
