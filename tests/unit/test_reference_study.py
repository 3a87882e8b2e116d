"""The digital reference study: its answers are right, and it is what a scanner would have written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from node.reference.attenuation import HA, K2HPO4, cancellous_reading, hu_per_mg
from node.reference.render import raster_of, render
from node.reference.spec import SpecInvalid, StudySpec, parse_bmd
from node.reference.spine import build_spine
from node.reference.study import MASK_LABELS, truth_mask, truth_of, write_reference_study
from node.reference.surroundings import PHANTOM_MIDDLE_MM

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kev", "expected_hu"), [(50, 454), (60, 332), (70, 266)])
def test_a_rod_of_200_mg_ha_reads_as_computed_elsewhere(kev, expected_hu):
    assert 200 * hu_per_mg(HA, kev) == pytest.approx(expected_hu, abs=3)


@pytest.mark.parametrize(("kev", "expected"), [(50, 1.01), (60, 0.99), (70, 0.97)])
def test_the_two_minerals_differ_as_physics_says(kev, expected):
    """K2HPO4 equivalent over HA equivalent of the same bone."""
    assert hu_per_mg(HA, kev) / hu_per_mg(K2HPO4, kev) == pytest.approx(expected, abs=0.005)


def test_fatty_marrow_hides_mineral():
    lean = cancellous_reading(100, equivalent="HA", fat_fraction=0.2, kev=60)
    fatty = cancellous_reading(100, equivalent="HA", fat_fraction=0.7, kev=60)
    assert lean.hu == fatty.hu
    assert fatty.mineral_mg_cm3 > lean.mineral_mg_cm3 + 10


def test_marrow_fat_follows_age_unless_it_is_named():
    assert StudySpec(age_years=80).fat_fraction > StudySpec(age_years=40).fat_fraction
    assert StudySpec(marrow_fat=0.6).fat_fraction == 0.6


def test_rods_and_bone_of_a_noise_free_study_read_the_truth_by_two_points():
    spec = StudySpec(
        noise_hu=0, slice_spacing_mm=4.0, slice_thickness_mm=4.0, matrix=400, pixel_spacing_mm=(0.95, 0.95)
    )
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    hu = render(spec, spine, raster)
    water, bone = (_disc_mean(hu, raster, x) for x in (-30.0, 30.0))
    for name, level in truth_of(spec, spine, raster).levels.items():
        deep = (
            spine[name].core.distance(
                raster.x_mm[None, None, :].astype(np.float32),
                raster.y_mm[None, :, None].astype(np.float32),
                raster.z_mm[:, None, None].astype(np.float32),
            )
            < -4.0
        )
        measured = (hu[deep].mean() - water) / (bone - water) * 200
        assert measured == pytest.approx(level.bmd_mg_cm3, abs=1.0), name


def test_texture_leaves_the_mean_of_each_body_alone():
    smooth, rough = (
        _rendered(StudySpec.reduced(noise_hu=0, texture_hu=sd, view=("L2", "L3"))) for sd in (0, 25)
    )
    for name in ("L2", "L3"):
        whole = smooth.mask == MASK_LABELS[name]
        assert rough.hu[whole].mean() == pytest.approx(smooth.hu[whole].mean(), abs=0.01)
        assert rough.hu[whole].std() > smooth.hu[whole].std() + 0.5


def _rendered(spec):
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    return SimpleNamespace(hu=render(spec, spine, raster), mask=truth_mask(spine, raster))


def test_the_patient_lies_on_the_phantom_and_inside_the_picture():
    """Skin, phantom and air around them: what a reader sees first."""
    spec = StudySpec.reduced(noise_hu=0, view=("L3", "L3"))
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    hu = render(spec, spine, raster)[raster.slices // 2]
    middle = spec.matrix // 2
    above_the_couch = hu[raster.y_mm < PHANTOM_MIDDLE_MM - 20] > -200
    assert above_the_couch.any()
    assert not np.concatenate([above_the_couch[0], above_the_couch[:, 0], above_the_couch[:, -1]]).any()
    back = int(np.argmin(np.abs(raster.y_mm - PHANTOM_MIDDLE_MM)))
    assert hu[back, middle] == pytest.approx(36, abs=1)


def _disc_mean(hu, raster, x_mm):
    y, x = np.meshgrid(raster.y_mm - PHANTOM_MIDDLE_MM, raster.x_mm - x_mm, indexing="ij")
    return float(hu[:, np.hypot(y, x) < 6].mean())


def test_the_volume_of_a_body_is_that_of_its_mask():
    spec = StudySpec(pixel_spacing_mm=(0.8, 0.8), slice_spacing_mm=1.0, slice_thickness_mm=1.0)
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    mask = truth_mask(spine, raster)
    for name, level in truth_of(spec, spine, raster).levels.items():
        inside = mask == MASK_LABELS[name]
        assert inside.sum() * 0.64 == pytest.approx(level.volume_mm3, rel=0.02), name
        k, j, i = np.nonzero(inside)
        centroid = raster.x_mm[i].mean(), raster.y_mm[j].mean(), raster.z_mm[k].mean()
        assert centroid == pytest.approx(level.centroid_mm, abs=0.3), name


def test_the_same_specification_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    contents = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_reference_study(tmp_path / folder, StudySpec.reduced(seed=seed))
        contents.append((tmp_path / folder / "IM0040.dcm").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    write_reference_study(folder, StudySpec.reduced(pixel_spacing_mm=(1.6, 1.8), view=("L1", "L3")))
    return folder


def test_geometry_reads_back_as_specified(written):
    slices = [dcmread(path) for path in sorted(written.glob("*.dcm"))]
    assert [float(v) for v in slices[0].PixelSpacing] == [1.6, 1.8]
    steps = np.diff([float(one.ImagePositionPatient[2]) for one in slices])
    assert steps == pytest.approx(3.0, abs=1e-6)
    mask = SimpleITK.ReadImage(str(written / "truth_mask.nii.gz"))
    assert mask.GetSpacing() == pytest.approx((1.8, 1.6, 3.0))
    assert mask.GetOrigin() == pytest.approx([float(v) for v in slices[0].ImagePositionPatient], abs=1e-4)


def test_only_bodies_wholly_in_view_have_answers(written):
    truth = json.loads((written / "truth.json").read_text())
    assert set(truth["levels"]) == {"L1", "L2", "L3"}
    assert set(truth["equivalents"]) == {"HA", "K2HPO4"}
    assert truth["spec"]["view"] == ["L1", "L3"]
    assert truth["equivalents"][truth["equivalent"]]["L3"] == pytest.approx(
        truth["levels"]["L3"]["bmd_mg_cm3"]
    )


def test_a_slice_is_valid_dicom(written, dciodvfy):
    checked = subprocess.run(
        [dciodvfy, written / "IM0001.dcm"], capture_output=True, text=True, check=False
    ).stderr
    assert "CTImage" in checked
    assert "Error" not in checked


def test_a_study_without_phantom_has_no_rods(tmp_path):
    write_reference_study(tmp_path, StudySpec.reduced(phantom="none", view=("L2", "L3")))
    assert json.loads((tmp_path / "truth.json").read_text())["rods"] == []


def test_named_levels_are_interpolated():
    assert parse_bmd("L1=120, L3=100") == {
        "T12": 120, "L1": 120, "L2": 110, "L3": 100, "L4": 100, "L5": 100,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "L3", "L3=", "L3=-5", "C7=100", "L3=90,L3=95", "L3=90;L2=80"])
def test_a_density_that_is_none_is_refused(text):
    with pytest.raises(SpecInvalid):
        parse_bmd(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"kvp": 90},
        {"phantom": "x"},
        {"view": ("L3", "L1")},
        {"matrix": 0},
        {"sex": "X"},
        {"age_years": 7},
        {"marrow_fat": 1.2},
    ],
)
def test_a_study_that_cannot_be_made_is_refused(changes):
    with pytest.raises(SpecInvalid):
        StudySpec(**changes)
