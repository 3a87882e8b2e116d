"""Contrast medium in the great vessels is seen, bowel with contrast is not taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from node.reference.spec import Faults, StudySpec
from node.reference.spine import build_spine
from segmentation.ct_volume import CtVolume, Grid
from segmentation.gates.great_vessels import contrast_observations, great_vessels
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Vertebrae
from tests.unit.reference_images import crop_around_l3, drawn, study

pytestmark = pytest.mark.slow

AORTA_HU, CAVA_HU = 42.0, 39.0  # of the reference study; 165 and 135 in its portal venous phase


@pytest.fixture(scope="module")
def plain() -> tuple[CtVolume, Vertebrae]:
    return study()


TECHNIQUES = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kvp": 80, "noise_hu": 30.0},
        {"scoliosis_degrees": 20.0},
        {"rotation_degrees": 10.0},
        {"slice_spacing_mm": 1.0, "slice_thickness_mm": 1.0, "view": ("L2", "L3")},
        {"slice_spacing_mm": 5.0, "slice_thickness_mm": 5.0},
        {"view": ("L3", "L3")},
    ],
    ids=["3 mm", "80 kVp", "scoliosis", "turned", "1 mm", "5 mm", "L3 alone"],
)


@TECHNIQUES
def test_vessels_in_the_portal_venous_phase_are_suspected(changes: dict[str, object]) -> None:
    (found,) = contrast_observations(*study(Faults(contrast=True), **changes))
    assert found.code == "contrast_suspected"
    assert found.values["hu"] == pytest.approx(165, abs=4)


@TECHNIQUES
def test_unenhanced_vessels_are_not(changes: dict[str, object]) -> None:
    assert contrast_observations(*study(**changes)) == ()


def test_both_vessels_are_read_as_painted(plain: tuple[CtVolume, Vertebrae]) -> None:
    readings = sorted(one.hu for one in great_vessels(*plain))
    assert readings == pytest.approx([CAVA_HU, AORTA_HU], abs=2.5)


def test_bowel_with_oral_contrast_before_l3_is_no_vessel() -> None:
    volume, vertebrae = study(Faults(oral_contrast=True))
    assert volume.hu[:, :, 104].max() > 250
    assert contrast_observations(volume, vertebrae) == ()
    assert max(one.hu for one in great_vessels(volume, vertebrae)) < 50


def test_a_calcified_wall_is_left_out(plain: tuple[CtVolume, Vertebrae]) -> None:
    """Half of the aorta's wall, 3 mm thick and 600 HU, over L2 and L3."""
    volume, vertebrae = plain
    hu = volume.hu.copy()
    spine = build_spine(StudySpec())
    for k in range(hu.shape[0]):
        z = volume.grid.origin_mm[2] + k * volume.grid.spacing_mm[0]
        near = min(("L2", "L3"), key=lambda name: abs(spine[name].body.centre[2] - z))
        x, y, _ = spine[near].at(11.0, -spine[near].body.depth / 2 - 12.5, 0)
        if abs(spine[near].body.centre[2] - z) > 14:
            continue
        rows, columns = np.indices(hu.shape[1:])
        down = volume.grid.origin_mm[1] + rows * volume.grid.spacing_mm[1] - y
        left = volume.grid.origin_mm[0] + columns * volume.grid.spacing_mm[2] - x
        distance = np.hypot(down, left)
        hu[k][(distance < 9.5) & (distance > 6.5) & (down < 0)] = 600.0
    assert contrast_observations(CtVolume(hu=hu, grid=volume.grid), vertebrae) == ()


def test_any_orientation_of_the_array_reads_the_same(plain: tuple[CtVolume, Vertebrae]) -> None:
    volume, vertebrae = plain
    turned = CtVolume(
        hu=np.ascontiguousarray(volume.hu[::-1, ::-1].transpose(2, 0, 1)),
        grid=Grid(
            shape=(volume.hu.shape[2], *volume.hu.shape[:2]),
            spacing_mm=(1.7, 3.0, 1.7),
            origin_mm=tuple(volume.grid.to_patient((volume.hu.shape[0] - 1, volume.hu.shape[1] - 1, 0))),
            direction=((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, -1.0, 0.0)),
        ),
    )
    labels = np.ascontiguousarray(vertebrae.bodies[::-1, ::-1].transpose(2, 0, 1))
    assert great_vessels(turned, drawn(turned, labels)) == great_vessels(volume, vertebrae)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_field_cut_close_beside_the_bodies_hides_no_vessel(side: str) -> None:
    """48 mm from their middle on one side: what lies outside the field must not spoil the rows inside it."""
    volume, vertebrae = study(Faults(contrast=True))
    dx = volume.grid.spacing_mm[2]
    middle = int(np.argwhere(vertebrae.bodies > 0)[:, 2].mean())
    edge = round(48.0 / dx)
    part = slice(middle - edge, volume.hu.shape[2]) if side == "right" else slice(0, middle + edge)
    box = (slice(0, volume.hu.shape[0]), slice(0, volume.hu.shape[1]), part)
    cut = CtVolume(hu=np.ascontiguousarray(volume.hu[box]), grid=volume.grid.part(box))
    found = great_vessels(cut, drawn(cut, np.ascontiguousarray(vertebrae.bodies[box])))
    assert max(vessel.hu for vessel in found) == pytest.approx(165, abs=4)


def test_a_site_may_set_the_limit(plain: tuple[CtVolume, Vertebrae]) -> None:
    assert contrast_observations(*plain, ImageSettings(contrast_hu=30.0)) != ()


def test_a_view_too_low_for_the_vessels_says_nothing() -> None:
    assert great_vessels(*study(Faults(contrast=True), view=("L5", "L5"))) == ()


def test_the_aorta_of_a_real_unenhanced_ct_is_found_and_not_suspected(
    example_ct: CtVolume, example_bodies: np.ndarray
) -> None:
    """Its masks' authors call it native. Its wall is calcified, and bridging osteophytes lie beside it."""
    vertebrae = drawn(example_ct, example_bodies)
    vessels = great_vessels(example_ct, vertebrae)
    assert len(vessels) == 2
    assert all(35 < vessel.hu < 55 for vessel in vessels)
    assert contrast_observations(example_ct, vertebrae) == ()


def test_a_crop_without_vessels_says_nothing(test_data: Path) -> None:
    assert great_vessels(*crop_around_l3(test_data)) == ()
