"""Which peers are sending just now."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import insert, update

from node.store.database import Database, now_s
from node.store.schema import associations


class Associations:
    """Rows of associations that brought an instance. A row whose heartbeat stops counts as closed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, *, peer: str, calling_ae: str, called_ae: str) -> int:
        """Record a new association; returns its number."""
        with self._database.writing() as connection:
            made = connection.execute(
                insert(associations)
                .values(
                    peer=peer,
                    calling_ae=calling_ae,
                    called_ae=called_ae,
                    opened_at=now_s(),
                    heartbeat_at=now_s(),
                )
                .returning(associations.c.association_id)
            )
            return int(made.scalar_one())

    def beat(self, association_ids: Collection[int]) -> None:
        """Say that these are still open."""
        with self._database.writing() as connection:
            connection.execute(
                update(associations)
                .where(associations.c.association_id.in_(association_ids))
                .values(heartbeat_at=now_s())
            )

    def close(self, association_id: int) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(associations)
                .where(associations.c.association_id == association_id)
                .values(closed_at=now_s())
            )
