"""Heartbeats of workers and services, and the result of each machine's feature check.

Workers of all machines have rows in `workers`. Services (processes, and threads that repeat one task) have
rows in `parts`; of workers only unexpected ends are recorded there.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from node.store.database import Database, DatabaseRows, insert_unless_there, now_s
from node.store.schema import feature_standings, parts, workers
from node.store.states import WorkerState

HEARTBEAT_S = 10.0
SILENT_AFTER_S = 60.0  # six beats: a busy machine misses one or two
_KEPT_S = 86400.0  # of a worker that ended or fell silent: long enough to be seen
_LONGEST_SOFTWARE = 255
_LONGEST_PROBLEM = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultBasis:
    """What a result depends on besides the study: two workers that are equal in it may share a study.

    Attributes
    ----------
    software : version of the node and of the packages that compute.
    configuration_sha256 : of the settings and of the content of the files that they name.
    """

    software: str
    configuration_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Identity of one worker.

    Attributes
    ----------
    worker_id : the owner of its leases.
    engine : in words; "" of a worker that does not segment.
    """

    worker_id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """State of one worker.

    Attributes
    ----------
    problem : why it takes no work; "" where it does.
    differs : in words, how it differs from most present workers; "" where it does not.
    started_at : UTC.
    heard_s : seconds since its last heartbeat.
    """

    worker: Worker
    result_basis: ResultBasis
    state: WorkerState
    problem: str
    differs: str
    started_at: datetime
    heard_s: float


