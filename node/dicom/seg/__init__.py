"""The regions behind the numbers, and the rods that calibrate them, as a DICOM Segmentation.

highdicom takes one multi-frame image or many single ones, and of the first it keeps the frames' own order. A
series may hold several multi-frame instances, with frames in any order. So highdicom gets each frame as an
image with a stand-in UID, which then gives way to class, instance and frame number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO

import numpy as np
import numpy.typing as npt
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from node.dicom import codes
from node.dicom.codes import rod_algorithm, segment_algorithm, segment_algorithm_type
from node.dicom.ct.pixel_data import iterate_frames
from node.dicom.ct.reading import LoadedSeries
from node.dicom.errors import SegmentationMismatch
from node.dicom.header_text import text_of, to_ascii
from node.dicom.result_headers import (
    MANUFACTURER,
    MODEL_NAME,
    SEGMENTATION_DESCRIPTION,
    SEGMENTATION_SERIES,
    apply_equipment,
    copy_identity,
    identity_source,
    without_identity,
)
from node.dicom.uids import derived_uid, mint, to_bytes
from node.study_report import EncodedObject, ObjectKind, Provenance, Report
from scoring.calibration import Calibration, Grade, RodReading
from segmentation.ct_volume import Grid, Mask
from segmentation.vertebrae import EngineInfo, RegionKind, Regions, Vertebrae, is_lumbar

# Slice positions are written with few decimals; a mirrored or shifted mask is off by far more.
_CENTROID_TOLERANCE_MM = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    sop_class_uid: str
    sop_instance_uid: str
    number: int  # from 1

    @property
    def stand_in_uid(self) -> str:
        return derived_uid("frame", self.sop_instance_uid, str(self.number))


def frames_as_images(series: LoadedSeries) -> tuple[Dataset, ...]:
    """The source images of each slice of the volume, as highdicom needs them.

    Returns
    -------
    One header for each slice k, with the patient blank. A frame becomes a CT image with a stand-in UID.
    """
    images = []
    for header, frame in zip(series.headers, _frames(series), strict=True):
        image = without_identity(header)
        if frame is not None:
            image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, frame.stand_in_uid
        images.append(image)
    return tuple(images)


def refer_to_frames(segmentation: Dataset, series: LoadedSeries) -> None:
    """Replace stand-ins by the instance and, where one frame is meant, its number.

    Parameters
    ----------
    segmentation : of images from `frames_as_images`; changed in place.

    Source: PS3.3 Table 10-3 (Image SOP Instance Reference Macro).
    """
    frames = {frame.stand_in_uid: frame for frame in _frames(series) if frame is not None}
    if not frames:
        return
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence") or ():
            for source in derivation.SourceImageSequence:
                if frame := frames.get(source.ReferencedSOPInstanceUID):
                    _refer_to_instance(source, frame)
                    source.ReferencedFrameNumber = frame.number
    for referenced in segmentation.ReferencedSeriesSequence:
        instances: dict[str, Dataset] = {}
        for image in referenced.ReferencedInstanceSequence:
            if frame := frames.get(image.ReferencedSOPInstanceUID):
                _refer_to_instance(image, frame)
            instances.setdefault(image.ReferencedSOPInstanceUID, image)
        referenced.ReferencedInstanceSequence = list(instances.values())


def _frames(series: LoadedSeries) -> tuple[_Frame | None, ...]:
    """The frame of slice k of the volume; None where the slice is an instance."""
    return tuple(
        None
        if number is None
        else _Frame(
            sop_class_uid=text_of(header, "SOPClassUID"),
            sop_instance_uid=text_of(header, "SOPInstanceUID"),
            number=number,
        )
        for header, number in zip(series.headers, series.frames, strict=True)
    )


def _refer_to_instance(reference: Dataset, frame: _Frame) -> None:
    reference.ReferencedSOPClassUID = frame.sop_class_uid
    reference.ReferencedSOPInstanceUID = frame.sop_instance_uid


def rods_in_view(calibration: Calibration | None) -> tuple[RodReading, ...]:
    """The rods that are in the report's own images: none where they were scanned earlier."""
    if calibration is None or calibration.grade is not Grade.PHANTOM:
        return ()
    return calibration.rods


