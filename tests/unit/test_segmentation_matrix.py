"""A fixed sample of the sixty digital reference studies; `make matrix` runs all."""

from __future__ import annotations

import pytest

from tests.unit.segmentation_matrix import matrix
from tests.unit.segmentation_matrix_run import run

SAMPLE = (3, 4, 23, 58)
ENTRIES = {entry.number: entry for entry in matrix()}


def test_the_matrix_holds_sixty_studies_of_every_kind() -> None:
    assert list(ENTRIES) == list(range(60))
    clean = [entry for entry in ENTRIES.values() if not entry.faulted]
    assert {entry.spec.slice_spacing_mm for entry in clean} == {0.6, 1.0, 2.0, 3.0, 5.0}
    assert {entry.spec.scoliosis_degrees for entry in clean} == {0.0, 5.0, 10.0, 15.0, 20.0}
    assert {entry.spec.bmd_mg_cm3["L3"] for entry in clean} == {40.0, 80.0, 120.0, 160.0, 200.0}
    assert len({entry.spec.view for entry in clean}) == 8


@pytest.mark.parametrize("number", SAMPLE)
def test_a_study_comes_out_as_written_down_beforehand(number: int) -> None:
    outcome = run(ENTRIES[number])
    assert not outcome.wrong_level
    assert outcome.as_expected, outcome.findings
