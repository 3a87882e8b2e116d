"""What looks like a calibration rod, so that no calibration is borrowed for an image that shows one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from config.catalog import load_phantom
from node.reference.spec import Faults, Implant
from scoring.phantoms.rod_candidates import find_rod_candidates
from scoring.phantoms.rod_reading import find_rods
from segmentation.ct_volume import CtVolume, Grid
from tests.unit.phantom_scans import Scan, cut, drawn
from tests.unit.reference_images import study

pytestmark = pytest.mark.slow

PHANTOMS = ("siemens-osteo", "qrm-bdc-3", "qrm-bdc-6", "b-mas-200", "image-analysis-g2730", "mindways-3")
COARSE_MM = (4.0, 1.4, 1.4)


def shifted(volume: CtVolume, hu: float) -> CtVolume:
    return replace(volume, hu=(volume.hu + hu).astype(np.float32))


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_is_seen_whatever_it_reads(name):
    volume = drawn(Scan(phantom=name, spacing_mm=COARSE_MM))
    for offset_hu in (-60.0, 40.0, 100.0):
        assert find_rod_candidates(shifted(volume, offset_hu)), offset_hu


@pytest.mark.parametrize(
    "scan",
    [
        Scan(phantom="siemens-osteo", tilt_degrees=18.0),
        Scan(phantom="mindways-3", tilt_degrees=26.0),
        Scan(phantom="siemens-osteo", turn_degrees=15.0, aside_mm=(15.0, 20.0)),
        Scan(phantom="b-mas-200", noise_hu=45.0),
        Scan(phantom="image-analysis-g2730", bed="mat"),
        Scan(phantom="intable", bed="table"),
        Scan(phantom="qrm-bdc-3", kvp=80, spacing_mm=(10.0, 1.2, 1.2)),
    ],
)
def test_a_phantom_is_seen_however_it_lies(scan):
    assert find_rod_candidates(drawn(scan))


def test_a_phantom_too_far_off_to_be_found_is_seen_where_it_lies():
    volume = shifted(drawn(Scan(phantom="siemens-osteo", spacing_mm=COARSE_MM)), 60.0)
    found = find_rods(volume, load_phantom("siemens-osteo")[0])
    assert [one.code for one in found.observations] == ["phantom_not_found"]
    (right, left) = sorted(one.centre_mm for one in find_rod_candidates(volume))
    assert right[:2] == pytest.approx((-30.0, 60.0), abs=2.0)
    assert left[:2] == pytest.approx((30.0, 60.0), abs=2.0)


@pytest.mark.parametrize("keep", ["left", "right"])
def test_a_phantom_cut_to_a_single_rod_is_seen(keep):
    assert find_rod_candidates(cut(drawn(Scan(phantom="siemens-osteo")), beyond_mm=0.0, keep=keep))


def test_a_phantom_joined_to_the_patients_back_by_gel_is_seen():
    volume = drawn(Scan(phantom="siemens-osteo"))
    y_mm, x_mm = (volume.grid.origin_mm[axis] + 1.2 * np.arange(volume.hu.shape[2 - axis]) for axis in (1, 0))
    between = ((y_mm[:, None] > -30) & (y_mm[:, None] < 50) & (np.abs(x_mm) < 100))[None] & (volume.hu < -500)
    noise = np.random.default_rng(3).normal(10.0, 18.0, volume.hu.shape)
    assert find_rod_candidates(replace(volume, hu=np.where(between, noise, volume.hu).astype(np.float32)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"faults": Faults(implants=(Implant(levels=("L2", "L3")),), contrast=True)},
        {"rotation_degrees": 10.0, "scoliosis_degrees": 25.0, "seed": 5},
        {"faults": Faults(oral_contrast=True), "noise_hu": 35.0, "slice_spacing_mm": 5.0, "seed": 6},
    ],
)
def test_a_reference_study_without_a_phantom_shows_nothing_like_one(changes):
    volume, _ = study(phantom="none", **changes)
    assert find_rod_candidates(volume) == ()


def test_lines_and_straps_beside_a_patient_are_no_rods():
    volume, _ = study(phantom="none")
    hu = volume.hu.copy()
    z, y, x = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    x_mm, y_mm = volume.grid.origin_mm[0] + 1.7 * x, volume.grid.origin_mm[1] + 1.7 * y
    for across_mm, read_hu in ((-120.0, 350.0), (-100.0, 20.0), (120.0, 2500.0)):  # 8 mm: infusion, cable
        hu[np.broadcast_to(np.hypot(x_mm - across_mm, y_mm - 100.0) < 4.0, hu.shape)] = read_hu
    hu[(np.abs(y_mm + 108.0) < 3.0) & (np.abs(x_mm) < 150.0) & (np.abs(z - 20) < 9)] = -150.0
    assert find_rod_candidates(replace(volume, hu=hu)) == ()


@pytest.mark.parametrize(
    "name",
    [
        "ts_example_ct/example_ct.nii.gz",
        "tptbox_L3/sub-ct_label-22_ct.nii.gz",
        "negatives/ts_s0521_neck_1.5mm.nrrd",
        "negatives/ts_aorta_cta_chest_1.5mm.nii.gz",
    ],
)
def test_real_patients_without_a_phantom_show_nothing_like_one(test_data: Path, name):
    image = SimpleITK.ReadImage(str(test_data / name))
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    axes = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    grid = Grid(
        shape=hu.shape,
        spacing_mm=tuple(image.GetSpacing()[::-1]),
        origin_mm=tuple(image.GetOrigin()),
        direction=tuple(tuple(float(value) for value in axis) for axis in axes),
    )
    assert find_rod_candidates(CtVolume(hu=hu, grid=grid)) == ()
