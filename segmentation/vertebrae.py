"""Types that engines return (vertebrae, levels, observations), regions, and the course of the spine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from segmentation.ct_volume import CtVolume, Grid, LabelMap, Mask
from segmentation.phrase import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A fact about a study or one of its levels that a report states: a code, without text.

    Text, severity and the outputs that are withheld are in config/findings.toml.

    Attributes
    ----------
    code : a key of config/findings.toml.
    level : such as "L3", as `Level.name`; None where it concerns the study.
    values : arguments of the finding's text.
    """

    code: str
    level: str | None = None
    values: Mapping[str, Value] = field(default_factory=dict)


# Values of the label map. They are TotalSegmentator's `total` class numbers, a convention many tools read.
LABELS: Mapping[str, int] = {
    "sacrum": 25, "S1": 26, "L5": 27, "L4": 28, "L3": 29, "L2": 30, "L1": 31, "T12": 32, "T11": 33, "T10": 34,
}  # fmt: skip
LUMBAR = ("L1", "L2", "L3", "L4", "L5")
ANATOMICAL_ORDER = ("T10", "T11", "T12", *LUMBAR, "S1")

# Whole lumbar bodies of which nothing tells the name are counted from the head. Their values in a label map
# lie above TotalSegmentator's class numbers (1 to 117), so that no reader takes one for a named vertebra.
UNNAMED_ABOVE = 200
UNNAMED = re.compile(r"lumbar body (\d+) of (\d+)")


def unnamed_body(ordinal: int, count: int) -> str:
    """What stands in a name's place: "lumbar body 1 of 3".

    Parameters
    ----------
    ordinal : from 1, counted from the head.
    count : of the bodies without a name in the image.
    """
    return f"lumbar body {ordinal} of {count}"


def place_of_unnamed(name: str) -> tuple[int, int] | None:
    """Ordinal and count, the inverse of `unnamed_body`; None for any other name."""
    found = UNNAMED.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def is_unnamed(name: str) -> bool:
    """Whether this is the place of a body without a name."""
    return UNNAMED.fullmatch(name) is not None


def is_lumbar(name: str) -> bool:
    """Whether this is a lumbar level, or the place of a lumbar body without a name."""
    return name in LUMBAR or is_unnamed(name)


def label_of(name: str) -> int:
    """The value of a body in the label map."""
    place = place_of_unnamed(name)
    return LABELS[name] if place is None else UNNAMED_ABOVE + place[0]


