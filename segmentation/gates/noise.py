"""Image quality: noise and photon starvation, all checks of the image, and whether a slice is lumbar.

Noise and streaks are measured in muscle beside and behind the bodies, which is even. Noise is its standard
deviation in small even places. Streaks differ from noise by their direction: averaged from side to side,
noise decreases and streaks remain. They run from side to side because the path through hips, arms or screws
is longest there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.ndimage import binary_fill_holes, binary_opening

from segmentation.ct_volume import CtVolume, FloatArray, LabelMap, Mask, canonical
from segmentation.gates.great_vessels import contrast_observations
from segmentation.gates.motion import motion_observations
from segmentation.regions.surface import largest_piece
from segmentation.settings import ImageSettings
from segmentation.vertebrae import (
    ABOVE_SACRUM,
    Observation,
    SpineCourse,
    Vertebrae,
    is_lumbar,
    slices_showing,
    spine_course,
)

_MAD_TO_SD = 1.4826  # of a normal distribution
_BLUR_MM = 3.0  # before muscle is identified by its HU
_MARGIN_MM = 1.5  # around muscle that is left out
_BESIDE_MM = 75.0  # of the bodies' middle
_BEHIND_MM = 95.0  # of their front; the phantom, where it comes into view, is as even as muscle
_FROM_BODY_MM = 6.0
_WINDOW_MM = 9.0  # of the small places
_ALONG_MM = 12.0  # over which streaks are averaged
_APART_MM = 3.0  # of the two places that are compared across them
_LEAST_CELLS = 40  # places in a slice; fewer give no measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceNoise:
    """What varies in the muscle of one slice; NaN where there is too little muscle.

    Attributes
    ----------
    noise_hu : SD of voxels in the most even quarter of the muscle.
    streaks_hu : SD of streaks from side to side, noise subtracted.
    ratio : variation across such streaks over that along them.
    """

    noise_hu: float
    streaks_hu: float
    ratio: float


def noise_observations(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> tuple[Observation, ...]:
    """`noise_excessive` for the study, and `photon_starvation` at each lumbar level that has it.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    volume.grid.require_same(vertebrae.grid)
    rules = settings or ImageSettings()
    turned, turn = canonical(volume)
    bodies = turn.forward(vertebrae.bodies)
    course = spine_course(turned, bodies, ABOVE_SACRUM)
    if course is None:
        return ()
    grains = {
        int(k): _measure_noise(*_surroundings(turned, bodies, course, place, rules))
        for place, k in enumerate(course.slices)
    }
    found = []
    noise = [one.noise_hu for one in grains.values() if np.isfinite(one.noise_hu)]
    if noise and (sd_hu := float(np.median(noise))) > rules.noise_hu:
        values = {"sd_hu": round(sd_hu), "limit": round(rules.noise_hu)}
        found.append(Observation(code="noise_excessive", values=values))
    for level in vertebrae.levels:
        if is_lumbar(level.name):
            at_level = [grains[int(k)] for k in slices_showing(bodies, level.name) if int(k) in grains]
            streaks = [one.streaks_hu for one in at_level if _is_streaked(one, rules)]
            if len(streaks) > rules.streaks_share * len(at_level):
                values = {"sd_hu": round(max(streaks))}
                found.append(Observation(code="photon_starvation", level=level.name, values=values))
    return tuple(found)


def _is_streaked(grain: SliceNoise, rules: ImageSettings) -> bool:
    return grain.streaks_hu > rules.streaks_hu and grain.ratio > rules.streaks_ratio  # False for NaN


def _surroundings(
    volume: CtVolume, bodies: LabelMap, course: SpineCourse, place: int, rules: ImageSettings
) -> tuple[FloatArray, Mask, tuple[float, float]]:
    """The part of one slice about its body, the muscle in it, and its spacing (y, x)."""
    _, dy, dx = volume.grid.spacing_mm
    k = int(course.slices[place])
    front, middle = course.front_mm[place], course.middle_mm[place]
    box = (
        slice(max(0, int(front / dy)), int((front + _BEHIND_MM) / dy)),
        slice(max(0, int((middle - _BESIDE_MM) / dx)), int((middle + _BESIDE_MM) / dx)),
    )
    hu = volume.hu[k][box]
    blurred = ndimage.gaussian_filter(hu, (_BLUR_MM / dy, _BLUR_MM / dx))
    soft = (blurred > rules.muscle_hu[0]) & (blurred < rules.muscle_hu[1])
    soft = ndimage.binary_erosion(soft, np.ones((_odd(2 * _MARGIN_MM / dy), _odd(2 * _MARGIN_MM / dx))))
    away_mm = ndimage.distance_transform_edt(bodies[k][box] == 0, sampling=(dy, dx))
    return hu, soft & (away_mm > _FROM_BODY_MM), (dy, dx)


