"""The known answers of a digital reference study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from node.reference.attenuation import cancellous_reading
from node.reference.damage import displace
from node.reference.render import Raster
from node.reference.shapes import Axis, VertebralSolid, distance_on, part_of
from node.reference.spec import BODIES, StudySpec
from node.reference.spine import Vertebra
from node.reference.surroundings import VERTEBRAE, compositions, rods

# Numbers of TotalSegmentator's `total` classes, as in masks of vertebrae drawn by others.
MASK_LABELS: Mapping[str, int] = {"L5": 27, "L4": 28, "L3": 29, "L2": 30, "L1": 31, "T12": 32}
_Shape = tuple[tuple[str, Any], ...]
_MINERALS = ("HA", "K2HPO4")
_SAMPLE_MM = 0.5
_EQUIVALENT = "HA"  # of the phantom's certificate, and of `bmd_mg_cm3` in the specification


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelTruth:
    """One lumbar vertebra that is wholly in view.

    Attributes
    ----------
    bmd_mg_cm3 : in the study's equivalent: what an ideal calibrated reading gives.
    volume_mm3 : of the whole body, cortex included.
    centroid_mm : of the body (LPS).
    """

    bmd_mg_cm3: float
    volume_mm3: float
    centroid_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a perfect measurement of the study would find.

    Attributes
    ----------
    equivalent : that the levels' densities are given in.
    levels : by name; those wholly in view.
    document : truth.json.
    """

    equivalent: str
    levels: Mapping[str, LevelTruth]
    document: Mapping[str, Any]


def truth_of(spec: StudySpec, spine: dict[str, Vertebra], raster: Raster) -> Truth:
    """The answers for all lumbar bodies that the slices hold completely.

    Parameters
    ----------
    spine : of `build_spine`.
    raster : of `raster_of`.
    """
    if spec.european_spine_phantom:
        return _truth_of_spine_phantom(spec)
    readings = {
        name: cancellous_reading(
            spec.bmd_of(name),
            equivalent=_EQUIVALENT,
            fat_fraction=spec.fat_fraction,
            kev=spec.kev,
        )
        for name in (*BODIES, *spec.lumbar[5:])
    }
    levels = {
        name: _level(spine[name], spec.bmd_of(name)) for name in spec.lumbar if in_view(spine[name], raster)
    }
    return _truth(
        spec,
        levels,
        equivalents={
            mineral: {name: readings[name].equivalents_mg_cm3[mineral] for name in levels}
            for mineral in _MINERALS
        },
        composition={
            name: {
                "hu": readings[name].hu,
                "mineral_mg_cm3": readings[name].mineral_mg_cm3,
                "fat_fraction": readings[name].fat_fraction,
            }
            for name in levels
        },
    )


def _truth_of_spine_phantom(spec: StudySpec) -> Truth:
    found = compositions(spec)
    return _truth(
        spec,
        {
            one.name: LevelTruth(
                bmd_mg_cm3=one.bmd_mg_cm3, volume_mm3=one.volume_mm3, centroid_mm=one.centre_mm
            )
            for one in VERTEBRAE
        },
        equivalents={
            mineral: {name: one["equivalents"][mineral] for name, one in found.items()}
            for mineral in _MINERALS
        },
        composition={
            name: {key: value for key, value in one.items() if key != "equivalents"}
            for name, one in found.items()
        },
    )


def _truth(
    spec: StudySpec,
    levels: Mapping[str, LevelTruth],
    *,
    equivalents: Mapping[str, Mapping[str, float]],
    composition: Mapping[str, Mapping[str, float]],
) -> Truth:
    document = {
        "equivalent": _EQUIVALENT,
        "levels": {name: asdict(level) for name, level in levels.items()},
        "equivalents": equivalents,
        "composition": composition,
        "rods": [asdict(rod) for rod in rods(spec)],
        "kvp": spec.kvp,
        "effective_kev": spec.kev,
        "seed": spec.seed,
        "noise_hu": spec.noise_hu,
        "pixel_spacing_mm": list(spec.pixel_spacing_mm),
        "slice_spacing_mm": spec.slice_spacing_mm,
        "slice_thickness_mm": spec.slice_thickness_mm,
        "mask_labels": dict(MASK_LABELS),
        "spec": {**spec.content, "study_date": spec.study_date.isoformat()},
    }
    if "faults" in spec.content:
        document["faults"] = spec.content["faults"]
    return Truth(equivalent=_EQUIVALENT, levels=levels, document=document)


def in_view(vertebra: Vertebra, raster: Raster) -> bool:
    """Whether every part of the body lies within the slices, half a thickness beyond both ends included."""
    body = _filled_by(vertebra)
    half = raster.spec.slice_thickness_mm / 2
    return bool(body.lowest_mm >= raster.z_mm[0] - half and body.highest_mm <= raster.z_mm[-1] + half)


