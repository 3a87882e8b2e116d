"""What spectrum an image shows: that of its tube voltage, or another by a spectral image or a filter.

HU of bone, and the texture in them, follow the spectrum. A tube voltage stands for one only in a conventional
image: polyenergetic, of one source, behind ordinary filters.
"""

from __future__ import annotations

from dataclasses import dataclass

CONVENTIONAL = "single"  # energy type of an image of one polyenergetic spectrum
NO_FILTER = "none"  # no filter that changes the spectrum; wedges and bow-ties do not
# R, from C: within these energies hydroxyapatite reads 2.27 to 1.20 HU per mg/cm3, as rods of the phantoms'
# files do at 80 to 140 kV. Outside them neither rods nor vertebrae look as they are looked for.
VIRTUAL_KEV = (50.0, 75.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """What decides HU beside the tube voltage. By default an image as conventional CT makes it."""

    energy: str = CONVENTIONAL  # or "virtual 70 keV", "photon counting", "multi-energy ..."
    beam_filter: str = NO_FILTER  # or what hardens the beam: "tin"

    @property
    def is_conventional(self) -> bool:
        """Whether the tube voltage stands for the spectrum."""
        return self == CONVENTIONAL_SPECTRUM


CONVENTIONAL_SPECTRUM = Spectrum()


def energy_in_words(energy: str) -> str:
    """An energy type as a report says it."""
    return "conventional" if energy == CONVENTIONAL else energy


def spectrum_differences(own: Spectrum, asked: Spectrum) -> list[str]:
    """In what a study's spectrum differs from the one asked for, in words; empty where it does not."""
    differences = []
    if own.energy != asked.energy:
        one, other = energy_in_words(own.energy), energy_in_words(asked.energy)
        differences.append(f"the energy type is {one}, {other} is asked for")
    if own.beam_filter != asked.beam_filter:
        differences.append(f"the spectral filter is {own.beam_filter}, {asked.beam_filter} is asked for")
    return differences
