"""How tissues and K2HPO4 attenuate photons of one energy. The sole importer of xraylib.

Cross sections and the composition and density of each tissue are xraylib's: those of NIST (the tissues as
ICRP defines them). Tests hold them to NIST's own tables of water and tissues.

Source: T. Schoonjans et al., The xraylib library for X-ray-matter interactions, Spectrochim. Acta B 66
(2011).
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

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
