"""Faults of the digital reference study: what they change, and that they change nothing else."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread

from node.reference.render import raster_of, render
from node.reference.spec import (
    Faults,
    Fracture,
    FractureShape,
    Implant,
    Jerk,
    Lesion,
    LesionKind,
    Lumbar,
    SpecInvalid,
    Starved,
    StudySpec,
)
from node.reference.spine import build_spine
from node.reference.study import MASK_LABELS, truth_mask, truth_of, uid_of, write_reference_study

pytestmark = pytest.mark.slow

QUIET = {"noise_hu": 0.0, "view": ("L2", "L4")}


def rendered(faults: Faults | None = None, **changes: object) -> SimpleNamespace:
    spec = StudySpec.reduced(**{**QUIET, **changes}, **({"faults": faults} if faults else {}))
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    return SimpleNamespace(
        hu=render(spec, spine, raster),
        mask=truth_mask(spine, raster),
        truth=truth_of(spec, spine, raster),
        raster=raster,
    )


@pytest.fixture(scope="module")
def sound() -> SimpleNamespace:
    return rendered()


def test_a_study_without_faults_is_the_one_it_was_before_faults_existed() -> None:
    """The UID hashes everything that makes a study; a demonstration model rests on these voxels."""
    assert "faults" not in StudySpec().content
    assert uid_of(StudySpec(), "study") != uid_of(StudySpec(faults=Faults(contrast=True)), "study")
    body = rendered(noise_hu=18.0, view=("L3", "L3"))
    stored = np.rint(body.hu + 1024)
    signs = np.random.default_rng(3).integers(0, 2, (6, stored.size), dtype=np.int8) * 2.0 - 1
    # Sums with random signs, for processors differ in the last bit of single precision: some of the voxels
    # (800,000) then round to the next HU, which moves a sum by 40. Another texture moves it by thousands.
    known = [165501, -50865, -293531, 725199, 437165, -1156017]
    assert np.abs(signs @ stored.ravel() - known).max() < 200
    other = np.rint(rendered(noise_hu=18.0, view=("L3", "L3"), seed=2).hu + 1024)
    assert np.abs(signs @ other.ravel() - known).max() > 2000


def height_mm(spec: StudySpec, back_mm: float) -> float:
    """Of L3, which stands upright, in the line along z at this distance behind its middle."""
    z = np.arange(-20.0, 20.0, 0.01, dtype=np.float32)
    at = (np.ones_like(z), np.full_like(z, back_mm), z)
    return float((build_spine(spec)["L3"].body.distance(*at) < 0).sum() * 0.01)


@pytest.mark.parametrize(
    ("shape", "front", "middle", "behind"),
    [
        (FractureShape.WEDGE, 7.2, 4.1, 1.0),
        (FractureShape.BICONCAVE, 3.2, 7.3, 3.2),
        (FractureShape.CRUSH, 8.2, 8.2, 8.2),
    ],
)
def test_a_fracture_loses_height_where_its_shape_says(
    shape: FractureShape, front: float, middle: float, behind: float
) -> None:
    """30 % of 27.5 mm, a biconcave one of its 24.3 mm in the middle, at 3/4 of the way to front and back."""
    broken = StudySpec(faults=Faults(fractures=(Fracture(level="L3", shape=shape, height_loss=0.3),)))
    for back_mm, lost in ((-12.4, front), (0.0, middle), (12.4, behind)):
        assert height_mm(StudySpec(), back_mm) - height_mm(broken, back_mm) == pytest.approx(lost, abs=0.25)


def test_a_fracture_leaves_its_neighbours_alone(sound: SimpleNamespace) -> None:
    broken = rendered(Faults(fractures=(Fracture(level="L3", shape=FractureShape.WEDGE, height_loss=0.3),)))
    assert broken.truth.levels["L3"].volume_mm3 < 0.9 * sound.truth.levels["L3"].volume_mm3
    for name in ("L2", "L4"):
        inside = sound.mask == MASK_LABELS[name]
        assert (broken.mask[inside] == MASK_LABELS[name]).all()
        deep = inside & (np.abs(broken.hu - sound.hu) > 1.0)
        assert deep.sum() < 0.02 * inside.sum()
        assert broken.truth.levels[name] == sound.truth.levels[name]


def test_screws_are_metal_with_streaks_in_their_own_slices(sound: SimpleNamespace) -> None:
    fixed = rendered(Faults(implants=(Implant(levels=("L3",)),)))
    change = np.abs(fixed.hu - sound.hu)
    body = fixed.mask == MASK_LABELS["L3"]
    assert (fixed.hu[body] > 2000).sum() * np.prod((3.0, 1.7, 1.7)) > 300
    with_metal = (fixed.hu > 2000).any(axis=(1, 2))
    assert change[~with_metal].max() < 2000
    assert np.median(change[with_metal].max(axis=(1, 2))) > 150
    assert change[0].max() == 0
    assert fixed.truth.levels == sound.truth.levels


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [(LesionKind.CEMENT, 800, 950), (LesionKind.SCLEROTIC, 430, 530), (LesionKind.LYTIC, -20, 70)],
)
def test_a_lesion_fills_part_of_one_body(kind: LesionKind, low: float, high: float) -> None:
    alone = {"view": ("L3", "L3"), "texture_hu": 0.0}
    ill, plain = rendered(Faults(lesions=(Lesion(level="L3", kind=kind),)), **alone), rendered(**alone)
    changed = np.abs(ill.hu - plain.hu) > 60
    assert changed.any()
    assert (ill.mask[changed] == MASK_LABELS["L3"]).all()
    middle = ill.hu[np.abs(ill.hu - plain.hu) > 0.95 * np.abs(ill.hu - plain.hu).max()]
    assert low <= middle.mean() <= high


def test_six_lumbar_vertebrae_have_six_names_and_a_longer_spine() -> None:
    spec = StudySpec(faults=Faults(lumbar=Lumbar.SIX))
    six, five = build_spine(spec), build_spine(StudySpec())
    assert [name for name in six if name.startswith("L")] == ["L1", "L2", "L3", "L4", "L5", "L6"]
    assert five["S1"].body.centre[2] - six["S1"].body.centre[2] > 25
    assert six["L2"].body.centre == pytest.approx(five["L2"].body.centre)
    truth = truth_of(spec, six, raster_of(spec, six))
    assert list(truth.levels) == ["L1", "L2", "L3", "L4", "L5", "L6"]
    assert truth.document["faults"]["lumbar"] == "six"


def test_contrast_brightens_the_aorta_and_may_stand_in_the_header(tmp_path, sound: SimpleNamespace) -> None:
    bright = rendered(Faults(contrast=True))
    brighter = (bright.hu - sound.hu) > 100
    assert brighter.any()
    assert not bright.mask[brighter].any()
    write_reference_study(
        tmp_path,
        StudySpec.reduced(view=("L3", "L3"), faults=Faults(contrast=True, contrast_documented=True)),
    )
    assert dcmread(tmp_path / "IM0001.dcm").ContrastBolusAgent
    assert json.loads((tmp_path / "truth.json").read_text())["faults"]["contrast"] is True


def test_a_cut_view_ends_where_it_is_cut() -> None:
    whole, cut = rendered(view=("L3", "L4")), rendered(Faults(cut_mm=(12.0, 30.0)), view=("L3", "L4"))
    assert whole.raster.z_mm[-1] - cut.raster.z_mm[-1] == pytest.approx(12.0, abs=3.0)
    assert cut.raster.z_mm[0] - whole.raster.z_mm[0] == pytest.approx(30.0, abs=0.01)
    assert set(cut.truth.levels) < set(whole.truth.levels)


def test_a_jerk_moves_the_patient_above_a_level_and_not_the_phantom(sound: SimpleNamespace) -> None:
    """8.5 mm to the left and 3.4 mm forward are five and two pixels."""
    jerked = rendered(Faults(jerk=Jerk(level="L3", left_mm=8.5, forward_mm=3.4)))
    z = sound.raster.z_mm
    lower, upper = z < build_spine(StudySpec())["L3"].body.centre[2], z > 0
    assert np.array_equal(jerked.hu[lower], sound.hu[lower])
    patient, phantom = sound.raster.y_mm < 80, sound.raster.y_mm > 92
    assert np.array_equal(jerked.hu[upper][:, phantom], sound.hu[upper][:, phantom])
    for moved, still in ((jerked.hu, sound.hu), (jerked.mask, sound.mask)):
        assert np.array_equal(moved[upper][:, patient][:, :-2, 5:], still[upper][:, patient][:, 2:, :-5])


def test_starved_slices_have_streaks_from_side_to_side(sound: SimpleNamespace) -> None:
    streaked = rendered(Faults(starved=(Starved(level="L3", streak_hu=60.0),)))
    change = streaked.hu - sound.hu
    hit = np.abs(change).max(axis=(1, 2)) > 0
    body = (sound.mask == MASK_LABELS["L3"]).any(axis=(1, 2))
    assert (hit <= body).all()
    assert hit.sum() >= 0.8 * body.sum()
    inside = change[hit][:, 90:115, 70:140]
    assert inside.std() == pytest.approx(60.0, rel=0.1)
    assert np.diff(inside, axis=2).std() < 0.1 * np.diff(inside, axis=1).std()
    assert streaked.truth.levels == sound.truth.levels


def test_oral_contrast_fills_bowel_and_no_vessel(sound: SimpleNamespace) -> None:
    filled = rendered(Faults(oral_contrast=True))
    bright = (filled.hu > 200) & (sound.hu < 100)
    rows, columns = np.nonzero(bright.any(axis=0))
    assert bright.any(axis=(1, 2)).sum() * 3.0 > 60
    assert sound.raster.y_mm[rows].max() < build_spine(StudySpec())["L3"].body.centre[1] - 30
    assert np.abs(sound.raster.x_mm[columns]).max() < 60


def test_osteophytes_stand_at_the_rims_and_leave_the_body_as_it_is(sound: SimpleNamespace) -> None:
    worn = rendered(Faults(spurs_mm=8.0))
    grown = (worn.hu - sound.hu) > 200
    assert worn.truth.levels == sound.truth.levels
    inside = sound.mask == MASK_LABELS["L3"]
    assert (grown & inside).sum() < 0.03 * inside.sum()  # where a spur's root softens the edge
    body = build_spine(StudySpec())["L3"].body
    height = np.abs(sound.raster.z_mm - body.centre[2])
    beside = grown & (height < body.height / 2)[:, None, None]
    assert beside.any()
    assert not (beside & (height < 5.0)[:, None, None]).any()  # none at mid-height
    assert grown[:, sound.raster.y_mm < body.centre[1]].sum() > 0.5 * grown.sum()


def test_chalk_lies_in_the_wall_of_the_aorta(sound: SimpleNamespace) -> None:
    chalk = (rendered(Faults(calcified_aorta=True)).hu - sound.hu) > 100
    _, rows, columns = np.nonzero(chalk)
    body = build_spine(StudySpec())["L3"].body
    ahead = body.centre[1] - body.depth / 2 - sound.raster.y_mm[rows]
    assert len(rows) > 20
    assert 0.0 < ahead.min() < 6.0  # before the spine, near enough to be taken for it
    assert 15.0 < ahead.max() < 35.0
    assert -5.0 < sound.raster.x_mm[columns].min() < sound.raster.x_mm[columns].max() < 30.0


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Faults(contrast=True), Faults(contrast=True, oral_contrast=True)),
        (Faults(cut_mm=(5.0, 0.0)), Faults(cut_mm=(5.0, 0.0), starved=(Starved(level="L2"),))),
        (Faults(contrast=True), Faults(contrast=True, spurs_mm=5.0)),
        (Faults(contrast=True), Faults(contrast=True, calcified_aorta=True)),
    ],
)
def test_a_fault_that_came_later_is_named_only_where_it_is_present(earlier: Faults, later: Faults) -> None:
    """UIDs of studies that were made before it stay as they are."""
    names = {"fractures", "implants", "lesions", "lumbar", "contrast", "contrast_documented", "cut_mm"}
    assert set(StudySpec(faults=earlier).content["faults"]) == names
    assert len(StudySpec(faults=later).content["faults"]) == len(names) + 1


@pytest.mark.parametrize(
    "faults",
    [
        Faults(implants=(Implant(levels=("C7",)),)),
        Faults(fractures=(Fracture(level="L3", shape=FractureShape.CRUSH, height_loss=0.9),)),
        Faults(lesions=(Lesion(level="L3", kind=LesionKind.LYTIC, radius_mm=40.0),)),
        Faults(cut_mm=(-1.0, 0.0)),
        Faults(jerk=Jerk(level="L3", forward_mm=-4.0)),
        Faults(starved=(Starved(level="T5"),)),
    ],
)
def test_a_fault_that_cannot_be_is_refused(faults: Faults) -> None:
    with pytest.raises(SpecInvalid):
        StudySpec(faults=faults)
