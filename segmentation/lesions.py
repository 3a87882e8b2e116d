"""Something else than bone in a body: part of it by its clusters, all of it by its neighbours.

Cement, dense and lytic lesions are clusters that differ from the rest of their body. A body that is replaced
as a whole has no rest to differ from, and is held against the other bodies in view. In faint bone lytic
tissue reads like the marrow beside it: that it cannot be told is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmentation.observation import Observation
from segmentation.settings import LesionSettings
from segmentation.vertebrae import ANATOMICAL_ORDER, LUMBAR, Level, Vertebrae
from segmentation.volume import CtVolume, FloatArray, Mask


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
    """What fills lumbar bodies in part, largest cluster of each kind, or wholly. Cement outranks sclerosis.

    Parameters
    ----------
    volume : the CT that `vertebrae` were found in, on the same grid.
    unread : levels with metal, whose median is not compared with that of others.
    """
    rules = settings or LesionSettings()
    inside = [
        interior
        for level in vertebrae.levels
        if level.complete and level.name in ANATOMICAL_ORDER and level.name != "S1"
        if (interior := _interior(volume, vertebrae, level, rules)) is not None
    ]
    medians = {one.name: one.median_hu for one in inside}
    found: list[Observation] = []
    foreign = set(unread)
    for one in inside:
        clusters = tuple(_clusters(one, medians[one.name], volume.grid.voxel_volume_mm3, rules))
        foreign |= {one.name for cluster in clusters if cluster.code == "cement_in_body"}
        if one.name in LUMBAR:
            found += clusters
    # What stands in a body, or streaks through it, is not its bone: such a body is no measure of another.
    bone_hu = {name: median for name, median in medians.items() if name not in foreign}
    for name in LUMBAR:
        if name in bone_hu:
            found += _unlike_the_others(name, bone_hu, rules)
    faint = [name for name in LUMBAR if name in medians and not _would_show_lysis(medians[name], rules)]
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
    # Sound bone of the young exceeds the limit at 80 kV: cement stands out of it, unless it fills the body.
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


def _unlike_the_others(
    name: str, medians: Mapping[str, float], rules: LesionSettings
) -> Iterator[Observation]:
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
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return float(np.bincount(labels.ravel())[1:].max() * voxel_mm3) if count else 0.0