def rank_of(name: str) -> int:
    """Place in a row from superior to inferior: adjacent vertebrae differ by one.

    Only ranks of named levels, or of bodies without names, may be compared with each other.
    """
    place = place_of_unnamed(name)
    return ANATOMICAL_ORDER.index(name) if place is None else place[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The engine that made the label map.

    Attributes
    ----------
    model_free : True where no trained network took part.
    """

    name: str
    version: str
    model_free: bool
    weights_sha256: str | None = None
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One vertebra found in the image.

    Attributes
    ----------
    name : such as "L3"; of a body without a name its place, as `unnamed_body` states it.
    label : its value in the label map (`label_of`).
    complete : whether the whole body lies inside the volume.
    centroid_mm : of the body, LPS.
    axis : unit vector of the body's long axis, towards superior, LPS.
    """

    name: str
    label: int
    complete: bool
    centroid_mm: tuple[float, float, float]
    body_volume_mm3: float
    axis: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """How much of each voxel lies inside one body: finer than a label map where voxels are large.

    Attributes
    ----------
    corner : index (z, y, x) of its first voxel in the volume.
    share : (z, y, x): 0 outside, 255 wholly inside; covers every voxel with a part inside.
    """

    corner: tuple[int, int, int]
    share: LabelMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertebrae:
    """Vertebral bodies and their names.

    `bodies` holds one value per vertebral *body* (posterior elements left out), on the source grid.

    Attributes
    ----------
    bodies : uint8, shape of the grid; values of `label_of`, 0 elsewhere.
    levels : from superior to inferior; either all have names or none has.
    numbering_confirmed : whether sacrum, last rib or a person's statement anchor the names, and nothing
        contradicts them.
    numbering_basis : "sacrum", "last rib", "sacrum and last rib", "mask", "stated" or "none".
    occupancy : by level; empty where an engine gives whole voxels only.
    drawn_on : grid on which the map was drawn, if other than `grid`.
    """

    grid: Grid
    bodies: LabelMap
    levels: tuple[Level, ...]
    numbering_confirmed: bool
    numbering_basis: str
    engine: EngineInfo
    observations: tuple[Observation, ...] = ()
    occupancy: Mapping[str, Occupancy] = field(default_factory=dict)
    drawn_on: Grid | None = None

    def level(self, name: str) -> Level | None:
        return next((found for found in self.levels if found.name == name), None)


class RegionKind(StrEnum):
    """Part of a body in which density is read. Automatic core regions read higher than drawn ellipses."""

    CORE = "core"  # the eroded cancellous core, as segmentation.regions.cancellous cuts it
    ELLIPSE = "ellipse"  # a mid-body ellipse in front of the basivertebral veins


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """The measured parts of one vertebral body, as masks on the source grid.

    Attributes
    ----------
    bmd : mid-body cancellous bone, or the ellipse: the density that leads is read here.
    radiomics : the whole eroded cancellous volume, for features.
    core_volume_mm3 : volume of the radiomics region; voxels at its border count by their share.
    kind : which of the two `bmd` is.
    ellipse : region of a second density; None where none is read.
    """

    level: str
    bmd: Mask
    radiomics: Mask
    core_volume_mm3: float
    kind: RegionKind = RegionKind.CORE
    ellipse: Mask | None = None


def no_vertebrae(volume: CtVolume, engine: EngineInfo, why: Observation | None = None) -> Vertebrae:
    """The result for an image without a lumbar vertebra, or one that an engine does not search.

    Parameters
    ----------
    why : the reason; by default `no_lumbar_level`.
    """
    return Vertebrae(
        grid=volume.grid,
        bodies=np.zeros(volume.grid.shape, np.uint8),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=engine,
        observations=(why or Observation(code="no_lumbar_level"),),
    )


# The course of the spine.
Lengths = npt.NDArray[np.float64]

ABOVE_SACRUM = tuple(name for name in ANATOMICAL_ORDER if name != "S1")
_WHOLE_SECTION = 0.6  # share of a body's largest section: smaller sections are its rim
_FOREMOST_PERCENT = 10  # of a section, which may be an osteophyte


@dataclass(frozen=True, slots=True, kw_only=True)
class SpineCourse:
    """The bodies' place in consecutive slices of a volume in the canonical frame.

    Attributes
    ----------
    slices : (n,), indices ascending towards superior.
    middle_mm : (n,), along x from the first column.
    front_mm : (n,), along y from the first row.
    """

    slices: npt.NDArray[np.intp]
    middle_mm: Lengths
    front_mm: Lengths


def spine_course(
    volume: CtVolume, bodies: LabelMap, names: Iterable[str], *, beyond_mm: float = 0.0
) -> SpineCourse | None:
    """The course of the named bodies; None where none of them is in view.

    Bodies without a name belong to the course in any case. Slices between two bodies are interpolated, and
    so are those that cut a body's rim only.

    Parameters
    ----------
    volume, bodies : in the canonical frame, on one grid.
    beyond_mm : length of the straight continuation above and below the bodies.
    """
    dz, dy, dx = volume.grid.spacing_mm
    places: list[tuple[int, float, float]] = []
    unnamed = np.unique(bodies[bodies > UNNAMED_ABOVE])
    for value in (*(label_of(name) for name in names), *unnamed):
        inside = bodies == value
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
    return SpineCourse(
        slices=every, middle_mm=np.interp(every, z, middle), front_mm=np.interp(every, z, front_mm)
    )


def slices_showing(bodies: LabelMap, name: str) -> npt.NDArray[np.intp]:
    """Indices along axis 0, ascending, of the slices that show a body; shape (n,)."""
    shown: npt.NDArray[np.intp] = np.flatnonzero((bodies == label_of(name)).any(axis=(1, 2)))
    return shown
