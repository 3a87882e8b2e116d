"""BMD of a level; the types of T-score, Z-score and density categories (see `scoring.assessment`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import hypot

import numpy as np

from scoring.calibration import Calibration, Grade, Mineral, density_uncertainty
from scoring.errors import RegionEmpty
from scoring.spectrum import CONVENTIONAL_SPECTRUM, Spectrum
from scoring.uncertainty import WINDOW_MM, interval95, standard_error_of_mean
from segmentation.errors import GridMismatch
from segmentation.vertebrae import RegionKind
from segmentation.volume import CtVolume, Mask

__all__ = [
    "AgeBin",
    "BmdResult",
    "DensityCategory",
    "DensityVerdict",
    "Reference",
    "ReferenceScore",
    "RegionKind",
    "StudyClass",
    "mean_density_uncertainty",
    "measure_bmd",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BmdResult:
    """What one level's cancellous region reads."""

    level: str
    hu_mean: float
    hu_sd: float  # of single voxels
    voxels: int
    roi_volume_mm3: float  # of the BMD region, not of the body
    bmd_mg_cm3: float | None  # None without a calibration
    bmd_uncertainty_mg_cm3: float | None  # standard uncertainty (k = 1); marrow-fat error not included
    hu_standard_error: float | None = None  # of `hu_mean`, correlated noise included; None: not measured
    region: RegionKind = RegionKind.CORE

    @property
    def bmd_interval95_mg_cm3(self) -> tuple[float, float] | None:
        """The 95 % interval of the density; None where it, or its uncertainty, is not given."""
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
    """Mean and SD of a reference population in an age range."""

    age_from: int  # years, inclusive
    age_to: int  # years, inclusive
    mean_mg_cm3: float
    sd_mg_cm3: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A named reference population: without one there is no T-score."""

    name: str
    population: str
    authority: str
    source: str
    sex: str  # "M", "F" or "any"
    equivalent: Mineral
    levels: tuple[str, ...]  # the levels whose mean is compared
    young: AgeBin  # for T
    ages: tuple[AgeBin, ...]  # for Z; may be empty
    kvp: tuple[float, float] | None  # inclusive range, None where the source states none
    demonstration: bool  # True: marked in every output that uses it
    roi: RegionKind | None = None  # the region its people were measured in; None where the source states none
    levels_stated: bool = True  # False: the source names no levels, and `levels` are an assumption
    spectrum: Spectrum = CONVENTIONAL_SPECTRUM  # asked for where the source states a tube voltage
    grades: tuple[Grade, ...] = (Grade.PHANTOM,)  # of calibrations that it may judge; never internal

    @property
    def unstated(self) -> tuple[str, ...]:
        """Which of "kvp", "roi" and "levels" its source does not state: no study can match these."""
        stated = {"kvp": self.kvp is not None, "roi": self.roi is not None, "levels": self.levels_stated}
        return tuple(name for name, is_stated in stated.items() if not is_stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceScore:
    """A T- or Z-score and what it was compared with; densities are all of `equivalent`."""

    value: float
    equivalent: Mineral
    levels: tuple[str, ...]
    bmd_mg_cm3: float
    mean_mg_cm3: float
    sd_mg_cm3: float
    bmd_uncertainty_mg_cm3: float | None = None  # standard uncertainty (k = 1) of `bmd_mg_cm3`


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityVerdict:
    """The density category with the two bodies it rests on."""

    category: DensityCategory
    levels: tuple[str, str]
    mean_mg_cm3: float
    equivalent: Mineral
    uncertainty_mg_cm3: float | None = None  # standard uncertainty (k = 1) of the mean
    converted_from: Mineral | None = None  # what was measured, where a site's conversion was applied


def measure_bmd(
    volume: CtVolume,
    region: Mask,
    calibration: Calibration | None,
    *,
    level: str,
    kind: RegionKind = RegionKind.CORE,
    noise_window_mm: float = WINDOW_MM,
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

    Noise differs from level to level and averages out; the calibration is the same for all and does not.
    None where a level's, or the calibration's, is not known.
    """
    errors_hu = [one.hu_standard_error for one in measured]
    known_hu = [error for error in errors_hu if error is not None]
    if not errors_hu or len(known_hu) < len(errors_hu):
        return None
    mean_hu = sum(one.hu_mean for one in measured) / len(measured)
    return density_uncertainty(calibration, mean_hu, hypot(*known_hu) / len(known_hu))
