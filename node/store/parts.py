"""The parts of a node: when each finished a round of its work last, and which ended unexpectedly.

A part is a process, or a thread that does one thing again and again. Of workers, which are listed in
`node.store.workers`, only unexpected ends stand here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from node.store.database import Database, insert_unless_there, now_s
from node.store.schema import parts

PUBLISHING = "reconcile"  # the part that closes studies and tells workers what is due
BEAT_S = 10.0
_NEW_COUNT_AFTER_S = 3600.0  # unexpected ends that lie further apart are counted anew
_KEPT_S = 86400.0  # of a part that is not heard of any more
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLine:
    """One part, as others see it."""

    name: str
    beats: bool  # whether it says when it has finished a round
    has_ended: bool  # in good order
    heard_s: float  # since its last round; since its start before the first
    deaths: int  # unexpected ends, of those that came shortly after one another
    died_s: float | None  # since the last of them was noticed


class Parts:
    """Each part writes its own row; everybody reads. Times are by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, name: str, *, beats: bool = False, is_thread: bool = False) -> None:
        """A part begins. If its predecessor did not say that it ended, it died.

        Parameters
        ----------
        beats : whether it will say when it has finished a round of its work.
        is_thread : a thread ends with its process, whose death alone is counted.
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
        """A process that has no row while it lives ended unexpectedly."""
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
        """A part has finished a round of its work."""
        with self._database.writing() as connection:
            connection.execute(update(parts).where(parts.c.name == name).values(heard_at=now_s()))

    def end(self, name: str) -> None:
        """A part was stopped in good order."""
        with self._database.writing() as connection:
            connection.execute(update(parts).where(parts.c.name == name).values(ended=True, heard_at=now_s()))

    def list(self) -> Sequence[PartLine]:
        """Every part of the last day, by name. Raises StoreUnavailable."""
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
                PartLine(
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
    """What changes in the row of a part whose predecessor did not say that it ended; nothing if it did."""
    before = connection.execute(
        select(parts.c.ended, parts.c.deaths, (now_s() - parts.c.died_at).label("died_s")).where(
            parts.c.name == name
        )
    ).one()
    if before.ended:
        return {}
    again = before.died_s is not None and before.died_s < _NEW_COUNT_AFTER_S
    return {"deaths": before.deaths + 1 if again else 1, "died_at": now_s()}


class Beat:
    """Says, at most every few seconds, that a part has finished a round."""

    def __init__(self, of: Parts, name: str) -> None:
        self._parts = of
        self._name = name
        self._last = 0.0

    def __call__(self) -> None:
        """Raises StoreError."""
        now = time.monotonic()
        if now - self._last >= BEAT_S:
            self._parts.beat(self._name)
            self._last = now
