"""The store as a whole, and the wait for a database that does not answer at start."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError

from config.sections import StorageSettings
from node.store.activations import Activations, mark_taken_over
from node.store.binding import Bindings
from node.store.commitments import CommitmentRequests, CommitmentTransactions
from node.store.database import Database
from node.store.deliveries import Deliveries
from node.store.errors import DatabaseRefuses, StorageFull, StoreUnavailable, WrongInstallation
from node.store.files import FileStore
from node.store.history import PatientScans, ScannerReadings
from node.store.installation import (
    KEY_FILE,
    Pseudonyms,
    load_or_make_key,
    modes_are_tight,
    note_tight_modes,
    require_key,
)
from node.store.instances import Associations, Instances
from node.store.jobs import Jobs
from node.store.overview import Overview, StatusCounts
from node.store.quarantine import Identities, Quarantine, QuarantineBounds
from node.store.reports import ArtefactStore, Reports
from node.store.retention import Orphans, Retention
from node.store.study_lifecycle import Studies
from node.store.workers import FeatureChecks, ServiceRows, WorkerRows

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """All persistent data of the node. One per process: connections do not survive a fork."""

    database: Database
    files: FileStore
    instances: Instances
    quarantine: Quarantine
    identities: Identities
    retention: Retention
    orphans: Orphans
    studies: Studies
    jobs: Jobs
    bindings: Bindings
    artefacts: ArtefactStore
    reports: Reports
    deliveries: Deliveries
    commitment_transactions: CommitmentTransactions
    commitment_requests: CommitmentRequests
    scanners: ScannerReadings
    scans: PatientScans
    activations: Activations
    associations: Associations
    workers: WorkerRows
    feature_checks: FeatureChecks
    parts: ServiceRows
    overview: Overview
    census: StatusCounts

    def close(self) -> None:
        self.database.close()


def open_store(settings: StorageSettings) -> Store:
    """Open the store; make or migrate its tables where needed.

    Returns
    -------
    To be closed by the caller.

    Raises
    ------
    StoreUnavailable
        If the folder or the database cannot be used (`WrongInstallation`: they do not belong together).
    """
    files = FileStore(settings.root.resolve(), min_free_bytes=settings.min_free_bytes)
    database = Database(settings.resolved_database_url)
    try:
        key = load_or_make_key(files.root, database)
        database.migrate(key, files.root)
        pseudonyms = Pseudonyms(key)
        require_key(database, pseudonyms, files.root / KEY_FILE)
        mark_taken_over(files.root)
        _close_to_others(files, database)
    except BaseException:
        database.close()
        raise
    acknowledged = QuarantineBounds(
        instances=settings.quarantine_acknowledged, size_bytes=settings.quarantine_acknowledged_bytes
    )
    return Store(
        database=database,
        files=files,
        instances=Instances(database, files, pseudonyms, acknowledged),
        quarantine=Quarantine(
            database,
            files,
            QuarantineBounds(
                instances=settings.quarantine_undecodable, size_bytes=settings.quarantine_undecodable_bytes
            ),
        ),
        identities=Identities(database, files),
        retention=Retention(database, files, pseudonyms),
        orphans=Orphans(database, files),
        studies=Studies(database),
        jobs=Jobs(database),
        bindings=Bindings(database, files),
        artefacts=ArtefactStore(database, files),
        reports=Reports(database),
        deliveries=Deliveries(database),
        commitment_transactions=CommitmentTransactions(database),
        commitment_requests=CommitmentRequests(database, files),
        scanners=ScannerReadings(database),
        scans=PatientScans(database, pseudonyms),
        activations=Activations(database),
        associations=Associations(database),
        workers=WorkerRows(database),
        feature_checks=FeatureChecks(database),
        parts=ServiceRows(database),
        overview=Overview(database),
        census=StatusCounts(database, acknowledged),
    )


def _close_to_others(files: FileStore, database: Database) -> None:
    """Make all stored files private to the node's account, whatever umask created them."""
    first_time = not modes_are_tight(database)
    if not files.tighten(thoroughly=first_time):
        log.warning("storage_open_to_others", root=str(files.root))
    if first_time:
        note_tight_modes(database)


# The wait at start, before anything is received.

_PAUSE_S = 1.0
_SAY_AGAIN_S = 30.0
_REFUSED_TIMES = (
    3  # in a row, so that a server that is just being restarted does not count as one that refuses
)
_PING_TIMEOUT_S = 5


def await_store(settings: StorageSettings) -> None:
    """Wait until the store can be opened, with its tables made or migrated, and log the reason for waiting.

    Raises
    ------
    DatabaseRefuses
        If the database answers and refuses this node, as for a wrong password.
    StoreUnavailable
        If folder or database cannot be used for a reason that waiting does not change.
    """
    began, said_at, refused = time.monotonic(), None, 0
    while True:
        try:
            open_store(settings).close()
        except StoreUnavailable as error:
            refused = refused + 1 if _is_refusal(settings, error) else 0
            if refused >= _REFUSED_TIMES:
                raise DatabaseRefuses(f"the database refuses: {_reason(error)}") from error
            if not _may_pass(error):
                raise
            now = time.monotonic()
            if said_at is None or now - said_at >= _SAY_AGAIN_S:
                said_at = now
                log.warning("database_awaited", reason=_reason(error), waited_s=round(now - began))
            time.sleep(_PAUSE_S)
            continue
        if said_at is not None:
            log.info("database_answers", waited_s=round(time.monotonic() - began))
        return


def _may_pass(error: StoreUnavailable) -> bool:
    """Whether trying again may help: not with a folder that cannot be made, or a file that is no database."""
    if isinstance(error, (StorageFull, WrongInstallation)):
        return isinstance(error, StorageFull)
    driver = _of_driver(error)
    if isinstance(driver, sqlite3.Error):
        code = getattr(driver, "sqlite_errorcode", 0) & 0xFF  # extended codes keep the kind in the low byte
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return not isinstance(error.__cause__, OSError)


def _is_refusal(settings: StorageSettings, error: StoreUnavailable) -> bool:
    """Whether a PostgreSQL that accepts connections did not take ours."""
    url = make_url(settings.resolved_database_url)
    return isinstance(_of_driver(error), psycopg.OperationalError) and _accepts_connections(url)


def _reason(error: StoreUnavailable) -> str:
    """In the driver's words: they name host, user and database, and libpq quotes no password."""
    driver = _of_driver(error)
    return " ".join(str(driver).split()) if isinstance(driver, psycopg.OperationalError) else str(error)


def _accepts_connections(url: URL) -> bool:
    """libpq's PQping, which needs no valid user: a server that starts up or recovers does not accept yet."""
    where = {"host": url.host or url.query.get("host"), "port": url.port, "connect_timeout": _PING_TIMEOUT_S}
    conninfo = make_conninfo("", **{name: str(value) for name, value in where.items() if value})
    return PGconn.ping(conninfo.encode()) == Ping.OK


def _of_driver(error: StoreUnavailable) -> BaseException | None:
    cause = error.__cause__
    return cause.orig if isinstance(cause, DBAPIError) else cause
