"""Whether a row of vertebrae can be a spine's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from config.phrases import in_english
from segmentation.ct_volume import Grid
from segmentation.levels import anchor_observations, identity_observations, in_anatomical_order, measure_level
from segmentation.vertebrae import LABELS, EngineInfo, Level, Vertebrae


def level(name: str, z_mm: float, volume_mm3: float = 40_000.0, *, complete: bool = True) -> Level:
    return Level(
        name=name,
        label=LABELS[name],
        complete=complete,
        centroid_mm=(0.0, 0.0, z_mm),
        body_volume_mm3=volume_mm3,
        axis=(0.0, 0.0, 1.0),
    )


@pytest.fixture
def vertebrae_of() -> Callable[[str, bool], Vertebrae]:
    """Vertebrae by what they were counted from, and whether that settled it."""
    grid = Grid(
        shape=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=np.eye(3).tolist()
    )

    def made(basis: str, confirmed: bool) -> Vertebrae:
        return Vertebrae(
            grid=grid,
            bodies=np.zeros(grid.shape, np.uint8),
            levels=(),
            numbering_confirmed=confirmed,
            numbering_basis=basis,
            engine=EngineInfo(name="test", version="1", model_free=True),
        )

    return made


def spine(**heights: float) -> list[Level]:
    return [level(name, z) for name, z in heights.items()]


def details(levels: list[Level]) -> list[str]:
    found = identity_observations(levels)
    assert all(observation.code == "level_implausible" for observation in found)
    return [in_english(observation.values["detail"]) for observation in found]


def test_an_even_row_raises_no_doubt_in_any_order() -> None:
    row = spine(L3=0, L1=72, L2=36, L5=-74, L4=-37)
    assert details(row) == []
    assert [found.name for found in in_anatomical_order(row)] == ["L1", "L2", "L3", "L4", "L5"]


def test_a_missing_level_is_named() -> None:
    assert "L3 is missing" in details(spine(L1=72, L2=36, L4=-37))


def test_swapped_levels_are_named() -> None:
    assert details(spine(L2=0, L3=36)) == ["L3 does not lie below L2"]


def test_a_jump_in_spacing_is_a_missed_vertebra() -> None:
    assert any("spacing" in text for text in details(spine(L1=72, L2=38, L3=0, L4=-66)))


def test_a_split_vertebra_shows_in_its_volume() -> None:
    row = [level("L2", 36), level("L3", 0, 18_000.0), level("L4", -36)]
    assert len(details(row)) == 2


CRUSHED = [level("L1", 72), level("L2", 36), level("L3", 3, 18_000.0), level("L4", -30)]


def test_a_body_known_to_have_collapsed_raises_no_doubt_by_its_volume() -> None:
    assert len(details(CRUSHED)) == 2
    assert identity_observations(CRUSHED, deformed={"L3"}) == ()


def test_a_body_as_large_as_no_other_is_doubted_though_its_neighbours_look_collapsed() -> None:
    """Two vertebrae under one name make all the others look low."""
    row = [level("L2", 36), level("L3", -18, 84_000.0), level("L4", -72)]
    assert len(identity_observations(row, deformed={"L2", "L4"})) == 2


def test_names_counted_from_one_end_say_which(vertebrae_of: Callable[[str, bool], Vertebrae]) -> None:
    told = {
        basis: [one.code for one in anchor_observations(vertebrae_of(basis, True))]
        for basis in ("sacrum", "last rib", "sacrum and last rib", "mask")
    }
    assert told == {
        "sacrum": ["numbered_by_sacrum_alone"],
        "last rib": ["numbered_by_rib_alone"],
        "sacrum and last rib": [],
        "mask": [],
    }
    assert anchor_observations(vertebrae_of("sacrum", False)) == ()


def test_one_or_two_collapsed_bodies_leave_the_row_growing() -> None:
    growing = (36_000.0, 38_000.0, 41_000.0, 43_000.0, 44_000.0)
    for collapsed in ({"L5"}, {"L4"}, {"L4", "L5"}, {"L1"}):
        row = [
            level(name, -36.0 * place, volume * (0.6 if name in collapsed else 1.0))
            for place, (name, volume) in enumerate(zip(("L1", "L2", "L3", "L4", "L5"), growing, strict=True))
        ]
        assert not [text for text in details(row) if "shrink" in text], collapsed


def test_a_row_that_shrinks_downwards_is_doubted() -> None:
    row = [level(f"L{place}", -36.0 * place, 60_000.0 * 0.85**place) for place in range(1, 6)]
    assert details(row) == ["vertebral bodies become smaller downwards, each 85% of the one above"]


def test_what_is_left_of_a_cut_body_may_lie_near_but_not_far() -> None:
    near = [level("T12", 62, 9_000.0, complete=False), level("L1", 36), level("L2", 0)]
    far = [level("T12", 96, 9_000.0, complete=False), level("L1", 36), level("L2", 0)]
    assert details(near) == []
    assert details(far) == ["T12 and L1 lie 60 mm apart"]


def test_a_truncated_body_is_not_judged_by_its_volume() -> None:
    row = [level("L2", 36), level("L3", 0), level("L4", -30, 9_000.0, complete=False)]
    assert details(row) == []


def test_no_levels_raise_no_doubt() -> None:
    assert identity_observations(()) == ()


def test_centroid_and_volume_come_out_in_patient_coordinates() -> None:
    """A box in an oblique, anisotropic grid, cropped: its middle and size are known."""
    grid = Grid(
        shape=(10, 12, 14),
        spacing_mm=(2.0, 0.5, 1.5),
        origin_mm=(10.0, -20.0, 30.0),
        direction=((0.0, -0.6, 0.8), (0.0, 0.8, 0.6), (1.0, 0.0, 0.0)),
    )
    inside = np.zeros((4, 6, 5), bool)
    inside[1:4, 2:5, 1:4] = True
    found = measure_level("L4", inside, grid, axis=(0.0, -1.2, 1.6), complete=True, corner=(3, 4, 5))
    expected = np.array([10.0, -20.0, 30.0]) + 5 * 2.0 * np.array([0, -0.6, 0.8])
    expected = expected + 7 * 0.5 * np.array([0, 0.8, 0.6]) + 7 * 1.5 * np.array([1.0, 0, 0])
    assert found.centroid_mm == pytest.approx(tuple(expected))
    assert found.body_volume_mm3 == pytest.approx(27 * 1.5)
    assert found.axis == pytest.approx((0.0, -0.6, 0.8))
