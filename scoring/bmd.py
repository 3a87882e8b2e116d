"""BMD of a level; the types of T-score, Z-score and density categories (see `scoring.assessment`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

import numpy as np

from scoring.calibration import Calibration, Mineral, density_uncertainty
from scoring.errors import RegionEmpty
from segmentation.errors import GridMismatch
from segmentation.volume import CtVolume, Mask


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceScore:
    """A T- or Z-score and what it was compared with."""

    value: float
    levels: tuple[str, ...]
    bmd_mg_cm3: float
    mean_mg_cm3: float
    sd_mg_cm3: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityVerdict:
    """The density category with the two bodies it rests on."""

    category: DensityCategory
    levels: tuple[str, str]
    mean_mg_cm3: float
    equivalent: Mineral


def measure_bmd(volume: CtVolume, region: Mask, calibration: Calibration | None, *, level: str) -> BmdResult:
    """Mean HU and, with a calibration, mean BMD of one vertebra's cancellous region.

    Parameters
    ----------
    volume : HU, float32, shape (z, y, x).
    region : bool, on the volume's grid.
    level : the vertebra, "L3".

    Returns
    -------
    BmdResult
        Its uncertainty is the standard uncertainty (k = 1) of the mean, from the noise of region and rods.
        It takes voxels for independent, which CT noise is not, and leaves marrow fat out.

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
    bmd, uncertainty = None, None
    if calibration is not None:
        bmd = calibration.bmd(hu_mean)
        uncertainty = density_uncertainty(calibration, hu_mean, hu_sd / sqrt(values.size))
    return BmdResult(
        level=level,
        hu_mean=hu_mean,
        hu_sd=hu_sd,
        voxels=int(values.size),
        roi_volume_mm3=values.size * volume.grid.voxel_volume_mm3,
        bmd_mg_cm3=bmd,
        bmd_uncertainty_mg_cm3=uncertainty,
    )
