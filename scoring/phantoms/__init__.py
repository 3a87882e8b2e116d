"""Types of calibration phantoms and their readings, and whether a scan shows a patient at all.

Phantoms are data: config/phantoms/*.toml, read into `PhantomModel`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.calibration import FitRules, Mineral, RodReading
from scoring.calibration.methods import SHIPPED_RULES
from scoring.settings import TrunkSettings
from segmentation.ct_volume import CtVolume
from segmentation.vertebrae import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class RodModel:
    """One rod as its certificate and the maker's drawing describe it. Rods are upright cylinders.

    Attributes
    ----------
    density_mg_cm3 : certified mineral density.
    offset_mm : position of the centre along the phantom's row of rods.
    expected_hu : range over the tube voltages in use; for water see `PhantomLimits`.
    search_hu : wider range, in which an object is taken for the rod and then checked.
    water_mg_cm3 : certified water density, where the rod is certified as mineral and water.
    """

    name: str
    density_mg_cm3: float
    diameter_mm: float
    offset_mm: float
    expected_hu: tuple[float, float]
    search_hu: tuple[float, float]
    water_mg_cm3: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomLimits:
    """Limits of a reading. None is published: see the phantom's file.

    Attributes
    ----------
    water_rod_hu : limit of abs(HU) of a rod of density 0.
    tilt_degrees : limit of the angle between a rod and the slice normal.
    slope_drift_percent : limit of the change of slope from one end of the phantom to the other.
    water_drift_hu : limit of the shift of the rods' mean HU between two parts of the phantom.
    area_tolerance : relative tolerance of a rod's cross-section.
    rod_sd_hu : limit of the SD in a rod, over a slab of 10 mm, smoothed by 1 mm in the plane.
    minimum_length_mm : least length of phantom in view.
    """

    water_rod_hu: float
    tilt_degrees: float
    slope_drift_percent: float
    water_drift_hu: float
    area_tolerance: float
    rod_sd_hu: float
    minimum_length_mm: float
    # R: a shift of offset along the phantom counts with a stretch of this length on either side, and beyond
    # this many standard errors: more than chance makes at any place.
    offset_stretch_mm: float = 8.0
    offset_sigmas: float = 4.0
    # R: a single slice must be about as thick as in single-slice QCT, 8 to 10 mm: a thinner one is a fragment
    # of a volume, and too noisy to distinguish rods.
    lone_slice_mm: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomModel:
    """A kind of calibration phantom.

    Attributes
    ----------
    method : one of `scoring.calibration.methods.METHODS`.
    rods : by rising expected HU: by rising density, except for dissolved mineral.
    body_hu : range of the material around the rods.
    roi_margin_mm : distance of the rods' regions from their walls.
    serial : of the single phantom whose certificate gives the densities; "" for the model's densities.
    sha256 : of the files that describe the phantom.
    """

    name: str
    manufacturer: str
    equivalent: Mineral
    method: str
    rods: tuple[RodModel, ...]
    body_hu: tuple[float, float]
    roi_margin_mm: float
    limits: PhantomLimits
    source: str
    rules: FitRules = SHIPPED_RULES
    serial: str = ""
    sha256: str = ""

    @property
    def rod_distance_mm(self) -> float:
        """Distance between the outermost rods' centres."""
        offsets = [rod.offset_mm for rod in self.rods]
        return max(offsets) - min(offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReading:
    """All rods in one slice.

    Attributes
    ----------
    z_mm : along the slice normal, from the caudal end of the volume.
    hu : mean of each rod, in the order of `PhantomReading.rods`.
    """

    z_mm: float
    hu: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomReading:
    """The phantom in one volume. With any observation there is no calibration.

    Attributes
    ----------
    rods : in the order of the model's rods; empty where no phantom was found.
    slices : caudal to cranial.
    areas_mm2 : cross-section of each rod.
    tilt_degrees : angle between rods and slice normal; None in a single slice.
    slope_drift_percent : from the caudal to the cranial end; None below 3 slices.
    observations : reasons against a calibration.
    remarks : observations on other phantoms in view, which leave the calibration valid.
    """

    model: str
    rods: tuple[RodReading, ...] = ()
    slices: tuple[SliceReading, ...] = ()
    areas_mm2: tuple[float, ...] = ()
    body_hu: float | None = None
    tilt_degrees: float | None = None
    slope_drift_percent: float | None = None
    observations: tuple[Observation, ...] = ()
    remarks: tuple[Observation, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the reading may give a calibration."""
        return bool(self.rods) and not self.observations


SHIPPED_PATIENT_RULES = TrunkSettings()


def holds_no_patient(volume: CtVolume, rules: TrunkSettings = SHIPPED_PATIENT_RULES) -> bool:
    """Whether slices show too little matter for a patient's trunk: a scan of a phantom alone.

    Parameters
    ----------
    volume : HU; the last two axes lie in the slice.
    """
    _, dy, dx = volume.grid.spacing_mm
    dense = (volume.hu > rules.tissue_hu[0]) & (volume.hu < rules.tissue_hu[1])
    areas_cm2 = dense.sum(axis=(1, 2)) * dy * dx / 100.0
    return float(np.quantile(areas_cm2, 1.0 - rules.share_of_slices)) < rules.least_cm2
