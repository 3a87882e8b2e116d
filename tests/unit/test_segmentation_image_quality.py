"""Motion, noise and streaks: named where they are, at the level they hit, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from config.phrases import in_english
from node.reference.spec import Faults, Fracture, FractureShape, Implant, Jerk, Starved
from segmentation.ct_volume import CtVolume
from segmentation.gates.motion import motion_observations
from segmentation.gates.noise import image_observations, noise_observations
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Observation, Vertebrae
from tests.unit.reference_images import crop_around_l3, drawn, study

pytestmark = pytest.mark.slow


def told(found: Sequence[Observation]) -> list[tuple[str, str | None]]:
    return [(one.code, one.level) for one in found]


TECHNIQUES = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kvp": 80, "noise_hu": 30.0},
        {"scoliosis_degrees": 20.0, "view": ("T12", "L5")},
        {"slice_spacing_mm": 5.0, "slice_thickness_mm": 5.0, "scoliosis_degrees": 20.0},
        {"slice_spacing_mm": 1.0, "slice_thickness_mm": 1.0, "view": ("L2", "L3")},
    ],
    ids=["3 mm", "noisy", "scoliosis", "5 mm and scoliosis", "1 mm"],
)


@TECHNIQUES
def test_a_good_image_gives_no_finding(changes: dict[str, object]) -> None:
    assert image_observations(*study(**changes)) == ()


@TECHNIQUES
def test_a_jerk_is_seen_at_the_level_that_it_goes_through(changes: dict[str, object]) -> None:
    """Two pixels to the right and one forward."""
    jerk = Jerk(level="L3", left_mm=-3.4, forward_mm=1.7)
    (found,) = image_observations(*study(Faults(jerk=jerk), **changes))
    assert (found.code, found.level) == ("motion_suspected", "L3")
    assert found.values["jump_mm"] == pytest.approx(3.8, abs=1.2)


@TECHNIQUES
def test_streaks_are_seen_at_their_level(changes: dict[str, object]) -> None:
    found = image_observations(*study(Faults(starved=(Starved(level="L3", streak_hu=60.0),)), **changes))
    assert told(found) == [("photon_starvation", "L3")]
    assert found[0].values["sd_hu"] == pytest.approx(60, abs=14)


def test_screws_starve_their_level_of_photons() -> None:
    found = noise_observations(*study(Faults(implants=(Implant(levels=("L3",)),))))
    assert told(found) == [("photon_starvation", "L3")]


def test_noise_without_direction_is_noise() -> None:
    (found,) = image_observations(*study(noise_hu=70.0))
    assert (found.code, found.level) == ("noise_excessive", None)
    assert found.values["sd_hu"] == pytest.approx(70, rel=0.15)


@pytest.mark.parametrize("shape", [FractureShape.WEDGE, FractureShape.CRUSH])
def test_a_fracture_is_no_motion(shape: FractureShape) -> None:
    faults = Faults(fractures=(Fracture(level="L3", shape=shape, height_loss=0.45),))
    assert motion_observations(*study(faults)) == ()


@pytest.mark.parametrize("slice_mm", [0.4, 0.6, 0.8])
def test_a_jerk_on_thin_slices_is_no_background_of_its_own(slice_mm: float) -> None:
    """Ten slices share in one average at 0.4 mm: each of them shows part of the jump."""
    thin = {"slice_spacing_mm": slice_mm, "slice_thickness_mm": slice_mm, "view": ("L3", "L3")}
    (found,) = motion_observations(*study(Faults(jerk=Jerk(level="L3", left_mm=-3.4)), **thin))
    assert (found.code, found.level) == ("motion_suspected", "L3")
    assert found.values["jump_mm"] == pytest.approx(3.4, abs=0.5)


@pytest.mark.parametrize("over_mm", [4, 8])
def test_a_movement_that_takes_some_slices_is_seen(over_mm: int) -> None:
    """By 8 mm to one side, on slices of 1 mm."""
    volume, vertebrae = study(slice_spacing_mm=1.0, slice_thickness_mm=1.0, view=("L3", "L3"))
    middle = np.argwhere(vertebrae.bodies == 29)[:, 0].mean()
    pixels = np.clip((np.arange(volume.hu.shape[0]) - middle) / over_mm + 0.5, 0, 1) * 8.0 / 1.7
    hu = np.stack(
        [
            ndimage.shift(image, (0, by), order=1, mode="nearest")
            for image, by in zip(volume.hu, pixels, strict=True)
        ]
    )
    moved = CtVolume(hu=hu, grid=volume.grid)
    assert told(motion_observations(moved, vertebrae)) == [("motion_suspected", "L3")]


def test_a_jerk_between_two_bodies_names_the_nearer_ones() -> None:
    """Voxels above the disc between L2 and L3 are moved by hand, four pixels to the right."""
    volume, vertebrae = study()
    shown = [np.flatnonzero((vertebrae.bodies == label).any(axis=(1, 2))) for label in (29, 30)]
    hu = volume.hu.copy()
    above = (shown[0][-1] + shown[1][0]) // 2 + 1
    hu[above:, :140] = np.roll(hu[above:, :140], -4, axis=2)
    found = motion_observations(CtVolume(hu=hu, grid=volume.grid), vertebrae)
    assert {one.level for one in found} <= {"L2", "L3"}
    assert found[0].values["jump_mm"] == pytest.approx(6.8, abs=1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"kvp": 80, "noise_hu": 40.0, "view": ("L2", "L3")},
        {"slice_spacing_mm": 5.0, "slice_thickness_mm": 5.0, "scoliosis_degrees": 20.0},
        {"slice_spacing_mm": 1.0, "slice_thickness_mm": 1.0, "view": ("L3", "L3")},
    ],
    ids=["noisy", "5 mm and scoliosis", "1 mm"],
)
def test_passes_woven_into_one_stack_are_seen(changes: dict[str, object]) -> None:
    """As where no header tells of the second pass, in which the patient lies to one side."""
    volume, vertebrae = study(**changes)
    for aside_mm in (-1.0, 3.4):
        hu = volume.hu.copy()
        hu[1::2] = ndimage.shift(hu[1::2], (0, 0, aside_mm / 1.7), order=1, mode="nearest")
        (found,) = motion_observations(CtVolume(hu=hu, grid=volume.grid), vertebrae)
        assert (found.code, found.level) == ("alternate_images_displaced", None)
        assert in_english(found.values["difference"]) == f"displaced by {abs(aside_mm):.1f} mm"


def test_passes_between_which_the_patient_slid_along_the_table_are_seen() -> None:
    volume, vertebrae = study(view=("L2", "L3"))
    for slices in (1, 2):
        hu = volume.hu.copy()
        hu[1::2] = np.roll(hu, slices, axis=0)[1::2]
        (found,) = motion_observations(CtVolume(hu=hu, grid=volume.grid), vertebrae)
        assert found.code == "alternate_images_displaced"
        assert in_english(found.values["difference"]).startswith(
            "more similar to one neighbour than to the other by"
        )


def test_how_far_every_second_slice_may_be_displaced_is_the_sites() -> None:
    volume, vertebrae = study(view=("L3", "L4"))
    hu = volume.hu.copy()
    hu[1::2] = ndimage.shift(hu[1::2], (0, 0, 0.6), order=1, mode="nearest")  # by 1.02 mm
    woven = CtVolume(hu=hu, grid=volume.grid)
    lenient = motion_observations(woven, vertebrae, ImageSettings(alternate_mm=1.5))
    assert "alternate_images_displaced" not in {one.code for one in lenient}
    assert told(motion_observations(woven, vertebrae)) == [("alternate_images_displaced", None)]


def test_slices_too_far_apart_say_nothing_of_motion() -> None:
    far = {"slice_spacing_mm": 10.0, "slice_thickness_mm": 10.0}
    assert motion_observations(*study(Faults(jerk=Jerk(level="L3")), **far)) == ()


def test_a_site_may_set_the_limits() -> None:
    volume, vertebrae = study(view=("L3", "L4"))
    assert motion_observations(volume, vertebrae, ImageSettings(motion_mm=0.1)) != ()
    assert told(noise_observations(volume, vertebrae, ImageSettings(noise_hu=10.0))) == [
        ("noise_excessive", None)
    ]


def test_a_volume_without_bodies_says_nothing() -> None:
    volume, vertebrae = study(view=("L3", "L3"))
    empty = Vertebrae(
        grid=volume.grid,
        bodies=np.zeros_like(vertebrae.bodies),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=vertebrae.engine,
    )
    assert image_observations(volume, empty) == ()


def test_a_real_ct_of_good_quality_gives_no_finding(example_ct: CtVolume, example_bodies: np.ndarray) -> None:
    assert image_observations(example_ct, drawn(example_ct, example_bodies)) == ()


def test_the_noise_of_a_real_ct_is_told_and_not_taken_for_streaks(test_data: Path) -> None:
    """Its cancellous bone varies by 91 HU."""
    (found,) = image_observations(*crop_around_l3(test_data))
    assert found.code == "noise_excessive"
    assert 50 < found.values["sd_hu"] < 80


def test_a_real_ct_displaced_by_hand_is_told(example_ct: CtVolume, example_bodies: np.ndarray) -> None:
    """Above the middle of L2 by one voxel of 3 mm."""
    hu, labels = example_ct.hu.copy(), example_bodies.copy()
    second = np.flatnonzero((labels == 30).any(axis=(1, 2)))
    above = int(second[len(second) // 2])
    for array in (hu, labels):
        array[above:] = np.roll(array[above:], 1, axis=2)
    moved = CtVolume(hu=hu, grid=example_ct.grid)
    found = motion_observations(moved, drawn(moved, labels))
    assert told(found) == [("motion_suspected", "L2")]
    assert found[0].values["jump_mm"] == pytest.approx(3.0, abs=1.0)
