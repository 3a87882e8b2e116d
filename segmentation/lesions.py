"""Something else than bone inside a body: cement, dense and lytic lesions, by their HU and their size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmentation.observation import Observation
from segmentation.vertebrae import Level, Vertebrae
from segmentation.volume import CtVolume, FloatArray, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionSettings:
    """When a cluster inside a body is no bone. All values are proposals (R)."""

    depth_mm: float = 4.0  # beneath the body's surface: past cortex and endplates, and their blur
    smoothing_mm: float = 2.0  # so that neither noise nor trabeculae make clusters
    cement_hu: float = 500.0
    cement_min_mm3: float = 100.0
    dense_above_median_hu: float = 150.0
    dense_hu: float = 300.0  # young bone at 80 kVp may reach it: both limits must be exceeded
    dense_min_mm3: float = 300.0  # bone islands are smaller; the regions leave them out by themselves
    lytic_below_median_hu: float = 60.0
    # Lytic tissue replaces marrow fat as well: it is not darker than blood. Fat in a haemangioma is.
    lytic_hu: tuple[float, float] = (0.0, 80.0)
    lytic_min_mm3: float = 500.0  # a sphere of 10 mm; the veins' entry and fatty gaps are smaller


def lesion_observations(
    volume: CtVolume, vertebrae: Vertebrae, level: Level, settings: LesionSettings | None = None
) -> tuple[Observation, ...]:
    """What fills part of one body, largest cluster of each kind. Cement outranks sclerosis.

    Parameters
    ----------
    volume : the CT that `vertebrae` were found in.
    """
    rules = settings or LesionSettings()
    box = ndimage.find_objects((vertebrae.bodies == level.label).astype(np.uint8))[0]
    inside = np.pad(vertebrae.bodies[box] == level.label, 1)
    spacing = np.asarray(volume.grid.spacing_mm)
    # Half a voxel deeper along each axis, so that no voxel reaches above the depth.
    reach = rules.depth_mm + spacing / 2
    deep = ndimage.distance_transform_edt(inside, sampling=spacing / reach)[1:-1, 1:-1, 1:-1] >= 1.0
    if not deep.any():
        return ()
    hu = ndimage.gaussian_filter(volume.hu[box], rules.smoothing_mm / spacing)
    return tuple(_clusters(hu, deep, volume.grid.voxel_volume_mm3, level.name, rules))


def _clusters(
    hu: FloatArray, deep: Mask, voxel_mm3: float, name: str, rules: LesionSettings
) -> Iterator[Observation]:
    median = float(np.median(hu[deep]))
    cement = _largest_mm3(deep & (hu > rules.cement_hu), voxel_mm3)
    dense_limit = max(rules.dense_hu, median + rules.dense_above_median_hu)
    dense = _largest_mm3(deep & (hu > dense_limit), voxel_mm3)
    low, high = rules.lytic_hu
    dark = deep & (hu < min(high, median - rules.lytic_below_median_hu)) & (hu > low)
    lytic = _largest_mm3(dark, voxel_mm3)
    if cement >= rules.cement_min_mm3:
        yield _observation("cement_in_body", name, cement)
    elif dense >= rules.dense_min_mm3:
        yield _observation("dense_lesion", name, dense)
    if lytic >= rules.lytic_min_mm3:
        yield _observation("lytic_lesion", name, lytic)


def _observation(code: str, level: str, volume_mm3: float) -> Observation:
    return Observation(code=code, level=level, values={"volume_cm3": round(volume_mm3 / 1000, 1)})


def _largest_mm3(mask: Mask, voxel_mm3: float) -> float:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return float(np.bincount(labels.ravel())[1:].max() * voxel_mm3) if count else 0.0
