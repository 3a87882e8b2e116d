"""Single-slice QCT: studies of one thick slice for each vertebra, all in one series or one series each.

Also a slice as the report shows it: with the masks found in it, and their outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from pydicom import Dataset

from node.dicom.ct.headers import Instance, SeriesHeaders, comparable
from node.dicom.ct.reading import TECHNIQUE, LoadedSeries, facts_of, hounsfield, require_one_technique
from node.dicom.ct.series_choice import (
    SeriesPreview,
    SeriesRanking,
    merits_of,
    rank_series,
    unsuitable_reason,
)
from node.dicom.ct.slice_geometry import single_slice_grid
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import number_of
from segmentation.ct_volume import CtVolume, Grid, Mask

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
