"""Checks of vertebral bodies and regions: size, metal, lesions, fracture, bone. They give observations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmentation.ct_volume import CtVolume, FloatArray, Mask, bone_contrast
from segmentation.gates.fracture import fracture_observations
from segmentation.gates.wholeness import wholeness_observations
from segmentation.phrase import Phrase, phrase
from segmentation.regions.cancellous import body_coordinates, height_range
from segmentation.regions.surface import box_around, largest_piece
from segmentation.settings import GateSettings, LesionSettings
from segmentation.vertebrae import (
    ABOVE_SACRUM,
    Level,
    Observation,
    RegionKind,
    Regions,
    Vertebrae,
    is_lumbar,
    is_unnamed,
)

# Lesions. Cement, dense and lytic lesions are clusters that differ from the rest of their body. A body that
# is replaced as a whole is compared with the other bodies in view. In bone of low density lytic tissue has
# the HU of marrow: an observation states that lysis was not assessed.

_METAL_KVP = 120.0  # at which the limits of metal are stated
METAL_MOST_HU = 2800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interior:
    """What lies deep inside one body."""

    name: str
    hu: FloatArray  # smoothed, in a box around the body
    deep: Mask  # of the same shape; never empty

    @property
    def median_hu(self) -> float:
        return float(np.median(self.hu[self.deep]))


def lesion_observations(
    volume: CtVolume,
    vertebrae: Vertebrae,
    settings: LesionSettings | None = None,
    *,
    unread: Collection[str] = (),
) -> tuple[Observation, ...]:
    """Lesions of lumbar bodies: the largest cluster of each kind, or a whole body. Cement precedes sclerosis.

    Parameters
    ----------
    volume : the CT that `vertebrae` were found in, on the same grid.
    unread : levels with metal, whose median is not compared with that of others.
    """
    rules = settings or LesionSettings()
    inside = [
        interior
        for level in vertebrae.levels
        if level.complete and (level.name in ABOVE_SACRUM or is_unnamed(level.name))
        if (interior := _interior(volume, vertebrae, level, rules)) is not None
    ]
    medians = {one.name: one.median_hu for one in inside}
    found: list[Observation] = []
    foreign = set(unread)
    for one in inside:
        clusters = tuple(_clusters(one, medians[one.name], volume.grid.voxel_volume_mm3, rules))
        foreign |= {one.name for cluster in clusters if cluster.code == "cement_in_body"}
        if is_lumbar(one.name):
            found += clusters
    # A body with cement, or with streaks of metal, is no measure of another.
    bone_hu = {name: median for name, median in medians.items() if name not in foreign}
    lumbar = [name for name in medians if is_lumbar(name)]
    for name in lumbar:
        if name in bone_hu:
            found += _replaced_body(name, bone_hu, rules)
    faint = [name for name in lumbar if not _would_show_lysis(medians[name], rules)]
    if faint:
        found.append(Observation(code="lysis_not_assessed", values={"levels": ", ".join(faint)}))
    return tuple(found)


def _interior(
    volume: CtVolume, vertebrae: Vertebrae, level: Level, rules: LesionSettings
) -> _Interior | None:
    """None where a body has no inside that deep."""
    box = ndimage.find_objects((vertebrae.bodies == level.label).astype(np.uint8))[0]
    inside = np.pad(vertebrae.bodies[box] == level.label, 1)
    spacing = np.asarray(volume.grid.spacing_mm)
    # Half a voxel deeper along each axis, so that no voxel reaches above the depth.
    reach = rules.depth_mm + spacing / 2
    deep = ndimage.distance_transform_edt(inside, sampling=spacing / reach)[1:-1, 1:-1, 1:-1] >= 1.0
    if not deep.any():
        return None
    hu = ndimage.gaussian_filter(volume.hu[box], rules.smoothing_mm / spacing)
    return _Interior(name=level.name, hu=hu, deep=deep)


def _clusters(
    one: _Interior, median_hu: float, voxel_mm3: float, rules: LesionSettings
) -> Iterator[Observation]:
    # Sound bone of the young exceeds the limit at 80 kV: cement is denser, unless it fills the body.
    cement_hu = max(rules.cement_hu, min(median_hu, rules.cement_hu) + rules.dense_above_median_hu)
    cement = _largest_mm3(one.deep & (one.hu > cement_hu), voxel_mm3)
    dense_limit = max(rules.dense_hu, median_hu + rules.dense_above_median_hu)
    dense = _largest_mm3(one.deep & (one.hu > dense_limit), voxel_mm3)
    low, high = rules.lytic_hu
    high = max(high, (rules.lytic_tissue_hu + median_hu) / 2)
    dark = one.deep & (one.hu < min(high, median_hu - rules.lytic_below_median_hu)) & (one.hu > low)
    lytic = _largest_mm3(dark, voxel_mm3)
    if cement >= rules.cement_min_mm3:
        yield _observation("cement_in_body", one.name, cement, limit_hu=round(cement_hu))
    elif dense >= rules.dense_min_mm3:
        yield _observation("dense_lesion", one.name, dense)
    if lytic >= rules.lytic_min_mm3:
        yield _observation("lytic_lesion", one.name, lytic)


def _replaced_body(name: str, medians: Mapping[str, float], rules: LesionSettings) -> Iterator[Observation]:
    others = [median for label, median in medians.items() if label != name]
    if not others:
        return
    usual = float(np.median(others))
    if abs(medians[name] - usual) > max(rules.unlike_hu, rules.unlike_share * abs(usual)):
        yield Observation(
            code="body_unlike_others",
            level=name,
            values={"hu": round(medians[name]), "others_hu": round(usual)},
        )


def _would_show_lysis(median_hu: float, rules: LesionSettings) -> bool:
    return median_hu - rules.lytic_below_median_hu >= rules.lytic_tissue_hu


def _observation(code: str, level: str, volume_mm3: float, **values: int) -> Observation:
    return Observation(code=code, level=level, values={"volume_cm3": round(volume_mm3 / 1000, 1), **values})


def _largest_mm3(mask: Mask, voxel_mm3: float) -> float:
    return float(np.count_nonzero(largest_piece(mask, corners=True)) * voxel_mm3)


def quality_observations(
    volume: CtVolume,
    vertebrae: Vertebrae,
    regions: Mapping[str, Regions],
    settings: GateSettings | None = None,
) -> tuple[Observation, ...]:
    """All reasons against measuring a lumbar level, from superior to inferior.

    Parameters
    ----------
    regions : by level name; levels without an entry are judged by their body alone.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    volume.grid.require_same(vertebrae.grid)
    rules = settings or GateSettings()
    found: list[Observation] = []
    for level in vertebrae.levels:
        if not is_lumbar(level.name):
            continue
        if not level.complete:
            found.append(Observation(code="body_truncated", level=level.name))
            continue
        found += _body(volume, vertebrae, level, rules)
        if level.name in regions:
            found += _region(volume, regions[level.name], rules)
    metal = {str(one.level) for one in found if one.code == "metal_near_body"}
    divided = wholeness_observations(volume, vertebrae, rules, unread=metal)
    found += divided
    # A label on two bodies would make every other body look low.
    doubled = {str(one.level) for one in vertebrae.observations if one.code == "label_not_one_body"}
    unread = metal | doubled | {str(one.level) for one in divided}
    found += lesion_observations(volume, vertebrae, rules.lesions, unread=unread)
    found += fracture_observations(vertebrae, rules.fracture, unread=unread)
    third = vertebrae.level("L3")
    named = any(not is_unnamed(level.name) for level in vertebrae.levels)
    if named and (third is None or not third.complete):
        found.append(Observation(code="l3_not_found"))
    return tuple(found)


