"""BMD of a level with its uncertainty, and the types of references, scores and categories.

Noise of CT is correlated between neighbouring voxels: reconstruction spreads it over a millimetre or two, so
that the standard error of a mean is not SD / sqrt(N). It is estimated from the region itself: the variance of
a mean is the sum of all covariances between its voxels, and covariances beyond `NOISE_WINDOW_MM` are taken
for zero. Scores and categories are computed in `scoring.density.scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, hypot, pi, sqrt

import numpy as np
import numpy.typing as npt
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.special import stdtrit

from scoring.calibration import Calibration, Grade, Mineral, RodReading
from scoring.calibration.methods import density_uncertainty
from scoring.calibration.spectrum import CONVENTIONAL_SPECTRUM, Spectrum
from scoring.errors import RegionEmpty
from scoring.settings import NOISE_WINDOW_MM
from segmentation.ct_volume import CtVolume, Mask, Vector, canonical
from segmentation.errors import GridMismatch
from segmentation.vertebrae import RegionKind

COVERAGE_FACTOR = 1.959964  # of a normal distribution's central 95 %

Array = npt.NDArray[np.float64]


def interval95(value: float, sigma: float) -> tuple[float, float]:
    """Lower and upper end of the 95 % interval.

    Parameters
    ----------
    sigma : standard uncertainty (k = 1) of `value`, in its unit.
    """
    return value - COVERAGE_FACTOR * sigma, value + COVERAGE_FACTOR * sigma


def standard_error_of_mean(
    values: npt.NDArray[np.floating], mask: Mask, spacing_mm: Vector, *, window_mm: float = NOISE_WINDOW_MM
) -> float:
    """Standard error of the mean of ``values[mask]``, from the correlation within the region.

    A linear trend across the region (anatomy, cupping) is no noise: it is removed first, and the covariance
    that this removes is restored on average. With r the residuals, H the trend's hat matrix and sums over
    pairs of voxels within the window: ``s = sum(r_i r_j) / (N - sum(H_ij))``, ``SE = sqrt(s / N)``.

    A small region estimates its correlation poorly: s scatters like a variance of N / M values, where M is
    the number of voxels in a window (R; so do estimates of a spectral density at frequency 0 by a truncated
    window). SE is multiplied by Student's t for N / M degrees of freedom over 1.96, so that 1.96 SE cover 95
    %.

    Parameters
    ----------
    values : (z, y, x).
    mask : the region, same shape.
    spacing_mm : along (z, y, x).
    window_mm : distance up to which voxels are taken to be correlated.

    Returns
    -------
    In the unit of `values`; 0 for a single voxel. Of a region too small to estimate its correlation an upper
    bound: as if all voxels within a window were one.
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
    volume: CtVolume, rods: Sequence[RodReading], *, window_mm: float = NOISE_WINDOW_MM
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
    """The rod cut out slice by slice about its axis, so that a tilted one becomes upright."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BmdResult:
    """Reading of one level's cancellous region.

    Attributes
    ----------
    hu_sd : SD of single voxels.
    roi_volume_mm3 : volume of the BMD region, not of the body.
    bmd_mg_cm3 : None without a calibration.
    bmd_uncertainty_mg_cm3 : standard uncertainty (k = 1), without the error by marrow fat.
    hu_standard_error : of `hu_mean`, correlated noise included; None where it was not measured.
    """

    level: str
    hu_mean: float
    hu_sd: float
    voxels: int
    roi_volume_mm3: float
    bmd_mg_cm3: float | None
    bmd_uncertainty_mg_cm3: float | None
    hu_standard_error: float | None = None
    region: RegionKind = RegionKind.CORE

    @property
    def bmd_interval95_mg_cm3(self) -> tuple[float, float] | None:
        """The 95 % interval of the density; None without a density or its uncertainty."""
        if self.bmd_mg_cm3 is None or self.bmd_uncertainty_mg_cm3 is None:
            return None
        return interval95(self.bmd_mg_cm3, self.bmd_uncertainty_mg_cm3)


class StudyClass(StrEnum):
    """The classes of Xie et al. 2022, by T-score: a study rule, not a diagnosis."""

    NORMAL = "normal"  # T >= -1
    OSTEOPENIA = "osteopenia"  # -2.5 < T < -1
    OSTEOPOROSIS = "osteoporosis"  # T <= -2.5


class DensityCategory(StrEnum):
    """QCT density categories on the mean of two lumbar bodies, in K2HPO4 equivalent."""

    NORMAL = "normal"  # > 120 mg/cm3
    LOW = "low bone mass"  # 80 to 120 mg/cm3
    OSTEOPOROSIS = "osteoporosis"  # < 80 mg/cm3


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeBin:
    """Mean and SD of a reference population in an age range.

    Attributes
    ----------
    age_from : years, inclusive.
    age_to : years, inclusive.
    """

    age_from: int
    age_to: int
    mean_mg_cm3: float
    sd_mg_cm3: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A named reference population: without one there is no T-score.

    Attributes
    ----------
    sex : "M", "F" or "any".
    levels : levels whose mean density is compared.
    young : young adults, for the T-score.
    ages : age groups, for the Z-score; may be empty.
    kvp : inclusive range in kV; None where the source states none.
    demonstration : True for a reference that is marked in every output.
    roi : region in which the population was measured; None where the source states none.
    levels_stated : False where the source names no levels and `levels` are an assumption.
    spectrum : required where the source states a tube voltage.
    grades : calibrations that the reference applies to; never internal ones.
    """

    name: str
    population: str
    authority: str
    source: str
    sex: str
    equivalent: Mineral
    levels: tuple[str, ...]
    young: AgeBin
    ages: tuple[AgeBin, ...]
    kvp: tuple[float, float] | None
    demonstration: bool
    roi: RegionKind | None = None
    levels_stated: bool = True
    spectrum: Spectrum = CONVENTIONAL_SPECTRUM
    grades: tuple[Grade, ...] = (Grade.PHANTOM,)

    @property
    def unstated(self) -> tuple[str, ...]:
        """Those of "kvp", "roi" and "levels" that the source does not state: no study can match them."""
        stated = {"kvp": self.kvp is not None, "roi": self.roi is not None, "levels": self.levels_stated}
        return tuple(name for name, is_stated in stated.items() if not is_stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceScore:
    """A T- or Z-score and what it was compared with; densities are all of `equivalent`.

    Attributes
    ----------
    bmd_uncertainty_mg_cm3 : standard uncertainty (k = 1) of `bmd_mg_cm3`.
    """

    value: float
    equivalent: Mineral
    levels: tuple[str, ...]
    bmd_mg_cm3: float
    mean_mg_cm3: float
    sd_mg_cm3: float
    bmd_uncertainty_mg_cm3: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityVerdict:
    """The density category with the two bodies it rests on.

    Attributes
    ----------
    uncertainty_mg_cm3 : standard uncertainty (k = 1) of the mean.
    converted_from : the measured mineral, where a site's conversion was applied.
    """

    category: DensityCategory
    levels: tuple[str, str]
    mean_mg_cm3: float
    uncertainty_mg_cm3: float | None = None
    equivalent: Mineral
    converted_from: Mineral | None = None


def measure_bmd(
    volume: CtVolume,
    region: Mask,
    calibration: Calibration | None,
    *,
    level: str,
    kind: RegionKind = RegionKind.CORE,
    noise_window_mm: float = NOISE_WINDOW_MM,
) -> BmdResult:
    """Mean HU and, with a calibration, mean BMD of one vertebra's cancellous region.

    Parameters
    ----------
    volume : HU, float32, shape (z, y, x).
    region : bool, on the volume's grid.
    level : the vertebra, "L3".
    kind : which part of the body `region` is.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.

    Returns
    -------
    BmdResult
        Its uncertainty is the standard uncertainty (k = 1) of the mean: from the noise of region and rods,
        with its correlation between voxels, and from the rods' distances from the line. Marrow fat is left
        out.

    Raises
    ------
    GridMismatch
        If region and volume differ in shape.
    RegionEmpty
        If the region holds no voxel.

    Source: Xie et al. 2022, Methods, calculation formula of Db.
    """
    if region.shape != volume.hu.shape:
        raise GridMismatch("shape", volume.hu.shape, region.shape)
    values = volume.hu[region].astype(np.float64)
    if not values.size:
        raise RegionEmpty(level)
    hu_mean = float(values.mean())
    hu_sd = float(values.std(ddof=1)) if values.size > 1 else 0.0
    error_hu = standard_error_of_mean(volume.hu, region, volume.grid.spacing_mm, window_mm=noise_window_mm)
    bmd, uncertainty = None, None
    if calibration is not None:
        bmd = calibration.bmd(hu_mean)
        uncertainty = density_uncertainty(calibration, hu_mean, error_hu)
    return BmdResult(
        level=level,
        hu_mean=hu_mean,
        hu_sd=hu_sd,
        voxels=int(values.size),
        roi_volume_mm3=values.size * volume.grid.voxel_volume_mm3,
        bmd_mg_cm3=bmd,
        bmd_uncertainty_mg_cm3=uncertainty,
        hu_standard_error=error_hu,
        region=kind,
    )


def mean_density_uncertainty(calibration: Calibration, measured: Sequence[BmdResult]) -> float | None:
    """Standard uncertainty (k = 1) in mg/cm3 of the mean density of several levels of one study.

    Noise is independent between levels; the calibration is common to all.

    Returns
    -------
    None where the standard error of a level, or the uncertainty of the calibration, is unknown.
    """
    errors_hu = [one.hu_standard_error for one in measured]
    known_hu = [error for error in errors_hu if error is not None]
    if not errors_hu or len(known_hu) < len(errors_hu):
        return None
    mean_hu = sum(one.hu_mean for one in measured) / len(measured)
    return density_uncertainty(calibration, mean_hu, hypot(*known_hu) / len(known_hu))
