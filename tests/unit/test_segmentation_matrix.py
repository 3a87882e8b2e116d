"""Digital reference studies, each against the outcome written down for it: 14 of the sixty.

`make matrix` runs all sixty, and sixty more of each of two other mixings.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.segmentation_matrix import Entry, matrix, mixed_anew, mixed_otherwise
from tests.unit.segmentation_matrix_run import NOT_ASSESSED, Outcome, run

pytestmark = pytest.mark.slow

ENTRIES: Mapping[int, Entry] = {entry.number: entry for entry in matrix()}
# Every thickness and view, and each kind of fault; `make matrix` runs all sixty.
RUN = (*range(0, 60, 7), 34, 43, 47, 51, 58)
# A body under another one's name is not held to the truth of that name.
NAMED = [number for number in RUN if not ENTRIES[number].faulted and not ENTRIES[number].expected.misnamed]


@pytest.fixture(scope="module")
def outcomes() -> dict[int, Outcome]:
    """What came out so far: the last tests judge it again."""
    return {}


def test_the_matrix_holds_sixty_studies_of_every_kind() -> None:
    assert list(ENTRIES) == list(range(60))
    clean = [entry for entry in ENTRIES.values() if not entry.faulted]
    assert {entry.spec.slice_spacing_mm for entry in clean} == {0.6, 1.0, 2.0, 3.0, 5.0}
    assert {entry.spec.scoliosis_degrees for entry in clean} == {0.0, 5.0, 10.0, 15.0, 20.0}
    assert {entry.spec.bmd_mg_cm3["L3"] for entry in clean} == {40.0, 80.0, 120.0, 160.0, 200.0}
    assert len({entry.spec.view for entry in clean}) == 8


@pytest.mark.parametrize("number", RUN)
def test_a_study_comes_out_as_written_down(outcomes: dict[int, Outcome], number: int) -> None:
    outcome = outcomes[number] = run(ENTRIES[number])
    assert not outcome.wrong_level
    assert outcome.as_expected, outcome.findings


def test_fractures_are_expected_by_name_on_slices_up_to_3_mm_alone() -> None:
    series = [*matrix(), *mixed_otherwise(), *mixed_anew()]
    fractured = [entry for entry in series if entry.spec.faults.fractures]
    assert {entry.spec.slice_spacing_mm for entry in fractured} == {0.6, 1.0, 2.0, 3.0, 5.0}
    for entry in fractured:
        thick = entry.spec.slice_spacing_mm == 5.0
        assert entry.expected.barred == (() if thick else (("fracture", "L3"),))
        assert entry.expected.unassessed == (("L3",) if thick else ())


def test_a_fracture_on_slices_of_5_mm_is_not_assessed_and_no_sound_body_is_called_fractured() -> None:
    entry = next(one for one in mixed_otherwise() if one.expected.unassessed)
    outcome = run(entry)
    assert outcome.as_expected, outcome.findings
    assert NOT_ASSESSED in outcome.findings
    assert {level for code, level in outcome.findings if code == "fracture"} <= {"L3"}


@pytest.mark.parametrize("number", NAMED)
def test_body_and_core_of_an_unfaulted_study_have_their_true_volume(
    outcomes: dict[int, Outcome], number: int
) -> None:
    outcome = outcomes.get(number) or run(ENTRIES[number])
    assert set(outcome.volume_ratio) >= set(ENTRIES[number].expected.whole)
    assert outcome.volume_ratio == pytest.approx(dict.fromkeys(outcome.volume_ratio, 1.0), abs=0.05)
    assert outcome.core_ratio == pytest.approx(dict.fromkeys(outcome.core_ratio, 1.0), abs=0.05)
