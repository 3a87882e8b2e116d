"""One SQL database: SQLite on one host, PostgreSQL on several."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Float, Table, bindparam, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, FunctionElement

from node.store.durable import FILE_MODE, make_folder, tighten
from node.store.errors import CommitUnknown, StorageFull, StoreError, StoreUnavailable
from node.store.prepared import Prepared

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
    """Connections with the durability that the journey of a study rests on.

    SQLite runs with a write-ahead log, full synchronisation, enforced foreign keys, and takes its write lock
    at the beginning of a transaction, so that two writers queue instead of failing half-way.
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
        """A consistent view; takes no write lock. Raises as `writing` does."""
        with (
            self._typed_errors(),
            self._engine.connect().execution_options(**{_READ_ONLY: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def first(self, statement: Prepared, values: Mapping[str, object]) -> tuple[Any, ...] | None:
        """The first row that a query finds, outside of any transaction. Raises as `writing` does."""
        with self._typed_errors():
            connection = self._engine.raw_connection()
            try:
                return statement.first(connection, self._engine.dialect, values)
            finally:
                connection.close()

    def migrate(self, key: bytes = b"") -> None:
        """Bring the tables to this version's shape. Several processes may do so at once; one works.

        Parameters
        ----------
        key : of the installation, which pseudonyms of an older version are made anew with.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            config.attributes["key"] = key
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


class WriteLock:
    """Orders the writers of one SQLite database, over all threads and processes of this machine.

    SQLite retries a locked database after pauses that grow to a tenth of a second, in no order. This lock
    retries after half a millisecond. Only speed rests on it: SQLite's own lock keeps other writers out.
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
    """Insert a row; False if one with the same key stands there already (and then nothing is changed)."""
    timed = frozenset(name for name, value in row.items() if isinstance(value, now_s))
    insert = _insertion(table, frozenset(row) - timed, timed)
    # Not by rowcount, which drivers leave undefined for INSERT.
    return first(connection, insert, row) is not None


def first(
    connection: Connection, statement: Prepared, values: Mapping[str, object]
) -> tuple[Any, ...] | None:
    """The first row of a statement's result, within a transaction."""
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
    # By the driver's own connection: each transaction waits for this.
    cursor = connection.connection.cursor()
    cursor.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")
    cursor.close()


def _typed(cause: BaseException | None, *, is_away: bool) -> StoreError:
    """The store's name for what a driver raised."""
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        return StorageFull("the database's disk is full")
    if getattr(cause, "sqlstate", None) == "53100":  # PostgreSQL: disk_full
        return StorageFull("the database's disk is full")
    if is_away:
        return StoreUnavailable(f"the database does not answer ({type(cause).__name__})")
    return StoreError(f"the database refused a statement ({type(cause).__name__})")


def storage_error(error: OSError) -> StoreUnavailable:
    """The store's name for an error of the file system."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("no space left in the file store")
    return StoreUnavailable(f"the file store cannot be used ({error.strerror})")
