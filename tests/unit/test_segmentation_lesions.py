"""Cement, dense and lytic lesions in digital reference studies; and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from config.findings import Output, load_findings, withheld
from node.reference.faults import Faults, Implant, Lesion, LesionKind
from node.reference.render import raster_of, render
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from node.reference.truth import MASK_LABELS, truth_mask
from segmentation.levels import level_of
from segmentation.observation import Observation
from segmentation.quality import quality_observations
from segmentation.vertebra import regions_of
from segmentation.vertebrae import EngineInfo, Vertebrae
from segmentation.volume import CtVolume, Grid

TABLE = load_findings()
OLD = dict.fromkeys(("T12", "L1", "L2", "L3", "L4", "L5"), 55.0)
YOUNG = dict.fromkeys(("T12", "L1", "L2", "L3", "L4", "L5"), 200.0)


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
        levels=(level_of("L3", labels > 0, grid, axis=built["L3"].body.axes[2], complete=True),),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="mask", version="1", model_free=False),
    )
    return quality_observations(volume, vertebrae, {"L3": regions_of(volume, vertebrae, "L3")})


def codes(found: tuple[Observation, ...]) -> list[str]:
    return [one.code for one in found]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"noise_hu": 35.0, "seed": 5},
        {"bmd_mg_cm3": OLD, "age_years": 80},
        {"bmd_mg_cm3": YOUNG, "kvp": 80, "age_years": 25},
    ],
    ids=["default", "noisy", "old", "young at 80 kVp"],
)
def test_a_sound_body_holds_no_lesion(changes: dict[str, object]) -> None:
    assert codes(observed(**changes)) == []


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


def test_a_bone_island_is_no_lesion() -> None:
    assert (
        codes(
            observed(faults=Faults(lesions=(Lesion(level="L3", kind=LesionKind.SCLEROTIC, radius_mm=3.0),)))
        )
        == []
    )


def test_screws_are_metal() -> None:
    assert "metal_near_body" in codes(observed(faults=Faults(implants=(Implant(levels=("L3",)),))))
