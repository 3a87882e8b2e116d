"""Where the row of bodies runs through a volume, slice by slice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentation.vertebrae import ANATOMICAL_ORDER, LABELS
from segmentation.volume import CtVolume, LabelMap

Lengths = npt.NDArray[np.float64]

ABOVE_SACRUM = tuple(name for name in ANATOMICAL_ORDER if name != "S1")
_WHOLE_SECTION = 0.6  # of a body's largest section: less is its rim
_FOREMOST_PERCENT = 10  # of a section may be an osteophyte


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The bodies' place in consecutive slices of a volume in the canonical frame."""

    slices: npt.NDArray[np.intp]  # ascending towards superior
    middle_mm: Lengths  # along x, from the first column
    front_mm: Lengths  # along y, from the first row


def course_of_bodies(
    volume: CtVolume, bodies: LabelMap, names: Iterable[str], *, beyond_mm: float = 0.0
) -> Course | None:
    """The course of the named bodies; None where none of them is in view.

    Slices between two bodies are interpolated, and so are those that cut a body's rim only.

    Parameters
    ----------
    volume, bodies : in the canonical frame, on one grid.
    beyond_mm : how far above and below the bodies the course goes on straight.
    """
    dz, dy, dx = volume.grid.spacing_mm
    places: list[tuple[int, float, float]] = []
    for name in names:
        inside = bodies == LABELS[name]
        area = inside.sum(axis=(1, 2))
        for k in np.flatnonzero(area > _WHOLE_SECTION * area.max()):
            rows, columns = np.nonzero(inside[k])
            front = float(np.percentile(rows, _FOREMOST_PERCENT))
            places.append((int(k), float(columns.mean()) * dx, front * dy))
    if not places:
        return None
    z, middle, front_mm = (np.array(values) for values in zip(*sorted(places), strict=True))
    beyond = int(beyond_mm / dz)
    every = np.arange(max(0, int(z[0]) - beyond), min(volume.grid.shape[0], int(z[-1]) + beyond + 1))
    return Course(slices=every, middle_mm=np.interp(every, z, middle), front_mm=np.interp(every, z, front_mm))


def slices_of(bodies: LabelMap, name: str) -> npt.NDArray[np.intp]:
    """The slices (axis 0) that show a body."""
    shown: npt.NDArray[np.intp] = np.flatnonzero((bodies == LABELS[name]).any(axis=(1, 2)))
    return shown