def _measure_noise(hu: FloatArray, muscle: Mask, spacing_mm: tuple[float, float]) -> SliceNoise:
    dy, dx = spacing_mm
    window = (_odd(_WINDOW_MM / dy), _odd(_WINDOW_MM / dx))
    cells = window[0] * window[1]
    wholly = ndimage.minimum_filter(muscle, window, mode="constant")
    exact = hu.astype(np.float64)
    mean = ndimage.uniform_filter(exact, window)
    variance = (ndimage.uniform_filter(exact**2, window) - mean**2) * cells / max(1, cells - 1)
    local = np.sqrt(np.maximum(variance[wholly], 0.0))
    noise = float(np.percentile(local, 25)) if local.size >= _LEAST_CELLS else float("nan")
    across = _variation(exact, muscle, (dy, dx))
    along = _variation(exact.T, muscle.T, (dx, dy))
    return SliceNoise(
        noise_hu=noise,
        streaks_hu=float(np.sqrt(np.maximum(across**2 - along**2, 0.0))),
        ratio=across / along if along > 0 else float("inf"),
    )


def _variation(hu: npt.NDArray[np.float64], muscle: Mask, spacing_mm: tuple[float, float]) -> float:
    """SD between lines that run along axis 1, averaged over `_ALONG_MM`; NaN where muscle is too little."""
    length, apart = _odd(_ALONG_MM / spacing_mm[1]), max(1, round(_APART_MM / spacing_mm[0]))
    mean = ndimage.uniform_filter1d(hu, length, axis=1)
    wholly = ndimage.minimum_filter1d(muscle.astype(np.uint8), length, axis=1, mode="constant") > 0
    steps = (mean[apart:] - mean[:-apart])[wholly[apart:] & wholly[:-apart]]
    if steps.size < _LEAST_CELLS:
        return float("nan")
    return float(_MAD_TO_SD * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2))


def _odd(size: float) -> int:
    return max(1, round(size)) | 1


def image_observations(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> tuple[Observation, ...]:
    """Contrast medium, motion, noise and streaks around the lumbar spine.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    rules = settings or ImageSettings()
    return (
        *contrast_observations(volume, vertebrae, rules),
        *motion_observations(volume, vertebrae, rules),
        *noise_observations(volume, vertebrae, rules),
    )


# A quick classification of slices by region of the body; it measures nothing. All values R: chosen on the
# reference study and on real CT of chest, neck and abdomen.
_PIXEL_MM = 3.0  # about what is looked at
_TISSUE_HU = -300.0
_TABLE_MM = 6.0  # sheets and straps thinner than twice this belong to no patient
_TRUNK_CM2 = 100.0  # at least; a narrow reconstruction of the spine alone shows about so much
_LUNG_HU = (-950.0, -400.0)
_LUNG_SHARE = 0.08  # of the trunk: more is a chest
_BONE_HU = 150.0
_SPINE_CM2 = 1.5  # of bone in the middle third, at least
_DENSE_HU = 250.0  # enhanced kidneys stay below
_DENSE_CM2 = 40.0  # at most: skull and pelvis have more


def shows_lumbar_spine(image: FloatArray, spacing_mm: tuple[float, float]) -> bool:
    """Whether a slice shows a trunk with a spine in its middle, and neither lungs, skull nor pelvis.

    Parameters
    ----------
    image : HU, shape (y, x), of one slice or the mean of a few.
    spacing_mm : of its pixels, (y, x).
    """
    steps = [max(1, round(_PIXEL_MM / spacing)) for spacing in spacing_mm]
    rows, columns = image.shape[0] // steps[0], image.shape[1] // steps[1]
    if not rows or not columns:
        return False
    trimmed = image[: rows * steps[0], : columns * steps[1]]
    hu = trimmed.reshape(rows, steps[0], columns, steps[1]).mean(axis=(1, 3))
    size_mm = steps[0] * spacing_mm[0], steps[1] * spacing_mm[1]
    trunk = _trunk(hu, size_mm)
    pixel_cm2 = size_mm[0] * size_mm[1] / 100.0
    if trunk.sum() * pixel_cm2 < _TRUNK_CM2:
        return False
    lung = trunk & (hu > _LUNG_HU[0]) & (hu < _LUNG_HU[1])
    across = np.flatnonzero(trunk.any(axis=0))
    left, right = int(across[0]), int(across[-1]) + 1
    third = (right - left) // 3
    middle = (trunk & (hu > _BONE_HU))[:, left + third : right - third]
    return bool(
        lung.sum() <= _LUNG_SHARE * trunk.sum()
        and middle.sum() * pixel_cm2 >= _SPINE_CM2
        and (trunk & (hu > _DENSE_HU)).sum() * pixel_cm2 <= _DENSE_CM2
    )


def _trunk(hu: npt.NDArray[np.floating], size_mm: tuple[float, float]) -> Mask:
    """The largest thing in the slice without the table's sheets, its hollows filled."""
    reach = [max(1, round(_TABLE_MM / size)) for size in size_mm]
    y, x = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disc = (y / reach[0]) ** 2 + (x / reach[1]) ** 2 <= 1
    filled: Mask = binary_fill_holes(largest_piece(binary_opening(hu > _TISSUE_HU, disc)))
    return filled
