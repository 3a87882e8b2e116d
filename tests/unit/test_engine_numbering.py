"""Names counted from sacrum or rib, and held against the ribs beside every other vertebra in view."""

from __future__ import annotations

import pytest

from config.phrases import in_english
from node.reference.spec import Faults, Fracture, FractureShape, Lumbar, StudySpec
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.geometric.numbering import ColumnSegment, Rib, number_segments
from segmentation.gates.fracture import fracture_observations
from segmentation.settings import IdentitySettings
from segmentation.vertebrae import unnamed_body
from tests.unit.segmentation_matrix_run import volume_of

pytestmark = pytest.mark.slow


def segments(*, ribs: str, sacrum: bool = True) -> list[ColumnSegment]:
    """From inferior to superior, a letter each: Present, Absent or Unclear; the sacrum below them."""
    kinds = {"P": Rib.PRESENT, "A": Rib.ABSENT, "U": Rib.UNCLEAR}
    row = [ColumnSegment(first_mm=0, last_mm=30, ribs=kinds[letter], wings=False) for letter in ribs]
    wings = ColumnSegment(first_mm=0, last_mm=30, ribs=Rib.ABSENT, wings=True)
    return [wings, *row] if sacrum else row


@pytest.mark.parametrize("ribs", ["AAAAA", "AAAAAU", "AAAAAP", "AAAAAPP", "UUAAAP", "AAA"])
def test_ribs_that_agree_with_the_count_leave_the_names_confirmed(ribs: str) -> None:
    row = segments(ribs=ribs)
    found = number_segments(row, [True] * len(row))
    assert (found.confirmed, found.conflict) == (True, None)
    assert found.names[1] == "L5"


@pytest.mark.parametrize(
    ("ribs", "told"),
    [
        ("AAAAAA", "T12 by count has no ribs"),
        ("AAAAAAU", "T12 by count has no ribs"),
        ("AAAAAUA", "T11 by count has no ribs"),
        ("AAAUPP", "L1 by count has ribs"),
        ("AAAUP", "L1 by count has ribs"),
        ("AAAAAAP", "6 vertebrae lie between the sacrum and the last rib"),
        ("AAAAP", "4 vertebrae lie between the sacrum and the last rib"),
    ],
)
def test_ribs_that_contradict_the_count_are_a_conflict(ribs: str, told: str) -> None:
    row = segments(ribs=ribs)
    found = number_segments(row, [True] * len(row))
    assert not found.confirmed
    assert found.conflict is not None
    assert in_english(found.conflict) == told


def test_a_crushed_body_leaves_names_that_sacrum_and_rib_agree_on_confirmed() -> None:
    """Half its height is lost, and so half its volume: a fracture, no doubt of any name."""
    crushed = Fracture(level="L3", shape=FractureShape.CRUSH, height_loss=0.5)
    spec = StudySpec.reduced(view=("T12", "S1"), faults=Faults(fractures=(crushed,)))
    found = GeometricEngine().segment(volume_of(spec))
    volume = {level.name: level.body_volume_mm3 for level in found.levels}
    assert volume["L4"] > IdentitySettings().volume_ratio * volume["L3"]
    assert (found.numbering_confirmed, found.numbering_basis) == (True, "sacrum and last rib")
    assert found.observations == ()
    assert ("fracture", "L3") in [(one.code, one.level) for one in fracture_observations(found)]


def test_without_sacrum_and_rib_bodies_are_counted_from_the_head_and_get_no_name() -> None:
    found = number_segments(segments(ribs="AAAA", sacrum=False), [True] * 4)
    assert (found.basis, found.confirmed, found.conflict) == ("none", False, None)
    assert found.names == tuple(unnamed_body(ordinal, 4) for ordinal in (4, 3, 2, 1))


def test_what_lies_beyond_the_whole_bodies_is_not_counted_and_what_lies_between_is() -> None:
    """Of the second from below no body was found: a vertebra is there all the same."""
    found = number_segments(segments(ribs="AAAAA", sacrum=False), [False, True, False, True, False])
    names = [None, "lumbar body 3 of 3", "lumbar body 2 of 3", "lumbar body 1 of 3", None]
    assert list(found.names) == names


def test_a_ribbed_vertebra_is_not_counted_among_lumbar_bodies() -> None:
    """The ribs are no anchor where the vertebra below them is unclear: it may bear stunted ones."""
    found = number_segments(segments(ribs="AUP", sacrum=False), [True] * 3)
    assert found.basis == "none"
    assert found.names == ("lumbar body 2 of 2", "lumbar body 1 of 2", None)


@pytest.mark.parametrize(
    ("first", "names"),
    [
        ("L1", ["L3", "L2", "L1", "T12"]),
        ("L2", ["L4", "L3", "L2", "L1"]),
        ("L4", [None, "L5", "L4", "L3"]),
    ],
)
def test_a_stated_first_level_names_downwards_from_the_topmost_whole_body(
    first: str, names: list[str | None]
) -> None:
    row = segments(ribs="AAAU", sacrum=False)
    found = number_segments(row, [True, True, True, False], first)
    assert (list(found.names), found.basis, found.confirmed) == (names, "stated", True)


@pytest.mark.parametrize("ribs", ["AAAAAP", "AAAAA"])
def test_a_statement_that_agrees_with_the_anchors_changes_nothing(ribs: str) -> None:
    row = segments(ribs=ribs)
    sized = [False, *[True] * (len(row) - 1)]
    assert number_segments(row, sized, "L1") == number_segments(row, sized)


@pytest.mark.parametrize("ribs", ["AAAAAP", "AAAAA"])
def test_a_statement_against_the_anchors_is_a_conflict_under_their_names(ribs: str) -> None:
    row = segments(ribs=ribs)
    found = number_segments(row, [False, *[True] * (len(row) - 1)], "L2")
    assert (found.names[5], found.confirmed) == ("L1", False)
    assert found.conflict is not None
    assert in_english(found.conflict) == "L1 by count was stated to be L2"


def test_anchors_that_disagree_stay_a_conflict_whatever_is_stated() -> None:
    row = segments(ribs="AAAAAAP")
    assert number_segments(row, [True] * 8, "L1") == number_segments(row, [True] * 8)


def test_ribs_beside_a_vertebra_contradict_what_is_stated_of_it() -> None:
    """Stated to be T12, and in view without ribs."""
    found = number_segments(segments(ribs="AAA", sacrum=False), [True] * 3, "T12")
    assert (found.basis, found.confirmed) == ("stated", False)
    assert found.conflict is not None


def test_a_sixth_lumbar_vertebra_is_told_without_the_last_rib_in_view() -> None:
    """Its first lumbar vertebra is the topmost in view: counted from the sacrum it would be T12, unribbed."""
    spec = StudySpec.reduced(view=("L1", "S1"), faults=Faults(lumbar=Lumbar.SIX))
    found = GeometricEngine().segment(volume_of(spec))
    assert not found.numbering_confirmed
    assert [one.code for one in found.observations] == ["numbering_conflict"]
