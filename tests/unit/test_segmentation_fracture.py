"""Fractures by height: what counts as one, and what is never said beside one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from config.findings import Output, load_findings, withheld
from config.phrases import in_english
from node.pipeline.artefacts import SegmentationArtefact, segmentation_from_bytes, segmentation_to_bytes
from node.reference.spec import Faults, Fracture, FractureShape
from segmentation.ct_volume import CtVolume, Grid, Mask
from segmentation.engines.drawn import drawing_grid
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.gates.fracture import (
    Heights,
    body_heights,
    fracture_observations,
    genant_grade,
    height_loss,
)
from segmentation.levels import measure_level
from segmentation.settings import FractureSettings
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Level, Occupancy, Vertebrae
from tests.unit.reference_images import drawn, study

pytestmark = pytest.mark.slow

UPRIGHT = np.array([0.0, 0.0, 1.0])
PITCH_MM = 36.0
NAMES = ("L1", "L2", "L3", "L4")
TABLE = load_findings()


def grid_of(step_mm: float, tilted_degrees: float = 0.0) -> Grid:
    """Voxels 1 x 1 mm across and `step_mm` along the spine; the table may be tilted against the bodies."""
    a = np.deg2rad(tilted_degrees)
    depth = round((PITCH_MM * len(NAMES) + 12) / step_mm)
    return Grid(
        shape=(depth, 64, 64),
        spacing_mm=(step_mm, 1.0, 1.0),
        origin_mm=(-32.0, -32.0 + np.sin(a) * 75, 0.0),
        direction=((0.0, -np.sin(a), np.cos(a)), (0.0, np.cos(a), np.sin(a)), (1.0, 0.0, 0.0)),
    )


def body(grid: Grid, middle_mm: float, lost: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mask:
    """A body 27 mm high, 33 mm deep, 45 mm wide; `lost` of its height in front, in the middle, behind."""
    points = grid.to_patient(np.stack(np.indices(grid.shape), axis=-1))
    x, y, h = points[..., 0], points[..., 1], points[..., 2] - middle_mm
    t = np.clip(y / 16.5, -1, 1)
    sunk = 27.0 * (lost[0] * t * (t - 1) / 2 + lost[1] * (1 - t * t) + lost[2] * t * (t + 1) / 2)
    inside: Mask = ((x / 22.5) ** 2 + (y / 16.5) ** 2 <= 1.0) & (h >= -13.5) & (h <= 13.5 - sunk)
    return inside


def spine(
    grid: Grid, lost: dict[str, tuple[float, float, float]], names: tuple[str, ...] = NAMES
) -> Vertebrae:
    labels = np.zeros(grid.shape, np.uint8)
    levels: list[Level] = []
    for number, name in enumerate(names):
        inside = body(grid, 24.0 + PITCH_MM * (len(names) - 1 - number), lost.get(name, (0.0, 0.0, 0.0)))
        labels[inside] = LABELS[name]
        levels.append(measure_level(name, inside, grid, axis=UPRIGHT, complete=True))
    return Vertebrae(
        grid=grid,
        bodies=labels,
        levels=tuple(levels),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="mask", version="1", model_free=False),
    )


@pytest.mark.parametrize("tilted_degrees", [0.0, 20.0])
def test_heights_are_read_along_the_body_not_along_the_table(tilted_degrees: float) -> None:
    grid = grid_of(1.0, tilted_degrees)
    there = spine(grid, {"L2": (0.4, 0.2, 0.0)})
    second = there.level("L2")
    assert second is not None
    found = body_heights((there.bodies == second.label).astype(np.float32), grid, second)
    assert found is not None
    # A parabola read at 5 and 95 % of the depth sees nine tenths of a straight wedge's loss.
    assert found.anterior_mm == pytest.approx(27 * (1 - 0.4 * 0.95), abs=0.7)
    assert found.middle_mm == pytest.approx(27 * 0.8, abs=0.7)
    assert found.posterior_mm == pytest.approx(27 * (1 - 0.4 * 0.05), abs=0.7)


def test_a_spur_whose_root_voxels_blur_is_not_read_as_the_front_of_its_body() -> None:
    """Its height fell by less than half from one millimetre to the next, and a fracture was seen there."""
    grid = grid_of(1.0)
    there = spine(grid, {}, names=("L5",))
    fifth = there.level("L5")
    assert fifth is not None
    points = grid.to_patient(np.stack(np.indices(grid.shape), axis=-1))
    ahead, above = -16.5 - points[..., 1], points[..., 2] - 24.0 + 13.5
    root = np.interp(ahead, np.arange(10.0), [25.0, 16.2, 11.4, 8.3, 6.2, 4.7, 3.6, 2.6, 1.9, 0.0])
    spur = (np.abs(points[..., 0]) <= 10.0) & (ahead >= 0.0) & (above >= 0.0) & (above <= root)
    found = body_heights(((there.bodies == fifth.label) | spur).astype(np.float32), grid, fifth)
    assert found is not None
    assert found.anterior_mm == pytest.approx(27.0, abs=0.7)


def test_no_drawing_makes_a_body_lose_more_than_it_had() -> None:
    """A parabola through 43 mm in the middle and a few behind once read less than nothing there."""
    grid = grid_of(1.0)
    there = spine(grid, {}, names=("L5",))
    fifth = there.level("L5")
    assert fifth is not None
    points = grid.to_patient(np.stack(np.indices(grid.shape), axis=-1))
    height = np.interp(points[..., 1], [-22.0, -10.0, 6.0, 12.0, 22.0], [12.0, 34.0, 43.0, 14.0, 3.0])
    drawn_so = (np.abs(points[..., 0]) <= 20.0) & (np.abs(points[..., 1]) <= 22.0)
    drawn_so &= (points[..., 2] >= 5.0) & (points[..., 2] <= 5.0 + height)
    found = body_heights(drawn_so.astype(np.float32), grid, fifth)
    assert found is not None
    assert 0.5 < height_loss("L5", {"L5": found})[1] < 1.0


def test_a_row_of_intact_bodies_raises_no_suspicion() -> None:
    assert fracture_observations(spine(grid_of(2.0), {})) == ()


@pytest.mark.parametrize(
    ("lost", "shape"),
    [((0.30, 0.15, 0.0), "wedge"), ((0.0, 0.30, 0.0), "biconcave"), ((0.30, 0.30, 0.30), "crush")],
)
@pytest.mark.parametrize("step_mm", [0.6, 2.0, 3.0])
def test_each_shape_of_fracture_is_named_at_its_level(
    lost: tuple[float, float, float], shape: str, step_mm: float
) -> None:
    first, second = fracture_observations(spine(grid_of(step_mm), {"L3": lost}))
    assert (first.code, first.level) == ("fracture", "L3")
    assert in_english(first.values["shape"]) == shape
    assert second.code == "fracture_in_spine"
    assert second.values["levels"] == "L3"


def test_a_slighter_loss_is_a_suspicion() -> None:
    found = fracture_observations(spine(grid_of(1.0), {"L2": (0.20, 0.20, 0.20)}))
    assert [(one.code, one.level) for one in found] == [
        ("fracture_suspected", "L2"),
        ("fracture_in_spine", None),
    ]


@pytest.mark.parametrize("by_shares", [False, True], ids=["labels", "shares"])
@pytest.mark.parametrize("step_mm", [3.3, 4.0, 5.0])
def test_slices_too_far_apart_say_that_nothing_is_known(step_mm: float, by_shares: bool) -> None:
    """Shares make them no finer: of real CTs on 4 and 5 mm slices 29 of 110 bodies were called fractured."""
    there = spine(grid_of(step_mm), {"L3": (0.25, 0.25, 0.25)})
    (found,) = fracture_observations(with_shares(there) if by_shares else there)
    assert found.code == "fracture_not_assessed"
    assert found.values == {"step_mm": step_mm, "percent": 40}


def with_shares(vertebrae: Vertebrae) -> Vertebrae:
    """The same with each voxel's share inside the body, as the model-free engine gives it."""
    shares = {
        level.name: Occupancy(
            corner=(0, 0, 0), share=np.where(vertebrae.bodies == level.label, 255, 0).astype(np.uint8)
        )
        for level in vertebrae.levels
    }
    return replace(vertebrae, occupancy=shares)


