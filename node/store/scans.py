"""Densities of each study, by patient: what a later study of the same patient is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date

from sqlalchemy import delete, insert, select

from node.store.database import Database
from node.store.installation import Pseudonyms
from node.store.schema import scans


class Scans:
    def __init__(self, database: Database, pseudonyms: Pseudonyms) -> None:
        self._database = database
        self._pseudonyms = pseudonyms

    def keep(
        self, *, study_instance_uid: str, patient_id: str, issuer: str, taken_on: date, content: str
    ) -> None:
        """Keep what a study measured, in place of what an earlier generation of it did.

        Raises
        ------
        ValueError
            Without a Patient ID: patients without one are not one patient.
        StoreUnavailable
            If it cannot be written.
        """
        row = {
            "study_instance_uid": study_instance_uid,
            "patient_hmac": self._pseudonym(patient_id, issuer),
            "taken_on": taken_on,
            "content": content,
        }
        with self._database.writing() as connection:
            connection.execute(delete(scans).where(scans.c.study_instance_uid == study_instance_uid))
            connection.execute(insert(scans).values(**row))

    def forget(self, study_instance_uid: str) -> None:
        """Keep nothing of this study, whoever it was kept for.

        Raises
        ------
        StoreUnavailable
            If it cannot be removed.
        """
        with self._database.writing() as connection:
            connection.execute(delete(scans).where(scans.c.study_instance_uid == study_instance_uid))

    def of_patient(self, *, patient_id: str, issuer: str) -> Sequence[str]:
        """What was kept of all studies of one patient, the earliest first. Raises as `keep` does."""
        wanted = (
            select(scans.c.content)
            .where(scans.c.patient_hmac == self._pseudonym(patient_id, issuer))
            .order_by(scans.c.taken_on, scans.c.study_instance_uid)
        )
        with self._database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())

    def _pseudonym(self, patient_id: str, issuer: str) -> str:
        """The identity itself is not kept; the same id of another issuer is another patient."""
        if not patient_id:
            raise ValueError("no Patient ID")
        return self._pseudonyms.of(hashlib.sha256(f"{issuer}\0{patient_id}".encode()).hexdigest())
