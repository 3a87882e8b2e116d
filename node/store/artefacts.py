"""Intermediate results and finished objects, by study, generation and name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from node.store.database import Database, now_s
from node.store.errors import ArtefactRemoved, CommitUnknown, NoSuchArtefact
from node.store.files import FileStore, sha256_of
from node.store.jobs import Lease, write_as_holder
from node.store.schema import artefacts


class Artefacts:
    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files

    def put(self, lease: Lease, name: str, content: bytes, parameters: Mapping[str, str]) -> None:
        """Keep `content` durably under `name`, in place of what the generation had there.

        Raises
        ------
        LeaseLost
            If another worker took the job over; what it wrote stays.
        StoreUnavailable
            If the file or its row cannot be written.
        """
        sha256 = sha256_of(content)
        path = self._files.write("artefacts", sha256, (content,))
        row = {
            "study_instance_uid": lease.study_instance_uid,
            "generation": lease.generation,
            "name": name,
            "step": lease.step,
            "sha256": sha256,
            "path": path,
            "size_bytes": len(content),
            "parameters": json.dumps(parameters, sort_keys=True),
            "written_at": now_s(),
            "removed_at": None,
        }
        key = ("study_instance_uid", "generation", "name")
        try:
            with self._database.writing() as connection:
                write_as_holder(connection, lease)
                replaced = connection.execute(
                    select(artefacts.c.path).where(*(artefacts.c[column] == row[column] for column in key))
                ).scalar()
                make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                changed = {column: value for column, value in row.items() if column not in key}
                connection.execute(
                    make(artefacts).values(**row).on_conflict_do_update(index_elements=key, set_=changed)
                )
        except CommitUnknown:
            raise  # a row may name the file; `Orphans` removes it if none does
        except BaseException:
            self._files.remove(path)
            raise
        if replaced is not None:
            self._files.remove(replaced)

    def get(self, study_instance_uid: str, generation: int, name: str) -> bytes:
        """Raises NoSuchArtefact if there is none, or its file is gone (`ArtefactRemoved`) or altered."""
        wanted = select(artefacts.c.path, artefacts.c.sha256, artefacts.c.removed_at).where(
            artefacts.c.study_instance_uid == study_instance_uid,
            artefacts.c.generation == generation,
            artefacts.c.name == name,
        )
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        if row is None:
            raise NoSuchArtefact(name)
        if row.removed_at is not None:
            raise ArtefactRemoved(name, datetime.fromtimestamp(row.removed_at, UTC))
        try:
            content = self._files.read(row.path)
        except FileNotFoundError:
            raise NoSuchArtefact(f"{name}: its file is gone") from None
        if sha256_of(content) != row.sha256:
            raise NoSuchArtefact(f"{name}: its file was altered")
        return content

    def names(self, study_instance_uid: str, generation: int) -> Sequence[str]:
        """Of those that are kept."""
        wanted = (
            select(artefacts.c.name)
            .where(
                artefacts.c.study_instance_uid == study_instance_uid,
                artefacts.c.generation == generation,
                artefacts.c.removed_at.is_(None),
            )
            .order_by(artefacts.c.name)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())
