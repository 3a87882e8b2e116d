"""Masks of vertebrae that were drawn elsewhere: DICOM Segmentations, and label images such as NIfTI.

A Segmentation becomes one label map in patient coordinates (PS3.3 C.8.20, Segmentation Image, Multi-frame
Functional Groups). The order of frames and the segment numbers mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage

from node.dicom import codes
from node.dicom.ct.pixel_data import iterate_frames, require_stated_size
from node.dicom.ct.reading import LoadedSeries
from node.dicom.ct.slice_geometry import as_vector, grid_direction, normal_of
from node.dicom.errors import MaskUnreadable, SegProblem, SegUnusable
from node.dicom.header_text import items_of, number_of, text_of
from node.dicom.result_headers import made_here
from segmentation.ct_volume import Grid, LabelMap, Mask
from segmentation.phrase import phrase
from segmentation.vertebrae import LABELS

# A voxel of a FRACTIONAL segment belongs to it from half its maximum on, probability and occupancy alike.
FRACTION = 0.5
# Attributes by which a site may choose segmentations.
ORIGINS: Mapping[str, str] = {
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "software": "SoftwareVersions",
    "series_description": "SeriesDescription",
}
_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"  # PS3.4 B.5; pydicom has no name for it yet
_SOP_CLASSES = (SegmentationStorage, _LABEL_MAP_SEGMENTATION)
_STEP_TOLERANCE = 0.1  # of a step (or a pixel): frames further off lie on no regular grid
_SAME_DEPTH_MM = 0.01
_COSINE_TOLERANCE = 1e-3
_OVERLAP = 0.001  # share of the labelled voxels that two vertebrae may share: a rounded border, no more

FloatArray = npt.NDArray[np.float64]
LabelArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegMask:
    """Vertebrae of a Segmentation object.

    Attributes
    ----------
    labels : uint8, shape (z, y, x); values of `segmentation.vertebrae.LABELS`.
    grid : of the frames that the object has, not of the CT.
    sop_instance_uid, manufacturer, model : of the object.
    """

    labels: LabelMap
    grid: Grid
    sop_instance_uid: str
    manufacturer: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    segment: int | None  # None in a label map, whose pixels are segment numbers
    corner_mm: FloatArray  # of the first pixel's centre, LPS
    orientation: FloatArray  # six cosines
    spacing_mm: tuple[float, float]  # between rows, between columns
    between_mm: float | None  # SpacingBetweenSlices, where it is stated


def segmentations_among(paths: Iterable[Path], wanted: Mapping[str, str]) -> tuple[Path, ...]:
    """The segmentations of the origin that a site named, without those that this node made. Copies count
    once.

    Parameters
    ----------
    wanted : keys of `ORIGINS` and patterns (`*`, `?`; case is ignored), all of which must match.

    Returns
    -------
    Sorted by path.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        header = _segmentation_header(path)
        if header is not None and is_measured_from(header, wanted):
            found.setdefault(text_of(header, "SOPInstanceUID"), path)
    return tuple(found.values())


def is_measured_from(header: Dataset, wanted: Mapping[str, str]) -> bool:
    """Whether a data set is a segmentation of that origin, made elsewhere.

    Parameters
    ----------
    wanted : as for `segmentations_among`; where it is empty, none is.
    """
    is_segmentation = text_of(header, "SOPClassUID") in _SOP_CLASSES
    return is_segmentation and not made_here(header) and _comes_from(header, wanted)


def _segmentation_header(path: Path) -> Dataset | None:
    try:
        if read_file_meta_info(path).get("MediaStorageSOPClassUID") not in _SOP_CLASSES:
            return None
        return dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, EOFError):
        return None


def _comes_from(header: Dataset, wanted: Mapping[str, str]) -> bool:
    return bool(wanted) and all(
        fnmatchcase(text_of(header, ORIGINS[key]).casefold(), pattern.casefold())
        for key, pattern in wanted.items()
    )


