"""Names counted from sacrum or rib, and held against the ribs beside every other vertebra in view."""

from __future__ import annotations

import pytest

from config.phrases import in_english
from node.reference.spec import Faults, Fracture, FractureShape, Lumbar, StudySpec
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.geometric.numbering import ColumnSegment, Rib, number_segments
from segmentation.gates.fracture import fracture_observations
from segmentation.settings import IdentitySettings
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
        ("AAAAAAP", "6 vertebrae lie between them"),
        ("AAAAP", "4 vertebrae lie between them"),
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


def test_names_by_presumption_stay_unconfirmed_and_are_no_conflict() -> None:
    found = number_segments(segments(ribs="AAAA", sacrum=False), [True] * 4)
    assert (found.basis, found.confirmed, found.conflict) == ("none", False, None)


def test_a_sixth_lumbar_vertebra_is_told_without_the_last_rib_in_view() -> None:
    """Its first lumbar vertebra is the topmost in view: counted from the sacrum it would be T12, unribbed."""
    spec = StudySpec.reduced(view=("L1", "S1"), faults=Faults(lumbar=Lumbar.SIX))
    found = GeometricEngine().segment(volume_of(spec))
    assert not found.numbering_confirmed
    assert [one.code for one in found.observations] == ["numbering_conflict"]
