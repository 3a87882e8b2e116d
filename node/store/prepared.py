"""Statements that every image waits for, executed past SQLAlchemy.

Its bookkeeping for one of them takes several times as long as SQLite for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement

Process = Callable[[Any], Any]


class DriverConnection(Protocol):
    """What PEP 249 asks of a connection, as far as it is used here; the pool's are such."""

    def cursor(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Written:
    """A statement in one database's words."""

    sql: str
    parameters: tuple[tuple[str, Process | None], ...]  # in their order; what the type makes of a value
    by_name: bool

    def of(self, values: Mapping[str, object]) -> Any:
        if self.by_name:
            return {name: _made(values[name], process) for name, process in self.parameters}
        return [_made(values[name], process) for name, process in self.parameters]


class Prepared:
    """A statement that is put into words once for each kind of database.

    Parameters
    ----------
    make : gives the statement for a dialect's name, with a named `bindparam` for each value. Where a result
        would need one of SQLAlchemy's types to be understood (dates, JSON), this is not the place for it.
    """

    def __init__(self, make: Callable[[str], ClauseElement]) -> None:
        self._make = make
        self._written: dict[str, _Written] = {}

    def first(
        self, connection: DriverConnection, dialect: Dialect, values: Mapping[str, object]
    ) -> tuple[Any, ...] | None:
        """Execute it, and give the first row of its result as the driver does. Raises the driver's errors."""
        written = self._written.get(dialect.name)
        if written is None:
            written = self._written[dialect.name] = _written(self._make(dialect.name), dialect)
        cursor = connection.cursor()
        try:
            cursor.execute(written.sql, written.of(values))
            row: tuple[Any, ...] | None = cursor.fetchone()
        finally:
            cursor.close()
        return row


def _written(statement: ClauseElement, dialect: Dialect) -> _Written:
    compiled: Any = statement.compile(dialect=dialect)
    names = compiled.positiontup if compiled.positional else tuple(compiled.binds)
    processes = {
        name: bound.type.dialect_impl(dialect).bind_processor(dialect)
        for name, bound in compiled.binds.items()
    }
    return _Written(
        sql=str(compiled),
        parameters=tuple((name, processes[name]) for name in names),
        by_name=not compiled.positional,
    )


def _made(value: Any, process: Process | None) -> Any:
    return value if process is None else process(value)