@pytest.mark.parametrize("by_shares", [False, True], ids=["labels", "shares"])
@pytest.mark.parametrize("step_mm", [4.0, 5.0])
@pytest.mark.parametrize("lost", [(0.6, 0.6, 0.6), (0.65, 0.35, 0.1)], ids=["crush", "wedge"])
def test_a_plainly_crushed_body_is_reported_on_thick_slices_too(
    lost: tuple[float, float, float], step_mm: float, by_shares: bool
) -> None:
    there = spine(grid_of(step_mm), {"L3": lost})
    found = fracture_observations(with_shares(there) if by_shares else there)
    assert [(one.code, one.level) for one in found] == [
        ("fracture", "L3"),
        ("fracture_in_spine", None),
        ("fracture_not_assessed", None),
    ]
    assert found[0].values["grade"] == 3


def test_a_site_says_from_which_loss_on_thick_slices_count() -> None:
    there = spine(grid_of(5.0), {"L3": (0.6, 0.6, 0.6)})
    assert suspects(there) == ["L3"]
    (found,) = fracture_observations(there, FractureSettings(coarse_loss=0.8))
    assert found.values["percent"] == 80
    with pytest.raises(ValueError, match="coarse_loss"):
        FractureSettings(coarse_loss=0.2)


def test_only_normal_is_withheld_where_fractures_were_not_assessed() -> None:
    """Low density and osteoporosis stand: a fracture that was missed would not make them milder."""
    (observed,) = fracture_observations(spine(grid_of(5.0), {}))
    assert TABLE.describe(observed).withholds == {Output.NORMAL}


