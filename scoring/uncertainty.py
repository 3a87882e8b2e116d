"""How far a mean over a region may be off by noise that is correlated between neighbouring voxels.

Noise of CT is not independent from voxel to voxel: reconstruction spreads it over a millimetre or two, so
that the standard error of a mean is not SD / sqrt(N). It is estimated here from the region itself: the
variance of a mean is the sum of all covariances between its voxels, and covariances at distances beyond
`WINDOW_MM` are taken for zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, pi, sqrt

import numpy as np
import numpy.typing as npt
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.special import stdtrit

from scoring.calibration_types import RodReading
from segmentation.volume import CtVolume, Mask, Vector, canonical

# R, and a site's to set: wide enough for the noise of soft kernels. Trabeculae are part of what is measured,
# no noise; their pattern evens out over some millimetres, which a window this wide sees (measured:
# docs/calibration.md).
WINDOW_MM = 3.0
COVERAGE_FACTOR = 1.959964  # of a normal distribution's central 95 %

Array = npt.NDArray[np.float64]


def interval95(value: float, sigma: float) -> tuple[float, float]:
    """Lower and upper end of the 95 % interval of a value with standard uncertainty `sigma` (k = 1)."""
    return value - COVERAGE_FACTOR * sigma, value + COVERAGE_FACTOR * sigma


def standard_error_of_mean(
    values: npt.NDArray[np.floating], mask: Mask, spacing_mm: Vector, *, window_mm: float = WINDOW_MM
) -> float:
    """Standard error of the mean of ``values[mask]``, from the correlation that the values themselves show.

    A linear trend across the region (anatomy, cupping) is no noise: it is taken out first, and the
    covariance that this removes is put back on average. With r the residuals, H the trend's hat matrix and
    sums over pairs of voxels within the window: ``s = sum(r_i r_j) / (N - sum(H_ij))``, ``SE = sqrt(s / N)``.

    A small region shows its correlation only roughly: s scatters as a variance from N / M values does, M
    being a window's voxels (R; so do estimates of a spectral density at frequency 0 by a truncated window).
    SE is widened by Student's t for N / M degrees of freedom over 1.96, so that 1.96 SE still hold 95 %.

    Parameters
    ----------
    values : shape (z, y, x).
    mask : the region, same shape.
    window_mm : distance up to which voxels are taken to be correlated.

    Returns
    -------
    float
        In the unit of `values`; 0 for a single voxel. A region too small to show its correlation gets an
        upper bound: as if all voxels within a window were one.
    """
    index = np.argwhere(mask)
    count = len(index)
    if count < 2:
        return 0.0
    corner, end = index.min(axis=0), index.max(axis=0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(corner, end, strict=True))
    inside = mask[box]
    sample = values[box][inside].astype(np.float64)
    trend = _orthonormal_trend(index * np.asarray(spacing_mm))
    residuals = sample - trend @ (trend.T @ sample)
    pairs = _sum_of_pairs(_placed(residuals, inside), spacing_mm, window_mm)
    taken = sum(_sum_of_pairs(_placed(column, inside), spacing_mm, window_mm) for column in trend.T)
    if pairs > 0 and taken < count / 2:
        patches = count / _voxels_in_window(spacing_mm, window_mm)
        return sqrt(pairs / (count - taken) / count) * _widened(patches)
    return float(sample.std(ddof=1)) / sqrt(max(1.0, count / _voxels_in_window(spacing_mm, window_mm)))


def with_standard_errors(
    volume: CtVolume, rods: Sequence[RodReading], *, window_mm: float = WINDOW_MM
) -> tuple[RodReading, ...]:
    """The rods with `standard_error_hu` measured in the volume they were read in.

    Parameters
    ----------
    volume : any axis order and sense; the rods' axis points are centres in its slices.
    window_mm : distance up to which voxels are taken to be correlated.
    """
    turned, _ = canonical(volume)
    return tuple(replace(rod, standard_error_hu=_rod_standard_error(turned, rod, window_mm)) for rod in rods)


def _rod_standard_error(volume: CtVolume, rod: RodReading, window_mm: float) -> float:
    """The rod cut out slice by slice about its axis, so that a tilted one stands upright."""
    dz, dy, dx = volume.grid.spacing_mm
    centres = volume.grid.to_index(np.array(rod.axis_points_mm))
    radius_mm = sqrt(rod.voxels / len(centres) * dy * dx / pi)
    reach = (ceil(radius_mm / dy), ceil(radius_mm / dx))
    y, x = (np.arange(-half, half + 1) for half in reach)
    disc = np.hypot(y[:, None] * dy, x[None, :] * dx) <= radius_mm
    patches, masks = [], []
    for k, j, i in np.rint(centres).astype(int):
        rows, columns = j + y, i + x
        seen = _within(rows, volume.hu.shape[1])[:, None] & _within(columns, volume.hu.shape[2])[None, :]
        rows, columns = (
            np.clip(at, 0, size - 1) for at, size in zip((rows, columns), volume.hu.shape[1:], strict=True)
        )
        patches.append(volume.hu[k][np.ix_(rows, columns)])
        masks.append(disc & seen)
    return standard_error_of_mean(np.stack(patches), np.stack(masks), (dz, dy, dx), window_mm=window_mm)


def _within(index: npt.NDArray[np.int_], size: int) -> npt.NDArray[np.bool_]:
    return (index >= 0) & (index < size)


def _orthonormal_trend(places_mm: Array) -> Array:
    """Columns: a constant and a slope along each axis on which the region extends; shape (N, up to 4)."""
    centred = places_mm - places_mm.mean(axis=0)
    columns = np.column_stack([np.ones(len(centred)), centred[:, np.ptp(centred, axis=0) > 0]])
    basis, spread, _ = np.linalg.svd(columns, full_matrices=False)
    usable: Array = basis[:, spread > 1e-9 * spread[0]]
    return usable


def _placed(values: Array, inside: Mask) -> Array:
    field = np.zeros(inside.shape)
    field[inside] = values
    return field


def _sum_of_pairs(field: Array, spacing_mm: Vector, window_mm: float) -> float:
    """Sum of ``field_i * field_j`` over all ordered pairs of voxels no further apart than the window."""
    padded = [
        next_fast_len(size + int(window_mm / spacing), real=True)
        for size, spacing in zip(field.shape, spacing_mm, strict=True)
    ]
    products = irfftn(np.abs(rfftn(field, padded)) ** 2, padded)
    distance2 = np.zeros(())
    for axis, (size, spacing) in enumerate(zip(padded, spacing_mm, strict=True)):
        lag = np.minimum(np.arange(size), size - np.arange(size)) * spacing
        distance2 = distance2 + (lag**2).reshape([-1 if other == axis else 1 for other in range(field.ndim)])
    return float(products[distance2 <= window_mm**2].sum())


def _widened(freedom: float) -> float:
    """Student's t of the central 95 % over the normal distribution's; at least one degree of freedom."""
    return float(stdtrit(max(1.0, freedom), 0.975)) / COVERAGE_FACTOR


def _voxels_in_window(spacing_mm: Vector, window_mm: float) -> float:
    axes = [np.arange(-int(window_mm / step), int(window_mm / step) + 1) * step for step in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return float(np.count_nonzero(z**2 + y**2 + x**2 <= window_mm**2))