def read_radius_mm(rod: RodReading, grid: Grid) -> float:
    """Radius of the part of a rod that was read, from its volume.

    Parameters
    ----------
    rod : with at least two axis points.
    grid : that it was read on.
    """
    planes = _axis(rod, grid)[:, 0]
    length_mm = (float(np.ptp(planes)) + 1) * grid.spacing_mm[0]  # half a slice beyond both ends
    return float(np.sqrt(rod.voxels * grid.voxel_volume_mm3 / (np.pi * length_mm)))


def centre_in(rod: RodReading, grid: Grid, plane: float) -> tuple[float, float]:
    """Fractional row and column at which a rod crosses a slice.

    Parameters
    ----------
    plane : index of the slice; beyond the rod's ends, that of the nearest end counts.
    """
    points = _axis(rod, grid)
    return (
        float(np.interp(plane, points[:, 0], points[:, 1])),
        float(np.interp(plane, points[:, 0], points[:, 2])),
    )


def rod_masks(report: Report, grid: Grid, planes: slice) -> tuple[tuple[RodReading, Mask], ...]:
    """The part of each rod that was read, within some slices.

    Parameters
    ----------
    planes : beyond them the masks are empty.

    Returns
    -------
    tuple of (rod, mask)
        Masks have the grid's shape. Rods known at one point only, and those of an earlier scan, are left out.
    """
    return tuple(
        (rod, _mask(rod, grid, planes))
        for rod in rods_in_view(report.calibration)
        if len(rod.axis_points_mm) >= 2
    )


def _axis(rod: RodReading, grid: Grid) -> npt.NDArray[np.float64]:
    """Fractional indices (z, y, x) along the rod, shape (n, 3), by rising slice."""
    points = grid.to_index(np.asarray(rod.axis_points_mm))
    ordered: npt.NDArray[np.float64] = points[np.argsort(points[:, 0])]
    return ordered


def _mask(rod: RodReading, grid: Grid, planes: slice) -> Mask:
    mask = np.zeros(grid.shape, dtype=np.bool_)
    ends = _axis(rod, grid)[[0, -1], 0]
    first, last = max(planes.start, round(float(ends[0]))), min(planes.stop - 1, round(float(ends[1])))
    rows, columns = (np.arange(size) for size in grid.shape[1:])
    radius_mm = read_radius_mm(rod, grid)
    for plane in range(first, last + 1):
        row, column = centre_in(rod, grid, plane)
        down_mm = (rows - row) * grid.spacing_mm[1]
        across_mm = (columns - column) * grid.spacing_mm[2]
        mask[plane] = np.hypot(down_mm[:, None], across_mm[None, :]) <= radius_mm
    return mask


class Part(StrEnum):
    """What a segment shows: a part of a vertebra, or a rod."""

    BODY = "vertebral body"
    BMD = "cancellous core (BMD region)"
    ELLIPSE = "mid-body ellipse (BMD region)"
    RADIOMICS = "radiomics region"
    ROD = "calibration rod (read part)"


PARTS: Mapping[RegionKind, Part] = {RegionKind.CORE: Part.BMD, RegionKind.ELLIPSE: Part.ELLIPSE}

