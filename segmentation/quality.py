"""What is wrong with a body or its regions: gates give observations, config/findings.toml the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from scipy import ndimage

from segmentation.fracture import fracture_observations
from segmentation.lesions import lesion_observations
from segmentation.observation import Observation
from segmentation.settings import GateSettings
from segmentation.vertebra import body_coordinates, height_range
from segmentation.vertebrae import LUMBAR, Level, RegionKind, Regions, Vertebrae
from segmentation.volume import CtVolume, Mask


def quality_observations(
    volume: CtVolume,
    vertebrae: Vertebrae,
    regions: Mapping[str, Regions],
    settings: GateSettings | None = None,
) -> tuple[Observation, ...]:
    """Everything that speaks against measuring a lumbar level, from superior to inferior.

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
        if level.name not in LUMBAR:
            continue
        if not level.complete:
            found.append(Observation(code="body_truncated", level=level.name))
            continue
        found += _body(volume, vertebrae, level, rules)
        if level.name in regions:
            found += _region(volume, regions[level.name], rules)
    metal = {str(one.level) for one in found if one.code == "metal_near_body"}
    found += lesion_observations(volume, vertebrae, rules.lesions, unread=metal)
    found += fracture_observations(vertebrae, rules.fracture, unread=metal)
    third = vertebrae.level("L3")
    if vertebrae.levels and (third is None or not third.complete):
        found.append(Observation(code="l3_not_found"))
    return tuple(found)


def _body(volume: CtVolume, vertebrae: Vertebrae, level: Level, rules: GateSettings) -> Iterable[Observation]:
    bodies = vertebrae.bodies == level.label
    box = _box_with_margin(bodies, volume, rules.metal_margin_mm)
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
    outside = ndimage.distance_transform_edt(~body, sampling=volume.grid.spacing_mm)
    metal = (body & (volume.hu[box] > rules.metal_hu)) | (
        (outside <= rules.metal_margin_mm) & (volume.hu[box] > rules.metal_near_hu)
    )
    voxels = _largest_piece(metal)
    metal_mm3 = voxels * volume.grid.voxel_volume_mm3
    if voxels >= rules.metal_min_voxels and metal_mm3 >= rules.metal_min_mm3:
        yield Observation(
            code="metal_near_body",
            level=level.name,
            values={
                "volume_mm3": round(metal_mm3),
                "inside_hu": round(rules.metal_hu),
                "beside_hu": round(rules.metal_near_hu),
            },
        )


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


def ellipse_objection(volume: CtVolume, ellipse: Mask, settings: GateSettings) -> str | None:
    """Why an ellipse that is measured beside the core gives no density; None where it does."""
    voxels = int(np.count_nonzero(ellipse))
    volume_cm3 = voxels * volume.grid.voxel_volume_mm3 / 1000.0
    small = voxels == 0 or volume_cm3 < settings.min_ellipse_cm3
    return f"only {volume_cm3:.1f} cm3 of it lie in cancellous bone" if small else None


def _largest_piece(mask: Mask) -> int:
    """Voxels of the largest connected piece."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


def _box_with_margin(mask: Mask, volume: CtVolume, margin_mm: float) -> tuple[slice, slice, slice]:
    parts = []
    for axis, (size, spacing) in enumerate(zip(mask.shape, volume.grid.spacing_mm, strict=True)):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(margin_mm / spacing))
        parts.append(slice(max(0, int(hit[0]) - margin), min(size, int(hit[-1]) + margin + 1)))
    return (parts[0], parts[1], parts[2])
