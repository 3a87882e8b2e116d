"""Slices read one by one: single-slice QCT, and a sample of any series for a preview.

Single-slice QCT has one thick slice for each vertebra, all in one series or one series each. A slice is also
kept as the report shows it: with the masks found in it, and their outlines.

A sample is decoded whether or not the series makes a volume. It is never measured: neighbouring slices are
averaged, others are skipped, and usual values stand in for attributes that a header lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from pydicom import Dataset

from node.dicom.ct.headers import Instance, SeriesHeaders, comparable, is_multi_frame_ct
from node.dicom.ct.reading import (
    TECHNIQUE,
    LoadedSeries,
    by_file,
    facts_of,
    hounsfield,
    hounsfield_in_file,
    require_one_technique,
)
from node.dicom.ct.series_choice import (
    AXIAL_COSINE,
    SeriesPreview,
    SeriesRanking,
    is_localizer,
    merits_of,
    rank_series,
    unsuitable_reason,
)
from node.dicom.ct.slice_geometry import as_vector, grid_direction, normal_of, single_slice_grid
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import number_of, text_of
from node.dicom.result_headers import made_here
from node.study_report import SeriesFacts
from segmentation.ct_volume import CtVolume, FloatArray, Grid, Mask

# Limits of single slices; project choices (R), not published. A protocol's slices are 8 to 10 mm thick and a
# vertebra with its disc apart, 30 mm and more; the series shows two to five vertebrae.
MIN_THICKNESS_MM = 5.0
MIN_APART_MM = 20.0
MOST_SLICES = 6
_VERTEBRA_MM = 33.0  # with its disc: six slices then count as about the length of L1 to L5


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleSlices:
    """Slices that are measured each by itself.

    Attributes
    ----------
    instances : from superior to inferior.
    series, series_instance_uids : that they come from.
    """

    instances: tuple[Instance, ...]
    series: tuple[SeriesHeaders, ...]
    series_instance_uids: frozenset[str]


def is_single_slice_series(series: SeriesHeaders) -> bool:
    """Whether a series holds nothing but single slices: thick, few, and a vertebra apart.

    Frames of a multi-frame file do not count: a slice that is measured by itself is named by its instance.
    """
    whole = all(instance.frame is None for instance in series.instances)
    return whole and len(series.instances) <= MOST_SLICES and _are_separate(series.instances)


def single_slice_candidates(series: Sequence[SeriesHeaders]) -> tuple[SingleSlices, ...]:
    """The sets of slices that can be measured, among series of single slices.

    Series of one technique form one set where their slices lie apart: each vertebra may have been scanned
    as a series of its own. Slices that were scanned or reconstructed twice form sets of their own.

    Returns
    -------
    Sets of at most `MOST_SLICES` slices, those of several series first.
    """
    single = [one for one in series if is_single_slice_series(one)]
    groups: dict[tuple[str, ...], list[SeriesHeaders]] = {}
    for one in single:
        technique = tuple(comparable(one.first, keyword) for keyword in TECHNIQUE)
        groups.setdefault(technique, []).append(one)
    candidates = [
        group
        for group in groups.values()
        if len(group) > 1 and _are_separate([i for one in group for i in one.instances])
    ]
    together = {one.series_instance_uid for group in candidates for one in group}
    candidates += [[one] for one in single if one.series_instance_uid not in together]
    return tuple(
        _single_slices(group)
        for group in candidates
        if sum(len(one.instances) for one in group) <= MOST_SLICES
    )


def rank_single_slices(
    candidates: Sequence[SingleSlices], previews: Sequence[SeriesPreview]
) -> SeriesRanking:
    """The best set of slices, by the criteria of `rank_series`; each slice counts as a vertebra.

    Parameters
    ----------
    candidates : at least one.
    previews : what each of them shows.
    """
    return rank_series(
        [
            merits_of(one.series, preview, _VERTEBRA_MM * len(one.instances))
            for one, preview in zip(candidates, previews, strict=True)
        ]
    )


def _single_slices(series: Sequence[SeriesHeaders]) -> SingleSlices:
    instances = [instance for one in series for instance in one.instances]
    instances.sort(key=lambda instance: -_middle(_grid(instance.header))[2])
    return SingleSlices(
        instances=tuple(instances),
        series=tuple(series),
        series_instance_uids=frozenset(one.series_instance_uid for one in series),
    )


def read_single_slices(instances: Sequence[Instance]) -> tuple[LoadedSeries, ...]:
    """Each slice as a volume of its own, shape (1, rows, columns); its first spacing is its thickness.

    Raises
    ------
    SeriesUnusable
        If the slices differ in technique, lack geometry, or their pixels cannot be turned into HU.
    """
    require_one_technique(
        SeriesHeaders(study_instance_uid="", series_instance_uid="", instances=tuple(instances))
    )
    loaded = []
    for instance in instances:
        grid = _grid(instance.header)
        hu = hounsfield(instance, (grid.shape[1], grid.shape[2]), len(instances))[np.newaxis]
        facts = facts_of(tuple(instances), grid)
        loaded.append(
            LoadedSeries(
                volume=CtVolume(hu=hu, grid=grid, kvp=facts.kvp),
                headers=(instance.header,),
                frames=(None,),
                facts=replace(facts, slice_spacing_mm=None, instances=len(instances)),
            )
        )
    return tuple(loaded)


def _grid(header: Dataset) -> Grid:
    thickness_mm = number_of(header, "SliceThickness")
    if thickness_mm is None:
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, "SliceThickness", slices=1)
    return single_slice_grid(header, thickness_mm)


def _are_separate(instances: Sequence[Instance]) -> bool:
    """Whether every slice can be measured by itself, and no two show the same vertebra."""
    for instance in instances:
        alone = SeriesHeaders(study_instance_uid="", series_instance_uid="", instances=(instance,))
        thickness_mm = number_of(instance.header, "SliceThickness")
        if unsuitable_reason(alone) is not None or thickness_mm is None or thickness_mm < MIN_THICKNESS_MM:
            return False
    try:
        grids = [_grid(instance.header) for instance in instances]
    except SeriesUnusable:
        return False
    return all(_apart_mm(a, b) >= MIN_APART_MM for a, b in combinations(grids, 2))


def _apart_mm(a: Grid, b: Grid) -> float:
    """The lesser of the distances of each image's middle from the other's plane."""
    between = _middle(b) - _middle(a)
    return min(abs(float(between @ np.asarray(grid.direction[0]))) for grid in (a, b))


def _middle(grid: Grid) -> npt.NDArray[np.float64]:
    return grid.to_patient((np.asarray(grid.shape) - 1) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSlice:
    """One slice with its masks, as the report shows it.

    Attributes
    ----------
    name : as in `node.study_report.SliceResult`.
    series : of this slice alone.
    body : shape (1, rows, columns); None where no body was found.
    region : where density is read; same shape; None likewise.
    """

    name: str
    series: LoadedSeries
    body: Mask | None
    region: Mask | None


def outline_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The closed outline of a mask's longest border.

    Parameters
    ----------
    mask : shape (rows, columns); some pixels set, none of them at the border of the image.

    Returns
    -------
    Shape (n, 2): column and row of its corners as SCOORD counts them, the first pixel's centre at (0.5, 0.5)
    (PS3.3 C.18.6.1.1); the first corner is repeated as the last.
    """
    lines: Any = contour_generator(z=mask.astype(float), name="mpl2014").lines(0.5)[0]
    longest: npt.NDArray[np.float64] = np.asarray(max(lines, key=len), dtype=np.float64) + 0.5
    return np.vstack([longest[:-1], longest[:1]])


