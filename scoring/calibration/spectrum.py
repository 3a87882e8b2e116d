"""What spectrum an image shows: that of its tube voltage, or another by a spectral image or a filter.

HU of bone, and the texture in them, follow the spectrum. A tube voltage stands for one only in a conventional
image: polyenergetic, of one source, behind ordinary filters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from scoring.calibration import Mineral, SlopeRanges
from scoring.errors import CalibrationImpossible
from scoring.settings import PriorScanSettings
from segmentation.phrase import Value, phrase, together
from segmentation.volume import known_kvp

CONVENTIONAL = "single"  # energy type of an image of one polyenergetic spectrum
NO_FILTER = "none"  # no filter that changes the spectrum; wedges and bow-ties do not
# R, from C: within these energies hydroxyapatite reads 2.27 to 1.20 HU per mg/cm3, as rods of the phantoms'
# files do at 80 to 140 kV. Outside them neither rods nor vertebrae look as they are looked for.
VIRTUAL_KEV = (50.0, 75.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """What decides HU beside the tube voltage. By default an image as conventional CT makes it.

    Attributes
    ----------
    energy : "single", "virtual 70 keV", "photon counting" or "multi-energy ...".
    beam_filter : "none", or the metal of a filter that hardens the beam: "tin".
    """

    energy: str = CONVENTIONAL
    beam_filter: str = NO_FILTER

    @property
    def is_conventional(self) -> bool:
        """Whether the tube voltage stands for the spectrum."""
        return self == CONVENTIONAL_SPECTRUM


CONVENTIONAL_SPECTRUM = Spectrum()


_VIRTUAL = re.compile(r"virtual (?P<energy>[\d.]+) keV(?P<described> by its description)?")
_ENERGIES = {
    CONVENTIONAL: phrase("energy-conventional"),
    "virtual by its description": phrase("energy-virtual-described"),
    "photon counting": phrase("energy-photon-counting"),
}
_FILTERS = {
    NO_FILTER: phrase("filter-none"),
    "tin": phrase("filter-tin"),
    "tin by its description": phrase("filter-tin-described"),
    "silver": phrase("filter-silver"),
    "gold": phrase("filter-gold"),
    "copper": phrase("filter-copper"),
    "molybdenum": phrase("filter-molybdenum"),
    "rhodium": phrase("filter-rhodium"),
    "niobium": phrase("filter-niobium"),
    "tungsten": phrase("filter-tungsten"),
    "europium": phrase("filter-europium"),
    "lead": phrase("filter-lead"),
}


def energy_in_words(energy: str) -> Value:
    """The phrase for a `Spectrum.energy`; one that is of no known kind stays as it is."""
    if virtual := _VIRTUAL.fullmatch(energy):
        if virtual["described"]:
            return phrase("energy-virtual-described-at", energy=virtual["energy"])
        return phrase("energy-virtual", energy=virtual["energy"])
    kind, _, words = energy.partition(" ")
    if kind == "multi-energy":
        return phrase("energy-multi", words=words)
    return _ENERGIES.get(energy, energy)


def filter_in_words(beam_filter: str) -> Value:
    """The phrase for a `Spectrum.beam_filter`; a metal that is not known stays as it is."""
    return together(_FILTERS.get(metal, metal) for metal in beam_filter.split(" and "))


def spectrum_differences(own: Spectrum, asked: Spectrum) -> list[Value]:
    """In what a study's spectrum differs from the one asked for; empty where it does not."""
    differences: list[Value] = []
    if own.energy != asked.energy:
        one, other = energy_in_words(own.energy), energy_in_words(asked.energy)
        differences.append(phrase("energy-differs", own=one, required=other))
    if own.beam_filter != asked.beam_filter:
        one, other = filter_in_words(own.beam_filter), filter_in_words(asked.beam_filter)
        differences.append(phrase("filter-differs", own=one, required=other))
    return differences


# How a series was made, beside scanner, tube voltage and kernel, and whether two were made alike.


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTechnique:
    """What moves HU on one scanner at one tube voltage and kernel; "" or None where the header is silent.

    Attributes
    ----------
    energy : "single", "virtual 70 keV", ...
    single_slice : one thick slice, its gantry tilted, in place of a volume.
    """

    spectral_filter: str
    energy: str
    reconstruction: str
    table_height_mm: float | None
    field_of_view_mm: float | None
    single_slice: bool = False


