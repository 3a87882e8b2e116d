"""A doubled, merged, split or skipped label is told, whoever drew it, and no level is measured in silence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from config.findings import Output, load_findings, withheld
from config.phrases import in_english
from node.reference.render import raster_of
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from node.reference.study import truth_mask
from segmentation.ct_volume import CtVolume, Grid, LabelMap, canonical
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.engines.name_checks import NetworkLabels, to_vertebrae
from segmentation.vertebrae import LABELS, EngineInfo, Vertebrae

pytestmark = pytest.mark.slow

OF_A_NAMED_LEVEL = (
    Output.T_SCORE,
    Output.Z_SCORE,
    Output.DENSITY_CATEGORY,
    Output.STUDY_CLASS,
    Output.RAD_SCORE,
    Output.NOMOGRAM,
)
L1, L2, L3, L4, L5 = (LABELS[name] for name in ("L1", "L2", "L3", "L4", "L5"))


@pytest.fixture(scope="module")
def truth() -> tuple[LabelMap, Grid]:
    """The bodies of a digital reference study, T12 to L5, and the top of its sacrum as a network draws it."""
    spec = StudySpec.reduced()
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    labels = truth_mask(spine, raster)
    grid = Grid(
        shape=labels.shape,
        spacing_mm=(3.0, 1.7, 1.7),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    lowest = np.flatnonzero((labels == L5).any(axis=(1, 2)))[0]
    middle_x = round(float(np.argwhere(labels == L5)[:, 2].mean()))
    labels[: lowest - 2, 80:100, middle_x - 34 : middle_x + 35] = LABELS["sacrum"]  # 59 mm to each side
    return labels, grid


def by_mask(labels: LabelMap, grid: Grid) -> Vertebrae:
    mask = LabelImage(labels=labels, grid=grid)
    volume = CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid)
    return MaskEngine(mask, Convention.TOTALSEGMENTATOR).segment(volume)


def by_network(labels: LabelMap, grid: Grid) -> Vertebrae:
    volume = CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid)
    turned, turn = canonical(volume)
    box = (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
    answer = NetworkLabels(turned=turned, turn=turn, box=box, labels=turn.forward(labels), bodies=None)
    return to_vertebrae(volume, answer, EngineInfo(name="network", version="1", model_free=False))


ENGINES = pytest.mark.parametrize("engine", [by_mask, by_network])


def middle(labels: LabelMap, value: int, axis: int) -> int:
    return round(float(np.argwhere(labels == value)[:, axis].mean()))


def merged(labels: LabelMap) -> None:
    labels[labels == L4] = L3


def merged_with_the_disc(labels: LabelMap) -> None:
    """One name on two bodies and the disc between them, in one piece; nothing else is drawn."""
    low, high = middle(labels, L4, 0), middle(labels, L3, 0)
    j, i = middle(labels, L3, 1), middle(labels, L3, 2)
    labels[(labels != L3) & (labels != L4)] = 0
    labels[labels == L4] = L3
    labels[low:high, j - 6 : j + 7, i - 9 : i + 10] = L3


def merged_alone(labels: LabelMap) -> None:
    """As `merged_with_the_disc`, among the other bodies."""
    low, high = middle(labels, L4, 0), middle(labels, L3, 0)
    j, i = middle(labels, L3, 1), middle(labels, L3, 2)
    labels[labels == L4] = L3
    labels[low:high, j - 6 : j + 7, i - 9 : i + 10] = L3


def split_across(labels: LabelMap) -> None:
    """The lower half of the third vertebra is called the fourth, the fourth the fifth, and so on."""
    third = np.argwhere(labels == L3)
    labels[labels == L5] = 0
    labels[labels == L4] = L5
    half = third[third[:, 0] < np.median(third[:, 0])]
    labels[tuple(half.T)] = L4


def split_sideways(labels: LabelMap) -> None:
    """Left and right half of one body have different names, and nothing else is drawn."""
    labels[labels != L3] = 0
    i = middle(labels, L3, 2)
    labels[:, :, i:][labels[:, :, i:] == L3] = L4


def doubled(labels: LabelMap) -> None:
    """Both the first and the third vertebra are called the third; the first has no name left."""
    labels[labels == L1] = L3


def skipped(labels: LabelMap) -> None:
    labels[labels == L3] = 0


def swapped(labels: LabelMap) -> None:
    third, fourth = labels == L3, labels == L4
    labels[third], labels[fourth] = L4, L3


def upside_down(labels: LabelMap) -> None:
    bodies = (labels >= L5) & (labels <= L1)
    labels[bodies] = L5 + L1 - labels[bodies]


def everywhere(labels: LabelMap) -> None:
    labels[labels == 0] = L2


def one_too_high(labels: LabelMap) -> None:
    """Every name is that of the vertebra below: the sacrum then follows the fourth lumbar vertebra."""
    bodies = labels >= L5
    labels[bodies] += 1


@ENGINES
def test_the_truth_is_believed(engine, truth):
    labels, grid = truth
    found = engine(labels, grid)
    assert found.numbering_confirmed
    assert found.observations == ()
    for name in ("L1", "L2", "L3", "L4", "L5"):
        assert np.array_equal(found.bodies == LABELS[name], labels == LABELS[name])


@ENGINES
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (merged, "L3 is in two pieces"),
        (merged_with_the_disc, "L3 is 6"),
        (split_across, "mm apart along the spine"),
        (split_sideways, "mm apart along the spine"),
        (doubled, "L3 is in two pieces"),
        (skipped, "L3 is missing"),
        (swapped, "L4 does not lie below L3"),
        (upside_down, "L2 does not lie below L1"),
        (one_too_high, "the sacrum follows L4"),
        (everywhere, "L2 measures 3"),
    ],
)
def test_a_name_that_no_spine_has_withholds_what_rests_on_names(
    engine, truth, damage: Callable[[LabelMap], None], told
):
    labels, grid = truth[0].copy(), truth[1]
    damage(labels)
    found = engine(labels, grid)
    doubts = [one for one in found.observations if one.code == "level_implausible"]
    assert any(told in in_english(one.values["detail"]) for one in doubts), doubts
    assert not found.numbering_confirmed
    table = load_findings(None)
    findings = [table.describe(one) for one in found.observations]
    assert all(withheld(findings, output, ("L3",)) for output in OF_A_NAMED_LEVEL)


@ENGINES
@pytest.mark.parametrize("damage", [merged, merged_with_the_disc, merged_alone])
def test_a_label_on_two_bodies_gives_no_density(engine, truth, damage: Callable[[LabelMap], None]):
    """In two pieces, of which one is another vertebra; or in one, with the disc between them."""
    labels, grid = truth[0].copy(), truth[1]
    damage(labels)
    table = load_findings(None)
    findings = [table.describe(one) for one in engine(labels, grid).observations]
    for output in (Output.VOLUME, Output.HU, Output.BMD, Output.FEATURES):
        assert withheld(findings, output, ("L3",))
        assert not withheld(findings, output, ("L2",))
