"""Why the region of a single slice must not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.engines.geometric.frame import Profile
from segmentation.observation import Observation
from segmentation.settings import GateSettings, SliceSettings
from segmentation.slice_outline import OUTLINE_ANGLES, SliceOutline, hu_across, hu_around, local_mm
from segmentation.volume import CtVolume, FloatArray, Mask

# Sectors around the canal's middle, in degrees above straight left and right (front is +90): what lies in
# them closes its sides (pedicles) and its back (laminae, spinous process). Further front stands the body.
_SIDES_DEG = (-30.0, -15.0, 0.0, 15.0)
_BACK_DEG = (-90.0, -75.0, -60.0)
_SECTOR_DEG = 15.0
_RAY_MM = np.arange(4.0, 24.1, 0.75)  # from the canal's middle


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRules:
    """All limits for one slice."""

    slices: SliceSettings
    quality: GateSettings
    contrast: float  # of bone, relative to 80 kV


def objections(
    volume: CtVolume, found: SliceOutline, body: Mask, region: Mask, limits: SliceRules
) -> Iterator[Observation]:
    """The plainest reason alone, without the slice's name.

    Parameters
    ----------
    volume : HU, the canonical slice, shape (1, y, x).
    body, region : as `masks_of` gives them.
    """
    rules = limits.slices
    pixel_mm2 = volume.grid.spacing_mm[1] * volume.grid.spacing_mm[2]
    if region.sum() * pixel_mm2 < rules.region_mm2 or _touches_border(body[0]):
        yield Observation(code="slice_body_not_found")
        return
    metal = _metal_pixels(volume, body[0], limits.quality)
    if metal * pixel_mm2 >= rules.metal_min_mm2:
        yield Observation(
            code="metal_near_body",
            values={
                "volume_mm3": round(metal * volume.grid.voxel_volume_mm3),
                "inside_hu": round(limits.quality.metal_hu),
                "beside_hu": round(limits.quality.metal_near_hu),
            },
        )
        return
    if (
        _beside_bone(volume, found, limits) > rules.beside_bone
        or _lung_cm2(volume, found, rules) > rules.lung_cm2
    ):
        yield Observation(code="slice_not_lumbar")
        return
    interior = volume.hu[region]
    spread = float(interior.std(ddof=1))
    if spread > rules.region_sd_hu or _cluster_mm2(volume, region[0], rules) > rules.cluster_mm2:
        yield Observation(code="slice_uneven", values={"sd_hu": round(spread)})
        return
    yield from _off_the_middle(volume, found, float(interior.mean()), limits)


def _off_the_middle(
    volume: CtVolume, found: SliceOutline, inside_hu: float, limits: SliceRules
) -> Iterator[Observation]:
    """A disc by its rim, an endplate by the arch: in faint bone an endplate's HU are those of denser bone."""
    rules, contrast = limits.slices, limits.contrast
    rim = _rim_hu(volume, found) - inside_hu  # an endplate in part of the interior counts
    everywhere_hu = rules.rim_above_hu * contrast
    median, needed = float(np.median(rim)), _needed_rim_hu(inside_hu, limits)
    if median < needed or float((rim > everywhere_hu).mean()) < rules.rim_everywhere:
        values: dict[str, str | int | float] = {
            "rim_hu": round(median),
            "needed_hu": round(max(needed, everywhere_hu)),
        }
        yield Observation(code="slice_not_mid_body", values=values)
        return
    ring = _ring_hu(volume, found, rules)
    if ring < rules.ring_hu * contrast:
        values = {"ring_hu": round(ring), "needed_hu": round(rules.ring_hu * contrast)}
        yield Observation(code="slice_ring_open", values=values)


