"""What a header tells of how a series was made: whether another scan's phantom may calibrate it."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from node.dicom.technique import acquisition_time, energy, reconstruction, spectral_filter


def header(**values) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def virtual_image(kev: float) -> Dataset:
    """As PS3.3 nests it: the energy of a virtual monoenergetic image within the multi-energy module."""
    outer = header(ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "VMI"], MultienergyCTAcquisition="YES")
    outer.MultienergyCTCharacteristicsSequence = [header(MonoenergeticEnergyEquivalent=kev)]
    return outer


def test_tin_before_the_tube_is_named_with_its_material():
    assert spectral_filter(header(FilterType="FLAT", FilterMaterial=["TIN"])) == "FLAT TIN"
    assert spectral_filter(header()) == ""


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (header(ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]), "single"),
        (header(), "single"),
        (virtual_image(70.0), "virtual 70 keV"),
        (virtual_image(40.0), "virtual 40 keV"),
        (
            header(ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 DUAL"]),
            "multi-energy AXIAL CT_SOM5 DUAL",
        ),
        (header(ImageType=["ORIGINAL", "PRIMARY"], MultienergyCTAcquisition="YES"), "multi-energy"),
        (header(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], MultienergyCTAcquisition="NO"), "single"),
    ],
)
def test_a_spectral_image_is_told_from_one_of_a_single_energy(made, expected):
    assert energy(made) == expected


def test_the_strength_of_an_iterative_reconstruction_is_read_where_makers_put_it():
    general_electric = header(ReconstructionAlgorithm="ITERATIVE")
    block = general_electric.private_block(0x0053, "GEHC_CT_ADVAPP_001", create=True)
    block.add_new(0x40, "SH", "SS30")
    assert reconstruction(general_electric) == "ITERATIVE SS30"
    philips = header()
    philips.private_block(0x01F7, "ELSCINT1", create=True).add_new(0x9B, "UN", b"3 \0")
    assert reconstruction(philips) == "3"
    assert reconstruction(header()) == ""


@pytest.mark.parametrize(
    ("written", "read"), [("101500", "101500"), ("101500.25", "101500.25"), ("", ""), ("1015", "")]
)
def test_the_time_of_a_scan_can_be_compared(written, read):
    assert acquisition_time(header(AcquisitionTime=written)) == read
