"""What a network names is believed only where it can be a spine's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from config.phrases import in_english
from segmentation.ct_volume import CtVolume, Grid, LabelMap, reorientation_of
from segmentation.engines.name_checks import NetworkLabels, to_vertebrae
from segmentation.vertebrae import LABELS, EngineInfo, Vertebrae

GRID = Grid(
    shape=(140, 44, 52),
    spacing_mm=(2.0, 2.0, 2.0),
    origin_mm=(-52.0, -44.0, 0.0),
    direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
PITCH, HEIGHT = 18, 13  # voxels: 36 and 26 mm
ROW = ("sacrum", "L5", "L4", "L3", "L2", "L1", "T12")
INFO = EngineInfo(name="test", version="1", model_free=False)


def blocks(*names: str) -> LabelMap:
    """Bodies as boxes 40 mm wide and 30 mm deep, the first at the bottom; "" leaves a place empty.

    A sacrum has wings, which reach 52 mm to each side.
    """
    labels = np.zeros(GRID.shape, np.uint8)
    for number, name in enumerate(names):
        if name:
            first = 4 + number * PITCH
            labels[first : first + HEIGHT, 12:27, 16:36] = LABELS[name]
            if name == "sacrum":
                labels[first : first + HEIGHT, 18:24] = LABELS[name]
    return labels


def judged(labels: LabelMap, bodies: np.ndarray | None = None, split: tuple[str, ...] = ()) -> Vertebrae:
    """Where the labels are fewer slices than `GRID`, the volume ends there."""
    grid = replace(GRID, shape=labels.shape)
    volume = CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid)
    whole = tuple(slice(0, size) for size in grid.shape)
    recognised = NetworkLabels(
        turned=volume, turn=reorientation_of(grid), box=whole, labels=labels, bodies=bodies, split=split
    )
    return to_vertebrae(volume, recognised, INFO)


def details(found: Vertebrae) -> list[str]:
    return [in_english(one.values.get("detail", one.code)) for one in found.observations]


@pytest.mark.parametrize("names", [ROW, ROW[:4]])
def test_a_row_above_a_sacrum_with_wings_is_confirmed(names):
    found = judged(blocks(*names))
    assert (found.numbering_confirmed, found.numbering_basis, found.observations) == (True, "sacrum", ())
    assert [level.name for level in found.levels] == [one for one in reversed(names) if one != "sacrum"]
    assert LABELS["sacrum"] not in found.bodies


def test_a_row_without_an_anchor_is_unconfirmed():
    found = judged(blocks("L4", "L3", "L2"))
    assert not found.numbering_confirmed
    assert details(found) == ["level_unconfirmed"]


def test_a_sacrum_under_the_fourth_lumbar_vertebra_is_not_believed():
    found = judged(blocks("sacrum", "L4", "L3", "L2", "L1", "T12"))
    assert not found.numbering_confirmed
    assert details(found) == ["the sacrum follows L4"]


def test_a_place_left_empty_above_the_sacrum_is_not_believed():
    """As where a model names a sixth lumbar vertebra and the name is dropped."""
    found = judged(blocks("sacrum", "", "L5", "L4", "L3", "L2", "L1"))
    assert not found.numbering_confirmed
    assert details(found) == ["48 mm lie between L5 and the sacrum"]


def test_a_sacrum_above_the_row_is_not_believed():
    found = judged(blocks("L5", "L4", "L3", "L2", "L1", "", "sacrum"))
    assert not found.numbering_confirmed
    assert details(found) == ["the sacrum does not lie below L5"]


def test_a_stray_piece_of_sacrum_fills_no_empty_place():
    labels = blocks("sacrum", "", "L5", "L4", "L3", "L2", "L1")
    labels[4 + PITCH + 6 : 4 + PITCH + 12, 16:20, 20:24] = LABELS["sacrum"]
    assert details(judged(labels)) == ["48 mm lie between L5 and the sacrum"]


def test_a_place_left_empty_below_a_cut_vertebra_is_not_believed():
    labels = blocks("", "L4", "L3", "L2", "L1", "", "T12")[: 4 + 6 * PITCH + 6]
    found = judged(labels)
    assert not found.numbering_confirmed
    assert "48 mm lie between T12 and L1" in details(found)


def test_a_body_called_the_twelfth_thoracic_one_anchors_no_name_without_its_ribs():
    found = judged(blocks("", "L4", "L3", "L2", "L1", "T12"))
    assert (found.numbering_basis, details(found)) == ("none", ["level_unconfirmed"])


@pytest.mark.parametrize("reach", [0, 10])
def test_a_body_called_sacrum_anchors_no_name_without_wings(reach: int):
    """As where every name is one vertebra off; with transverse processes 12 mm high, or without."""
    labels = blocks("", "L5", "L4", "L3", "L2")
    bodies = labels[4 : 4 + HEIGHT, 12:27, 16:36]
    bodies[:] = LABELS["sacrum"]
    labels[8:14, 20:26, 26 - 16 - reach : 26 + 16 + reach] = LABELS["sacrum"]
    found = judged(labels)
    assert (found.numbering_basis, details(found)) == ("none", ["level_unconfirmed"])


def test_a_lumbar_vertebra_drawn_as_one_with_the_sacrum_shows_no_wings_at_its_top():
    """As where a network calls the fifth lumbar vertebra S1, and the name above it is one off."""
    labels = blocks("sacrum", "", "L5", "L4", "L3")
    labels[4 + HEIGHT : 4 + PITCH + HEIGHT, 12:27, 16:36] = LABELS["sacrum"]
    found = judged(labels)
    assert (found.numbering_basis, details(found)) == ("none", ["level_unconfirmed"])


def test_a_row_that_shrinks_downwards_is_not_believed():
    labels = blocks(*ROW[:6])
    for place, width in enumerate((8, 10, 12, 16, 20), start=1):  # from the fifth up
        body = labels[4 + place * PITCH : 4 + place * PITCH + HEIGHT]
        body[:, :, : 26 - width // 2] = 0
        body[:, :, 26 + width // 2 :] = 0
    found = judged(labels)
    assert not found.numbering_confirmed
    assert details(found) == ["vertebral bodies become smaller downwards, each 79% of the one above"]


def test_a_skipped_vertebra_is_not_believed():
    found = judged(blocks("sacrum", "L5", "L4", "", "L2", "L1", "T12"))
    assert not found.numbering_confirmed
    assert "L3 is missing" in details(found)


def test_a_name_on_two_vertebrae_is_not_believed():
    labels = blocks(*ROW)
    labels[4 + 3 * PITCH : 4 + 3 * PITCH + 6][labels[4 + 3 * PITCH : 4 + 3 * PITCH + 6] > 0] = LABELS["L4"]
    found = judged(labels)
    assert not found.numbering_confirmed
    assert "L4 is in two pieces" in details(found)


def test_a_name_that_was_split_before_is_not_believed():
    found = judged(blocks(*ROW), split=("L2",))
    told = [(one.code, one.level) for one in found.observations]
    assert told == [("level_implausible", None), ("label_not_one_body", "L2")]
    assert set(details(found)) == {"L2 is in two pieces"}


def test_stray_blobs_are_left_out():
    labels = blocks(*ROW)
    labels[0:3, 0:3, 0:3] = LABELS["L3"]
    labels[0:3, 0:3, 8:11] = LABELS["T11"]
    found = judged(labels)
    assert found.numbering_confirmed
    assert not found.bodies[0:3, 0:12, 0:12].any()
    assert found.level("T11") is None


def test_bodies_told_by_a_network_bound_what_is_measured():
    labels = blocks(*ROW)
    bodies = labels > 0
    bodies[:, 22:] = False
    found = judged(labels, bodies)
    assert found.numbering_confirmed
    assert np.array_equal(found.bodies > 0, (labels > 0) & bodies & (labels != LABELS["sacrum"]))


def test_thoracic_vertebrae_alone_are_no_lumbar_level():
    found = judged(blocks("T12", "T11"))
    assert [one.code for one in found.observations] == ["no_lumbar_level"]
    assert not found.bodies.any()