# A sample of slices, decoded for a preview.


# Size of the sample. All R: chosen so that a phantom 70 mm long is met twice in 700 mm of CT, and that the
# preview of one series costs about as much as reading a thick one.
MOST_SAMPLED = 48  # of one series
LEAST_SLICES = 12  # of each, where a study has many series
MOST_SLICES_OF_STUDY = 960
_POSITIONS = (12, 24)  # along the series, at least and at most
_APART_MM = 30.0  # from position to position, within these numbers
_TOGETHER_MM = 5.0  # neighbours this close show nearly the same, and are averaged
_SAME_POSITION_MM = 0.01
_DOUBLED_SHARE = 0.1  # of the images
_MOST_STACKS = 6  # of one series: slices of different size or orientation
# The search for rods needs two positions, far enough apart; closer ones are averaged to a single one.
_SHORTEST_MM = 20.0
_THINNEST_MM = 5.0  # a single position counts as a slice of at least this thickness

# Averaged slices share these, beside their stack: else two passes of a patient who moved would be blended.
_PASS = ("AcquisitionNumber", "TemporalPositionIdentifier", "ContrastBolusAgent")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledStack:
    """Slices of one size and orientation, as a coarse volume for a preview.

    Attributes
    ----------
    volume : HU, float32; one slice for each position: the mean of a few neighbours, at their mean distance.
    facts : of the images that were decoded.
    extent_mm : from the first image to the last along the normal, decoded or not.
    """

    volume: CtVolume
    facts: SeriesFacts
    extent_mm: float