def read_segmentation(path: Path, series: LoadedSeries, labels: Mapping[str, str]) -> SegMask:
    """The vertebrae of the segmentation at `path`, which must have been drawn on `series`.

    A segment is the vertebra that its property type names; a bone or vertebra without a number is that of
    its anatomic region; what is coded otherwise goes by its label, where `labels` names it.

    Parameters
    ----------
    labels : SegmentLabel (case is ignored) -> level, as a site's settings give it.

    Raises
    ------
    SegUnusable
        If it is no segmentation, was made here, was drawn on another series or in another frame of reference,
        names no vertebra, or its frames cannot be placed.
    """
    try:
        dataset = dcmread(path)
    except (InvalidDicomError, EOFError) as error:
        raise SegUnusable(SegProblem.NOT_A_SEGMENTATION) from error
    if text_of(dataset, "SOPClassUID") not in _SOP_CLASSES:
        raise SegUnusable(SegProblem.NOT_A_SEGMENTATION)
    if made_here(dataset):
        raise SegUnusable(SegProblem.OWN)
    _require_source(dataset, series)
    try:
        numbers = _levels_by_number(dataset, labels)
        if not numbers:
            raise SegUnusable(SegProblem.NO_LEVEL)
        frames = _frames(dataset)
        require_stated_size(dataset)
        drawn, grid = _drawn(dataset, frames, numbers, series.volume.grid)
    # What a damaged object lacks shows as whatever error its absence causes, or as the codec's own.
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise SegUnusable(SegProblem.DAMAGED, type(error).__name__) from error
    return SegMask(
        labels=drawn,
        grid=grid,
        sop_instance_uid=text_of(dataset, "SOPInstanceUID"),
        manufacturer=text_of(dataset, "Manufacturer"),
        model=text_of(dataset, "ManufacturerModelName"),
    )


def _require_source(dataset: Dataset, series: LoadedSeries) -> None:
    if not _was_drawn_on(dataset, series):
        raise SegUnusable(SegProblem.OTHER_SERIES)
    if text_of(dataset, "FrameOfReferenceUID") != text_of(series.headers[0], "FrameOfReferenceUID"):
        raise SegUnusable(SegProblem.FRAME_OF_REFERENCE)


def _was_drawn_on(dataset: Dataset, series: LoadedSeries) -> bool:
    """Whether it refers to the series or, where it names none, to an image of it as a frame's source."""
    named = {text_of(item, "SeriesInstanceUID") for item in items_of(dataset, "ReferencedSeriesSequence")}
    if named:
        return series.facts.series_instance_uid in named
    images = {text_of(header, "SOPInstanceUID") for header in series.headers}
    return any(
        text_of(source, "ReferencedSOPInstanceUID") in images
        for group in items_of(dataset, "PerFrameFunctionalGroupsSequence")
        for derivation in items_of(group, "DerivationImageSequence")
        for source in items_of(derivation, "SourceImageSequence")
    )


def _levels_by_number(dataset: Dataset, labels: Mapping[str, str]) -> dict[int, str]:
    named = {label.casefold(): level for label, level in labels.items()}
    levels = {}
    for item in items_of(dataset, "SegmentSequence"):
        level = _coded_level(item) or named.get(text_of(item, "SegmentLabel").casefold())
        if level is not None:
            levels[int(item.SegmentNumber)] = level
    return levels


def _coded_level(item: Dataset) -> str | None:
    (kind,) = _codes_of(item, "SegmentedPropertyTypeCodeSequence")[:1] or (None,)
    if kind in codes.ANY_BONE:
        regions = _codes_of(item, "AnatomicRegionSequence")
        return _level_of(regions[0]) if len(regions) == 1 else None
    return _level_of(kind)


def _codes_of(item: Dataset, keyword: str) -> tuple[Code, ...]:
    """Coded values; pydicom's `Code` holds SNOMED's older (SRT) values equal to its own."""
    return tuple(
        Code(
            text_of(code, "CodeValue"), text_of(code, "CodingSchemeDesignator"), text_of(code, "CodeMeaning")
        )
        for code in items_of(item, keyword)
    )


