"""What a calibration phantom looks like, when a reading of it is refused, and the reading itself.

Phantoms are data: config/phantoms/*.toml, read into `PhantomModel`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.calibration import FitRules, Mineral, RodReading
from scoring.calibration.methods import SHIPPED_RULES
from scoring.settings import TrunkSettings
from segmentation.vertebrae import Observation
from segmentation.volume import CtVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class RodModel:
    """One rod as its certificate and the maker's drawing describe it. Rods are upright cylinders."""

    name: str
    density_mg_cm3: float  # certified
    diameter_mm: float
    offset_mm: float  # of its centre along the phantom's row of rods
    expected_hu: tuple[float, float]  # over the tube voltages of use; for water see PhantomLimits
    search_hu: tuple[float, float]  # wider: an object that reads so is taken for the rod and then judged
    water_mg_cm3: float | None = None  # where a rod is certified as mineral and water


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomLimits:
    """When a reading is refused. None of these is published: see the phantom's file."""

    water_rod_hu: float  # |HU| of a rod of density 0
    tilt_degrees: float  # between a rod and the slice normal
    slope_drift_percent: float  # change of the calibration slope from one end of the phantom to the other
    water_drift_hu: float  # shift of all rods' mean from one part of the phantom to the rest
    area_tolerance: float  # relative, of a rod's cross-section
    rod_sd_hu: float  # of a rod in a slab of 10 mm, smoothed by 1 mm in the plane
    minimum_length_mm: float  # of phantom in view
    # R: a shift of offset along the phantom must have a stretch of this length on either side, and exceed
    # this many standard errors: more than chance makes at whatever place it is looked for.
    offset_stretch_mm: float = 8.0
    offset_sigmas: float = 4.0
    # R: a lone slice must be about as thick as those of single-slice QCT, 8 to 10 mm: a thinner one is a
    # scrap of a volume, and too noisy to tell rods by.
    lone_slice_mm: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomModel:
    """A kind of calibration phantom."""

    name: str
    manufacturer: str
    equivalent: Mineral
    method: str  # a key of scoring.calibration.methods.METHODS
    rods: tuple[RodModel, ...]  # by rising expected HU: by rising density, but for dissolved mineral
    body_hu: tuple[float, float]  # of the material around the rods
    roi_margin_mm: float  # a rod is read this far inside its wall
    limits: PhantomLimits
    source: str
    rules: FitRules = SHIPPED_RULES
    serial: str = ""  # of the one phantom whose own certificate the densities are; "" for the model's
    sha256: str = ""  # of the files that this was read from

    @property
    def rod_distance_mm(self) -> float:
        """Distance between the outermost rods' centres."""
        offsets = [rod.offset_mm for rod in self.rods]
        return max(offsets) - min(offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReading:
    """All rods in one slice."""

    z_mm: float  # along the slice normal, from the caudal end of the volume
    hu: tuple[float, ...]  # mean of each rod, in the order of `PhantomReading.rods`


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomReading:
    """The phantom in one volume. With any observation there is no calibration."""

    model: str
    rods: tuple[RodReading, ...] = ()  # in the order of the model's; empty where no phantom was found
    slices: tuple[SliceReading, ...] = ()  # caudal to cranial
    areas_mm2: tuple[float, ...] = ()  # cross-section of each rod
    body_hu: float | None = None
    tilt_degrees: float | None = None  # of the rods against the slice normal; None in a single slice
    slope_drift_percent: float | None = None  # end to end, towards cranial; None below 3 slices
    observations: tuple[Observation, ...] = ()
    remarks: tuple[Observation, ...] = ()  # said with a calibration that stands: of another phantom in view

    @property
    def usable(self) -> bool:
        """Whether a calibration may rest on this reading."""
        return bool(self.rods) and not self.observations


# Whether anybody lies on the table: a scan of a calibration phantom alone is no patient's study.


SHIPPED_PATIENT_RULES = TrunkSettings()


def holds_no_patient(volume: CtVolume, rules: TrunkSettings = SHIPPED_PATIENT_RULES) -> bool:
    """Whether slices show too little matter for a patient's trunk.

    Parameters
    ----------
    volume : HU; the last two axes lie in the slice.
    """
    _, dy, dx = volume.grid.spacing_mm
    dense = (volume.hu > rules.tissue_hu[0]) & (volume.hu < rules.tissue_hu[1])
    areas_cm2 = dense.sum(axis=(1, 2)) * dy * dx / 100.0
    return float(np.quantile(areas_cm2, 1.0 - rules.share_of_slices)) < rules.least_cm2
