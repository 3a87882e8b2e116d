"""Single-slice QCT: studies of one thick slice for each vertebra, all in one series or one series each."""

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
from node.dicom.ct.series_choice import SeriesPreview, SeriesRanking, merits_of, rank_series, unsuitable
from node.dicom.ct.slice_geometry import single_slice_grid
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import number_of
from segmentation.volume import CtVolume, Grid, Mask

# What makes slices single ones; project choices (R), not published. A protocol's slices are 8 to 10 mm thick
# and a vertebra with its disc apart, 30 mm and more; the series shows two to five vertebrae.
MIN_THICKNESS_MM = 5.0
MIN_APART_MM = 20.0
MOST_SLICES = 6
_VERTEBRA_MM = 33.0  # with its disc: about as long as L1 to L5 are six slices then


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleSlices:
    """Slices that are measured each by itself."""

    instances: tuple[Instance, ...]  # from superior to inferior
    series: tuple[SeriesHeaders, ...]
    series_instance_uids: frozenset[str]  # that they come from


def is_single_slice_series(series: SeriesHeaders) -> bool:
    """Whether a series holds nothing but single slices: thick, few, and a vertebra apart.

    Frames of one file are none: a slice that is measured by itself is named by its instance.
    """
    whole = all(instance.frame is None for instance in series.instances)
    return whole and len(series.instances) <= MOST_SLICES and _stand_alone(series.instances)


def single_slice_candidates(series: Sequence[SeriesHeaders]) -> tuple[SingleSlices, ...]:
    """The sets of slices that can be measured, among series of single slices.

    Series of one technique are taken together where their slices lie apart: each vertebra may have been
    scanned as a series of its own. Slices that were scanned or reconstructed twice are not doubled.
    """
    lone = [one for one in series if is_single_slice_series(one)]
    groups: dict[tuple[str, ...], tuple[SeriesHeaders, ...]] = {}
    for one in lone:
        key = _technique(one)
        groups[key] = (*groups.get(key, ()), one)
    choices: list[tuple[SeriesHeaders, ...]] = [
        group
        for group in groups.values()
        if len(group) > 1 and _stand_alone([i for one in group for i in one.instances])
    ]
    together = {one.series_instance_uid for group in choices for one in group}
    choices += [(one,) for one in lone if one.series_instance_uid not in together]
    return tuple(
        _lone_slices(choice) for choice in choices if sum(len(one.instances) for one in choice) <= MOST_SLICES
    )


def rank_single_slices(choices: Sequence[SingleSlices], glances: Sequence[SeriesPreview]) -> SeriesRanking:
    """The best of at least one set of slices, as `node.dicom.ct.series_choice` says; each slice counts as a
    vertebra.

    Parameters
    ----------
    glances : what each shows.
    """
    return rank_series(
        [
            merits_of(choice.series, glance, _VERTEBRA_MM * len(choice.instances))
            for choice, glance in zip(choices, glances, strict=True)
        ]
    )


def _lone_slices(choice: Sequence[SeriesHeaders]) -> SingleSlices:
    instances = [instance for one in choice for instance in one.instances]
    instances.sort(key=lambda instance: -_centre(instance.header)[2])
    return SingleSlices(
        instances=tuple(instances),
        series=tuple(choice),
        series_instance_uids=frozenset(one.series_instance_uid for one in choice),
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


def _stand_alone(instances: Sequence[Instance]) -> bool:
    """Whether every slice could be measured by itself, and no two show the same vertebra."""
    for instance in instances:
        alone = SeriesHeaders(study_instance_uid="", series_instance_uid="", instances=(instance,))
        thickness_mm = number_of(instance.header, "SliceThickness")
        if unsuitable(alone) is not None or thickness_mm is None or thickness_mm < MIN_THICKNESS_MM:
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


def _centre(header: Dataset) -> npt.NDArray[np.float64]:
    return _middle(_grid(header))


def _technique(series: SeriesHeaders) -> tuple[str, ...]:
    return tuple(comparable(series.first, keyword) for keyword in TECHNIQUE)


# Single slices as the report shows them: each with what was found in it.


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSlice:
    """One slice, and the masks drawn in it."""

    name: str  # as in `node.study_report.SliceResult`
    series: LoadedSeries  # of this slice alone
    body: Mask | None  # shape (1, rows, columns); None where no body was found
    region: Mask | None  # where density is read


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
