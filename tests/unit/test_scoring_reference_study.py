"""Calibration, density and the demonstration model on digital reference studies, whose truth is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, find_objects

from config.catalog import load_model_card, load_phantom, load_radiomics_settings_text, load_reference
from node.reference.render import raster_of, render
from node.reference.spec import LUMBAR, StudySpec
from node.reference.spine import build_spine
from node.reference.study import MASK_LABELS, truth_mask
from node.reference.surroundings import rods
from scoring.calibration.methods import calibrate
from scoring.density.bmd import StudyClass, measure_bmd
from scoring.density.scores import study_class
from scoring.errors import RegionEmpty
from scoring.models.card import apply_nomogram, nomogram_scale, parse_model_card, rad_score
from scoring.phantoms.rod_reading import find_rods
from scoring.radiomics import compute_features, feature_names, parse_settings
from segmentation.ct_volume import CtVolume, Grid
from segmentation.errors import GridMismatch

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parents[2] / "tools" / "make_demonstration_model.py"


def rendered(spec: StudySpec) -> tuple[CtVolume, np.ndarray]:
    """The study's volume, rounded to whole HU as DICOM stores it, and its truth mask."""
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    grid = Grid(
        shape=(raster.slices, spec.matrix, spec.matrix),
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    hu = np.rint(render(spec, spine, raster)).astype(np.float32)
    return CtVolume(hu=hu, grid=grid), truth_mask(spine, raster)


def core_of(mask: np.ndarray, level: str, grid: Grid, depth_mm: float = 5.0) -> np.ndarray:
    """What lies deeper than `depth_mm` in the true body."""
    core = np.zeros(mask.shape, bool)
    box = find_objects((mask == MASK_LABELS[level]).astype(np.uint8))[0]
    body = np.pad(mask[box] == MASK_LABELS[level], 1)
    deep = distance_transform_edt(body, sampling=grid.spacing_mm) > depth_mm
    core[box] = deep[1:-1, 1:-1, 1:-1]
    return core


@pytest.fixture(scope="module")
def phantom_model():
    return load_phantom("siemens-osteo")[0]


@pytest.fixture(scope="module")
def study():
    return rendered(StudySpec.reduced())


def calibration_from(volume: CtVolume, model):
    reading = find_rods(volume, model)
    assert reading.observations == ()
    return calibrate(method=model.method, phantom=model.name, equivalent=model.equivalent, rods=reading.rods)


@pytest.mark.parametrize("kvp", [80, 120, 140])
def test_rods_and_densities_match_the_truth_at_every_tube_voltage(phantom_model, kvp):
    spec = StudySpec.reduced(kvp=kvp)
    volume, mask = rendered(spec)
    calibration = calibration_from(volume, phantom_model)
    for rod, truth in zip(calibration.rods, rods(spec), strict=True):
        assert rod.hu_mean == pytest.approx(truth.hu, abs=1.0)
        assert rod.axis_points_mm[0][:2] == pytest.approx(truth.centre_mm, abs=0.6)
    for level in LUMBAR:
        result = measure_bmd(volume, core_of(mask, level, volume.grid), calibration, level=level)
        assert result.bmd_mg_cm3 == pytest.approx(spec.bmd_mg_cm3[level], abs=1.0)
        assert 0.2 < result.bmd_uncertainty_mg_cm3 < 1.0


def test_no_phantom_is_seen_where_there_is_none(phantom_model):
    volume, _ = rendered(StudySpec.reduced(phantom="none"))
    reading = find_rods(volume, phantom_model)
    assert [note.code for note in reading.observations] == ["phantom_not_found"]
    assert reading.rods == ()


@pytest.mark.parametrize(
    ("axis", "part"),
    [
        (2, slice(84, None)),  # water rod cut through
        (2, slice(95, None)),  # water rod gone
        (2, slice(0, 122)),  # mineral rod cut through
        (2, slice(0, 108)),  # mineral rod gone
        (1, slice(0, 170)),  # both cut from below
    ],
)
def test_a_phantom_cut_by_the_field_of_view_is_named_truncated(phantom_model, study, axis, part):
    volume, _ = study
    window = tuple(part if other == axis else slice(None) for other in range(3))
    hu = np.ascontiguousarray(volume.hu[window])
    first = [0 if cut.start is None else cut.start for cut in window]
    grid = Grid(
        shape=hu.shape,
        spacing_mm=volume.grid.spacing_mm,
        origin_mm=tuple(volume.grid.to_patient(first)),
        direction=volume.grid.direction,
    )
    reading = find_rods(CtVolume(hu=hu, grid=grid), phantom_model)
    assert [note.code for note in reading.observations] == ["phantom_truncated"]


def test_density_follows_the_formula_and_a_region_must_fit(phantom_model, study):
    volume, mask = study
    calibration = calibration_from(volume, phantom_model)
    core = core_of(mask, "L3", volume.grid)
    result = measure_bmd(volume, core, calibration, level="L3")
    assert result.hu_mean == pytest.approx(float(volume.hu[core].mean(dtype=np.float64)))
    assert result.bmd_mg_cm3 == calibration.bmd(result.hu_mean)
    assert result.voxels == np.count_nonzero(core)
    assert result.roi_volume_mm3 == pytest.approx(result.voxels * 1.7 * 1.7 * 3.0)
    with pytest.raises(GridMismatch):
        measure_bmd(volume, core[1:], calibration, level="L3")
    with pytest.raises(RegionEmpty) as empty:
        measure_bmd(volume, np.zeros_like(core), calibration, level="L3")
    assert empty.value.level == "L3"


def test_without_a_calibration_a_region_has_hu_and_no_density(study):
    volume, mask = study
    result = measure_bmd(volume, core_of(mask, "L3", volume.grid), None, level="L3")
    assert result.hu_mean > 0
    assert (result.bmd_mg_cm3, result.bmd_uncertainty_mg_cm3) == (None, None)


def test_the_demonstration_patient_is_one_that_the_demonstration_model_applies_to():
    reference, _ = load_reference("demonstration")
    t = (StudySpec().bmd_mg_cm3["L3"] - reference.young.mean_mg_cm3) / reference.young.sd_mg_cm3
    assert -2.8 < t < -2.2
    assert study_class(t) in (StudyClass.OSTEOPENIA, StudyClass.OSTEOPOROSIS)


def test_the_demonstration_model_says_what_it_is_and_fits_the_shipped_settings():
    card, _ = load_model_card("demonstration")
    text, settings_sha256 = load_radiomics_settings_text()
    assert card.demonstration
    assert card.notice == "DEMONSTRATION MODEL - NOT FOR CLINICAL USE"
    assert card.radiomics_settings_sha256 == settings_sha256
    assert len(card.features) == 6
    assert {feature.name for feature in card.features} <= set(feature_names(parse_settings(text)))
    assert "no" in card.training["published_coefficients"]


def test_the_demonstration_nomogram_can_be_read():
    card, _ = load_model_card("demonstration")
    axes = {axis.name: axis for axis in nomogram_scale(card).axes}
    spans = {name: abs(axis.points_at_upper - axis.points_at_lower) for name, axis in axes.items()}
    assert spans["rad_score"] == pytest.approx(100.0)
    assert min(spans.values()) > 10.0  # no axis shrinks to a dot


def test_the_demonstration_model_finds_low_density_more_likely_osteoporotic():
    card, _ = load_model_card("demonstration")
    settings = parse_settings(load_radiomics_settings_text()[0])
    names = [feature.name for feature in card.features]
    probabilities = []
    for density in (60.0, 95.0, 135.0):
        spec = StudySpec.reduced(bmd_mg_cm3=dict.fromkeys(StudySpec().bmd_mg_cm3, density), view=("L3", "L3"))
        volume, mask = rendered(spec)
        features = compute_features(volume, core_of(mask, "L3", volume.grid, 3.5), names, settings)
        score = rad_score(card, features).value
        result = apply_nomogram(card, rad_score=score, age=67, alp=85.0, homocysteine=14.0)
        probabilities.append(result.probability)
    assert probabilities[0] > 0.9 > probabilities[1] > 0.5 > probabilities[2]


def test_the_card_is_made_again_from_the_same_seed_bit_for_bit(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_demonstration_model", TOOL)
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, tool)  # dataclasses look their module up
    spec.loader.exec_module(tool)
    small = ["--patients", "8", "--out", str(tmp_path / "card.json")]
    assert tool.main(small) == 0
    assert tool.main([*small, "--check"]) == 0
    assert parse_model_card((tmp_path / "card.json").read_text("utf-8")).demonstration