def test_a_single_body_is_judged_by_itself() -> None:
    sound = Heights(anterior_mm=26.0, middle_mm=23.5, posterior_mm=27.0)
    assert height_loss("L3", {"L3": sound})[1] < 0.05
    hollow = Heights(anterior_mm=26.0, middle_mm=16.0, posterior_mm=27.0)
    assert height_loss("L3", {"L3": hollow}) == ("biconcave", pytest.approx(0.33, abs=0.01))


def test_a_fractured_neighbour_makes_no_sound_body_suspect() -> None:
    sound = Heights(anterior_mm=26.0, middle_mm=24.0, posterior_mm=27.0)
    flat = Heights(anterior_mm=14.0, middle_mm=13.0, posterior_mm=15.0)
    row = {"L1": sound, "L2": flat, "L3": sound, "L4": sound, "L5": sound}
    assert all(height_loss(name, row)[1] < 0.15 for name in ("L1", "L3", "L4", "L5"))
    assert height_loss("L2", row)[1] > 0.4


WEDGE, FISH, CRUSHED = (0.35, 0.15, 0.0), (0.0, 0.40, 0.0), (0.35, 0.35, 0.35)


@pytest.mark.parametrize("third", [(16.0, 20.0, 24.9), (23.0, 14.7, 22.0)], ids=["wedge", "fish"])
def test_crushed_neighbours_hide_no_wedge_and_no_fish(third: tuple[float, float, float]) -> None:
    """What they have left behind is no measure of how high a back can be."""
    area_mm2 = 1270.0
    front, middle, back = third
    deformed = Heights(
        anterior_mm=front, middle_mm=middle, posterior_mm=back, volume_mm3=area_mm2 * sum(third) / 3
    )
    crushed = Heights(anterior_mm=16.0, middle_mm=15.0, posterior_mm=15.5, volume_mm3=area_mm2 * 15.5)
    assert height_loss("L3", {"L3": deformed, "L4": crushed, "L5": crushed})[1] > 0.25


def suspects(vertebrae: Vertebrae) -> list[str | None]:
    return [one.level for one in fracture_observations(vertebrae) if one.level]


@pytest.mark.parametrize("lost", [WEDGE, FISH, CRUSHED], ids=["wedges", "fish vertebrae", "crushed"])
def test_bodies_that_are_all_fractured_alike_are_told_by_themselves(lost: tuple[float, float, float]) -> None:
    """None of them has a sound neighbour to be held against."""
    assert suspects(spine(grid_of(1.0), dict.fromkeys(NAMES, lost))) == list(NAMES)


def test_five_fish_vertebrae_of_the_reference_study_are_all_refused() -> None:
    """Smooth hollows: read through a parabola their ends sink with the middle. T12 is sound."""
    hollow = tuple(Fracture(level=name, shape=FractureShape.BICONCAVE, height_loss=0.35) for name in LUMBAR)
    _, vertebrae = study(
        Faults(fractures=hollow), view=("T12", "L5"), slice_spacing_mm=2.0, slice_thickness_mm=2.0
    )
    found = fracture_observations(vertebrae)
    assert [(one.code, one.level) for one in found[:-1]] == [("fracture", name) for name in LUMBAR]


FOUR = ("L1", "L2", "L3", "L4")


