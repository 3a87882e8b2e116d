"""What later studies are compared with: phantom readings of each scanner, and densities of each patient."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import TypeVar

from pydantic import TypeAdapter
from sqlalchemy import RowMapping, delete, insert, select

from node.store.database import Database, DatabaseRows, now_s
from node.store.installation import Pseudonyms
from node.store.schema import phantom_readings, scans
from scoring.calibration import Calibration, Mineral
from scoring.calibration.control_charts import Protocol, ScannerReading
from scoring.calibration.spectrum import ScanTechnique

T = TypeVar("T")

_TECHNIQUE: TypeAdapter[ScanTechnique | None] = TypeAdapter(ScanTechnique | None)
_CALIBRATION: TypeAdapter[Calibration | None] = TypeAdapter(Calibration | None)
_CODES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])


class ScannerReadings(DatabaseRows):
    """Phantom readings, by which the calibration of each scanner is judged."""

    def keep(self, study_instance_uid: str, source_uid: str, reading: ScannerReading) -> None:
        """Store the reading of a series or single slice, in place of an earlier one of the same source.

        The time of the first of them stays, since charts are ordered by it.

        Parameters
        ----------
        study_instance_uid : of the study.
        source_uid : Series Instance UID, or SOP Instance UID of a single slice.
        reading : the new reading.
        """
        protocol = reading.protocol
        row = {
            "source_uid": source_uid,
            "study_instance_uid": study_instance_uid,
            "device_serial": protocol.device_serial,
            "model": reading.model,
            "kvp": protocol.kvp,
            "kernel": protocol.kernel,
            "phantom": protocol.phantom,
            "phantom_serial": protocol.phantom_serial,
            "taken_on": reading.taken_on,
            "slope": reading.slope,
            "intercept": reading.intercept,
            "water_hu": reading.water_hu,
            "r2": reading.r2,
            "tilt_degrees": reading.tilt_degrees,
            "taken_at": reading.taken_at,
            "technique": _written(_TECHNIQUE, reading.technique),
            "calibration": _written(_CALIBRATION, reading.calibration),
            "equivalent": None if reading.equivalent is None else reading.equivalent.value,
            "findings": _CODES.dump_json(reading.findings).decode(),
            "failed": reading.failed,
            "alone": reading.alone,
        }
        same = phantom_readings.c.source_uid == source_uid
        with self._database.writing() as connection:
            first_kept_at = connection.execute(select(phantom_readings.c.kept_at).where(same)).scalar()
            connection.execute(delete(phantom_readings).where(same))
            kept_at = now_s() if first_kept_at is None else first_kept_at
            connection.execute(insert(phantom_readings).values(kept_at=kept_at, **row))

    def forget(self, source_uid: str) -> None:
        """Keep no reading of this series or single slice."""
        with self._database.writing() as connection:
            connection.execute(delete(phantom_readings).where(phantom_readings.c.source_uid == source_uid))

    def readings(self, device_serial: str | None = None) -> Sequence[ScannerReading]:
        """Stored readings, oldest first.

        Parameters
        ----------
        device_serial : of one scanner; None for all scanners.
        """
        wanted = select(phantom_readings).order_by(
            phantom_readings.c.taken_on, phantom_readings.c.kept_at, phantom_readings.c.source_uid
        )
        if device_serial is not None:
            wanted = wanted.where(phantom_readings.c.device_serial == device_serial)
        with self._database.reading() as connection:
            return tuple(_reading(row) for row in connection.execute(wanted).mappings())


def _reading(row: RowMapping) -> ScannerReading:
    return ScannerReading(
        protocol=Protocol(
            device_serial=row["device_serial"],
            kvp=row["kvp"],
            kernel=row["kernel"],
            phantom=row["phantom"],
            phantom_serial=row["phantom_serial"],
        ),
        model=row["model"],
        taken_on=row["taken_on"],
        slope=row["slope"],
        intercept=row["intercept"],
        water_hu=row["water_hu"],
        r2=row["r2"],
        tilt_degrees=row["tilt_degrees"],
        taken_at=row["taken_at"],
        technique=_TECHNIQUE.validate_json(row["technique"] or "null"),
        calibration=_CALIBRATION.validate_json(row["calibration"] or "null"),
        equivalent=None if row["equivalent"] is None else Mineral(row["equivalent"]),
        findings=_CODES.validate_json(row["findings"]),
        failed=row["failed"],
        alone=row["alone"],
        first_kept_at_s=row["kept_at"],
    )


def _written(kind: TypeAdapter[T | None], value: T | None) -> str | None:
    return None if value is None else kind.dump_json(value).decode()


class PatientScans(DatabaseRows):
    """Densities of each study by patient, for comparison with later studies of the same patient.

    Patients are stored as pseudonyms: the same Patient ID of another issuer is another patient.
    """

    def __init__(self, database: Database, pseudonyms: Pseudonyms) -> None:
        super().__init__(database)
        self._pseudonyms = pseudonyms

    def keep(
        self, *, study_instance_uid: str, patient_id: str, issuer: str, taken_on: date, content: str
    ) -> None:
        """Store what a study measured, in place of an earlier generation of it.

        Parameters
        ----------
        patient_id, issuer : as the study states them; neither is stored.
        taken_on : date of the scan.
        content : JSON, as the caller reads it back.

        Raises
        ------
        ValueError
            If there is no Patient ID: patients without one cannot be told apart.
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
        """Keep nothing of this study, whoever it was kept for."""
        with self._database.writing() as connection:
            connection.execute(delete(scans).where(scans.c.study_instance_uid == study_instance_uid))

    def of_patient(self, *, patient_id: str, issuer: str) -> Sequence[str]:
        """Contents stored for all studies of one patient, the earliest first.

        Raises
        ------
        ValueError
            If there is no Patient ID.
        StoreUnavailable
            If the database cannot be used.
        """
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
