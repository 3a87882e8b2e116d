"""What a header tells of how a series was made: whether another scan's phantom may calibrate it."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from node.dicom.ct.technique import acquisition_time, reconstruction, spectral_filter


def header(**values) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_a_filter_is_kept_as_stated_for_scans_that_must_be_alike():
    assert spectral_filter(header(FilterType="FLAT", FilterMaterial=["TIN"])) == "FLAT TIN"
    assert spectral_filter(header(FilterType="NONE")) == ""


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
