"""Masks drawn elsewhere: conventions, grids, and the cut from whole vertebrae to their bodies."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from config.phrases import in_english
from config.settings import load_settings
from node.pipeline.engine import resolve_engine
from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.errors import GridMismatch, MaskNotUsable
from segmentation.vertebrae import LABELS, Vertebrae

GRID = Grid(
    shape=(80, 40, 48),
    spacing_mm=(3.0, 2.0, 2.0),
    origin_mm=(-48.0, -40.0, 0.0),
    direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
PITCH_MM, HEIGHT_MM = 36.0, 27.0


def blocks(values: list[int]) -> LabelImage:
    """Bodies as boxes 40 mm wide and 30 mm deep, one above the other; the first value is the lowest."""
    labels = np.zeros(GRID.shape, np.int16)
    for number, value in enumerate(values):
        first = round((12.0 + number * PITCH_MM) / GRID.spacing_mm[0])
        labels[first : first + round(HEIGHT_MM / GRID.spacing_mm[0]), 12:27, 14:34] = value
    return LabelImage(labels=labels, grid=GRID)


def empty_ct(grid: Grid = GRID) -> CtVolume:
    return CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid)


def read(mask: LabelImage, convention: object = Convention.AUTO, *, vouched: bool = True) -> Vertebrae:
    return MaskEngine(mask, convention, vouched=vouched).segment(empty_ct())  # type: ignore[arg-type]


def names(found: Vertebrae) -> list[str]:
    return [level.name for level in found.levels]


def test_totalsegmentator_numbers_rise_towards_the_head() -> None:
    assert names(read(blocks([27, 28, 29, 30, 31, 32]))) == ["T12", "L1", "L2", "L3", "L4", "L5"]


def test_verse_numbers_fall_towards_the_head() -> None:
    assert names(read(blocks([24, 23, 22, 21, 20, 19]))) == ["T12", "L1", "L2", "L3", "L4", "L5"]


def test_organs_with_verse_numbers_do_not_hide_totalsegmentator() -> None:
    mask = blocks([27, 28, 29, 30])
    mask.labels[0:3, 0:4, 0:4] = 21  # urinary bladder
    mask.labels[70:73, 0:4, 0:4] = 51  # heart
    assert names(read(mask)) == ["L2", "L3", "L4", "L5"]


@pytest.mark.parametrize(("value", "level"), [(29, "L3"), (31, "L1"), (30, "L2"), (21, "L2")])
def test_a_single_value_is_what_every_convention_that_has_it_means_by_it(value: int, level: str) -> None:
    assert names(read(blocks([value]))) == [level]


@pytest.mark.parametrize("value", [1, 255, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28])
def test_one_vertebra_that_nothing_names_is_not_measured(value: int) -> None:
    """1 is what programs write into a file for each vertebra; 20 is L1 to VerSe, L3 to TotalSegmentator 1."""
    found = read(blocks([value]))
    assert names(found) == []
    assert [one.code for one in found.observations] == ["mask_level_unknown"]
    assert str(value) in in_english(found.observations[0].values["reason"])


@pytest.mark.parametrize(
    ("value", "file_name", "level"),
    [
        (1, "vertebrae_L1.nii.gz", "L1"),
        (255, "vertebrae_L5.nii.gz", "L5"),
        (1, "patient7-l2-mask.nii", "L2"),
        (20, "vertebrae_L3.nii.gz", "L3"),
        (20, "sub-7_seg-vert_msk.nii.gz", "L1"),
        (28, "L4.nrrd", "L4"),
        (5, "vertebrae_L4.nii.gz", "L4"),
    ],
)
def test_a_file_name_says_what_a_single_value_leaves_open(value: int, file_name: str, level: str) -> None:
    found = MaskEngine(blocks([value]), file_name=file_name, vouched=True).segment(empty_ct())
    assert names(found) == [level]
    assert (found.numbering_confirmed, found.observations) == (True, ())


@pytest.mark.parametrize(
    ("value", "file_name"),
    [(1, "vertebrae_L1_L5.nii.gz"), (1, "XL3.nii.gz"), (1, "L31.nii.gz"), (29, "vertebrae_L1.nii.gz")],
)
def test_a_file_name_of_several_levels_or_against_the_value_names_none(value: int, file_name: str) -> None:
    found = MaskEngine(blocks([value]), file_name=file_name, vouched=True).segment(empty_ct())
    assert [one.code for one in found.observations] == ["mask_level_unknown"]


def test_numbers_of_totalsegmentator_s_first_version_are_not_taken_for_those_of_its_second() -> None:
    """Where its upper vertebrae are in view, 27 is T8 there and L5 here."""
    for values in ([22, 23, 24, 25, 26, 27], [23, 24, 27, 28]):
        with pytest.raises(MaskNotUsable, match="mask-first-version"):
            read(blocks(values[:6]))


@pytest.mark.parametrize("values", [[5], [1, 2], [22, 23], [21, 22], [30, 29]])
def test_values_that_could_be_misread_are_refused(values: list[int]) -> None:
    with pytest.raises(MaskNotUsable):
        read(blocks(values))


def test_a_stated_convention_is_taken_at_its_word() -> None:
    assert names(read(blocks([28]), Convention.TOTALSEGMENTATOR)) == ["L4"]
    assert names(read(blocks([7, 9]), {7: "L4", 9: "L3"})) == ["L3", "L4"]
    with pytest.raises(MaskNotUsable):
        read(blocks([28]), Convention.VERSE)
    with pytest.raises(MaskNotUsable):
        read(blocks([7]), {7: "L9"})


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(MaskNotUsable):
        read(blocks([]))


def test_an_l6_makes_the_numbering_doubtful() -> None:
    found = read(blocks([25, 24, 23, 22]))
    assert [observation.code for observation in found.observations] == ["numbering_conflict"]
    assert names(found) == ["L3", "L4", "L5"]


@pytest.mark.parametrize("values", [[29], [28, 29, 30, 31], [27, 28, 29], [29, 30, 31, 32]])
def test_names_that_nobody_vouched_for_need_an_anchor(values: list[int]) -> None:
    found = read(blocks(values), vouched=False)
    assert [one.code for one in found.observations] == ["level_unconfirmed"]
    assert (found.numbering_confirmed, found.numbering_basis) == (False, "none")
    vouched = read(blocks(values))
    assert (vouched.numbering_confirmed, vouched.numbering_basis, vouched.observations) == (True, "mask", ())


def test_a_mask_with_a_sacrum_s_wings_is_believed_without_a_person() -> None:
    mask = blocks([25, 27, 28, 29])
    sacrum = np.argwhere(mask.labels == 25)[:, 0]
    mask.labels[sacrum.min() : sacrum.max() + 1, 18:24] = 25  # 48 mm to each side
    found = read(mask, Convention.TOTALSEGMENTATOR, vouched=False)
    assert (found.numbering_confirmed, found.numbering_basis, found.observations) == (True, "sacrum", ())


def test_thoracic_masks_hold_no_lumbar_level() -> None:
    found = read(blocks([32, 33]), Convention.TOTALSEGMENTATOR)
    assert "no_lumbar_level" in [observation.code for observation in found.observations]


def test_bodies_stay_as_they_were_drawn_with_their_volume_and_axis() -> None:
    mask = blocks([27, 28, 29])
    found = read(mask)
    assert found.numbering_confirmed
    assert found.numbering_basis == "mask"
    third = found.level("L3")
    assert third is not None
    assert third.complete
    assert third.body_volume_mm3 == pytest.approx(40.0 * 30.0 * 27.0)
    assert third.axis == pytest.approx((0.0, 0.0, 1.0), abs=0.02)
    assert ((found.bodies == LABELS["L3"]) == (mask.labels == 29)).all()


def test_a_finer_mask_is_brought_onto_the_volume() -> None:
    """The same box on a grid of half the spacing, shifted and turned: volume and place stay."""
    fine = Grid(
        shape=(96, 80, 160),
        spacing_mm=(1.0, 1.0, 1.5),
        origin_mm=(48.0, -38.0, 0.5),
        direction=((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    )
    labels = np.zeros(fine.shape, np.int16)
    labels[28:68, 22:52, 60:78] = 29
    found = read(LabelImage(labels=labels, grid=fine)).level("L3")
    assert found is not None
    centre = fine.to_patient([47.5, 36.5, 68.5])
    assert found.centroid_mm == pytest.approx(tuple(centre), abs=1.5)
    assert found.body_volume_mm3 == pytest.approx(40 * 30 * 27, rel=0.08)


def test_a_mask_of_another_place_is_refused() -> None:
    mask = blocks([29])
    away = LabelImage(labels=mask.labels, grid=replace(GRID, origin_mm=(-48.0, -40.0, 500.0)))
    with pytest.raises(GridMismatch):
        read(away)


def load(path: Path) -> tuple[np.ndarray, Grid]:
    image = SimpleITK.ReadImage(str(path))
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    array = SimpleITK.GetArrayFromImage(image)
    return array, Grid(
        shape=array.shape,
        spacing_mm=tuple(image.GetSpacing()[::-1]),
        origin_mm=tuple(image.GetOrigin()),
        direction=tuple(tuple(direction[:, axis]) for axis in (2, 1, 0)),
    )


def dice(left: np.ndarray, right: np.ndarray) -> float:
    return float(2 * (left & right).sum() / (left.sum() + right.sum()))


def test_whole_vertebrae_of_a_real_mask_are_cut_to_their_bodies(test_data: Path) -> None:
    """TotalSegmentator's vertebrae cut here, against TotalSegmentator's own body mask of the same CT."""
    report = test_data / "ts_example_ct" / "spine_report" / "example_ct_report"
    hu, grid = load(test_data / "ts_example_ct" / "example_ct.nii.gz")
    vertebrae, _ = load(report / "totalseg.nii.gz")
    body, _ = load(report / "totalseg_vertebrae_body.nii.gz")
    volume = CtVolume(hu=hu.astype(np.float32), grid=grid)
    found = MaskEngine(LabelImage(labels=vertebrae.astype(np.int16), grid=grid)).segment(volume)
    assert names(found) == ["T12", "L1", "L2", "L3", "L4", "L5"]
    assert [level.name for level in found.levels if not level.complete] == ["T12"]
    for name in ("L1", "L2", "L3", "L4", "L5"):
        given = (vertebrae == LABELS[name]) & (body == 1)
        assert dice(found.bodies == LABELS[name], given) >= 0.92, name


def test_a_whole_l3_cropped_close_is_cut_to_its_body(test_data: Path) -> None:
    folder = test_data / "tptbox_L3"
    hu, grid = load(folder / "sub-ct_label-22_ct.nii.gz")
    vertebrae, _ = load(folder / "sub-ct_seg-vert_label-22_msk.nii.gz")
    parts, _ = load(folder / "sub-ct_seg-subreg_label-22_msk.nii.gz")
    volume = CtVolume(hu=hu.astype(np.float32), grid=grid)
    mask = LabelImage(labels=vertebrae.astype(np.int16), grid=grid)
    found = MaskEngine(mask, Convention.VERSE).segment(volume)
    third = found.level("L3")
    assert third is not None
    assert third.complete
    corpus = (vertebrae == 22) & np.isin(parts, (49, 50))
    assert dice(found.bodies == LABELS["L3"], corpus) >= 0.95


def test_whole_vertebrae_are_cut_at_the_canal_that_the_site_s_limits_see(test_data: Path) -> None:
    folder = test_data / "tptbox_L3"
    hu, grid = load(folder / "sub-ct_label-22_ct.nii.gz")
    volume = CtVolume(hu=hu.astype(np.float32), grid=grid)
    for share, found in ((0.42, True), (1.0, False)):
        settings = load_settings(segmentation={"geometric": {"canal": {"min_enclosure": share}}})
        engine = resolve_engine(settings.segmentation, folder / "sub-ct_seg-vert_label-22_msk.nii.gz")
        with nullcontext() if found else pytest.raises(MaskNotUsable, match="canal"):
            assert "L3" in names(engine.segment(volume))
    of_a_study = load_settings(
        segmentation={
            "engine": "mask",
            "mask_from": {"model": "*"},
            "geometric": {"canal": {"min_enclosure": 1.0}},
        }
    )
    assert resolve_engine(of_a_study.segmentation).canal.min_enclosure == 1.0
