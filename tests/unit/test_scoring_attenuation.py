"""Attenuation against NIST's published tables and a published worked example."""

from __future__ import annotations

import pytest

from scoring.calibration.spectrum import (
    Tissue,
    density_g_cm3,
    expected_hu,
    hu_per_mg_k2hpo4,
    mass_attenuation_cm2_g,
)

KEV = (40.0, 50.0, 60.0, 80.0, 100.0)

# NIST, X-Ray Mass Attenuation Coefficients (Hubbell and Seltzer), table 4, in cm2/g at the energies above.
NIST = {
    "Water, Liquid": (0.2683, 0.2269, 0.2059, 0.1837, 0.1707),
    "Air, Dry (near sea level)": (0.2485, 0.2080, 0.1875, 0.1662, 0.1541),
}
# The same table's adipose tissue (ICRU-44), with its mass fractions by element.
ADIPOSE_ICRU_44 = {"H": 114, "C": 598, "N": 7, "O": 278, "Na": 1, "S": 1, "Cl": 1}  # per 1000
NIST_ADIPOSE = (0.2396, 0.2123, 0.1974, 0.1800, 0.1688)

# Coefficients at 96 keV in the worked example of the Ogo software's tests, which interpolate NIST's tables on
# a straight line between 80 and 100 keV.
OGO_96_KEV = {"Water, Liquid": 0.17330, "Air, Dry (near sea level)": 0.15652, "K2HPO4": 0.20792}


@pytest.mark.parametrize("substance", NIST)
def test_water_and_air_are_nists_to_all_digits(substance):
    found = [mass_attenuation_cm2_g(substance, kev) for kev in KEV]
    assert found == pytest.approx(NIST[substance], abs=5.1e-5)


def test_a_tissues_elements_add_up_to_nists_value_for_it():
    found = [
        sum(share * mass_attenuation_cm2_g(name, kev) for name, share in ADIPOSE_ICRU_44.items()) / 1000
        for kev in KEV
    ]
    assert found == pytest.approx(NIST_ADIPOSE, abs=1e-4)


@pytest.mark.parametrize("substance", OGO_96_KEV)
def test_a_published_example_is_met(substance):
    at_80, at_100 = (mass_attenuation_cm2_g(substance, kev) for kev in (80.0, 100.0))
    assert at_80 + 0.8 * (at_100 - at_80) == pytest.approx(OGO_96_KEV[substance], abs=1e-4)


def test_tissues_are_nists_by_name_and_density():
    assert [density_g_cm3(one) for one in Tissue] == [0.001205, 0.92, 1.06, 1.04]


def test_tissues_read_as_ct_shows_them():
    assert expected_hu(Tissue.AIR, 65.0) == pytest.approx(-999, abs=1)
    assert expected_hu(Tissue.ADIPOSE, 65.0) == pytest.approx(-109, abs=2)
    assert expected_hu(Tissue.ADIPOSE, 65.0, 0.95) == pytest.approx(-80, abs=2)
    for soft in (Tissue.BLOOD, Tissue.MUSCLE):
        assert 30 < expected_hu(soft, 65.0) < 60


def test_k2hpo4_is_what_a_liquid_phantom_makes_of_it():
    """sigma_ref of a liquid phantom, 2.46 and 1.89 at 50 and 60 keV, less the water displaced."""
    for kev, sigma_ref in ((50.0, 2.46), (60.0, 1.89)):
        assert hu_per_mg_k2hpo4(kev) == pytest.approx(sigma_ref - 0.2174, abs=0.006)