# L*, a*, b*: different in hue and in lightness, so that they differ on a grey-scale monitor too.
_COLOURS: Mapping[Part, tuple[float, float, float]] = {
    Part.BODY: (70.0, -10.0, -35.0),
    Part.BMD: (85.0, 5.0, 75.0),
    Part.ELLIPSE: (62.0, -45.0, 40.0),
    Part.RADIOMICS: (55.0, 60.0, -30.0),
    Part.ROD: (78.0, 30.0, 60.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of the object.

    Attributes
    ----------
    number : from 1, as in the segmentation.
    level : of the vertebra, or its place where it has no name; "" of a rod.
    label : at most 64 characters, for viewers.
    tracking_id, tracking_uid : the same for the same part in each report of the series.
    mask : shape of the series' grid (z, y, x).
    """

    number: int
    level: str
    part: Part
    label: str
    tracking_id: str
    tracking_uid: str
    mask: Mask


def plan_segments(report: Report, vertebrae: Vertebrae, regions: Sequence[Regions]) -> tuple[Segment, ...]:
    """The segments behind the report's numbers: nothing is shown that was withheld.

    Parameters
    ----------
    vertebrae, regions : on the grid of the report's series.

    Returns
    -------
    Segments with at least one voxel, numbered from 1, by level.
    """
    masks: list[tuple[str, Part, Mask]] = []
    for result in (level for level in report.levels if is_lumbar(level.name)):
        found = vertebrae.level(result.name)
        region = next((r for r in regions if r.level == result.name), None)
        if found is not None and result.volume_mm3 is not None:
            masks.append((result.name, Part.BODY, vertebrae.bodies == found.label))
        if region is not None and result.measured is not None:
            masks.append((result.name, PARTS[region.kind], region.bmd))
            if region.ellipse is not None and result.ellipse is not None:
                masks.append((result.name, Part.ELLIPSE, region.ellipse))
            if report.features is not None and result.name == "L3":
                masks.append((result.name, Part.RADIOMICS, region.radiomics))
    presumed = "" if report.numbering_confirmed or report.has_unnamed_bodies else " (level presumed)"
    return tuple(
        Segment(
            number=number,
            level=level,
            part=part,
            label=f"{level}{presumed} {part.value}",
            tracking_id=f"{level} {part.value}",
            tracking_uid=_tracking_uid(report, level, part),
            mask=mask,
        )
        for number, (level, part, mask) in enumerate((m for m in masks if m[2].any()), start=1)
    )


def with_rods(report: Report, grid: Grid, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """`segments` and each rod that calibrates them, in the slices that the segments occupy.

    Returns
    -------
    Empty where there are no segments: rods alone make no object.
    """
    if not segments:
        return ()
    masks = rod_masks(report, grid, _span(segments))
    first = len(segments) + 1
    rods = (
        Segment(
            number=number,
            level="",
            part=Part.ROD,
            label=f"{Part.ROD.value}: {to_ascii(rod.name)}"[:64],
            tracking_id=f"rod {rod.name}",
            tracking_uid=_tracking_uid(report, rod.name, Part.ROD),
            mask=mask,
        )
        for number, (rod, mask) in enumerate((one for one in masks if one[1].any()), start=first)
    )
    return (*segments, *rods)


def _tracking_uid(report: Report, name: str, part: Part) -> str:
    series_uid = report.series.series_instance_uid if report.series else ""
    return derived_uid("tracking", report.study.study_instance_uid, series_uid, name, part.name)


def _span(segments: Sequence[Segment]) -> slice:
    """The slices that the segments occupy."""
    occupied = np.flatnonzero(np.logical_or.reduce([s.mask.any(axis=(1, 2)) for s in segments]))
    return slice(int(occupied[0]), int(occupied[-1]) + 1)


def encode_segmentation(report: Report, series: LoadedSeries, segments: Sequence[Segment]) -> EncodedObject:
    """A BINARY segmentation of `segments` on the source slices, read back and compared.

    Parameters
    ----------
    segments : numbered from 1; at least one.

    Raises
    ------
    SegmentationMismatch
        If the finished object, decoded, does not hold the masks it was made from.
    ValueError
        If there are no segments, or the report names no engine.

    Source: PS3.3 A.51 (Segmentation IOD).
    """
    engine = report.provenance.engine
    if engine is None or not segments:
        raise ValueError("a segmentation needs an engine and at least one segment")
    span = _span(segments)
    dataset = Segmentation(
        source_images=list(frames_as_images(series)[span]),
        pixel_array=np.stack([s.mask[span] for s in segments], axis=-1).view(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(segment, report.provenance, engine) for segment in segments],
        series_instance_uid=derived_uid("placeholder"),
        series_number=SEGMENTATION_SERIES,
        sop_instance_uid=derived_uid("placeholder"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=report.provenance.version,
        device_serial_number="",
        content_label="LUMBAR_QCT",
        content_description="Research use only",
        omit_empty_frames=True,
    )
    refer_to_frames(dataset, series)
    copy_identity(identity_source(series.headers), dataset)
    apply_equipment(dataset, report, series_number=SEGMENTATION_SERIES, description=SEGMENTATION_DESCRIPTION)
    mint([dataset], report.issued_at)
    content = to_bytes(dataset)
    require_same_voxels(content, series.volume.grid, segments)
    return EncodedObject(
        kind=ObjectKind.SEGMENTATION,
        file_name="segmentation.dcm",
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        content=content,
    )


def _describe(segment: Segment, provenance: Provenance, engine: EngineInfo) -> SegmentDescription:
    is_rod = segment.part is Part.ROD
    return SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=codes.PHYSICAL_OBJECT if is_rod else codes.TISSUE,
        segmented_property_type=codes.PHANTOM if is_rod else codes.BONE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC if is_rod else segment_algorithm_type(engine),
        algorithm_identification=rod_algorithm(provenance) if is_rod else segment_algorithm(engine),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=None if is_rod else [codes.level_site(segment.level)],
        display_color=CIELabColor(*_COLOURS[segment.part]),
    )


def require_same_voxels(content: bytes, grid: Grid, segments: Sequence[Segment]) -> None:
    """Decode a segmentation and compare each segment's voxel count and centroid with its mask.

    Parameters
    ----------
    content : a DICOM file (PS3.10).
    grid : of the masks.

    Raises
    ------
    SegmentationMismatch
        If they differ: a mirrored, shifted or incomplete mask must not leave the node.
    """
    decoded = read_segments(content)
    for segment in segments:
        points = decoded.get(segment.number, np.empty((0, 3)))
        expected = grid.to_patient(np.argwhere(segment.mask))
        if len(points) != len(expected):
            raise SegmentationMismatch(f"{segment.label}: {len(points)} voxels for {len(expected)}")
        shift = float(np.linalg.norm(points.mean(axis=0) - expected.mean(axis=0)))
        if shift > _CENTROID_TOLERANCE_MM:
            raise SegmentationMismatch(f"{segment.label}: centroid shifted by {shift:.3f} mm")


def read_segments(content: bytes) -> Mapping[int, npt.NDArray[np.float64]]:
    """Decode a segmentation made here.

    Returns
    -------
    By segment number: patient coordinates (LPS, mm) of its voxels' centres, shape (n, 3).
    """
    dataset = dcmread(BytesIO(content))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    spacing = [float(s) for s in shared.PixelMeasuresSequence[0].PixelSpacing]
    orientation = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    found: dict[int, list[npt.NDArray[np.float64]]] = {}
    frames = iterate_frames(dataset)
    for frame, own in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(_group(own, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        corner = _group(own, shared, "PlanePositionSequence").ImagePositionPatient
        points = _points(frame, np.asarray(corner, dtype=float), spacing, orientation)
        found.setdefault(number, []).append(points)
    return {number: np.concatenate(points) for number, points in found.items()}


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame; what all frames have in common stands among the shared ones."""
    item: Dataset = (own.get(keyword) or shared.get(keyword))[0]
    return item


def _points(
    frame: npt.NDArray[np.uint8],
    corner: npt.NDArray[np.float64],
    spacing: list[float],
    orientation: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Patient coordinates of the voxels set in one frame."""
    rows, columns = np.nonzero(frame)
    points: npt.NDArray[np.float64] = (
        corner
        + np.outer(columns * spacing[1], orientation[:3])
        + np.outer(rows * spacing[0], orientation[3:])
    )
    return points
