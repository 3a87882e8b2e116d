"""The finished DICOM objects of a study, kept as artefacts so that a resend is byte-identical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from node.pipeline.artefacts import from_json, to_json
from node.pipeline.ports import Artefacts
from node.report import EncodedObject, ObjectKind

MANIFEST = "objects.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    kind: ObjectKind
    file_name: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    objects: tuple[_Entry, ...]


def store_objects(artefacts: Artefacts, objects: Sequence[EncodedObject]) -> None:
    """Keep each object under its file name, and then their list: a list never names what is not there."""
    for one in objects:
        artefacts.put(one.file_name, one.content)
    entries = tuple(
        _Entry(
            kind=one.kind,
            file_name=one.file_name,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
        )
        for one in objects
    )
    artefacts.put(MANIFEST, to_json(_Manifest(objects=entries)))


def listed_objects(manifest: bytes) -> tuple[tuple[ObjectKind, str], ...]:
    """Kind and SOP Instance UID of each object, in the order in which they were made, by their list alone."""
    return tuple((entry.kind, entry.sop_instance_uid) for entry in from_json(_Manifest, manifest).objects)


def stored_objects(artefacts: Artefacts) -> tuple[EncodedObject, ...]:
    """The objects in the order they are sent: what a report refers to goes before the report.

    Raises
    ------
    ArtefactMissing
        If the report step has not run.
    """
    manifest = from_json(_Manifest, artefacts.get(MANIFEST))
    return tuple(
        EncodedObject(
            kind=entry.kind,
            file_name=entry.file_name,
            sop_class_uid=entry.sop_class_uid,
            sop_instance_uid=entry.sop_instance_uid,
            content=artefacts.get(entry.file_name),
        )
        for entry in manifest.objects
    )
