"""The rejection note that a destination gets with an amended report, where its configuration asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO

from pydicom import dcmread

from config.settings import Destination
from node.dicom.check import check_object
from node.dicom.rejection_note import RemovedObject, encode_rejection_note
from node.dicom.uids import series_uid_of
from node.pipeline.objects import MANIFEST, listed_objects
from node.pipeline.ports import Artefacts
from node.report import EncodedObject, ObjectKind
from node.store.deliveries import SupersededObject
from node.store.errors import ArtefactRemoved
from node.store.jobs import Lease, MadeObject
from node.store.store import Store


class RejectionNotes:
    """Made once for each generation and destination, and kept: a resend is the same bytes."""

    def __init__(self, *, store: Store, lease: Lease, artefacts: Artefacts) -> None:
        self._store = store
        self._lease = lease
        self._artefacts = artefacts

    def note_for(
        self, destination: Destination, objects: Sequence[EncodedObject]
    ) -> tuple[EncodedObject, ...]:
        """The note on what this destination has of earlier generations; none where it has nothing.

        Parameters
        ----------
        objects : what the destination gets now, the structured report among them.
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
        """The object; of one that retention removed what a note says of it."""
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