def _ring_hu(volume: CtVolume, found: SliceOutline, rules: SliceSettings) -> float:
    """How far bone closes the canal, above soft tissue: at its sides and behind alike.

    The geometric mean of the weakest sector at the sides and the weakest behind: half a pedicle is made up
    for by a whole lamina, an open side by nothing.
    """
    angle = np.deg2rad(np.arange(0.0, 360.0, 5.0))
    _, left, front = found.canal
    densest = hu_around(
        volume,
        found,
        left + _RAY_MM * np.cos(angle)[:, None],
        front + _RAY_MM * np.sin(angle)[:, None],
    ).max(axis=1)
    # Degrees above straight left, and above straight right: from -90 (back) to 90 (front) on its side.
    height = np.rad2deg(np.arcsin(np.clip(np.sin(angle), -1.0, 1.0)))
    sides = (np.cos(angle) > -1e-9, np.cos(angle) < 1e-9)

    def weakest(sectors: tuple[float, ...]) -> float:
        medians = [
            float(np.median(densest[side & (height > low - 1e-6) & (height < low + _SECTOR_DEG - 1e-6)]))
            for low in sectors
            for side in sides
        ]
        return max(0.0, min(medians) - rules.soft_hu)

    return float(np.sqrt(weakest(_SIDES_DEG) * weakest(_BACK_DEG)))


def _touches_border(mask: npt.NDArray[np.bool_]) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _metal_pixels(volume: CtVolume, body: npt.NDArray[np.bool_], rules: GateSettings) -> int:
    """Pixels of the largest piece of metal in the body or near it."""
    outside_mm = ndimage.distance_transform_edt(~body, sampling=volume.grid.spacing_mm[1:])
    near = (outside_mm <= rules.metal_margin_mm) & (volume.hu[0] > rules.metal_near_hu)
    labels, count = ndimage.label((body & (volume.hu[0] > rules.metal_hu)) | near, np.ones((3, 3)))
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


def _rim_hu(volume: CtVolume, found: SliceOutline) -> Profile:
    """The cortex at each angle: the densest place near the outline."""
    peak: Profile = hu_across(volume, found, OUTLINE_ANGLES, np.arange(-4.0, 3.01, 0.5)).max(axis=1)
    return peak


def _needed_rim_hu(interior_hu: float, limits: SliceRules) -> float:
    """How far the cortex of a mid-body slice rises above such an interior."""
    rules = limits.slices
    faint_hu, dense_hu = (hu * limits.contrast for hu in rules.dense_interior_hu)
    share = float(np.interp(interior_hu, (faint_hu, dense_hu), (rules.rim, rules.rim_of_dense)))
    cortex_hu = rules.bone_above_soft_hu(rules.cortex_hu, limits.contrast)
    return max(share * interior_hu, cortex_hu - interior_hu)


def _beside_bone(volume: CtVolume, found: SliceOutline, limits: SliceRules) -> float:
    """How much of what lies to the left and right of the body is bone."""
    aside = np.deg2rad(np.arange(-30.0, 31.0, 5.0))
    hu = hu_across(volume, found, np.concatenate([aside, np.pi + aside]), np.arange(4.0, 14.1))
    bone_hu = limits.slices.bone_above_soft_hu(limits.slices.bone_hu, limits.contrast)
    return float((hu > bone_hu).mean())


def _lung_cm2(volume: CtVolume, found: SliceOutline, rules: SliceSettings) -> float:
    """Lung behind the body's front. What lies there and holds gas is lung, or a little of the colon."""
    hu = volume.hu[0]
    _, dy, dx = volume.grid.spacing_mm
    step = (max(1, round(3.0 / dy)), max(1, round(3.0 / dx)))
    trunk = _largest(ndimage.binary_opening(hu > -300.0, np.ones(step)))
    low, high = rules.lung_hu
    gas = ndimage.binary_fill_holes(trunk) & (hu > low) & (hu < high)
    _, front = local_mm(volume, found)
    lung = ndimage.binary_opening(gas & (front < found.extent_mm[1] / 2), np.ones(step))
    return float(lung.sum()) * dy * dx / 100.0


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest: npt.NDArray[np.bool_] = labels == int(np.bincount(labels.ravel())[1:].argmax()) + 1
    return largest


def _cluster_mm2(volume: CtVolume, region: npt.NDArray[np.bool_], rules: SliceSettings) -> float:
    """The largest part of the region that is far denser or fainter than the rest."""
    spacing = volume.grid.spacing_mm[1:]
    smooth: FloatArray = ndimage.gaussian_filter(volume.hu[0], [2.0 / size for size in spacing])
    off = region & (np.abs(smooth - np.median(volume.hu[0][region])) > rules.cluster_hu)
    return float(_largest(off).sum()) * spacing[0] * spacing[1]
