"""Serialisation and storage of intermediate results and of finished DICOM objects.

Results are typed JSON; label maps are compressed arrays.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter

from node.pipeline.ports import ArtefactMissing, Artefacts
from node.store.errors import NoSuchArtefact
from node.store.jobs import Lease
from node.store.store import Store
from node.study_report import EncodedObject, ObjectKind, RejectedSeries, SeriesFacts, StudyIdentity
from scoring.phantoms import PhantomReading
from segmentation.ct_volume import Grid, Mask
from segmentation.single_slice import SliceBody
from segmentation.vertebrae import EngineInfo, Level, Observation, Occupancy, RegionKind, Regions, Vertebrae

T = TypeVar("T")

# Names of the artefacts, each written after one step.
SELECTION = "selection.json"
SEGMENTATION = "segmentation.npz"
SLICES = "slices.npz"  # in its place where single slices are measured
MEASUREMENTS = "measurements.json"
REPORT = "report.json"
RESULT = "result.json"
TIMINGS = "timings.json"
NOMOGRAM_PNG = "nomogram.png"
OVERLAY_PNG = "overlay.png"
CALIBRATION_PNG = "calibration.png"


def to_json(value: object) -> bytes:
    """Serialise a dataclass, nested ones included, as UTF-8 JSON. Floats are reproduced exactly."""
    content: bytes = _adapter(type(value)).dump_json(value)
    return content


def from_json(kind: type[T], content: bytes) -> T:
    """Inverse of `to_json`.

    Parameters
    ----------
    kind : the dataclass.

    Raises
    ------
    pydantic.ValidationError
        If the content does not fit `kind`.
    """
    value: T = _adapter(kind).validate_json(content)
    return value


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What pydantic has once understood of a type need not be understood again."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSlice:
    """One slice of single-slice QCT, and the phantom in it.

    Attributes
    ----------
    name : "slice 1": from superior to inferior.
    """

    name: str
    sop_instance_uid: str
    phantom: PhantomReading


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionArtefact:
    """Who was scanned, which series is measured and what its phantom reads.

    Attributes
    ----------
    series : None: nothing can be measured.
    phantom : None where no series is read as a volume.
    slices : measured one by one; then no series is read as a volume.
    """

    study: StudyIdentity
    series: SeriesFacts | None
    rejected: tuple[RejectedSeries, ...]
    phantom: PhantomReading | None
    observations: tuple[Observation, ...]
    slices: tuple[SelectedSlice, ...] = ()

    @property
    def is_identified(self) -> bool:
        """Whether patient and study are known; of others no DICOM object is made."""
        return bool(self.study.patient_id and self.study.study_instance_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationArtefact:
    """Vertebrae and their regions in a volume."""

    vertebrae: Vertebrae
    regions: tuple[Regions, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """Everything of a segmentation but its arrays."""

    grid: Grid
    levels: tuple[Level, ...]
    numbering_confirmed: bool
    numbering_basis: str
    engine: EngineInfo
    observations: tuple[Observation, ...]
    regions: Mapping[str, float]  # levels that have regions, and their core's volume in mm3
    kinds: Mapping[str, RegionKind]  # of the same levels: what the leading density is read in
    occupancy: Mapping[str, tuple[int, int, int]]  # levels of which shares are known, and their box's corner
    drawn_on: Grid | None


def segmentation_to_bytes(segmentation: SegmentationArtefact) -> bytes:
    """Serialise label map and regions, on the source grid, with their description.

    Returns
    -------
    A compressed NumPy archive (.npz). Masks are packed to bits.
    """
    found = segmentation.vertebrae
    description = _Description(
        grid=found.grid,
        levels=found.levels,
        numbering_confirmed=found.numbering_confirmed,
        numbering_basis=found.numbering_basis,
        engine=found.engine,
        observations=found.observations,
        regions={region.level: region.core_volume_mm3 for region in segmentation.regions},
        kinds={region.level: region.kind for region in segmentation.regions},
        occupancy={name: known.corner for name, known in found.occupancy.items()},
        drawn_on=found.drawn_on,
    )
    arrays: dict[str, Any] = {
        "bodies": found.bodies,
        "description": np.frombuffer(to_json(description), np.uint8),
    }
    for region in segmentation.regions:
        arrays[f"bmd_{region.level}"] = np.packbits(region.bmd)
        arrays[f"radiomics_{region.level}"] = np.packbits(region.radiomics)
        if region.ellipse is not None:
            arrays[f"ellipse_{region.level}"] = np.packbits(region.ellipse)
    for name, known in found.occupancy.items():
        arrays[f"share_{name}"] = known.share
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def segmentation_from_bytes(content: bytes) -> SegmentationArtefact:
    """The inverse of `segmentation_to_bytes`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        about = from_json(_Description, archive["description"].tobytes())

        def mask(name: str) -> Mask:
            bits = np.unpackbits(archive[name], count=int(np.prod(about.grid.shape)))
            return bits.reshape(about.grid.shape).astype(bool)

        return SegmentationArtefact(
            vertebrae=Vertebrae(
                grid=about.grid,
                bodies=archive["bodies"],
                levels=about.levels,
                numbering_confirmed=about.numbering_confirmed,
                numbering_basis=about.numbering_basis,
                engine=about.engine,
                observations=about.observations,
                occupancy={
                    name: Occupancy(corner=corner, share=archive[f"share_{name}"])
                    for name, corner in about.occupancy.items()
                },
                drawn_on=about.drawn_on,
            ),
            regions=tuple(
                Regions(
                    level=name,
                    bmd=mask(f"bmd_{name}"),
                    radiomics=mask(f"radiomics_{name}"),
                    core_volume_mm3=volume_mm3,
                    kind=about.kinds[name],
                    ellipse=mask(f"ellipse_{name}") if f"ellipse_{name}" in archive else None,
                )
                for name, volume_mm3 in about.regions.items()
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSlice:
    """Segmentation of one single slice, with the slice's name."""

    name: str
    shown: SliceBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Result of the segment step: of a volume or of single slices; empty where neither is measured.

    Attributes
    ----------
    slices : in the selection's order.
    """

    volume: SegmentationArtefact | None = None
    slices: tuple[NamedSlice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _SliceDescription:
    """Everything of a slice but its arrays."""

    name: str
    shape: tuple[int, ...]  # of its masks
    has_body: bool
    has_region: bool
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SliceDescriptions:
    slices: tuple[_SliceDescription, ...]


def slices_to_bytes(slices: Sequence[NamedSlice]) -> bytes:
    """Serialise masks of single slices with their description.

    Returns
    -------
    A compressed NumPy archive (.npz). Masks are packed to bits.
    """
    described: list[_SliceDescription] = []
    arrays: dict[str, Any] = {}
    for number, one in enumerate(slices):
        masks = {"body": one.shown.body, "region": one.shown.region}
        shape: tuple[int, ...] = ()
        for part, mask in masks.items():
            if mask is not None:
                shape = mask.shape
                arrays[f"{part}_{number}"] = np.packbits(mask)
        described.append(
            _SliceDescription(
                name=one.name,
                shape=shape,
                has_body=one.shown.body is not None,
                has_region=one.shown.region is not None,
                observations=one.shown.observations,
            )
        )
    arrays["description"] = np.frombuffer(to_json(_SliceDescriptions(slices=tuple(described))), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def slices_from_bytes(content: bytes) -> tuple[NamedSlice, ...]:
    """The inverse of `slices_to_bytes`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        about = from_json(_SliceDescriptions, archive["description"].tobytes()).slices

        def mask(part: str, number: int, shape: tuple[int, ...]) -> Mask:
            bits = np.unpackbits(archive[f"{part}_{number}"], count=int(np.prod(shape)))
            return bits.reshape(shape).astype(bool)

        return tuple(
            NamedSlice(
                name=one.name,
                shown=SliceBody(
                    body=mask("body", number, one.shape) if one.has_body else None,
                    region=mask("region", number, one.shape) if one.has_region else None,
                    observations=one.observations,
                ),
            )
            for number, one in enumerate(about)
        )


class MemoryArtefacts:
    """Artefacts in memory, of a run that is not resumed."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def put(self, name: str, content: bytes) -> None:
        self._contents[name] = content

    def get(self, name: str) -> bytes:
        try:
            return self._contents[name]
        except KeyError:
            raise ArtefactMissing(name) from None

    def names(self) -> Sequence[str]:
        return tuple(self._contents)


class StoredArtefacts:
    """Artefacts in the store, of the study and generation of a lease.

    Raises
    ------
    LeaseLost
        By `put`, if the caller no longer holds the job.
    ArtefactMissing
        By `get`, if there is no such artefact.
    """

    def __init__(self, store: Store, lease: Lease, parameters: Mapping[str, str]) -> None:
        self._artefacts = store.artefacts
        self._lease = lease
        self._parameters = parameters

    def put(self, name: str, content: bytes) -> None:
        self._artefacts.put(self._lease, name, content, self._parameters)

    def get(self, name: str) -> bytes:
        try:
            return self._artefacts.get(self._lease.study_instance_uid, self._lease.generation, name)
        except NoSuchArtefact as error:
            raise ArtefactMissing(str(error)) from error

    def names(self) -> Sequence[str]:
        return self._artefacts.names(self._lease.study_instance_uid, self._lease.generation)


# Finished DICOM objects are artefacts too, so that a resend has the same bytes.


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
    """Store each object under its file name, and then their list: the list never names a missing object."""
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
    """Kind and SOP Instance UID of each object, in the order in which they were made.

    Parameters
    ----------
    manifest : content of the artefact `MANIFEST`.
    """
    return tuple((entry.kind, entry.sop_instance_uid) for entry in from_json(_Manifest, manifest).objects)


def stored_objects(artefacts: Artefacts) -> tuple[EncodedObject, ...]:
    """Objects in sending order: what a report refers to precedes the report.

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