@pytest.mark.parametrize(
    ("loss", "step_mm", "said"),
    [
        (0.0, 2.0, []),
        (0.10, 1.0, []),
        (0.20, 2.0, ["biconcave_alike"]),
        (0.25, 1.0, ["biconcave_alike"]),
    ],
)
def test_bodies_that_are_all_slightly_hollow_are_to_be_checked(
    loss: float, step_mm: float, said: list[str]
) -> None:
    """The loss of each alone may be its owner's shape; nobody else in view can be held against it."""
    hollow = tuple(Fracture(level=name, shape=FractureShape.BICONCAVE, height_loss=loss) for name in FOUR)
    volume, _ = study(
        Faults(fractures=hollow) if loss else None,
        pixel_spacing_mm=(1.4, 1.4),
        matrix=252,
        slice_spacing_mm=step_mm,
        slice_thickness_mm=step_mm,
    )
    found = fracture_observations(GeometricEngine().segment(volume))
    assert [one.code for one in found] == said
    assert not withheld([TABLE.describe(one) for one in found], Output.DENSITY_CATEGORY, list(FOUR))


def test_a_site_says_how_many_bodies_are_hollow_alike_and_how_hollow() -> None:
    hollow = spine(grid_of(1.0), dict.fromkeys(FOUR, (0.0, 0.22, 0.0)))
    (found,) = fracture_observations(hollow)
    assert (found.code, found.values["count"]) == ("biconcave_alike", 4)
    assert fracture_observations(hollow, FractureSettings(alike_bodies=5)) == ()
    assert fracture_observations(hollow, FractureSettings(alike_loss=0.2)) == ()


def test_one_sound_body_is_enough_to_hold_the_others_against() -> None:
    observed = fracture_observations(spine(grid_of(1.0), dict.fromkeys(("L2", "L3", "L4"), CRUSHED)))
    assert [(one.code, one.level) for one in observed] == [
        ("fracture", "L2"),
        ("fracture", "L3"),
        ("fracture", "L4"),
        ("fracture_in_spine", None),
    ]


def test_a_body_bitten_by_metal_is_neither_judged_nor_a_measure() -> None:
    bitten = spine(grid_of(1.0), {"L3": CRUSHED})
    assert fracture_observations(bitten, unread={"L3"}) == ()


def test_a_body_that_lost_its_back_is_crushed() -> None:
    (found, _) = fracture_observations(spine(grid_of(1.0), {"L3": (0.0, 0.10, 0.40)}))
    assert (found.code, found.level, in_english(found.values["shape"])) == ("fracture", "L3", "crush")


def test_the_wedge_that_l5_is_by_nature_is_no_fracture() -> None:
    fifth = Heights(anterior_mm=28.0, middle_mm=24.0, posterior_mm=23.0)
    fourth = Heights(anterior_mm=27.5, middle_mm=24.5, posterior_mm=26.0)
    assert height_loss("L5", {"L4": fourth, "L5": fifth})[1] < 0.1


@pytest.mark.parametrize("level", ["T11", "T12"])
def test_a_thoracic_fracture_withholds_category_and_class(level: str) -> None:
    names = ("T11", "T12", "L1", "L2")
    observed = fracture_observations(spine(grid_of(1.0), {level: (0.45, 0.2, 0.0)}, names))
    assert [one.level for one in observed] == [level, None]
    findings = [TABLE.describe(one) for one in observed]
    assert withheld(findings, Output.DENSITY_CATEGORY, ["L1", "L2"])
    assert withheld(findings, Output.STUDY_CLASS, ["L3"])
    assert not withheld(findings, Output.BMD, ["L1"])


@pytest.mark.parametrize(("loss", "grade"), [(0.19, 0), (0.2, 1), (0.26, 2), (0.4, 3), (0.6, 3)])
def test_the_grade_is_genants(loss: float, grade: int) -> None:
    assert genant_grade(loss) == grade


def test_the_text_names_the_grade() -> None:
    first, _ = fracture_observations(spine(grid_of(1.0), {"L3": (0.5, 0.5, 0.5)}))
    assert "Genant grade 3" in TABLE.describe(first).text


@pytest.mark.parametrize("step_mm", [7.0, 8.0, 10.0])
def test_a_mask_of_thick_slices_on_a_thin_ct_is_not_judged(step_mm: float) -> None:
    """Its heights step with its own slices, not with the CT's: equal bodies would differ by a grade."""
    fine = grid_of(1.0)
    coarse = replace(fine, shape=(int(fine.shape[0] / step_mm), 64, 64), spacing_mm=(step_mm, 1.0, 1.0))
    mask = LabelImage(labels=spine(coarse, {}).bodies, grid=coarse)
    blank = CtVolume(hu=np.zeros(fine.shape, np.float32), grid=fine)
    found = MaskEngine(mask, Convention.TOTALSEGMENTATOR).segment(blank)
    kept = segmentation_from_bytes(
        segmentation_to_bytes(SegmentationArtefact(vertebrae=found, regions=()))
    ).vertebrae
    for vertebrae in (found, kept):
        (observed,) = fracture_observations(vertebrae)
        assert observed.code == "fracture_not_assessed"
        assert observed.values["step_mm"] == step_mm


