"""Every limit and rule of scoring that a site may change, stated once: default, unit, bounds and meaning.

As in `segmentation.settings`: the classes are tables of the configuration file, a `#:` comment is a
setting's text in config/default.toml and docs/configuration.md, and a `#` comment says why. (V): published.
(R): recalled or chosen here, to be confirmed by a site.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le, Lt, MinLen

from segmentation.settings import Limits, NotNegative, Positive, Site, Span

# Wide enough for the noise of soft kernels. Trabeculae are part of what is measured, no noise; their pattern
# evens out over some millimetres, which a window this wide sees (measured: docs/calibration.md).
NOISE_WINDOW_MM = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorScanSettings(Limits):
    """When a study without a phantom in view is calibrated by one scanned earlier on the same scanner."""

    enabled: Site[bool] = False  #: a study without a phantom in view may be calibrated so
    max_age_days: Annotated[int, Ge(0)] = 30  #: (R) the oldest phantom reading that is used
    table_height_mm: NotNegative = 20.0  #: (R) by which table heights may differ, in charts as well
    field_of_view_mm: NotNegative = 50.0  #: (R) by which fields of view may differ, in charts as well
    #: (R) readings that show a scanner's own spread; below, the two next settings take its place
    minimum_readings: Annotated[int, Ge(2)] = 5
    # V as a number, R in this use: Skornitzke et al. 2022.
    unknown_slope_percent: Positive = 1.4  #: SD between scanners of one model, used for one over time (R)
    # About what limits of +-5 HU, usual in acceptance tests, come to.
    unknown_water_hu: Positive = 3.0  #: (R) SD of water


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueSettings(Limits):
    """Where tissues are read for internal calibration. Windows: Michalski et al. 2020."""

    air_hu: Span = (-1030.0, -980.0)  #: (V) of air
    adipose_hu: Span = (-130.0, -70.0)  #: (V) of fat
    blood_hu: Span = (-20.0, 60.0)  #: (V) of blood in the great vessels; above: contrast medium
    muscle_hu: Span = (-5.0, 65.0)  #: (V) of muscle
    smoothing_mm: NotNegative = 1.5  #: (R) of the image that tissues are looked for in
    inside_mm: NotNegative = 3.0  #: (R) from a tissue's border, beyond what smoothing reaches
    from_body_mm: NotNegative = 10.0  #: (R) air, from whatever lies in it
    every_mm: Positive = 5.0  #: (R) between the slices that are looked at
    beside_mm: Positive = 60.0  #: (R) muscle, from the middle of the vertebral bodies
    behind_mm: Positive = 80.0  #: (R) muscle, from their front
    from_bone_mm: NotNegative = 6.0  #: (R) muscle, from bone
    minimum_cm3: Positive = 2.0  #: (R) of a tissue in the slices that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalCalibrationSettings(Limits):
    """What tissues are taken to be, and when a fit of them is refused."""

    # With ICRU-44's 0.95 the fat of usual 120 kV scans, -105 to -109 HU, would mean 52 keV.
    adipose_density_g_cm3: Annotated[float, Ge(0.85), Le(1.0)] = 0.92  #: NIST's (ICRP); ICRU-44 has 0.95
    #: (R) effective energies behind a patient, by tube voltage: kV, lowest, highest keV
    kev: Annotated[tuple[tuple[float, float, float], ...], MinLen(2)] = (
        (80.0, 46.0, 60.0),
        (100.0, 50.0, 67.0),
        (120.0, 55.0, 76.0),
        (140.0, 58.0, 84.0),
    )
    offset_hu: Positive = 15.0  #: (R) of the scanner's HU, as is accepted of a phantom's water
    scale_percent: Positive = 5.0  #: (R) likewise
    air_sd_hu: Positive = (
        3.0  #: (R) standard uncertainty of one person's tissue against what it is taken to be
    )
    adipose_sd_hu: Positive = 5.0  #: (R) likewise
    blood_sd_hu: Positive = 5.0  #: (R) likewise
    muscle_sd_hu: Positive = 6.0  #: (R) likewise
    # PMC5359785, without contrast.
    least_uncertainty_percent: Positive = 7.8  #: (V) RMS difference from QCT in a published comparison
    sampling: TissueSettings = field(default_factory=TissueSettings)  #: where tissues are read

    def __post_init__(self) -> None:
        kilovolts = [row[0] for row in self.kev]
        if sorted(set(kilovolts)) != kilovolts or any(low >= high for _, low, high in self.kev):
            raise ValueError("kev must list kV, lowest and highest keV, by rising kV")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartSettings:
    """When a reading of a scanner's control charts is out of control."""

    #: (R) the first readings: their mean and SD are what later ones are held to
    baseline_readings: Annotated[int, Ge(2)] = 20
    limit_sigmas: Positive = 3.0  #: (R) a reading this many SDs from the mean is out of control (Shewhart)
    cusum_k: Positive = 0.5  #: CUSUM: half the shift, in SDs, that is to be seen
    cusum_h: Positive = 5.0  #: CUSUM: a sum above this, in SDs, is out of control
    # Repeated scans differ by 0.2 % (PMC5524691): a baseline's SD may be less.
    minimum_slope_cv: Positive = (
        0.002  #: (R) a baseline's SD of the slope counts as at least this share of its mean
    )
    minimum_water_sd_hu: Positive = 0.5  #: (R) a baseline's SD of water counts as at least this


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSettings(Limits):
    """What counts as a patient's trunk: a phantom in less matter than this lies alone."""

    tissue_hu: Span = (-200.0, 3071.0)  #: (R) denser than foam and clothing
    # A slender abdomen has 300 cm2 and more.
    least_cm2: Positive = 200.0  #: (R) of a trunk's cross-section; a mat with its rods has about 100
    share_of_slices: Annotated[float, Ge(0), Lt(1)] = 0.05  #: (R) may show more: the end of something
