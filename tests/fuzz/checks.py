"""One case of fuzz from its sending to what is made of it."""

from __future__ import annotations

import warnings
from pathlib import Path

from node.dicom.ct.headers import group_series, identity_of, read_headers
from node.dicom.ct.reading import read_series
from node.dicom.ct.series_choice import select_series
from node.dicom.errors import SeriesUnusable
from tests.fuzz.cases import SLICES, Damaged, whole_slice
from tests.fuzz.target import Target

_REFUSALS = (0xA700, 0xA900, 0xC000)


def check_data_set(target: Target, damaged: Damaged, neighbours: tuple[Path, ...]) -> None:
    """A damaged data set is refused with a reason, or kept as it came and read with no error but ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library words what it meets in damaged bytes
        status = target.store(damaged.content, damaged.sop_instance_uid, damaged.syntax)
        assert status is not None
        if status != 0:
            assert status in _REFUSALS, f"0x{status:04X}"
            return
        kept = target.kept(damaged.sop_instance_uid)
        assert kept.read_bytes().endswith(damaged.content)
        target.seen[f"read: {_read((*neighbours, kept))}"] += 1


def _read(paths: tuple[Path, ...]) -> str:
    """What comes of reading: "volume", or the first word of the reason against it."""
    instances = read_headers(paths)
    for instance in instances:
        identity_of(instance.header)
    series = group_series(instances)
    select_series(series)  # takes none of so few slices, but looks at each
    try:
        loaded = [read_series(one) for one in series]
    except SeriesUnusable as error:
        return error.reason.value
    return f"volumes of {sorted(len(one.headers) for one in loaded)} slices"


def write_neighbours(folder: Path) -> tuple[Path, ...]:
    """The slices beside the damaged one, whole."""
    paths = []
    for number in range(SLICES - 1):
        dataset = whole_slice(number)
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return tuple(paths)
