"""Names of a mask or a network rest on what the image shows, not on the names of others that it drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from config.phrases import in_english
from node.reference.render import raster_of
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from node.reference.study import truth_mask
from segmentation.ct_volume import CtVolume, LabelMap
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.mask import LabelImage, MaskEngine
from segmentation.engines.name_checks import cross_check
from segmentation.vertebrae import LABELS, LUMBAR, Vertebrae
from tests.unit.segmentation_matrix_run import volume_of
from tests.unit.test_segmentation_geometric import load

pytestmark = pytest.mark.slow

DOWNWARD = ("T11", "T12", *LUMBAR, "S1")
ITSELF = {value: name for name, value in LABELS.items()}


def one_off(labels: LabelMap, by: int) -> LabelMap:
    """Every vertebra under the name of one `by` places below; what has no such name is not drawn."""
    moved = np.where(np.isin(labels, (LABELS["sacrum"], LABELS["S1"])), labels, 0).astype(np.uint8)
    for place, name in enumerate(DOWNWARD[:-1]):
        if 0 <= place + by < len(DOWNWARD):
            moved[labels == LABELS[name]] = LABELS[DOWNWARD[place + by]]
    return moved


def checked(volume: CtVolume, labels: LabelMap) -> tuple[Vertebrae, Vertebrae]:
    """What the mask engine finds, alone and held against the geometric engine."""
    found = MaskEngine(LabelImage(labels=labels, grid=volume.grid), ITSELF).segment(volume)
    return found, cross_check(volume, found, GeometricEngine())


def reference(**options: object) -> tuple[CtVolume, LabelMap]:
    spec = StudySpec.reduced(**options)
    spine = build_spine(spec)
    return volume_of(spec), truth_mask(spine, raster_of(spec, spine))


def codes(found: Vertebrae) -> Sequence[str]:
    return sorted({one.code for one in found.observations})


@pytest.mark.parametrize(("view", "by"), [(("L1", "L5"), -1), (("L1", "L5"), 1), (("L1", "L4"), -1)])
def test_names_one_off_are_unconfirmed_where_neither_sacrum_nor_rib_is_in_view(
    view: tuple[str, str], by: int
) -> None:
    """L1 under the name of T12, or L5 under that of S1, is no anchor."""
    volume, truth = reference(seed=31, view=view)
    _, found = checked(volume, one_off(truth, by))
    assert (found.numbering_confirmed, found.numbering_basis) == (False, "none")
    assert codes(found)[:1] == ["level_unconfirmed"]


@pytest.mark.parametrize("by", [-1, 1])
def test_names_one_off_are_doubted_in_an_image_too_narrow_for_ribs(by: int) -> None:
    """A row from T12 to S1, all in view, 112 mm across: neither name stands for what lies beside it."""
    volume, truth = reference(seed=33, view=("T12", "S1"), matrix=66)
    alone, found = checked(volume, one_off(truth, by))
    assert codes(alone) == ["level_unconfirmed"]
    assert not found.numbering_confirmed
    assert "level_implausible" in codes(found)
    assert "level_unconfirmed" not in codes(found)  # they are known to be wrong


def test_right_names_rest_on_what_the_counting_engine_sees() -> None:
    volume, truth = reference(seed=33, view=("T12", "S1"))
    alone, found = checked(volume, truth)
    assert (alone.numbering_confirmed, codes(alone)) == (False, ["level_unconfirmed"])
    assert (found.numbering_confirmed, found.numbering_basis, found.observations) == (
        True,
        "sacrum and last rib",
        (),
    )


@pytest.fixture(scope="module")
def drawn(test_data: Path) -> tuple[CtVolume, LabelMap]:
    """A real CT and what TotalSegmentator drew on it: T11 to L5, S1 and the sacrum with its wings."""
    folder = test_data / "ts_example_ct"
    labels = load(folder / "example_seg_fast_force_split.nii.gz").hu.astype(np.uint8)
    return load(folder / "example_ct.nii.gz"), np.where(np.isin(labels, list(ITSELF)), labels, 0)


def test_what_totalsegmentator_draws_is_confirmed_by_the_sacrum_s_own_shape(
    drawn: tuple[CtVolume, LabelMap],
) -> None:
    alone, found = checked(*drawn)
    assert (alone.numbering_confirmed, alone.numbering_basis, alone.observations) == (True, "sacrum", ())
    assert (found.numbering_confirmed, found.numbering_basis) == (True, "sacrum and last rib")


def test_a_real_fifth_lumbar_vertebra_called_s1_anchors_nothing(drawn: tuple[CtVolume, LabelMap]) -> None:
    """The sacrum keeps its name, and the row stays a spine's: only its shape at the top tells."""
    volume, labels = drawn
    alone, found = checked(volume, one_off(labels, 1))
    assert codes(alone) == ["level_unconfirmed"]
    assert codes(found) == ["level_implausible"]
    told = [in_english(one.values["detail"]) for one in found.observations]
    assert "L4 is L3 when counted from sacrum and last rib" in told


def test_a_real_fifth_lumbar_vertebra_called_sacrum_anchors_nothing(
    drawn: tuple[CtVolume, LabelMap],
) -> None:
    volume, labels = drawn
    labels = one_off(np.where(np.isin(labels, (LABELS["sacrum"], LABELS["S1"])), 0, labels), 1)
    labels[labels == LABELS["S1"]] = LABELS["sacrum"]
    assert codes(checked(volume, labels)[0]) == ["level_unconfirmed"]