def _level(vertebra: Vertebra, bmd_mg_cm3: float) -> LevelTruth:
    body = _filled_by(vertebra)
    return LevelTruth(bmd_mg_cm3=bmd_mg_cm3, volume_mm3=body.volume_mm3, centroid_mm=body.centroid_mm)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """A body as the points of a fine grid within it show it."""

    volume_mm3: float
    centroid_mm: tuple[float, float, float]
    lowest_mm: float  # z
    highest_mm: float


def _filled_by(vertebra: Vertebra) -> _Filled:
    body = vertebra.body
    place = (tuple(body.centre.tolist()), tuple(tuple(row) for row in body.axes.tolist()))
    return _filled(place, _shape(body))


@cache  # vertebrae stand in one place in many studies
def _filled(place: tuple[tuple[float, ...], tuple[tuple[float, ...], ...]], shape: _Shape) -> _Filled:
    body = VertebralSolid(centre=np.array(place[0]), axes=np.array(place[1]), **dict(shape))
    axes = _fine_grid(body)
    x, y, z = axes
    index = np.nonzero(distance_on(body, (z, y, x)) < 0)
    points = np.stack([axis[one] for axis, one in zip(axes, reversed(index), strict=True)], axis=1)
    left, back, up = (float(value) for value in points.mean(axis=0))
    return _Filled(
        volume_mm3=len(points) * _SAMPLE_MM**3,
        centroid_mm=(left, back, up),
        lowest_mm=float(points[:, 2].min()),
        highest_mm=float(points[:, 2].max()),
    )


def _fine_grid(body: VertebralSolid) -> list[Axis]:
    """Positions along x, y and z of a grid that holds a body."""
    return [np.arange(low, high, _SAMPLE_MM) for low, high in zip(body.box.low, body.box.high, strict=True)]


def core_volume_mm3(vertebra: Vertebra, depth_mm: float) -> float:
    """Volume of the part of a body that is deeper than `depth_mm` beneath its surface.

    Depth is measured to points of the surface on a grid of 0.5 mm: a solid's own distance is a bound only.
    """
    return _core_volume_mm3(_shape(vertebra.body), depth_mm)


def _shape(body: VertebralSolid) -> _Shape:
    """The shape of a body without its place: all fields but these."""
    own = {one.name: getattr(body, one.name) for one in fields(VertebralSolid)}
    del own["centre"], own["axes"]
    return tuple(own.items())


@cache  # vertebrae of one shape recur in many studies
def _core_volume_mm3(shape: _Shape, depth_mm: float) -> float:
    """Depth is measured to points of the surface, which a fine grid finds where the sign changes.

    A solid's own distance is a bound only.
    """
    body = VertebralSolid(centre=np.zeros(3), axes=np.eye(3), **dict(shape))
    axes = _fine_grid(body)
    x, y, z = (axis.astype(np.float32) for axis in axes)
    field = body.distance(x[:, None, None], y[None, :, None], z[None, None, :]).astype(float)
    index = np.argwhere(field < 0)
    inside = np.stack([axis[index[:, k]] for k, axis in enumerate(axes)], axis=1)
    distance, _ = cKDTree(_surface(field, axes)).query(inside, distance_upper_bound=depth_mm)
    return float(np.isinf(distance).sum() * _SAMPLE_MM**3)


def _surface(field: npt.NDArray[np.float64], axes: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Points (x, y, z) where lines of the grid cross the zero of `field`."""
    points = []
    for axis in range(3):
        before = np.moveaxis(field, axis, 0)[:-1]
        after = np.moveaxis(field, axis, 0)[1:]
        place = np.argwhere((before < 0) != (after < 0))
        one, other = before[tuple(place.T)], after[tuple(place.T)]
        along = place[:, 0] + one / (one - other)
        whole = np.insert(place[:, 1:].astype(float), axis, along, axis=1)
        points.append(np.stack([axes[k][0] + whole[:, k] * _SAMPLE_MM for k in range(3)], axis=1))
    return np.concatenate(points)


def truth_mask(spine: dict[str, Vertebra], raster: Raster) -> npt.NDArray[np.uint8]:
    """Label map of the bodies on the CT grid.

    Returns
    -------
    uint8, shape (z, y, x); values of `MASK_LABELS`. A voxel belongs to a body where its centre lies in it.
    """
    mask = np.zeros((raster.slices, len(raster.y_mm), len(raster.x_mm)), np.uint8)
    if raster.spec.european_spine_phantom:
        for one in VERTEBRAE:
            mask[distance_on(one.body, raster.axes_mm) < 0] = MASK_LABELS[one.name]
        return mask
    for name, label in MASK_LABELS.items():
        body = spine[name].body
        cut = part_of(body.box, raster.axes_mm)
        if mask[cut].size:
            mask[cut][distance_on(body, raster.axes_mm, cut) < 0] = label
    displace(mask, raster.spec.faults, spine, raster.axes_mm, outside=0)
    return mask