def technique_differences(
    own: ScanTechnique, theirs: ScanTechnique, tolerance: PriorScanSettings
) -> tuple[Value, ...]:
    """What parts two series that are both to show the same HU; empty where they are alike.

    A length that neither header states counts as equal here: who lends asks for more.
    """
    words = (
        (phrase("condition-filter"), own.spectral_filter, theirs.spectral_filter),
        (phrase("condition-energy"), energy_in_words(own.energy), energy_in_words(theirs.energy)),
        (phrase("condition-reconstruction"), own.reconstruction, theirs.reconstruction),
    )
    found: list[Value] = [
        phrase("quantity-is", quantity=name, value=other or phrase("not-stated"))
        for name, one, other in words
        if one != other
    ]
    lengths = (
        (phrase("table-height"), own.table_height_mm, theirs.table_height_mm, tolerance.table_height_mm),
        (phrase("field-of-view"), own.field_of_view_mm, theirs.field_of_view_mm, tolerance.field_of_view_mm),
    )
    for name, one_mm, other_mm, tolerance_mm in lengths:
        if one_mm is None and other_mm is None:
            continue
        if one_mm is None or other_mm is None:
            found.append(phrase("quantity-not-stated", quantity=name))
        elif abs(one_mm - other_mm) > tolerance_mm:
            distance = f"{abs(one_mm - other_mm):.0f}"
            found.append(phrase("quantity-off", quantity=name, distance=distance))
    if own.single_slice != theirs.single_slice:
        found.append(phrase("single-slices") if theirs.single_slice else phrase("a-volume"))
    return tuple(found)


# Whether a calibration's slope is one that the tube voltage may give.
#
# Rods of another phantom, read as this one's, may lie on a straight line all the same: their slope is then
# that of no X-ray beam. The ranges are wide (`FitRules`), so that only a gross error is noticed.


def slope_range(ranges: SlopeRanges, kvp: float | None) -> tuple[float, float]:
    """Lowest and highest plausible slope in HU per mg/cm3; over all voltages where `kvp` is not known."""
    kilovolts, lowest, highest = np.array(ranges).T
    known = known_kvp(kvp)
    if known is None:
        return float(lowest.min()), float(highest.max())
    return float(np.interp(known, kilovolts, lowest)), float(np.interp(known, kilovolts, highest))


def require_slope(hu_per_mg: float, ranges: SlopeRanges, kvp: float | None, equivalent: Mineral) -> None:
    """Raise `CalibrationImpossible` (`calibration_slope_off`) where this voltage does not give the slope."""
    lowest, highest = slope_range(ranges, kvp)
    if not lowest <= hu_per_mg <= highest:
        known = known_kvp(kvp)
        at = "any tube voltage" if known is None else f"{known:g} kV"
        raise CalibrationImpossible(
            "calibration_slope_off",
            f"the slope is {hu_per_mg:.2f} HU per mg/cm3 {equivalent}; "
            f"at {at} it is {lowest:.2f} to {highest:.2f}",
        )


# How tissues and K2HPO4 attenuate photons of one energy. The sole importer of xraylib.
#
# Cross sections and the composition and density of each tissue are xraylib's: those of NIST (the tissues as
# ICRP defines them). Tests hold them to NIST's own tables of water and tissues.
#
# Source: T. Schoonjans et al., The xraylib library for X-ray-matter interactions, Spectrochim. Acta B 66
# (2011).


# Water that K2HPO4 displaces in solution: 0.2174 by the Mindways method (V), whose BMD is what densities in
# K2HPO4 are compared with.
K2HPO4_VOLUME_CM3_G = 0.2174


class Tissue(StrEnum):
    """What an abdominal CT shows beside bone, from the lowest HU to the highest."""

    AIR = "air"  # around the patient
    ADIPOSE = "adipose"
    BLOOD = "blood"
    MUSCLE = "muscle"


_NIST_NAMES = {
    Tissue.AIR: "Air, Dry (near sea level)",
    Tissue.ADIPOSE: "Adipose Tissue (ICRP)",
    Tissue.BLOOD: "Blood (ICRP)",
    Tissue.MUSCLE: "Muscle, Skeletal",
}


@lru_cache(maxsize=8192)
def mass_attenuation_cm2_g(substance: str, kev: float) -> float:
    """Total mass attenuation coefficient.

    Parameters
    ----------
    substance : a chemical formula, or one of NIST's compounds by its name.
    """
    import xraylib  # noqa: PLC0415 - half a second that only internal calibration needs

    return float(xraylib.CS_Total_CP(substance, kev))


@lru_cache(maxsize=8)
def density_g_cm3(tissue: Tissue) -> float:
    """Mass density of a tissue as NIST lists it."""
    import xraylib  # noqa: PLC0415 - as above

    return float(xraylib.GetCompoundDataNISTByName(_NIST_NAMES[tissue])["density"])


def expected_hu(tissue: Tissue, kev: float, tissue_density_g_cm3: float | None = None) -> float:
    """HU of a tissue in a beam of one energy.

    Parameters
    ----------
    tissue_density_g_cm3 : None: as NIST lists it.
    """
    density = density_g_cm3(tissue) if tissue_density_g_cm3 is None else tissue_density_g_cm3
    relative = mass_attenuation_cm2_g(_NIST_NAMES[tissue], kev) / mass_attenuation_cm2_g("H2O", kev)
    return 1000.0 * (relative * density - 1.0)


def hu_per_mg_k2hpo4(kev: float) -> float:
    """HU that 1 mg/cm3 of K2HPO4 adds to the water whose place it partly takes."""
    relative = mass_attenuation_cm2_g("K2HPO4", kev) / mass_attenuation_cm2_g("H2O", kev)
    return relative - K2HPO4_VOLUME_CM3_G
