"""What is not a tube voltage of a CT scanner is not known, wherever a tube voltage is read."""

from __future__ import annotations

import pytest

from node.research.cohort_tables import outside, technique_of
from scoring.calibration import Mineral
from scoring.calibration.spectrum import slope_range
from scoring.errors import CohortUnusable
from scoring.models.card import Applicability
from segmentation.ct_volume import bone_contrast, known_kvp

NONE_OF_A_SCANNER = [0.0, -120.0, 1.2, 12.0, 9999.0, 120000.0]


@pytest.mark.parametrize("stated", NONE_OF_A_SCANNER)
def test_what_no_scanner_has_is_not_known(stated: float) -> None:
    assert known_kvp(stated) is None


@pytest.mark.parametrize("stated", [70.0, 80.0, 120.0, 150.0])
def test_what_a_scanner_has_is_taken_as_stated(stated: float) -> None:
    assert known_kvp(stated) == stated


@pytest.mark.parametrize("stated", [*NONE_OF_A_SCANNER, None])
def test_a_slope_is_then_held_to_what_any_voltage_may_give(stated: float | None) -> None:
    ranges = ((80.0, 2.0, 3.0), (120.0, 1.0, 2.0))
    assert slope_range(ranges, stated) == (1.0, 3.0)
    assert slope_range(ranges, 70.0) == (2.0, 3.0)


@pytest.mark.parametrize("stated", [*NONE_OF_A_SCANNER, None])
def test_bone_is_then_taken_to_be_as_bright_as_at_80_kv(stated: float | None) -> None:
    assert bone_contrast(stated) == 1.0


def test_a_table_of_an_earlier_version_that_says_0_kv_says_no_voltage() -> None:
    row = {
        "study": "A", "kvp": "0.0", "slice_spacing_mm": "2", "pixel_spacing_mm": "0.7", "equivalent": "HA",
        "energy": "", "beam_filter": "",
    }  # fmt: skip
    with pytest.raises(CohortUnusable, match="no kvp in A"):
        technique_of([row])
    trained = Applicability(
        kvp=(119.0, 121.0),
        slice_spacing_mm=(1.0, 3.0),
        pixel_spacing_mm=(0.5, 1.0),
        equivalent=Mineral.HA,
    )
    assert outside(row, trained) == "the tube voltage is not stated"
