"""From composition to Hounsfield units, at one effective energy per tube voltage.

Mass attenuation coefficients of the elements and water are those of the NIST tables (Hubbell and Seltzer),
recalled to three or four digits and interpolated log-log between the tabulated energies. The effective energy
of a tube voltage is an assumption of this study, typical of a filtered beam behind an abdomen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log

_ENERGIES_KEV = (40.0, 50.0, 60.0, 80.0, 100.0)
_ELEMENTS_CM2_G: Mapping[str, tuple[float, ...]] = {
    "H": (0.3458, 0.3355, 0.3260, 0.3091, 0.2944),
    "C": (0.2076, 0.1871, 0.1753, 0.1610, 0.1514),
    "N": (0.2288, 0.1980, 0.1817, 0.1639, 0.1529),
    "O": (0.2585, 0.2132, 0.1907, 0.1678, 0.1551),
    "P": (0.8096, 0.4916, 0.3494, 0.2324, 0.1865),
    "K": (1.541, 0.8679, 0.5678, 0.3251, 0.2345),
    "Ca": (1.830, 1.019, 0.6578, 0.3656, 0.2571),
}
_WATER_CM2_G = (0.2683, 0.2269, 0.2059, 0.1837, 0.1707)

EFFECTIVE_KEV: Mapping[int, float] = {80: 50.0, 100: 57.0, 120: 63.0, 140: 69.0}  # assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Substance:
    """A mixture of elements.

    Attributes
    ----------
    mass_fractions : by element; their sum is 1.
    density_g_cm3 : of the mixture.
    """

    mass_fractions: Mapping[str, float]
    density_g_cm3: float


# Stoichiometry of Ca10(PO4)6(OH)2 and K2HPO4; tissues after ICRU 44 and 46, rounded.
HA = Substance(mass_fractions={"Ca": 0.3989, "P": 0.1850, "O": 0.4141, "H": 0.0020}, density_g_cm3=3.16)
# A density "in K2HPO4" is one in solution, each gram of which displaces 0.2174 cm3 of water by definition of
# those who measure in it (user guide of QCT PRO, as cited by Ogo's reference). It does not follow from that
# phantom's rods: they are certified as the water and K2HPO4 that attenuate alike, two with negative K2HPO4.
K2HPO4 = Substance(
    mass_fractions={"K": 0.4490, "P": 0.1778, "O": 0.3674, "H": 0.0058}, density_g_cm3=1 / 0.2174
)
YELLOW_MARROW = Substance(mass_fractions={"H": 0.115, "C": 0.644, "N": 0.007, "O": 0.234}, density_g_cm3=0.98)
RED_MARROW = Substance(mass_fractions={"H": 0.105, "C": 0.414, "N": 0.034, "O": 0.447}, density_g_cm3=1.03)
ADIPOSE = Substance(mass_fractions={"H": 0.114, "C": 0.598, "N": 0.007, "O": 0.281}, density_g_cm3=0.95)


def _interpolated(values: tuple[float, ...], kev: float) -> float:
    for (low, high), (a, b) in zip(pairwise(_ENERGIES_KEV), pairwise(values), strict=True):
        if low <= kev <= high:
            share = (log(kev) - log(low)) / (log(high) - log(low))
            return exp(log(a) + share * (log(b) - log(a)))
    raise ValueError(f"{kev} keV is outside {_ENERGIES_KEV[0]} to {_ENERGIES_KEV[-1]} keV")


def relative_mass_attenuation(substance: Substance, kev: float) -> float:
    """Mass attenuation of a substance relative to water's, dimensionless.

    Raises
    ------
    ValueError
        If `kev` is outside the table of 40 to 100 keV.

    Source: NIST tables (Hubbell and Seltzer), recalled; interpolated log-log.
    """
    own = sum(
        share * _interpolated(_ELEMENTS_CM2_G[name], kev) for name, share in substance.mass_fractions.items()
    )
    return own / _interpolated(_WATER_CM2_G, kev)


def hounsfield(substance: Substance, kev: float) -> float:
    """HU of a pure substance at an effective energy.

    Source: 1000 * (mu / mu_water - 1).
    """
    return 1000.0 * (relative_mass_attenuation(substance, kev) * substance.density_g_cm3 - 1.0)


def hu_per_mg(mineral: Substance, kev: float) -> float:
    """HU that 1 mg/cm3 of a mineral adds to water, whose place it takes."""
    return relative_mass_attenuation(mineral, kev) - 1.0 / mineral.density_g_cm3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellous:
    """Cancellous bone, mineral in marrow, that reads a given density.

    Attributes
    ----------
    hu : of the mixture.
    mineral_mg_cm3 : hydroxyapatite really present.
    fat_fraction : yellow marrow, by volume of the marrow.
    equivalents_mg_cm3 : what an ideal calibration in each mineral reads.
    """

    hu: float
    mineral_mg_cm3: float
    fat_fraction: float
    equivalents_mg_cm3: Mapping[str, float]


def cancellous_reading(bmd_mg_cm3: float, *, equivalent: str, fat_fraction: float, kev: float) -> Cancellous:
    """The composition whose noise-free QCT reading is `bmd_mg_cm3`.

    Marrow is lighter than water where it is fatty, so that more mineral is present than is read; the mineral
    content is solved for the wanted reading.

    Parameters
    ----------
    equivalent : "HA" or "K2HPO4": what `bmd_mg_cm3` is given in.
    fat_fraction : yellow marrow by volume of the marrow, 0 to 1.
    """
    per_mg = {"HA": hu_per_mg(HA, kev), "K2HPO4": hu_per_mg(K2HPO4, kev)}
    hu = bmd_mg_cm3 * per_mg[equivalent]
    marrow_hu = fat_fraction * hounsfield(YELLOW_MARROW, kev) + (1 - fat_fraction) * hounsfield(
        RED_MARROW, kev
    )
    # hu = m * (HU per mg of mineral that takes the place of marrow) + marrow_hu
    per_mg_in_marrow = relative_mass_attenuation(HA, kev) - (1 + marrow_hu / 1000.0) / HA.density_g_cm3
    return Cancellous(
        hu=hu,
        mineral_mg_cm3=(hu - marrow_hu) / per_mg_in_marrow,
        fat_fraction=fat_fraction,
        equivalents_mg_cm3={name: hu / factor for name, factor in per_mg.items()},
    )


# The rods of each phantom that a digital reference study can carry, as they really are in it.
#
# Mineral contents are those the makers state, as cited in the Ogo software's reference (Michalski); those of
# intable are recalled. Distances and diameters are this study's own: no drawings were at hand.


@dataclass(frozen=True, slots=True, kw_only=True)
class RodContent:
    """What a rod of a phantom holds.

    Attributes
    ----------
    mineral_mg_cm3 : hydroxyapatite in the place of water or, where `water_mg_cm3` is given, K2HPO4 in
        solution.
    water_mg_cm3 : in which the mineral is dissolved.
    """

    name: str
    mineral_mg_cm3: float
    water_mg_cm3: float | None = None

    def hu(self, kev: float) -> float:
        """HU without noise.

        Hydroxyapatite takes the place of water; a solution attenuates by the sum of its parts.
        """
        if self.water_mg_cm3 is None:
            return self.mineral_mg_cm3 * hu_per_mg(HA, kev)
        dissolved = self.mineral_mg_cm3 * relative_mass_attenuation(K2HPO4, kev)
        return dissolved + self.water_mg_cm3 - 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOfRods:
    """Upright cylinders at equal distances, the first on the patient's right.

    Attributes
    ----------
    rods : from the patient's right to the left.
    diameter_mm : of each.
    distance_mm : from centre to centre.
    """

    rods: tuple[RodContent, ...]
    diameter_mm: float
    distance_mm: float

    def across_mm(self, place: int) -> float:
        """x of a rod's centre in mm; 0 is the middle of the row.

        Parameters
        ----------
        place : of the rod in the row, from 0.
        """
        return (place - (len(self.rods) - 1) / 2) * self.distance_mm


def _hydroxyapatite(*contents_mg_cm3: float) -> tuple[RodContent, ...]:
    return tuple(RodContent(name=f"HA {content:g}", mineral_mg_cm3=content) for content in contents_mg_cm3)


ROWS: Mapping[str, RowOfRods] = {
    "siemens-osteo": RowOfRods(
        rods=(RodContent(name="water", mineral_mg_cm3=0.0), RodContent(name="bone", mineral_mg_cm3=200.0)),
        diameter_mm=20.0,
        distance_mm=60.0,
    ),
    "qrm-bdc-3": RowOfRods(rods=_hydroxyapatite(100.0, 400.0, 800.0), diameter_mm=18.0, distance_mm=40.0),
    "qrm-bdc-6": RowOfRods(
        rods=_hydroxyapatite(0.0, 100.0, 200.0, 400.0, 600.0, 800.0), diameter_mm=18.0, distance_mm=34.0
    ),
    "b-mas-200": RowOfRods(
        rods=_hydroxyapatite(0.0, 50.0, 100.0, 150.0, 200.0), diameter_mm=20.0, distance_mm=36.0
    ),
    "image-analysis-g2730": RowOfRods(
        rods=_hydroxyapatite(8.0, 97.3, 189.8), diameter_mm=20.0, distance_mm=50.0
    ),
    "intable": RowOfRods(rods=_hydroxyapatite(0.0, 75.0, 150.0), diameter_mm=20.0, distance_mm=50.0),
    "mindways-3": RowOfRods(
        rods=(
            RodContent(name="A", mineral_mg_cm3=-51.83, water_mg_cm3=1012.25),
            RodContent(name="B", mineral_mg_cm3=-53.40, water_mg_cm3=1056.95),
            RodContent(name="C", mineral_mg_cm3=58.88, water_mg_cm3=1103.57),
            RodContent(name="D", mineral_mg_cm3=157.05, water_mg_cm3=1119.52),
            RodContent(name="E", mineral_mg_cm3=375.83, water_mg_cm3=923.20),
        ),
        diameter_mm=20.0,
        distance_mm=38.0,
    ),
}