def repeated(labels: np.ndarray, planes: float) -> np.ndarray:
    """Every so many planes are one, as nearest neighbour leaves them on a finer grid."""
    at = np.arange(len(labels))
    kept = np.round((np.floor(at / planes) + 0.5) * planes - 0.5).astype(int)
    return labels[np.clip(kept, 0, len(labels) - 1)]


@pytest.mark.parametrize("planes", [2.5, 4.0, 5.0])
def test_a_mask_of_thick_slices_that_its_maker_resampled_is_not_judged(planes: float) -> None:
    """The file's grid is as fine as the CT; its planes come in runs, and heights step with those."""
    volume, truth = study(slice_spacing_mm=1.6, slice_thickness_mm=1.6)
    assert fracture_observations(drawn(volume, truth.bodies)) == ()
    (observed,) = fracture_observations(drawn(volume, repeated(truth.bodies, planes)))
    assert observed.code == "fracture_not_assessed"
    assert observed.values["step_mm"] == pytest.approx(1.6 * planes, abs=0.2)


@pytest.mark.parametrize(("planes", "step_mm"), [(1.0, 1.6), (1.5, 2.4), (2.5, 4.0), (5.0, 8.0)])
def test_repeated_planes_tell_what_slices_a_mask_was_drawn_on(planes: float, step_mm: float) -> None:
    volume, truth = study(slice_spacing_mm=1.6, slice_thickness_mm=1.6)
    found = drawing_grid(repeated(truth.bodies, planes), volume.grid)
    assert found.spacing_mm[0] == pytest.approx(step_mm, rel=0.06)
    assert found.spacing_mm[1:] == volume.grid.spacing_mm[1:]


def test_blocks_with_even_walls_are_not_taken_for_repeated_slices() -> None:
    """Their planes are equal for another reason: runs through a block and between blocks differ."""
    grid = replace(grid_of(1.0), shape=(130, 40, 50))
    labels = np.zeros(grid.shape, np.uint8)
    for number in range(3):
        labels[6 + 36 * number : 32 + 36 * number, 8:30, 10:40] = number + 1
    assert drawing_grid(labels, grid) == grid
    assert drawing_grid(np.zeros(grid.shape, np.uint8), grid) == grid


def test_no_category_and_no_class_stand_beside_a_fracture_anywhere() -> None:
    """A fracture of L4, categories that rest on L1 and L2."""
    observed = fracture_observations(spine(grid_of(2.0), {"L4": (0.3, 0.3, 0.3)}))
    findings = [TABLE.describe(one) for one in observed]
    assert withheld(findings, Output.DENSITY_CATEGORY, ["L1", "L2"])
    assert withheld(findings, Output.STUDY_CLASS, ["L3"])
    assert withheld(findings, Output.BMD, ["L4"])
    assert not withheld(findings, Output.BMD, ["L1"])
    assert not withheld(findings, Output.T_SCORE, ["L3"])


def test_a_fracture_of_l3_withholds_what_rests_on_l3() -> None:
    observed = fracture_observations(spine(grid_of(2.0), {"L3": (0.3, 0.15, 0.0)}))
    findings = [TABLE.describe(one) for one in observed]
    for output in (Output.T_SCORE, Output.FEATURES, Output.RAD_SCORE, Output.NOMOGRAM):
        assert withheld(findings, output, ["L3"])


def test_a_drawing_taller_than_any_body_is_no_measure_of_its_neighbours() -> None:
    """A sclerotic L1 was drawn together with the disc above: four intact bodies were called fractured."""
    intact = {
        name: Heights(anterior_mm=27.5, middle_mm=25.5, posterior_mm=26.5, volume_mm3=28_500.0)
        for name in ("L2", "L3", "L4")
    }
    with_disc = Heights(anterior_mm=34.0, middle_mm=36.0, posterior_mm=35.0, volume_mm3=41_800.0)
    for name in intact:
        assert height_loss(name, {**intact, "L1": with_disc})[1] < FractureSettings().suspected_loss
    tall = replace(with_disc, volume_mm3=60_000.0)  # a large body in proportion
    assert height_loss("L3", {**intact, "L1": tall})[1] > FractureSettings().refused_loss
