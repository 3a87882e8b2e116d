"""BMD of a level, T-score, Z-score and density categories."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scoring.calibration import Mineral


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
