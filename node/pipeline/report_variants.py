"""Variants for each destination: the SR class of the report, and the rejection note."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO

from pydicom import dcmread

from config.sections import Destination
from node.dicom.conformance import check_object
from node.dicom.destination_objects import SR_CLASSES, RemovedObject, encode_rejection_note, report_as
from node.dicom.uids import series_uid_of
from node.pipeline.artefacts import MANIFEST, listed_objects
from node.pipeline.ports import Artefacts
from node.store.deliveries import OpenDelivery, ScheduledReport, SupersededObject
from node.store.errors import ArtefactRemoved
from node.store.jobs import Lease, MadeObject
from node.store.states import ARRIVED
from node.store.store import Store
from node.study_report import EncodedObject, ObjectKind

_FIRST = next(iter(SR_CLASSES))


class ReportClasses:
    """The objects of one generation as each destination gets them.

    Parameters
    ----------
    objects : with the report in its first class, as the report step made them.
    """

    def __init__(
        self, *, store: Store, lease: Lease, artefacts: Artefacts, objects: Sequence[EncodedObject]
    ) -> None:
        self._store = store
        self._lease = lease
        self._artefacts = artefacts
        self._objects = objects
        self._report = next((one for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT), None)

    def objects_for(self, destination: Destination) -> tuple[EncodedObject, ...]:
        """All objects in sending order, with the report in the SR class of this destination.

        A report that the destination took keeps its class, whatever the settings are now.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        if self._report is None:
            return tuple(self._objects)
        scheduled = self._store.deliveries.report_at(self._lease, destination.name)
        wish = destination.sr_class
        if scheduled is not None and (wish == "auto" or scheduled.state in ARRIVED):
            return self._with(self._stored(scheduled))
        wanted = self._in_class(_FIRST if wish == "auto" else wish)
        if scheduled is not None and scheduled.sop_instance_uid != wanted.sop_instance_uid:
            self._store.deliveries.replace(
                self._lease, destination.name, scheduled.sop_instance_uid, wanted.sop_instance_uid
            )
        return self._with(wanted)

    def alternatives(self, destination: Destination, objects: Sequence[EncodedObject]) -> tuple[str, ...]:
        """Simpler SOP classes in which the report among `objects` may be sent instead, the richest first.

        Returns
        -------
        Empty unless the destination's class is chosen automatically.
        """
        classes = [str(uid) for uid in SR_CLASSES.values()]
        now = [one.sop_class_uid for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT]
        if destination.sr_class != "auto" or not now or now[0] not in classes:
            return ()
        return tuple(classes[classes.index(now[0]) + 1 :])

    def replace(self, delivery: OpenDelivery, sop_class_uid: str) -> None:
        """Schedule the report in another class in place of one that the destination does not accept.

        Parameters
        ----------
        delivery : of the rejected report.
        sop_class_uid : one of `SR_CLASSES`.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        name = next(name for name, uid in SR_CLASSES.items() if uid == sop_class_uid)
        self._store.deliveries.replace(
            self._lease,
            delivery.destination,
            delivery.sop_instance_uid,
            self._in_class(name).sop_instance_uid,
        )

    def _with(self, report: EncodedObject) -> tuple[EncodedObject, ...]:
        return tuple(report if one.kind is ObjectKind.STRUCTURED_REPORT else one for one in self._objects)

    def _stored(self, scheduled: ScheduledReport) -> EncodedObject:
        return EncodedObject(
            kind=ObjectKind.STRUCTURED_REPORT,
            file_name=scheduled.artefact,
            sop_class_uid=scheduled.sop_class_uid,
            sop_instance_uid=scheduled.sop_instance_uid,
            content=self._artefacts.get(scheduled.artefact),
        )

    def _in_class(self, name: str) -> EncodedObject:
        assert self._report is not None, "asked for only where there is a report"
        if name == _FIRST:
            return self._report
        made = report_as(
            self._report,
            name,
            issued_at=self._store.reports.issue(self._lease).issued_at,
            predecessor_uid=self._store.deliveries.predecessor_in(self._lease, SR_CLASSES[name]),
        )
        check_object(made.content)
        self._artefacts.put(made.file_name, made.content)
        self._store.deliveries.add(
            self._lease,
            MadeObject(
                sop_instance_uid=made.sop_instance_uid,
                sop_class_uid=made.sop_class_uid,
                kind=made.kind.value,
                artefact=made.file_name,
                is_report=False,  # the report of the generation stays the one that it is made from
            ),
        )
        return made


class RejectionNotes:
    """Rejection notes that accompany amended reports.

    Each is made once for a generation and destination, and stored: a resend has the same bytes.
    """

    def __init__(self, *, store: Store, lease: Lease, artefacts: Artefacts) -> None:
        self._store = store
        self._lease = lease
        self._artefacts = artefacts

    def note_for(
        self, destination: Destination, objects: Sequence[EncodedObject]
    ) -> tuple[EncodedObject, ...]:
        """Rejection note on the objects of earlier generations that this destination took.

        Parameters
        ----------
        objects : what the destination gets now, the structured report among them.

        Returns
        -------
        One note; empty where the destination wants none or took nothing.
        """
        if not destination.rejection_note:
            return ()
        name = f"rejection-{sha256(destination.name.encode()).hexdigest()[:16]}.dcm"
        if name in self._artefacts.names():
            return (_read(name, self._artefacts.get(name)),)
        rejected = self._superseded_at(destination)
        report = next((one for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT), None)
        if not rejected or report is None:
            return ()
        issued_at = self._store.reports.issue(self._lease).issued_at
        made = encode_rejection_note(report, rejected, issued_at=issued_at, file_name=name)
        check_object(made.content)
        self._artefacts.put(name, made.content)
        self._store.deliveries.add(
            self._lease,
            MadeObject(
                sop_instance_uid=made.sop_instance_uid,
                sop_class_uid=made.sop_class_uid,
                kind=made.kind.value,
                artefact=name,
                is_report=False,
            ),
        )
        return (made,)

    def _superseded_at(self, destination: Destination) -> list[EncodedObject | RemovedObject]:
        return [
            self._named(one) for one in self._store.deliveries.superseded_at(self._lease, destination.name)
        ]

    def _named(self, one: SupersededObject) -> EncodedObject | RemovedObject:
        """The object; for one that retention removed, the UIDs that a note needs."""
        study = self._lease.study_instance_uid
        try:
            return EncodedObject(
                kind=ObjectKind(one.kind),
                file_name=one.artefact,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                content=self._store.artefacts.get(study, one.generation, one.artefact),
            )
        except ArtefactRemoved:
            mates = [one.sop_instance_uid]
            if one.kind == ObjectKind.PICTURE:  # they share a series, in the order in which they were made
                manifest = self._store.artefacts.get(study, one.generation, MANIFEST)
                mates = [uid for kind, uid in listed_objects(manifest) if kind is ObjectKind.PICTURE]
            return RemovedObject(
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=series_uid_of(mates),
            )


def _read(name: str, content: bytes) -> EncodedObject:
    header = dcmread(BytesIO(content), specific_tags=["SOPClassUID", "SOPInstanceUID"])
    return EncodedObject(
        kind=ObjectKind.REJECTION_NOTE,
        file_name=name,
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        content=content,
    )
