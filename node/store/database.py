"""One SQL database: SQLite on one host, PostgreSQL on several."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Dialect, Float, Table, bindparam, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, FunctionElement

from node.store.errors import CommitUnknown, StorageFull, StoreError, StoreUnavailable, storage_error
from node.store.files import FILE_MODE, make_folder, tighten

# ---- statements that every image waits for, executed past SQLAlchemy
#
# SQLAlchemy's bookkeeping for the three takes 0.12 to 0.2 ms, an eighth of all that an image takes.

Process = Callable[[Any], Any]


class DriverConnection(Protocol):
    """A connection of PEP 249, as far as it is used here."""

    def cursor(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Written:
    """A statement as SQL of one database, with its parameters in order."""

    sql: str
    parameters: tuple[tuple[str, Process | None], ...]  # in their order; what the type makes of a value
    by_name: bool

    def of(self, values: Mapping[str, object]) -> Any:
        if self.by_name:
            return {name: _made(values[name], process) for name, process in self.parameters}
        return [_made(values[name], process) for name, process in self.parameters]


class Prepared:
    """A statement that is compiled once for each kind of database.

    Parameters
    ----------
    make : gives the statement for a dialect's name, with a named `bindparam` for each value. Its result must
        not need a type of SQLAlchemy's (dates, JSON) to be understood.
    """

    def __init__(self, make: Callable[[str], ClauseElement]) -> None:
        self._make = make
        self._written: dict[str, _Written] = {}

    def first(
        self, connection: DriverConnection, dialect: Dialect, values: Mapping[str, object]
    ) -> tuple[Any, ...] | None:
        """Execute the statement, and return the first row of its result as the driver gives it.

        Parameters
        ----------
        connection : of the driver (PEP 249), inside or outside of a transaction.
        dialect : SQLAlchemy's, of that driver.
        values : a value for each `bindparam`, by name.

        Returns
        -------
        None where the result has no row.

        Raises
        ------
        Exception
            The driver's own errors.
        """
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


_PAGE_CACHE_KIB = 256  # a connection: enough for the paths to a row; the kernel keeps the file's pages anyway
_BUSY_TIMEOUT_S = 10.0  # how long a writer waits for another before the caller is told to come again
_WRITE_LOCK_RETRY_S = 0.0005
_READ_ONLY = "osteonode_read_only"
_MIGRATION_LOCK = 0x05730  # any number that only this node's migrations use


class now_s(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """Seconds since 1970-01-01 UTC by the clock of the database, the only one that leases go by."""

    type = Float()
    inherit_cache = True


@compiles(now_s, "sqlite")
def _now_in_sqlite(element: now_s, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    return "((julianday('now') - 2440587.5) * 86400.0)"  # 2440587.5: Julian day of the epoch


@compiles(now_s, "postgresql")
def _now_in_postgresql(element: now_s, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


class Database:
    """Connections with the durability that every step of a study needs.

    SQLite runs with a write-ahead log, full synchronisation and enforced foreign keys. It takes its write
    lock at the beginning of a transaction: two writers queue instead of failing half-way.

    Parameters
    ----------
    url : SQLAlchemy's, of SQLite or PostgreSQL. The folder and the file of an SQLite database are made if
        absent, readable by their owner alone.

    Raises
    ------
    StoreUnavailable
        If the SQLite file cannot be made (`StorageFull` where no space is left).
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._write_lock: AbstractContextManager[object] = nullcontext()
        if parsed.get_backend_name() == "sqlite":
            if parsed.database:
                _make_private(Path(parsed.database))
                self._write_lock = WriteLock(Path(f"{parsed.database}-turn"))
            self._engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S})
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = create_engine(parsed, pool_pre_ping=True)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; committed when the block ends, rolled back when it raises.

        Raises
        ------
        StoreUnavailable
            If the database cannot be reached, is locked for too long, or has no space (`StorageFull`).
            Nothing was written then, unless it is `CommitUnknown`.
        """
        committing = False
        try:
            with self._typed_errors(), self._write_lock, self._engine.begin() as connection:
                yield connection
                committing = True
        except StorageFull:
            raise
        except StoreUnavailable as error:
            if not committing:
                raise
            raise CommitUnknown("the database fell silent while it committed") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Transaction that reads a consistent view and takes no write lock.

        Raises
        ------
        StoreUnavailable
            If the database cannot be reached.
        """
        with (
            self._typed_errors(),
            self._engine.connect().execution_options(**{_READ_ONLY: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def first(self, statement: Prepared, values: Mapping[str, object]) -> tuple[Any, ...] | None:
        """First row that a query finds, outside of any transaction.

        Parameters
        ----------
        statement : a query.
        values : a value for each of its parameters, by name.

        Returns
        -------
        None where the query finds nothing.

        Raises
        ------
        StoreUnavailable
            If the database cannot be reached.
        """
        with self._typed_errors():
            connection = self._engine.raw_connection()
            try:
                return statement.first(connection, self._engine.dialect, values)
            finally:
                connection.close()

    def migrate(self, key: bytes = b"", root: Path | None = None) -> None:
        """Bring the tables to the schema of this version. Processes may call it at once.

        Parameters
        ----------
        key : of the installation; migrations recompute the pseudonyms of older versions with it.
        root : folder in which older versions kept files that are tables now.

        Raises
        ------
        StoreUnavailable
            If the database cannot be reached.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            config.attributes["key"] = key
            config.attributes["root"] = root
            command.upgrade(config, "head")

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        """Of SQLAlchemy, and of the driver where it is spoken to directly."""
        driver: Any = self._engine.dialect.loaded_dbapi
        away = (driver.OperationalError, driver.InterfaceError)
        try:
            yield
        except DBAPIError as error:
            is_away = error.connection_invalidated or isinstance(error.orig, away)
            raise _typed(error.orig, is_away=is_away) from error
        except driver.Error as error:
            raise _typed(error, is_away=isinstance(error, away)) from error
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database cannot be used ({type(error).__name__})") from error


def _make_private(path: Path) -> None:
    """See that SQLite's files are their owner's alone: it gives its log the mode of the database."""
    try:
        make_folder(path.parent)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE))
    except OSError as error:
        raise storage_error(error) from error
    for suffix in ("", "-wal", "-shm", "-journal", "-turn"):
        tighten(path.with_name(path.name + suffix))


class DatabaseRows:
    """Base of the classes that read and write the rows of one kind of thing.

    Raises
    ------
    StoreUnavailable
        By every method of a subclass, if the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database


class WriteLock:
    """Orders the writers of one SQLite database, over all threads and processes of this machine.

    Fairness rests on it. SQLite retries a locked database after pauses that grow to a tenth of a second. A
    writer that has waited for long therefore loses to newcomers, and may end with "database is locked". This
    lock retries every half millisecond, however long a writer has waited. Integrity does not rest on it:
    SQLite's own lock admits one writer at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._file: tuple[int, int] | None = None  # process, descriptor: a fork must not share it

    def __enter__(self) -> None:
        deadline = time.monotonic() + _BUSY_TIMEOUT_S
        if not self._threads.acquire(timeout=_BUSY_TIMEOUT_S):
            raise StoreUnavailable("other writers keep the database for too long")
        try:
            while not self._try():
                if time.monotonic() > deadline:
                    raise StoreUnavailable("another process keeps the database for too long")
                time.sleep(_WRITE_LOCK_RETRY_S)
        except BaseException:
            self._threads.release()
            raise

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise storage_error(error) from error
        return True

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor(), fcntl.LOCK_UN)
        self._threads.release()

    def _descriptor(self) -> int:
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        return self._file[1]


def insert_unless_there(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Insert a row unless one with the same primary or unique key exists.

    Parameters
    ----------
    row : value by column; `now_s()` for the database's time.

    Returns
    -------
    False if such a row exists; it is unchanged then.
    """
    timed = frozenset(name for name, value in row.items() if isinstance(value, now_s))
    insert = _insertion(table, frozenset(row) - timed, timed)
    # Not by rowcount, which drivers leave undefined for INSERT.
    return first(connection, insert, row) is not None


def first(
    connection: Connection, statement: Prepared, values: Mapping[str, object]
) -> tuple[Any, ...] | None:
    """First row of a statement's result, within the connection's transaction; None where there is none."""
    return statement.first(connection.connection, connection.dialect, values)


@cache
def _insertion(table: Table, plain: frozenset[str], timed: frozenset[str]) -> Prepared:
    def make(dialect: str) -> ClauseElement:
        insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
        values: dict[str, Any] = {name: bindparam(name) for name in plain} | {name: now_s() for name in timed}
        statement = insert(table).values(**values).on_conflict_do_nothing()
        return cast(ClauseElement, statement.returning(*table.primary_key.columns))

    return Prepared(make)


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's hook
    connection.isolation_level = None  # the driver must not begin transactions by itself: _begin_sqlite does
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"cache_size=-{_PAGE_CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _typed(cause: BaseException | None, *, is_away: bool) -> StoreError:
    """The store's name for what a driver raised."""
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        return StorageFull("the database's disk is full")
    if getattr(cause, "sqlstate", None) == "53100":  # PostgreSQL: disk_full
        return StorageFull("the database's disk is full")
    if is_away:
        return StoreUnavailable(f"the database does not answer ({type(cause).__name__})")
    return StoreError(f"the database refused a statement ({type(cause).__name__})")
