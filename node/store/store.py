"""The store as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from config.settings import StorageSettings
from node.store.artefacts import Artefacts
from node.store.associations import Associations
from node.store.binding import Bindings
from node.store.census import CensusTaker
from node.store.database import Database
from node.store.deliveries import Deliveries
from node.store.files import FileStore
from node.store.identities import Identities
from node.store.installation import (
    KEY_FILE,
    Pseudonyms,
    key_of,
    modes_are_tight,
    note_tight_modes,
    require_key,
)
from node.store.instances import Instances
from node.store.jobs import Jobs
from node.store.orphans import Orphans
from node.store.overview import Overview
from node.store.parts import Parts
from node.store.promises import CommitmentRequests
from node.store.quarantine import Quarantine, QuarantineBounds
from node.store.reports import Reports
from node.store.retention import Retention
from node.store.scanners import Scanners
from node.store.scans import Scans
from node.store.studies import Studies
from node.store.transactions import CommitmentTransactions
from node.store.workers import WorkerRows

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Everything the node remembers. One per process: connections do not survive a fork."""

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
    artefacts: Artefacts
    reports: Reports
    deliveries: Deliveries
    commitment_transactions: CommitmentTransactions
    commitment_requests: CommitmentRequests
    scanners: Scanners
    scans: Scans
    associations: Associations
    workers: WorkerRows
    parts: Parts
    overview: Overview
    census: CensusTaker

    def close(self) -> None:
        self.database.close()


def open_store(settings: StorageSettings) -> Store:
    """Open the store, making or migrating its tables where needed.

    Raises
    ------
    StoreUnavailable
        If the folder or the database cannot be used (`WrongInstallation`: not together).
    """
    files = FileStore(settings.root.resolve(), min_free_bytes=settings.min_free_bytes)
    database = Database(settings.resolved_database_url)
    try:
        key = key_of(files.root, database)
        database.migrate(key)
        pseudonyms = Pseudonyms(key)
        require_key(database, pseudonyms, files.root / KEY_FILE)
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
        artefacts=Artefacts(database, files),
        reports=Reports(database),
        deliveries=Deliveries(database),
        commitment_transactions=CommitmentTransactions(database),
        commitment_requests=CommitmentRequests(database, files),
        scanners=Scanners(database),
        scans=Scans(database, pseudonyms),
        associations=Associations(database),
        workers=WorkerRows(database),
        parts=Parts(database),
        overview=Overview(database),
        census=CensusTaker(database, acknowledged),
    )


def _close_to_others(files: FileStore, database: Database) -> None:
    """Nobody but the node's own account reads what it keeps, whoever made the folder and with what umask."""
    first_time = not modes_are_tight(database)
    if not files.tighten(thoroughly=first_time):
        log.warning("storage_open_to_others", root=str(files.root))
    if first_time:
        note_tight_modes(database)