def slices_per_series(series: int) -> int:
    """How many slices to decode of each series.

    Parameters
    ----------
    series : number of series in the study.

    Returns
    -------
    Between `LEAST_SLICES` and `MOST_SAMPLED`; within `MOST_SLICES_OF_STUDY` for the study where that allows.
    """
    return min(MOST_SAMPLED, max(LEAST_SLICES, MOST_SLICES_OF_STUDY // max(series, 1)))


def sample_series(images: Iterable[Instance], most_slices: int = MOST_SAMPLED) -> tuple[SampledStack, ...]:
    """Decode at most `most_slices` axial images, evenly spread along the body.

    Localizers and derived images are sampled as well if they are axial; what this node made is not. Where a
    header states no orientation, position or rescale, the usual one is assumed.

    Parameters
    ----------
    images : of one series, whatever their size and orientation.

    Returns
    -------
    The largest stacks of equal size and orientation, at most six. Empty where no image is axial, has a pixel
    spacing and can be decoded.
    """
    axial = (_with_usual_values(one) for one in images if may_be_axial(one))
    groups: dict[tuple[object, ...], list[Instance]] = {}
    for one in filter(None, axial):
        groups.setdefault(_stack_key(one.header), []).append(one)
    largest = sorted(groups.values(), key=len, reverse=True)[:_MOST_STACKS]
    total = sum(len(group) for group in largest)
    stacks = (_sampled(group, max(1, most_slices * len(group) // total)) for group in largest)
    return tuple(stack for stack in stacks if stack is not None)


def may_be_axial(image: Instance) -> bool:
    """Whether the image is an axial one of a scanner, or may be one, since its header does not say."""
    if made_here(image.header):
        return False
    orientation = image.header.get("ImageOrientationPatient")
    if image.damaged or orientation is None or len(orientation) != 6:
        return not is_localizer(image.header)
    with np.errstate(invalid="ignore"):
        normal = normal_of(np.asarray(orientation, dtype=float))
    return not bool(abs(normal[2]) < AXIAL_COSINE)  # NaN, of cosines that are no direction, may be axial


def _with_usual_values(image: Instance) -> Instance | None:
    """The image with usual values for attributes that its header lacks; None where it cannot be decoded."""
    header = image.header
    undescribed = image.frame is None and is_multi_frame_ct(image)
    if image.damaged or undescribed or not header.get("Rows") or not header.get("Columns"):
        return None
    spacing = header.get("PixelSpacing")
    if spacing is None or len(spacing) != 2 or not all(float(one) > 0 for one in spacing):
        return None
    lacking: dict[str, object] = {}
    orientation = header.get("ImageOrientationPatient")
    if orientation is None or len(orientation) != 6 or not np.any(np.asarray(orientation, dtype=float)):
        lacking["ImageOrientationPatient"] = [1, 0, 0, 0, 1, 0]
    position = header.get("ImagePositionPatient")
    if position is None or len(position) != 3:
        number, thickness_mm = number_of(header, "InstanceNumber"), number_of(header, "SliceThickness")
        z_mm = number_of(header, "SliceLocation")
        lacking["ImagePositionPatient"] = [
            0,
            0,
            (number or 0) * (thickness_mm or 1) if z_mm is None else z_mm,
        ]
    if number_of(header, "RescaleSlope") is None or number_of(header, "RescaleIntercept") is None:
        signed = number_of(header, "PixelRepresentation") == 1
        lacking |= {"RescaleSlope": 1, "RescaleIntercept": 0 if signed else -1024}
    if text_of(header, "RescaleType").upper() not in ("", "HU"):
        lacking["RescaleType"] = "HU"
    return replace(image, header=_with(header, lacking)) if lacking else image


def _with(header: Dataset, changes: dict[str, object]) -> Dataset:
    changed = Dataset()
    changed.update(header)
    for keyword, value in changes.items():
        setattr(changed, keyword, value)
    return changed


def _numbers(header: Dataset, keyword: str, decimals: int) -> tuple[float, ...]:
    return tuple(round(float(one), decimals) for one in header[keyword].value)


def _stack_key(header: Dataset) -> tuple[object, ...]:
    orientation = _numbers(header, "ImageOrientationPatient", 2)
    return int(header.Rows), int(header.Columns), _numbers(header, "PixelSpacing", 2), orientation


def _sampled(images: Sequence[Instance], most_slices: int) -> SampledStack | None:
    """The coarse volume of images of one stack; None where none of them can be decoded."""
    normal = normal_of(np.asarray(images[0].header.ImageOrientationPatient, dtype=float))
    depths = np.array(
        [float(np.asarray(one.header.ImagePositionPatient, dtype=float) @ normal) for one in images]
    )
    order = np.argsort(depths, kind="stable")
    extent_mm = float(np.ptp(depths))
    least, most = _POSITIONS
    positions = min(len(images), most_slices, max(least, min(most, round(extent_mm / _APART_MM))))
    together = 1 if _is_doubled(depths[order]) else max(1, most_slices // positions)
    chosen = [
        _neighbours(part, depths, images, most=together, turn=turn)
        for turn, part in enumerate(np.array_split(order, positions))
    ]
    decoded = _decoded(images, [k for group in chosen for k in group])
    shown = [group for part in chosen if (group := [k for k in part if k in decoded])]
    means = [np.mean([decoded[k] for k in group], axis=0, dtype=np.float32) for group in shown]
    middles_mm = [float(np.mean(depths[group])) for group in shown]
    if not means:
        return None
    averaged = [images[k] for group in shown for k in group]
    return _stack(averaged, np.stack(means), middles_mm, extent_mm)


def _is_doubled(depths_mm: npt.NDArray[np.float64]) -> bool:
    """Whether many images share their position with another: which of them belong together is unknown."""
    steps_mm = np.diff(depths_mm)
    return len(steps_mm) > 0 and bool(np.mean(steps_mm < _SAME_POSITION_MM) > _DOUBLED_SHARE)


def _neighbours(
    part: npt.NDArray[np.intp],
    depths_mm: npt.NDArray[np.float64],
    images: Sequence[Instance],
    *,
    most: int,
    turn: int,
) -> list[int]:
    """The middle image of a part, and those nearest to it that belong to the same pass.

    The middle alternates from part to part, so that of two images in each position both are sampled.
    """
    middle = part[min(len(part) // 2 + turn % 2, len(part) - 1)]
    away_mm = np.abs(depths_mm[part] - depths_mm[middle])
    near = part[np.argsort(away_mm, kind="stable")][: int((away_mm <= _TOGETHER_MM).sum())]
    wanted = _pass_of(images[middle])
    return [int(k) for k in near if _pass_of(images[k]) == wanted][:most]


def _pass_of(image: Instance) -> tuple[str, ...]:
    return tuple(text_of(image.header, keyword) for keyword in _PASS)


def _decoded(images: Sequence[Instance], wanted: Sequence[int]) -> dict[int, FloatArray]:
    """HU of those images that can be decoded, by index; the frames of one file together."""
    found: dict[int, FloatArray] = {}
    for places in by_file([images[k] for k in wanted]):
        of_file = [wanted[place] for place in places]
        header = images[of_file[0]].header
        shape = int(header.Rows), int(header.Columns)
        try:
            for k, hu in zip(
                of_file, hounsfield_in_file([images[k] for k in of_file], shape, 1), strict=True
            ):
                found[k] = hu
        except SeriesUnusable:
            continue
    return found


def _stack(
    images: Sequence[Instance], hu: FloatArray, middles_mm: Sequence[float], extent_mm: float
) -> SampledStack | None:
    first = images[0].header
    apart_mm = (middles_mm[-1] - middles_mm[0]) / max(len(middles_mm) - 1, 1)
    if apart_mm * len(middles_mm) < _SHORTEST_MM:
        hu = hu.mean(axis=0, keepdims=True, dtype=np.float32)
        apart_mm = max(_THINNEST_MM, number_of(first, "SliceThickness") or 0.0)
    grid = Grid(
        shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
        spacing_mm=(apart_mm, float(first.PixelSpacing[0]), float(first.PixelSpacing[1])),
        origin_mm=as_vector(np.asarray(first.ImagePositionPatient, dtype=float)),
        direction=grid_direction(np.asarray(first.ImageOrientationPatient, dtype=float)),
    )
    try:
        facts = facts_of(tuple(images), grid)
    except SeriesUnusable:
        return None
    return SampledStack(volume=CtVolume(hu=hu, grid=grid, kvp=facts.kvp), facts=facts, extent_mm=extent_mm)
