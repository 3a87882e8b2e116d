"""Variants of real CTs: no half of a body is printed, nothing is called metal, and what can be measured is.

`tools/run_real.py` runs all of them and counts; here are those that once went wrong, one for each change that
a variant makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.real_variants import Variant, run, variants

pytestmark = pytest.mark.slow

NEAR_MG_CM3 = 10.0
# By number of `variants()`: what it is, and what befell it before discs were told by their pedicles.
CHOSEN: Mapping[int, str] = {
    1: "as it is: cortex taken for metal",
    13: "turned: half of L3 printed",
    17: "moved by 0.4 voxels from head to foot",
    20: "cut to L1-L3",
    23: "slices of 2 mm",
    31: "hard kernel: four intact bodies called fractured",
    39: "turned, moved and hard",
    125: "turned, voxels of 3 mm",
}


@pytest.fixture(scope="module")
def by_number() -> Mapping[int, Variant]:
    return {one.number: one for one in variants()}


@pytest.mark.parametrize("number", CHOSEN, ids=[what.replace(" ", "-") for what in CHOSEN.values()])
def test_a_variant_of_a_real_ct_is_measured_where_its_experts_mask_can_be(
    number: int, by_number: Mapping[int, Variant], test_data: Path
) -> None:
    found = run(test_data, by_number[number])
    assert found.halves == ()
    assert found.misnamed == ()
    assert found.metal == ()
    assert found.fractures == ()
    assert set(found.measurable) <= set(found.kept)
    assert all(abs(error) <= NEAR_MG_CM3 for error in found.kept.values())


def test_at_least_two_hundred_variants_are_judged_on_slices_no_thinner_than_their_source() -> None:
    every = list(variants())
    assert len(every) >= 200
    native_mm = {"verse014": 1.0, "ts_example_ct": 3.0}
    assert all((one.thickness_mm or 9.0) > native_mm[one.source] for one in every)
