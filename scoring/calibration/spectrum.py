"""The X-ray spectrum of an image, the technique of a scan, plausible slopes, and attenuation by energy.

HU of bone, and their texture, depend on the spectrum. The tube voltage determines it only in a conventional
image: polyenergetic, of one source, behind ordinary filters.

The slope of a calibration is checked against the tube voltage: rods of another phantom may lie on a straight
line too, with a slope that no X-ray beam gives. The ranges (`FitRules`) are wide: only a gross error is
noticed.

Attenuation is xraylib's, of which this module is the sole importer: cross sections, and composition and
density of each tissue, are those of NIST (the tissues as ICRP defines them). Tests compare them with NIST's
tables.

Source: T. Schoonjans et al., The xraylib library for X-ray-matter interactions, Spectrochim. Acta B 66
(2011).
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
from segmentation.ct_volume import known_kvp
from segmentation.phrase import Value, phrase, together

CONVENTIONAL = "single"  # energy type of an image of one polyenergetic spectrum
NO_FILTER = "none"  # no filter that changes the spectrum; wedges and bow-ties do not
# R, from C: within these energies hydroxyapatite reads 2.27 to 1.20 HU per mg/cm3, as rods of the phantoms'
# files do at 80 to 140 kV. Outside them neither rods nor vertebrae look as they are looked for.
VIRTUAL_KEV = (50.0, 75.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """What determines HU besides the tube voltage; by default that of conventional CT.

    Attributes
    ----------
    energy : "single", "virtual 70 keV", "photon counting" or "multi-energy ...".
    beam_filter : "none", or the metal of a filter that hardens the beam: "tin".
    """

    energy: str = CONVENTIONAL
    beam_filter: str = NO_FILTER

    @property
    def is_conventional(self) -> bool:
        """Whether the tube voltage determines the spectrum."""
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


def energy_phrase(energy: str) -> Value:
    """The phrase of a `Spectrum.energy`; an unknown kind is returned unchanged."""
    if virtual := _VIRTUAL.fullmatch(energy):
        if virtual["described"]:
            return phrase("energy-virtual-described-at", energy=virtual["energy"])
        return phrase("energy-virtual", energy=virtual["energy"])
    kind, _, words = energy.partition(" ")
    if kind == "multi-energy":
        return phrase("energy-multi", words=words)
    return _ENERGIES.get(energy, energy)


def filter_phrase(beam_filter: str) -> Value:
    """The phrase of a `Spectrum.beam_filter`; an unknown metal is returned unchanged."""
    return together(_FILTERS.get(metal, metal) for metal in beam_filter.split(" and "))


def spectrum_differences(own: Spectrum, required: Spectrum) -> list[Value]:
    """Differences between a study's spectrum and the required one; empty where they are equal."""
    differences: list[Value] = []
    if own.energy != required.energy:
        one, other = energy_phrase(own.energy), energy_phrase(required.energy)
        differences.append(phrase("energy-differs", own=one, required=other))
    if own.beam_filter != required.beam_filter:
        one, other = filter_phrase(own.beam_filter), filter_phrase(required.beam_filter)
        differences.append(phrase("filter-differs", own=one, required=other))
    return differences


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTechnique:
    """What affects HU on one scanner at one tube voltage and kernel; "" or None where not stated.

    Attributes
    ----------
    energy : "single", "virtual 70 keV", ...
    single_slice : one thick slice with a tilted gantry in place of a volume.
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
    """Differences by which two series may have other HU; empty where there are none.

    A length that neither header states counts as equal here; calibration by a prior scan requires it.

    Parameters
    ----------
    own, theirs : the study's technique and the reading's.
    tolerance : of table height and field of view.
    """
    words = (
        (phrase("condition-filter"), own.spectral_filter, theirs.spectral_filter),
        (phrase("condition-energy"), energy_phrase(own.energy), energy_phrase(theirs.energy)),
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


def slope_range(ranges: SlopeRanges, kvp: float | None) -> tuple[float, float]:
    """Plausible slopes at a tube voltage.

    Parameters
    ----------
    ranges : by tube voltage; interpolated between voltages.
    kvp : in kV; None or implausible: over all voltages.

    Returns
    -------
    Lowest and highest slope in HU per mg/cm3.
    """
    kilovolts, lowest, highest = np.array(ranges).T
    known = known_kvp(kvp)
    if known is None:
        return float(lowest.min()), float(highest.max())
    return float(np.interp(known, kilovolts, lowest)), float(np.interp(known, kilovolts, highest))


def require_slope(hu_per_mg: float, ranges: SlopeRanges, kvp: float | None, equivalent: Mineral) -> None:
    """Require a slope that the tube voltage can give.

    Parameters
    ----------
    hu_per_mg : in HU per mg/cm3.

    Raises
    ------
    CalibrationImpossible
        `calibration_slope_off`.
    """
    lowest, highest = slope_range(ranges, kvp)
    if not lowest <= hu_per_mg <= highest:
        known = known_kvp(kvp)
        at = "any tube voltage" if known is None else f"{known:g} kV"
        raise CalibrationImpossible(
            "calibration_slope_off",
            f"the slope is {hu_per_mg:.2f} HU per mg/cm3 {equivalent}; "
            f"at {at} it is {lowest:.2f} to {highest:.2f}",
        )


# Water that K2HPO4 displaces in solution: 0.2174 by the Mindways method (V), with which densities in K2HPO4
# are compared.
K2HPO4_VOLUME_CM3_G = 0.2174


class Tissue(StrEnum):
    """Tissues of an abdominal CT besides bone, from the lowest HU to the highest."""

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
    """Total mass attenuation coefficient in cm2/g.

    Parameters
    ----------
    substance : a chemical formula, or the name of one of NIST's compounds.
    kev : photon energy.
    """
    import xraylib  # noqa: PLC0415 - half a second that only internal calibration needs

    return float(xraylib.CS_Total_CP(substance, kev))


@lru_cache(maxsize=8)
def density_g_cm3(tissue: Tissue) -> float:
    """Mass density of a tissue as listed by NIST."""
    import xraylib  # noqa: PLC0415 - as above

    return float(xraylib.GetCompoundDataNISTByName(_NIST_NAMES[tissue])["density"])


def expected_hu(tissue: Tissue, kev: float, tissue_density_g_cm3: float | None = None) -> float:
    """HU of a tissue in a beam of one energy.

    Parameters
    ----------
    kev : photon energy.
    tissue_density_g_cm3 : by default as listed by NIST.
    """
    density = density_g_cm3(tissue) if tissue_density_g_cm3 is None else tissue_density_g_cm3
    relative = mass_attenuation_cm2_g(_NIST_NAMES[tissue], kev) / mass_attenuation_cm2_g("H2O", kev)
    return 1000.0 * (relative * density - 1.0)


def hu_per_mg_k2hpo4(kev: float) -> float:
    """HU that 1 mg/cm3 of K2HPO4 adds to water, of which it displaces a part.

    Parameters
    ----------
    kev : photon energy.
    """
    relative = mass_attenuation_cm2_g("K2HPO4", kev) / mass_attenuation_cm2_g("H2O", kev)
    return relative - K2HPO4_VOLUME_CM3_G
