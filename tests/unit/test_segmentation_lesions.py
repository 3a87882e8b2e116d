"""Cement, dense and lytic lesions in digital reference studies; and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from config.findings import Output, load_findings, withheld
from node.reference.render import raster_of, render
from node.reference.spec import Faults, Implant, Lesion, LesionKind, StudySpec
from node.reference.spine import build_spine
from node.reference.study import MASK_LABELS, truth_mask
from segmentation.ct_volume import CtVolume, Grid
from segmentation.gates.bodies import lesion_observations, quality_observations
from segmentation.levels import measure_level
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import GateSettings, LesionSettings
from segmentation.vertebrae import EngineInfo, Observation, Vertebrae
from tests.unit.reference_images import drawn

pytestmark = pytest.mark.slow

TABLE = load_findings()
OLD = dict.fromkeys(("T12", "L1", "L2", "L3", "L4", "L5"), 55.0)
YOUNG = dict.fromkeys(("T12", "L1", "L2", "L3", "L4", "L5"), 200.0)
DENSEST = dict.fromkeys(("T12", "L1", "L2", "L3", "L4", "L5"), 260.0)


def observed(**changes: object) -> tuple[Observation, ...]:
    """What the gates say of a reduced study of L3 whose true mask is given."""
    spec = StudySpec.reduced(view=("L3", "L3"), slice_spacing_mm=2.0, slice_thickness_mm=2.0, **changes)
    built = build_spine(spec)
    raster = raster_of(spec, built)
    labels = np.where(truth_mask(built, raster) == MASK_LABELS["L3"], MASK_LABELS["L3"], 0).astype(np.uint8)
    grid = Grid(
        shape=labels.shape,
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    volume = CtVolume(hu=render(spec, built, raster), grid=grid)
    vertebrae = Vertebrae(
        grid=grid,
        bodies=labels,
        levels=(measure_level("L3", labels > 0, grid, axis=built["L3"].body.axes[2], complete=True),),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="mask", version="1", model_free=False),
    )
    return quality_observations(volume, vertebrae, {"L3": cut_regions(volume, vertebrae, "L3")})


def row_of_bodies(median_hu: dict[str, float]) -> tuple[CtVolume, Vertebrae]:
    """Blocks of 26 mm height among soft tissue, even but for noise."""
    grid = Grid(
        shape=(36 * len(median_hu) + 12, 40, 50),
        spacing_mm=(1.0, 1.5, 1.5),
        origin_mm=(-37.0, -30.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    hu = np.full(grid.shape, 40.0)
    labels = np.zeros(grid.shape, np.uint8)
    for number, (name, value) in enumerate(reversed(median_hu.items())):
        block = (slice(6 + 36 * number, 32 + 36 * number), slice(8, 30), slice(10, 40))
        labels[block], hu[block] = MASK_LABELS[name], value
    hu += np.random.default_rng(7).normal(0, 8, grid.shape)
    volume = CtVolume(hu=hu.astype(np.float32), grid=grid)
    return volume, drawn(volume, labels)


def codes(found: tuple[Observation, ...]) -> list[str]:
    return [TABLE.describe(one).code for one in found]  # each must have words


@pytest.mark.parametrize("replaced_hu", [350.0, 20.0], ids=["sclerotic", "lytic"])
@pytest.mark.parametrize("level", ["L2", "L3"])
def test_a_body_replaced_as_a_whole_is_told_by_the_others(level: str, replaced_hu: float) -> None:
    """By itself it is even: no cluster differs from its median."""
    found = lesion_observations(
        *row_of_bodies({**dict.fromkeys(("L1", "L2", "L3", "L4"), 120.0), level: replaced_hu})
    )
    unlike = [one for one in found if one.code == "body_unlike_others"]
    assert [one.level for one in unlike] == [level]
    assert unlike[0].values["hu"] == pytest.approx(replaced_hu, abs=3)
    assert unlike[0].values["others_hu"] == pytest.approx(120, abs=3)
    findings = [TABLE.describe(one) for one in unlike]
    for output in (Output.BMD, Output.T_SCORE, Output.DENSITY_CATEGORY, Output.STUDY_CLASS, Output.NOMOGRAM):
        assert withheld(findings, output, [level])
    assert not withheld(findings, Output.BMD, ["L1"])


@pytest.mark.parametrize(
    "median_hu",
    [
        {"T12": 150.0, "L1": 140.0, "L2": 125.0, "L3": 110.0, "L4": 120.0},
        {"L1": 300.0, "L2": 270.0, "L3": 220.0, "L4": 230.0},
    ],
    ids=["falling as they do", "young"],
)
def test_bodies_that_differ_as_bodies_do_are_not_unlike(median_hu: dict[str, float]) -> None:
    assert lesion_observations(*row_of_bodies(median_hu)) == ()


def test_a_body_with_metal_is_no_measure_of_the_others() -> None:
    """Screws and their streaks made both its neighbours' medians and its own 300 HU."""
    row = row_of_bodies({"L2": 300.0, "L3": 300.0, "L4": 100.0, "L5": 100.0})
    assert {one.level for one in lesion_observations(*row)} == {"L2", "L3", "L4", "L5"}
    assert lesion_observations(*row, unread={"L2", "L3"}) == ()


