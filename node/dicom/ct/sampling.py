"""A few slices of a series, decoded to be looked at, whether or not the series makes a volume.

What comes of it is never measured: neighbours are averaged, what lies between them is left out, and what a
header lacks is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from node.dicom.ct.headers import Instance, is_multi_frame_ct
from node.dicom.ct.reading import facts_of, hounsfield_in_file
from node.dicom.ct.series_choice import AXIAL_COSINE, is_localizer
from node.dicom.ct.slice_geometry import normal_of
from node.dicom.errors import SeriesUnusable
from node.dicom.header_text import number_of, text_of
from node.dicom.result_headers import made_here
from node.study_report import SeriesFacts
from segmentation.volume import CtVolume, FloatArray, Grid

# How much is looked at. All R: chosen so that a phantom 70 mm long is met twice in 700 mm of CT, and that one
# series costs about as much to look at as a thick one to read.
MOST_SLICES = 48  # of one series
LEAST_SLICES = 12  # of each, where a study has many series
MOST_SLICES_OF_STUDY = 960
_PLACES = (12, 24)  # along the series, at least and at most
_APART_MM = 30.0  # from place to place, where that needs no more
_TOGETHER_MM = 5.0  # neighbours this close show nearly the same, and are averaged
_SAME_PLACE_MM = 0.01
_DOUBLED_SHARE = 0.1  # of the images
_MOST_STACKS = 6  # of one series: slices of different size or orientation
# The search needs two places, far enough apart; closer ones are averaged to a single one.
_SHORTEST_MM = 20.0
_THINNEST_MM = 5.0  # a lone place counts as a slice of at least this thickness

# What slices that are averaged share, beside their stack: else two passes of a patient who moved are blended.
_PASS = ("AcquisitionNumber", "TemporalPositionIdentifier", "ContrastBolusAgent")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledStack:
    """Slices of one size and orientation, as a coarse volume to look at."""

    volume: CtVolume  # one slice for each place: the mean of a few neighbours, at their mean distance
    facts: SeriesFacts  # of the images that were decoded
    extent_mm: float  # from the first image to the last, of those that could be decoded or not


def slices_to_look_at(series: int) -> int:
    """How many slices to decode of each of so many series."""
    return min(MOST_SLICES, max(LEAST_SLICES, MOST_SLICES_OF_STUDY // max(series, 1)))


def sample_series(images: Iterable[Instance], most_slices: int = MOST_SLICES) -> tuple[SampledStack, ...]:
    """Decode at most `most_slices` axial images, evenly spread along the body.

    Empty where none is axial or none can be decoded. Localizers and derived images are looked at as well if
    they are axial; what this node made is not. Where a header names no orientation, position or rescale, what
    is usual is assumed; where it names no pixel spacing, the image is left out.
    """
    maybe = (_lookable(one) for one in images if may_be_axial(one))
    groups: dict[tuple[object, ...], list[Instance]] = {}
    for one in filter(None, maybe):
        groups.setdefault(_stack_key(one.header), []).append(one)
    largest = sorted(groups.values(), key=len, reverse=True)[:_MOST_STACKS]
    total = sum(len(group) for group in largest)
    stacks = []
    for group in largest:
        stack = _sampled(group, max(1, most_slices * len(group) // total))
        if stack is not None:
            stacks.append(stack)
    return tuple(stacks)


def may_be_axial(image: Instance) -> bool:
    """Whether the image is an axial one of a scanner, or may be, for its header does not tell."""
    if made_here(image.header):
        return False
    orientation = image.header.get("ImageOrientationPatient")
    if image.damaged or orientation is None or len(orientation) != 6:
        return not is_localizer(image.header)
    with np.errstate(invalid="ignore"):
        normal = normal_of(np.asarray(orientation, dtype=float))
    return not bool(abs(normal[2]) < AXIAL_COSINE)  # cosines that are no direction may be any


def _lookable(image: Instance) -> Instance | None:
    """The image with what its header lacks filled in; None where it cannot be looked at."""
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
    least, most = _PLACES
    places = min(len(images), most_slices, max(least, min(most, round(extent_mm / _APART_MM))))
    together = 1 if _is_doubled(depths[order]) else max(1, most_slices // places)
    chosen = [
        _neighbours(part, depths, images, most=together, turn=turn)
        for turn, part in enumerate(np.array_split(order, places))
    ]
    decoded = _decoded(images, [k for place in chosen for k in place])
    shown = [place for part in chosen if (place := [k for k in part if k in decoded])]
    means = [np.mean([decoded[k] for k in place], axis=0, dtype=np.float32) for place in shown]
    middles_mm = [float(np.mean(depths[place])) for place in shown]
    if not means:
        return None
    seen = [images[k] for place in shown for k in place]
    return _stack(seen, np.stack(means), middles_mm, extent_mm)


def _is_doubled(depths_mm: npt.NDArray[np.float64]) -> bool:
    """Whether many images share their place with another: which of them belong together is not known."""
    return (
        bool(np.mean(np.diff(depths_mm) < _SAME_PLACE_MM) > _DOUBLED_SHARE) if len(depths_mm) > 1 else False
    )


def _neighbours(
    part: npt.NDArray[np.intp],
    depths_mm: npt.NDArray[np.float64],
    images: Sequence[Instance],
    *,
    most: int,
    turn: int,
) -> list[int]:
    """The middle image of a part, and those nearest to it that belong to the same pass.

    From part to part the middle alternates, so that of two images in each place both are met.
    """
    middle = part[min(len(part) // 2 + turn % 2, len(part) - 1)]
    wanted = _pass_of(images[middle])
    chosen: list[int] = []
    for k in sorted(part, key=lambda k: abs(float(depths_mm[k] - depths_mm[middle]))):
        near = abs(float(depths_mm[k] - depths_mm[middle])) <= _TOGETHER_MM
        if near and _pass_of(images[k]) == wanted and len(chosen) < most:
            chosen.append(int(k))
    return chosen


def _pass_of(image: Instance) -> tuple[str, ...]:
    return tuple(text_of(image.header, keyword) for keyword in _PASS)


def _decoded(images: Sequence[Instance], wanted: Sequence[int]) -> dict[int, FloatArray]:
    """HU of those images that can be decoded, by place; the frames of one file together."""
    files: dict[Path, list[int]] = {}
    for k in wanted:
        files.setdefault(images[k].path, []).append(k)
    found: dict[int, FloatArray] = {}
    for places in files.values():
        header = images[places[0]].header
        shape = int(header.Rows), int(header.Columns)
        try:
            for k, hu in zip(places, hounsfield_in_file([images[k] for k in places], shape, 1), strict=True):
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
    orientation = np.asarray(first.ImageOrientationPatient, dtype=float)
    x, y, z = (float(one) for one in first.ImagePositionPatient)
    directions = (normal_of(orientation), orientation[3:], orientation[:3])
    low, down, right = ((float(one[0]), float(one[1]), float(one[2])) for one in directions)
    grid = Grid(
        shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
        spacing_mm=(apart_mm, float(first.PixelSpacing[0]), float(first.PixelSpacing[1])),
        origin_mm=(x, y, z),
        direction=(low, down, right),
    )
    try:
        facts = facts_of(tuple(images), grid)
    except SeriesUnusable:
        return None
    return SampledStack(volume=CtVolume(hu=hu, grid=grid, kvp=facts.kvp), facts=facts, extent_mm=extent_mm)