def _level_of(code: Code | None) -> str | None:
    known = {**codes.LEVELS, **codes.NEIGHBOURS}
    return next((level for level, its in known.items() if its == code), None)


def _frames(dataset: Dataset) -> tuple[_Frame, ...]:
    shared = (items_of(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return tuple(_frame(own, shared) for own in items_of(dataset, "PerFrameFunctionalGroupsSequence"))


def _frame(own: Dataset, shared: Dataset) -> _Frame:
    """The position of a frame; what all frames have in common is among the shared groups."""

    def group(keyword: str) -> Dataset:
        return (items_of(own, keyword) or items_of(shared, keyword))[0]

    measures = group("PixelMeasuresSequence")
    rows_mm, columns_mm = (float(step) for step in measures.PixelSpacing)
    identified = items_of(own, "SegmentIdentificationSequence") or items_of(
        shared, "SegmentIdentificationSequence"
    )
    return _Frame(
        segment=int(identified[0].ReferencedSegmentNumber) if identified else None,
        corner_mm=np.asarray(group("PlanePositionSequence").ImagePositionPatient, dtype=float),
        orientation=np.asarray(group("PlaneOrientationSequence").ImageOrientationPatient, dtype=float),
        spacing_mm=(rows_mm, columns_mm),
        between_mm=number_of(measures, "SpacingBetweenSlices"),
    )


def _drawn(
    dataset: Dataset, frames: Sequence[_Frame], numbers: Mapping[int, str], source: Grid
) -> tuple[LabelMap, Grid]:
    """All frames on the smallest grid that holds them."""
    grid, planes = _grid_of(frames, (int(dataset.Rows), int(dataset.Columns)), source)
    labels: LabelMap = np.zeros(grid.shape, np.uint8)
    contested = 0
    for plane, level, inside in _masks(dataset, frames, planes, numbers):
        value = LABELS[level]
        other = inside & (labels[plane] != 0) & (labels[plane] != value)
        contested += int(other.sum())
        labels[plane][inside] = value
        labels[plane][other] = 0
    if contested > _OVERLAP * np.count_nonzero(labels):
        raise SegUnusable(SegProblem.OVERLAP, phrase("seg-voxels", count=contested))
    return labels, grid


def _masks(
    dataset: Dataset, frames: Sequence[_Frame], planes: Sequence[int], numbers: Mapping[int, str]
) -> Iterator[tuple[int, str, Mask]]:
    """Each vertebra's mask in each frame that shows it, decoded one frame at a time."""
    threshold = 1.0
    if text_of(dataset, "SegmentationType") == "FRACTIONAL":
        threshold = FRACTION * int(dataset.MaximumFractionalValue)
    for frame, plane, pixels in zip(frames, planes, iterate_frames(dataset), strict=True):
        if frame.segment is None:
            for number, level in numbers.items():
                yield plane, level, pixels == number
        elif frame.segment in numbers:
            yield plane, numbers[frame.segment], pixels >= threshold


def _grid_of(frames: Sequence[_Frame], size: tuple[int, int], source: Grid) -> tuple[Grid, list[int]]:
    """The grid that the frames lie on, and the plane of each."""
    first = frames[0]
    if not all(
        np.allclose(frame.orientation, first.orientation, atol=_COSINE_TOLERANCE)
        and np.allclose(frame.spacing_mm, first.spacing_mm, atol=1e-4)
        for frame in frames
    ):
        raise SegUnusable(SegProblem.GEOMETRY, phrase("seg-orientation"))
    normal = normal_of(first.orientation)
    corners = np.stack([frame.corner_mm for frame in frames])
    depths = corners @ normal
    lowest = int(np.argmin(depths))
    sideways = (corners - corners[lowest]) - np.outer(depths - depths[lowest], normal)
    if np.linalg.norm(sideways, axis=1).max() > _STEP_TOLERANCE * min(first.spacing_mm):
        raise SegUnusable(SegProblem.GEOMETRY, phrase("seg-shifted"))
    offsets = depths - depths[lowest]
    step_mm = _step_mm(offsets, first, normal, source)
    planes = [round(float(offset) / step_mm) for offset in offsets]
    return Grid(
        shape=(max(planes) + 1, *size),
        spacing_mm=(step_mm, *first.spacing_mm),
        origin_mm=as_vector(corners[lowest]),
        direction=grid_direction(first.orientation),
    ), planes


def _step_mm(offsets_mm: FloatArray, frame: _Frame, normal: FloatArray, source: Grid) -> float:
    """The distance of planes: as stated, else the CT's, else the least between frames; all must lie on it.

    Frames without a segment's voxels may be left out, so the least distance alone would skip planes.
    """
    gaps = np.diff(np.unique(np.round(offsets_mm / _SAME_DEPTH_MM)) * _SAME_DEPTH_MM)
    candidates = [frame.between_mm or 0.0]
    if abs(float(normal @ np.asarray(source.direction[0]))) > 1 - _COSINE_TOLERANCE:
        candidates.append(source.spacing_mm[0])
    candidates.append(float(gaps.min(initial=np.inf)))
    for step_mm in candidates:
        places = offsets_mm / step_mm if 0 < step_mm < np.inf else np.array([np.inf])
        if np.isfinite(places).all() and np.abs(places - np.round(places)).max() <= _STEP_TOLERANCE:
            return step_mm
    raise SegUnusable(SegProblem.GEOMETRY, phrase("seg-uneven"))


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by its preamble, whatever its name."""
    return bool(is_dicom(path))


def read_mask(path: Path) -> tuple[LabelArray, Grid]:
    """Read a label image: NIfTI, or any other format but DICOM that SimpleITK reads.

    Returns
    -------
    Labels, int64, shape (z, y, x), and their grid in patient coordinates (LPS, mm); SimpleITK turns NIfTI's
    RAS into LPS itself.

    Raises
    ------
    MaskUnreadable
        If the file is no image, has not three dimensions or holds values that are no whole numbers.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise MaskUnreadable(f"not an image file: {path.name}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise MaskUnreadable(f"not a three-dimensional label image: {path.name}")
    values = sitk.GetArrayFromImage(image)
    labels: LabelArray = np.rint(values).astype(np.int64)
    if not np.array_equal(labels, values):
        raise MaskUnreadable(f"holds values that are not labels: {path.name}")
    if np.abs(labels).max(initial=0) > np.iinfo(np.int16).max:
        raise MaskUnreadable(f"holds values that are not labels: {path.name}")
    return labels, _image_grid(image)


def write_mask(path: Path, labels: LabelMap, grid: Grid) -> None:
    """Write labels as an image that `read_mask` reads.

    Parameters
    ----------
    path : its name decides the format: NIfTI for .nii.gz.
    labels : shape (z, y, x).
    """
    image = sitk.GetImageFromArray(labels)
    z_mm, y_mm, x_mm = grid.spacing_mm
    z_axis, y_axis, x_axis = grid.direction
    image.SetSpacing((x_mm, y_mm, z_mm))
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(np.column_stack([x_axis, y_axis, z_axis]).ravel().tolist())
    sitk.WriteImage(image, str(path))


def _image_grid(image: sitk.Image) -> Grid:
    sx, sy, sz = image.GetSpacing()
    x_axis, y_axis, z_axis = np.asarray(image.GetDirection(), dtype=float).reshape(3, 3).T
    nx, ny, nz = image.GetSize()
    return Grid(
        shape=(int(nz), int(ny), int(nx)),
        spacing_mm=(float(sz), float(sy), float(sx)),
        origin_mm=as_vector(np.asarray(image.GetOrigin())),
        direction=(as_vector(z_axis), as_vector(y_axis), as_vector(x_axis)),
    )