def test_a_body_with_cement_is_no_measure_of_the_others() -> None:
    found = lesion_observations(*row_of_bodies({"L1": 100.0, "L2": 700.0, "L3": 700.0, "L4": 100.0}))
    assert [(one.code, one.level) for one in found] == [("cement_in_body", "L2"), ("cement_in_body", "L3")]


def test_faint_bone_is_said_to_hide_lysis() -> None:
    (found,) = lesion_observations(*row_of_bodies({"T12": 70.0, "L1": 65.0, "L2": 110.0, "L3": 55.0}))
    assert (found.code, found.level) == ("lysis_not_assessed", None)
    assert found.values["levels"] == "L1, L3"
    assert not TABLE.describe(found).withholds


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"noise_hu": 35.0, "seed": 5},
        {"bmd_mg_cm3": YOUNG, "kvp": 80, "age_years": 25},
        {"bmd_mg_cm3": DENSEST, "kvp": 80, "age_years": 25, "noise_hu": 35.0},
    ],
    ids=["default", "noisy", "young at 80 kVp", "densest at 80 kVp"],
)
def test_a_sound_body_holds_no_lesion(changes: dict[str, object]) -> None:
    assert codes(observed(**changes)) == []


def test_a_faint_body_holds_no_lesion_that_could_be_told() -> None:
    assert codes(observed(bmd_mg_cm3=OLD, age_years=80)) == ["lysis_not_assessed"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (LesionKind.CEMENT, "cement_in_body"),
        (LesionKind.SCLEROTIC, "dense_lesion"),
        (LesionKind.LYTIC, "lytic_lesion"),
    ],
)
def test_a_lesion_is_named_and_its_level_gives_no_density(kind: LesionKind, code: str) -> None:
    found = observed(faults=Faults(lesions=(Lesion(level="L3", kind=kind),)))
    assert code in codes(found)
    findings = [TABLE.describe(one) for one in found]
    for output in (Output.BMD, Output.T_SCORE, Output.FEATURES, Output.NOMOGRAM):
        assert withheld(findings, output, ["L3"])
    assert not withheld(findings, Output.BMD, ["L1"])


@pytest.mark.parametrize("kvp", [80, 120])
@pytest.mark.parametrize("bmd_mg_cm3", [120.0, 160.0, 200.0])
def test_a_hole_in_dense_bone_is_told_though_the_bone_blurs_into_it(bmd_mg_cm3: float, kvp: int) -> None:
    """Of 1.8 cm3: what reads below 80 HU of it shrinks as the bone about it grows denser."""
    hole = Lesion(level="L3", kind=LesionKind.LYTIC, radius_mm=7.5)
    dense = dict.fromkeys(OLD, bmd_mg_cm3)
    assert "lytic_lesion" in codes(observed(faults=Faults(lesions=(hole,)), bmd_mg_cm3=dense, kvp=kvp))
    assert codes(observed(bmd_mg_cm3=dense, kvp=kvp)) == []


def test_the_veins_of_a_dense_body_are_no_hole_in_it() -> None:
    """A channel of blood, 6 mm high and wide, from the back to the middle of the body."""
    volume, vertebrae = row_of_bodies({"L2": 300.0, "L3": 300.0})
    hu = volume.hu.copy()
    for first in (16, 52):
        hu[first : first + 6, 18:30, 23:27] = 45.0
    assert lesion_observations(CtVolume(hu=hu, grid=volume.grid), vertebrae) == ()


def test_a_bone_island_is_no_lesion() -> None:
    assert (
        codes(
            observed(faults=Faults(lesions=(Lesion(level="L3", kind=LesionKind.SCLEROTIC, radius_mm=3.0),)))
        )
        == []
    )


def test_screws_are_metal_and_the_text_names_the_limit() -> None:
    found = observed(faults=Faults(implants=(Implant(levels=("L3",)),)))
    (metal,) = [one for one in found if one.code == "metal_near_body"]
    assert "above 2000 HU, which bone does not reach" in TABLE.describe(metal).text
    assert metal.values["volume_mm3"] > 30


def test_texts_name_the_limits_that_a_site_has_set() -> None:
    volume, vertebrae = row_of_bodies({"L2": 120.0, "L3": 850.0})
    rules = GateSettings(height_mm=(30.0, 44.5), lesions=LesionSettings(cement_hu=650.0))
    texts = [TABLE.describe(one).text for one in quality_observations(volume, vertebrae, {}, rules)]
    assert any("30 to 44.5 mm" in text for text in texts)
    assert any("above 800 HU" in text for text in texts)  # and 150 HU above bone as dense as the limit