class WorkerRows(DatabaseRows):
    """Rows of workers. Each worker writes its own. Times are by the database's clock."""

    def enter(
        self, worker: Worker, result_basis: ResultBasis, problem: str, is_running: Callable[[int], bool]
    ) -> int:
        """Record that a worker starts, and remove the rows of its predecessors.

        Predecessors are workers of the same host and queues whose process is gone.

        Parameters
        ----------
        problem : why it takes no work; "" where it does.
        is_running : whether a process of this host is running, by its id.

        Returns
        -------
        How many predecessors did not record their end; an earlier pool process of this worker counts.
        """
        with self._database.writing() as connection:
            connection.execute(delete(workers).where(_heard_at() < now_s() - _KEPT_S))
            predecessors = connection.execute(
                select(workers.c.worker_id, workers.c.pid, workers.c.ended_at).where(
                    workers.c.host == worker.host, workers.c.queues == ",".join(worker.queues)
                )
            ).all()
            # Of one pid: this worker, whose pool process was replaced, or one before the host was restarted.
            gone = [one for one in predecessors if one.pid == worker.pid or not is_running(one.pid)]
            others = [one.worker_id for one in gone if one.worker_id != worker.worker_id]
            connection.execute(delete(workers).where(workers.c.worker_id.in_(others)))
            _write(connection, worker, result_basis, problem)
            return sum(one.ended_at is None for one in gone)

    def beat(self, worker: Worker, result_basis: ResultBasis, problem: str) -> None:
        """Record a heartbeat; a worker that has ended stays ended."""
        with self._database.writing() as connection:
            _write(connection, worker, result_basis, problem)

    def end(self, worker_id: str) -> None:
        """Record an orderly end of a worker."""
        with self._database.writing() as connection:
            connection.execute(
                update(workers)
                .where(workers.c.worker_id == worker_id)
                .values(ended_at=now_s(), heartbeat_at=now_s())
            )

    def count_by_queue(self) -> Mapping[str, int]:
        """Number of present workers that take work, by queue; queues without one are absent."""
        with self._database.reading() as connection:
            rows = connection.execute(select(workers.c.queues).where(is_present())).scalars()
            return Counter(queue for queues in rows for queue in queues.split(","))

    def list(self) -> Sequence[WorkerStatus]:
        """Workers of the last day, by host and process.

        Returns
        -------
        `differs` is set where software, configuration or engine is not that of most present workers.
        """
        wanted = select(workers, (now_s() - _heard_at()).label("heard_s")).order_by(
            workers.c.host, workers.c.pid, workers.c.started_at
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
        there = [row for row in rows if _state(row) in (WorkerState.WORKING, WorkerState.REFUSING)]
        there.sort(key=lambda row: row.started_at)  # of two equal groups, the older counts as usual
        software = _most_common([row.software for row in there])
        configuration = _most_common([row.configuration_sha256 for row in there])
        engine = _most_common([row.engine for row in there if row.engine])
        return tuple(
            WorkerStatus(
                worker=Worker(
                    worker_id=row.worker_id,
                    host=row.host,
                    pid=row.pid,
                    queues=tuple(row.queues.split(",")),
                    engine=row.engine,
                ),
                result_basis=ResultBasis(
                    software=row.software, configuration_sha256=row.configuration_sha256
                ),
                state=_state(row),
                problem=row.problem,
                differs=_differs(
                    {
                        "software": row.software != software,
                        "configuration": row.configuration_sha256 != configuration,
                        "engine": bool(row.engine) and row.engine != engine,
                    }
                )
                if row in there
                else "",
                started_at=datetime.fromtimestamp(row.started_at, UTC),
                heard_s=max(0.0, row.heard_s),
            )
            for row in rows
        )


def is_present() -> ColumnElement[bool]:
    """SQL condition on `workers`: heard of within `SILENT_AFTER_S`, not ended, and takes work."""
    return (
        workers.c.ended_at.is_(None)
        & (workers.c.heartbeat_at > now_s() - SILENT_AFTER_S)
        & (workers.c.problem == "")
    )


def _heard_at() -> ColumnElement[float]:
    return func.coalesce(workers.c.ended_at, workers.c.heartbeat_at)


def _write(connection: Connection, worker: Worker, result_basis: ResultBasis, problem: str) -> None:
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    changing = {
        "software": result_basis.software[:_LONGEST_SOFTWARE],
        "configuration_sha256": result_basis.configuration_sha256,
        "problem": problem[:_LONGEST_PROBLEM],
        "heartbeat_at": now_s(),
    }
    connection.execute(
        make(workers)
        .values(
            worker_id=worker.worker_id,
            host=worker.host,
            pid=worker.pid,
            queues=",".join(worker.queues),
            engine=worker.engine,
            started_at=now_s(),
            **changing,
        )
        .on_conflict_do_update(
            index_elements=["worker_id"], set_=changing, where=workers.c.ended_at.is_(None)
        )
    )


def _state(row: object) -> WorkerState:
    if row.ended_at is not None:  # type: ignore[attr-defined]
        return WorkerState.ENDED
    if row.heard_s > SILENT_AFTER_S:  # type: ignore[attr-defined]
        return WorkerState.SILENT
    return WorkerState.REFUSING if row.problem else WorkerState.WORKING  # type: ignore[attr-defined]


def _most_common(values: Collection[str]) -> str | None:
    """The most frequent; of several, the first."""
    return Counter(values).most_common(1)[0][0] if values else None


def _differs(by: dict[str, bool]) -> str:
    different = [name for name, differs in by.items() if differs]
    return f"other {' and '.join(different)}" if different else ""


# Services.

PUBLISHING = "reconcile"  # the service that closes studies and publishes due steps
BEAT_S = 10.0
_NEW_COUNT_AFTER_S = 3600.0  # unexpected ends that lie further apart are counted anew
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """State of one service.

    Attributes
    ----------
    beats : whether it records a heartbeat after each round of its work.
    has_ended : whether it ended in good order.
    heard_s : seconds since its last round; since its start before the first.
    deaths : number of unexpected ends, each within an hour of the one before.
    died_s : seconds since the last of them was noticed.
    """

    name: str
    beats: bool
    has_ended: bool
    heard_s: float
    deaths: int
    died_s: float | None


class ServiceRows(DatabaseRows):
    """Rows of services (table `parts`). Each service writes its own. Times are by the database's clock."""

    def begin(self, name: str, *, beats: bool = False, is_thread: bool = False) -> None:
        """Record that a service starts, and that its predecessor died unless that recorded its end.

        Parameters
        ----------
        beats : whether it will record a heartbeat after each round of its work.
        is_thread : whether it is a thread. It ends with its process, of which alone the unexpected end is
            counted.
        """
        fresh = {
            "name": name,
            "beats": beats,
            "started_at": now_s(),
            "heard_at": now_s(),
            "ended": False,
            "deaths": 0,
            "died_at": None,
        }
        with self._database.writing() as connection:
            connection.execute(delete(parts).where(parts.c.heard_at < now_s() - _KEPT_S))
            if insert_unless_there(connection, parts, fresh):
                return
            died = {} if is_thread else _death(connection, name)
            connection.execute(
                update(parts)
                .where(parts.c.name == name)
                .values(beats=beats, started_at=now_s(), heard_at=now_s(), ended=False, **died)
            )

    def note_death(self, name: str) -> None:
        """Record the unexpected end of a process that has no row while it runs.

        Parameters
        ----------
        name : characters beyond 64 are cut off.
        """
        name = name[:_LONGEST_NAME]
        fresh = {
            "name": name,
            "beats": False,
            "started_at": now_s(),
            "heard_at": now_s(),
            "ended": False,
            "deaths": 1,
            "died_at": now_s(),
        }
        with self._database.writing() as connection:
            if not insert_unless_there(connection, parts, fresh):
                connection.execute(
                    update(parts)
                    .where(parts.c.name == name)
                    .values(heard_at=now_s(), **_death(connection, name))
                )

    def beat(self, name: str) -> None:
        """Record that a service has finished a round of its work."""
        with self._database.writing() as connection:
            connection.execute(update(parts).where(parts.c.name == name).values(heard_at=now_s()))

    def end(self, name: str) -> None:
        """Record an orderly end of a service."""
        with self._database.writing() as connection:
            connection.execute(update(parts).where(parts.c.name == name).values(ended=True, heard_at=now_s()))

    def list(self) -> Sequence[ServiceStatus]:
        """Services of the last day, by name."""
        wanted = select(
            parts.c.name,
            parts.c.beats,
            parts.c.ended,
            parts.c.deaths,
            (now_s() - parts.c.heard_at).label("heard_s"),
            (now_s() - parts.c.died_at).label("died_s"),
        ).order_by(func.lower(parts.c.name))
        with self._database.reading() as connection:
            return tuple(
                ServiceStatus(
                    name=row.name,
                    beats=row.beats,
                    has_ended=row.ended,
                    heard_s=max(0.0, row.heard_s),
                    deaths=row.deaths,
                    died_s=None if row.died_s is None else max(0.0, row.died_s),
                )
                for row in connection.execute(wanted)
            )


def _death(connection: Connection, name: str) -> dict[str, object]:
    """Changed columns of a service whose predecessor ended unexpectedly; empty if it ended in good order."""
    before = connection.execute(
        select(parts.c.ended, parts.c.deaths, (now_s() - parts.c.died_at).label("died_s")).where(
            parts.c.name == name
        )
    ).one()
    if before.ended:
        return {}
    again = before.died_s is not None and before.died_s < _NEW_COUNT_AFTER_S
    return {"deaths": before.deaths + 1 if again else 1, "died_at": now_s()}


class ServiceHeartbeat:
    """Heartbeat of one service, written to the database every 10 s at most.

    Parameters
    ----------
    of : where it is written.
    name : of the service.
    """

    def __init__(self, of: ServiceRows, name: str) -> None:
        self._parts = of
        self._name = name
        self._last = 0.0

    def __call__(self) -> None:
        """Raises StoreError."""
        now = time.monotonic()
        if now - self._last >= BEAT_S:
            self._parts.beat(self._name)
            self._last = now


# The feature check of each machine.


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCheck:
    """Result of one machine's feature check: the features of a known image against their known values.

    Attributes
    ----------
    drifted : number of features that differ.
    checked : number of features.
    example : the first that differs; "" where none does.
    """

    drifted: int
    checked: int
    example: str


class FeatureChecks:
    """Results of the feature check, one row for each machine: that of the latest start."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._host = socket.gethostname()

    def keep(self, standing: FeatureCheck) -> None:
        """Store the result of this machine.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used.
        """
        found = {**asdict(standing), "tried_at": now_s()}
        with self._database.writing() as connection:
            if not insert_unless_there(connection, feature_standings, {"host": self._host, **found}):
                here = feature_standings.c.host == self._host
                connection.execute(update(feature_standings).where(here).values(**found))

    def here(self) -> FeatureCheck | None:
        """Result of this machine; None before its first check.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used.
        """
        columns = [feature_standings.c[field.name] for field in fields(FeatureCheck)]
        with self._database.reading() as connection:
            row = connection.execute(
                select(*columns).where(feature_standings.c.host == self._host)
            ).one_or_none()
        return FeatureCheck(**row._mapping) if row is not None else None
