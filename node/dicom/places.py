"""Where the slices of a study lie, as their headers say: all that is read to see whether one is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from node.dicom.headers import text_of

_KEYWORDS = ["SeriesInstanceUID", "ImageType", "ImagePositionPatient", "ImageOrientationPatient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePlace:
    """One CT instance in space. None where the header does not say, or where it holds several slices."""

    series_instance_uid: str
    is_localizer: bool
    position_mm: tuple[float, ...] | None  # three coordinates of the first voxel
    orientation: tuple[float, ...] | None  # six cosines: along a row, along a column


def slice_places(paths: Iterable[Path]) -> tuple[SlicePlace, ...]:
    """The places of CT files. One that cannot be read has none."""
    return tuple(_place(_header(path)) for path in paths)


def _header(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=_KEYWORDS)
    except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to; select tells of them
        return Dataset()


def _place(header: Dataset) -> SlicePlace:
    image_type = text_of(header, "ImageType").split()
    return SlicePlace(
        series_instance_uid=text_of(header, "SeriesInstanceUID"),
        is_localizer="LOCALIZER" in image_type[2:3],  # PS3.3 C.8.2.1.1.1: value 3
        position_mm=_numbers(header, "ImagePositionPatient", 3),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
    )


def _numbers(header: Dataset, keyword: str, length: int) -> tuple[float, ...] | None:
    try:
        values: Any = header.get(keyword)
        numbers = tuple(float(value) for value in values or ())
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length and all(map(isfinite, numbers)) else None