def _body(volume: CtVolume, vertebrae: Vertebrae, level: Level, rules: GateSettings) -> Iterable[Observation]:
    bodies = vertebrae.bodies == level.label
    box = box_around(bodies, np.ceil(rules.metal_margin_mm / np.asarray(volume.grid.spacing_mm)))
    body = bodies[box]
    low, high = height_range(body_coordinates(volume.grid, level, box), body, volume.grid, level)
    height = high - low
    if not rules.height_mm[0] <= height <= rules.height_mm[1]:
        yield Observation(
            code="body_height_implausible",
            level=level.name,
            values={
                "height_mm": round(height, 1),
                "least_mm": f"{rules.height_mm[0]:g}",
                "most_mm": f"{rules.height_mm[1]:g}",
            },
        )
    metal = metal_pieces(volume.hu[box], body, volume.grid.spacing_mm, volume.kvp, rules)
    least = max(rules.metal_min_voxels, rules.metal_min_mm3 / volume.grid.voxel_volume_mm3)
    if metal.sure_voxels >= least:
        yield metal_observation(level.name, metal.voxels * volume.grid.voxel_volume_mm3, metal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metal:
    """The largest piece of metal in a body or near it.

    Attributes
    ----------
    voxels : of the piece, with what is joined to it inside the body.
    sure_voxels : those of them that no bone reaches.
    sure_hu : what no bone reaches at the image's tube voltage.
    """

    voxels: int
    sure_voxels: int
    sure_hu: float


def metal_pieces(
    hu: FloatArray, body: Mask, spacing_mm: Sequence[float], kvp: float | None, rules: GateSettings
) -> Metal:
    """Metal is told by voxels that no bone reaches; cortex, osteophytes and contrast medium stay below.

    Parameters
    ----------
    hu, body : of one shape, of a volume or a slice.
    spacing_mm : along their axes.
    kvp : tube voltage, with which bone's contrast changes; None where it is not known.
    """
    contrast = bone_contrast(kvp, relative_to=_METAL_KVP)
    # A CT's HU end at 3,071, which metal reaches at any voltage.
    sure_hu, joined_hu = min(rules.metal_hu * contrast, METAL_MOST_HU), rules.metal_joined_hu * contrast
    outside_mm = ndimage.distance_transform_edt(~body, sampling=spacing_mm)
    sure = (outside_mm <= rules.metal_margin_mm) & (hu > sure_hu)
    labels, count = ndimage.label(sure | (body & (hu > joined_hu)), np.ones((3,) * hu.ndim))
    surely = np.bincount(labels[sure], minlength=count + 1)
    largest = int(np.argmax(surely))
    return Metal(
        voxels=int(np.count_nonzero(labels == largest)) if surely[largest] else 0,
        sure_voxels=int(surely[largest]),
        sure_hu=sure_hu,
    )


def metal_observation(level: str | None, volume_mm3: float, metal: Metal) -> Observation:
    """`metal_near_body`; without a level for single slices."""
    values = {
        "volume_mm3": round(volume_mm3),
        "limit_hu": round(metal.sure_hu),
    }
    return Observation(code="metal_near_body", level=level, values=values)


def _region(volume: CtVolume, regions: Regions, rules: GateSettings) -> Iterable[Observation]:
    hu = volume.hu[regions.bmd]
    volume_cm3 = hu.size * volume.grid.voxel_volume_mm3 / 1000.0
    smallest = rules.min_region_cm3 if regions.kind is RegionKind.CORE else rules.min_ellipse_cm3
    if volume_cm3 < smallest:
        yield Observation(
            code="roi_too_small",
            level=regions.level,
            values={"volume_cm3": round(volume_cm3, 1), "needed_cm3": f"{smallest:g}"},
        )
    read = [hu] if regions.ellipse is None else [hu, volume.hu[regions.ellipse]]
    spread = max((float(values.std(ddof=1)) for values in read if values.size > 1), default=0.0)
    if spread > rules.max_region_sd_hu:
        yield Observation(code="roi_heterogeneous", level=regions.level, values={"sd_hu": round(spread)})
    if regions.ellipse is not None and (reason := ellipse_objection(volume, regions.ellipse, rules)):
        yield Observation(code="ellipse_not_measured", level=regions.level, values={"reason": reason})


def ellipse_objection(volume: CtVolume, ellipse: Mask, settings: GateSettings) -> Phrase | None:
    """Why an ellipse beside the core gives no density; None where it gives one.

    Parameters
    ----------
    ellipse : bool, shape of the volume; may be empty.
    """
    voxels = int(np.count_nonzero(ellipse))
    volume_cm3 = voxels * volume.grid.voxel_volume_mm3 / 1000.0
    small = voxels == 0 or volume_cm3 < settings.min_ellipse_cm3
    return phrase("ellipse-in-little-bone", volume=f"{volume_cm3:.1f}") if small else None


# A mask may lie beside the vertebra.
RING_MM = (3.0, 8.0)  # the surroundings that a body is compared with


def bone_observations(
    volume: CtVolume, vertebrae: Vertebrae, *, minimum_contrast_hu: float
) -> tuple[Observation, ...]:
    """`body_not_bone` for every complete lumbar body that is hardly denser than its surroundings.

    The body's mean is compared with the median of a ring around it. The median is soft tissue, even with bone
    of the posterior elements in the ring.

    Parameters
    ----------
    minimum_contrast_hu : of the mean above that median.
    """
    found = []
    for level in vertebrae.levels:
        if level.complete and is_lumbar(level.name):
            contrast = _contrast(volume, vertebrae.bodies == level.label)
            if contrast < minimum_contrast_hu:
                values = {"contrast": round(contrast), "limit": round(minimum_contrast_hu)}
                found.append(Observation(code="body_not_bone", level=level.name, values=values))
    return tuple(found)


def _contrast(volume: CtVolume, body: Mask) -> float:
    box = box_around(body, np.ceil(RING_MM[1] / np.asarray(volume.grid.spacing_mm)) + 1)
    inside, hu = body[box], volume.hu[box]
    outside_mm = ndimage.distance_transform_edt(~inside, sampling=volume.grid.spacing_mm)
    ring = (outside_mm >= RING_MM[0]) & (outside_mm <= RING_MM[1])
    return float(hu[inside].mean() - np.median(hu[ring])) if ring.any() else 0.0
