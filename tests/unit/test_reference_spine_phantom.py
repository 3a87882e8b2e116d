"""The acceptance test: every phantom measures the European Spine Phantom's three densities to 1 mg/cm3."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydicom import dcmread

from config.catalog import list_phantoms, load_phantom
from node.reference.attenuation import EFFECTIVE_KEV, HA, K2HPO4, hu_per_mg
from node.reference.render import raster_of, render
from node.reference.shapes import Shrunk, distance_on
from node.reference.spec import Faults, SpecInvalid, StudySpec
from node.reference.spine import build_spine
from node.reference.study import MASK_LABELS, truth_mask, truth_of, write_reference_study
from node.reference.surroundings import VERTEBRAE
from scoring.density.bmd import measure_bmd
from scoring.phantoms.rod_reading import calibrate_from_reading, find_rods
from segmentation.ct_volume import CtVolume, Grid

pytestmark = pytest.mark.slow

DEPTH_MM = 4.0  # of the core beneath a body's surface


def thin(**changes: object) -> StudySpec:
    """Slices of 1 mm."""
    return StudySpec.reduced(
        european_spine_phantom=True, slice_thickness_mm=1.0, slice_spacing_mm=1.0, **changes
    )


def scanned(spec: StudySpec) -> tuple[CtVolume, dict[str, np.ndarray]]:
    """The volume, rounded to whole HU as DICOM stores it, and each vertebra's core."""
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    grid = Grid(
        shape=(raster.slices, spec.matrix, spec.matrix),
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    hu = np.rint(render(spec, spine, raster)).astype(np.float32)
    cores = {
        one.name: distance_on(Shrunk(solid=one.body, by_mm=DEPTH_MM), raster.axes_mm) < 0 for one in VERTEBRAE
    }
    return CtVolume(hu=hu, grid=grid), cores


@pytest.mark.parametrize(
    ("name", "kvp"),
    [
        ("siemens-osteo", 80),
        ("qrm-bdc-3", 120),
        ("qrm-bdc-6", 140),
        ("b-mas-200", 100),
        ("image-analysis-g2730", 120),
        ("intable", 80),
        ("mindways-3", 140),
    ],
)
def test_each_phantom_measures_the_three_vertebrae(name, kvp):
    """In its own mineral, which for K2HPO4 is what attenuates as the vertebra's hydroxyapatite does."""
    volume, cores = scanned(thin(phantom=name, kvp=kvp))
    model = load_phantom(name)[0]
    calibration, noticed = calibrate_from_reading(find_rods(volume, model), model, float(kvp))
    assert noticed == ()
    mineral = {"HA": HA, "K2HPO4": K2HPO4}[model.equivalent]
    as_read = hu_per_mg(HA, EFFECTIVE_KEV[kvp]) / hu_per_mg(mineral, EFFECTIVE_KEV[kvp])
    for one in VERTEBRAE:
        read = measure_bmd(volume, cores[one.name], calibration, level=one.name)
        truth = one.bmd_mg_cm3 * as_read
        assert read.bmd_mg_cm3 == pytest.approx(truth, abs=1.0)
        assert read.bmd_mg_cm3 == pytest.approx(truth, abs=3 * read.bmd_uncertainty_mg_cm3)


def test_the_list_above_holds_every_phantom():
    assert set(list_phantoms()) == {
        "siemens-osteo",
        "mindways-3",
        "qrm-bdc-3",
        "qrm-bdc-6",
        "b-mas-200",
        "image-analysis-g2730",
        "intable",
    }


def test_the_truth_names_three_vertebrae_of_50_100_and_200(tmp_path):
    truth = write_reference_study(tmp_path, StudySpec.reduced(european_spine_phantom=True))
    told = json.loads((tmp_path / "truth.json").read_text("utf-8"))
    assert {name: level.bmd_mg_cm3 for name, level in truth.levels.items()} == {
        "L1": 50.0,
        "L2": 100.0,
        "L3": 200.0,
    }
    assert told["levels"]["L3"]["bmd_mg_cm3"] == told["equivalents"]["HA"]["L3"] == 200.0
    assert told["composition"]["L1"]["mineral_mg_cm3"] == 50.0
    assert told["spec"]["european_spine_phantom"] is True
    assert len(list(tmp_path.glob("*.dcm"))) == 41
    assert dcmread(tmp_path / "IM0001.dcm").Modality == "CT"


def test_the_mask_labels_the_three_bodies():
    spec = StudySpec.reduced(european_spine_phantom=True)
    raster = raster_of(spec, build_spine(spec))
    mask = truth_mask(build_spine(spec), raster)
    assert set(np.unique(mask)) == {0, *(MASK_LABELS[one.name] for one in VERTEBRAE)}
    voxel_mm3 = spec.slice_spacing_mm * spec.pixel_spacing_mm[0] * spec.pixel_spacing_mm[1]
    truth = truth_of(spec, build_spine(spec), raster)
    for one in VERTEBRAE:
        volume_mm3 = float((mask == MASK_LABELS[one.name]).sum()) * voxel_mm3
        assert volume_mm3 == pytest.approx(truth.levels[one.name].volume_mm3, rel=0.15)


def test_a_study_of_a_patient_does_not_mention_the_phantom():
    assert "european_spine_phantom" not in StudySpec().content
    assert StudySpec(european_spine_phantom=True).content["european_spine_phantom"] is True


@pytest.mark.parametrize("change", [{"faults": Faults(contrast=True)}, {"slice_levels": ("L3",)}])
def test_what_only_a_patient_may_have_is_refused(change):
    with pytest.raises(SpecInvalid, match="European Spine Phantom"):
        StudySpec(european_spine_phantom=True, **change)
