"""Calibration by the patient's own tissues: the energy found, the line, its uncertainty, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from config.phrases import in_english
from config.settings import ConfigurationError, load_settings
from node.reference.attenuation import EFFECTIVE_KEV, K2HPO4, hu_per_mg
from node.reference.spec import Faults
from scoring.calibration import Grade, Mineral, TissueReading
from scoring.calibration.internal import internal_calibration, read_tissues, sd_hu
from scoring.calibration.spectrum import Tissue, expected_hu, hu_per_mg_k2hpo4
from scoring.errors import CalibrationImpossible
from scoring.settings import InternalCalibrationSettings, TissueSettings
from segmentation.ct_volume import CtVolume, Grid
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import ImageSettings, RegionSettings
from tests.unit.reference_images import drawn, study

pytestmark = pytest.mark.slow

RULES = InternalCalibrationSettings()
SAMPLING = TissueSettings()
CONTRAST = ImageSettings()
STUDY_FAT_G_CM3 = 0.95  # what the reference study's fat is made of: heavier than NIST's


def readings(**hu: float) -> tuple[TissueReading, ...]:
    return tuple(TissueReading(name=Tissue(name), hu=value, volume_cm3=50.0) for name, value in hu.items())


def at(kev: float, *, scale: float = 1.0, offset_hu: float = 0.0) -> tuple[TissueReading, ...]:
    """Tissues that are exactly what they are taken to be."""
    return readings(**{one.value: scale * expected_hu(one, kev) + offset_hu for one in Tissue})


REAL = {"air": -999.0, "adipose": -106.0, "blood": 42.0, "muscle": 53.0}  # as unenhanced CT at 120 kV shows


def refusal(tissues, *, kvp: float | None = 120.0) -> str:
    with pytest.raises(CalibrationImpossible) as refused:
        internal_calibration(tissues, kvp=kvp, rules=RULES)
    assert refused.value.code == "internal_impossible"
    return in_english(refused.value.reason)


@pytest.mark.parametrize("kev", [57.0, 63.3, 70.0, 75.5])
@pytest.mark.parametrize(("scale", "offset_hu"), [(1.0, 0.0), (0.98, 2.0), (1.03, -8.0)])
def test_energy_and_line_are_found_where_tissues_are_what_they_are_taken_for(kev, scale, offset_hu):
    found = internal_calibration(at(kev, scale=scale, offset_hu=offset_hu), kvp=120.0, rules=RULES)
    assert found.effective_kev == pytest.approx(kev, abs=0.06)
    assert found.bmd(offset_hu) == pytest.approx(0.0, abs=1e-3)  # water
    hu = scale * 100.0 * hu_per_mg_k2hpo4(kev) + offset_hu  # 100 mg/cm3 in water
    assert found.bmd(hu) == pytest.approx(100.0, abs=0.3)
    assert found.r2 == pytest.approx(1.0)


def test_it_is_named_graded_and_given_with_its_tissues():
    tissues = readings(**REAL)
    found = internal_calibration(tissues, kvp=120.0, rules=RULES)
    assert (found.method, found.phantom) == ("internal", "own tissues")
    assert (found.grade, found.equivalent) == (Grade.INTERNAL, Mineral.K2HPO4)
    assert (found.tissues, found.rods) == (tissues, ())
    assert found.effective_kev == pytest.approx(65.4, abs=0.5)


def test_the_uncertainty_is_each_tissues_own_through_the_fit_and_at_least_what_was_published():
    found = internal_calibration(readings(**REAL), kvp=120.0, rules=RULES)
    hu = 150.0
    changes = [
        internal_calibration(
            readings(**(REAL | {one.value: REAL[one.value] + sd_hu(RULES, one)})), kvp=120.0, rules=RULES
        ).bmd(hu)
        - found.bmd(hu)
        for one in Tissue
    ]
    least = 0.078 * found.bmd(hu)
    assert found.uncertainty.at(hu) == pytest.approx(np.hypot(np.linalg.norm(changes), least), rel=0.05)
    assert 0.10 < found.uncertainty.at(hu) / found.bmd(hu) < 0.17


@pytest.mark.parametrize("missing", list(Tissue))
def test_without_one_of_the_four_tissues_there_is_none(missing):
    assert refusal([one for one in readings(**REAL) if one.name != missing]) == (
        f"too little of {missing.value} was found"
    )


def test_contrast_medium_in_the_blood_is_refused():
    assert refusal(readings(**(REAL | {"blood": 130.0}))) == "blood measures 130 HU, as with contrast medium"


@pytest.mark.parametrize(
    ("kvp", "told"), [(None, "not stated"), (70.0, "no effective energies are known for 70 kV")]
)
def test_a_tube_voltage_that_is_not_known_is_refused(kvp, told):
    assert told in refusal(readings(**REAL), kvp=kvp)


def test_an_energy_that_the_tube_voltage_cannot_give_is_refused():
    """The fat of a 120 kV scan in a series that says 80 kV."""
    assert refusal(readings(**REAL), kvp=80.0) == "the tissues indicate 65 keV; 80 kV implies 46 to 60 keV"


@pytest.mark.parametrize(("scale", "offset_hu"), [(1.0, -20.0), (0.9, 0.0)])
def test_hu_that_are_off_by_more_than_a_scanner_may_be_are_refused(scale, offset_hu):
    assert refusal(at(65.0, scale=scale, offset_hu=offset_hu)).startswith("HU would be off by")


@pytest.fixture(scope="module")
def rendered() -> dict[int, tuple[TissueReading, ...]]:
    return {kvp: read_tissues(*study(kvp=kvp), SAMPLING, CONTRAST) for kvp in EFFECTIVE_KEV}


def test_tissues_are_read_where_they_are(rendered):
    """The study's fat is computed for its energy; blood is 42 HU, muscle 47 to 54 HU, the air -1000 HU."""
    fat_hu = {80: -115.0, 100: -98.0, 120: -88.0, 140: -81.0}
    for kvp, tissues in rendered.items():
        hu = {one.name: one.hu for one in tissues}
        assert list(hu) == list(Tissue)
        assert hu[Tissue.AIR] == pytest.approx(-1000.0, abs=2.0)
        assert hu[Tissue.ADIPOSE] == pytest.approx(fat_hu[kvp], abs=2.0)
        assert hu[Tissue.BLOOD] == pytest.approx(42.0, abs=3.0)
        assert hu[Tissue.MUSCLE] == pytest.approx(51.0, abs=4.0)


def test_the_reference_study_shows_how_far_density_is_off(rendered):
    """Told what its fat is made of, internal calibration is 0 to 11 % low, within its stated uncertainty; its
    other tissues are the same at every voltage, which no body's are."""
    errors = {}
    for kvp, tissues in rendered.items():
        rules = replace(RULES, adipose_density_g_cm3=STUDY_FAT_G_CM3)
        found = internal_calibration(tissues, kvp=kvp, rules=rules)
        truth = 150.0 / hu_per_mg(K2HPO4, EFFECTIVE_KEV[kvp])
        errors[kvp] = found.bmd(150.0) / truth - 1
        assert abs(found.bmd(150.0) - truth) < 1.96 * found.uncertainty.at(150.0)
    assert errors[80] == pytest.approx(0.017, abs=0.02)
    assert errors[140] == pytest.approx(-0.11, abs=0.02)


@pytest.mark.parametrize("kvp", sorted(EFFECTIVE_KEV))
def test_fat_that_is_not_what_it_is_taken_for_is_noticed(rendered, kvp):
    """The study's fat is heavier than NIST's: taken for that, it shows an energy that no voltage here has."""
    assert refusal(rendered[kvp], kvp=float(kvp)).startswith("the tissues indicate")


def test_an_enhanced_study_is_refused_by_its_blood():
    tissues = read_tissues(*study(Faults(contrast=True)), SAMPLING, CONTRAST)
    assert "as with contrast medium" in refusal(tissues)


def test_a_field_of_view_without_air_gives_no_calibration():
    volume, vertebrae = study()
    hu = np.where(volume.hu < -900.0, np.float32(-1024.0), volume.hu)  # as where nothing is stored outside
    found = read_tissues(replace(volume, hu=hu), vertebrae, SAMPLING, CONTRAST)
    assert Tissue.AIR not in {one.name for one in found}


def test_a_real_unenhanced_ct_gives_densities_of_an_adult(test_data):
    """Plausible, no more: nobody knows this person's densities. Fat -106, blood 44, fatty muscle 28 HU."""
    folder = test_data / "ts_example_ct"
    volume = read_nifti(folder / "example_ct.nii.gz")
    names, bodies = (
        SimpleITK.GetArrayFromImage(
            SimpleITK.ReadImage(str(folder / f"spine_report/example_ct_report/{name}.nii.gz"))
        )
        for name in ("totalseg", "totalseg_vertebrae_body")
    )
    vertebrae = drawn(volume, np.where(bodies == 1, names, 0).astype(np.uint8))
    tissues = read_tissues(volume, vertebrae, SAMPLING, CONTRAST)
    hu = {one.name: one.hu for one in tissues}
    assert hu[Tissue.ADIPOSE] == pytest.approx(-106.0, abs=2.0)
    assert hu[Tissue.BLOOD] == pytest.approx(44.0, abs=2.0)
    found = internal_calibration(tissues, kvp=120.0, rules=RULES)
    for level in ("L1", "L2", "L3"):
        region = cut_regions(volume, vertebrae, level, RegionSettings()).bmd
        density = found.bmd(float(volume.hu[region].mean()))
        assert 60.0 < density < 160.0


def read_nifti(path) -> CtVolume:
    image = SimpleITK.ReadImage(str(path))
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    columns = np.reshape(image.GetDirection(), (3, 3)).T[::-1]
    grid = Grid(
        shape=hu.shape,
        spacing_mm=image.GetSpacing()[::-1],
        origin_mm=image.GetOrigin(),
        direction=tuple(tuple(float(one) for one in axis) for axis in columns),
    )
    return CtVolume(hu=hu, grid=grid)


def test_shipped_rules_are_the_pure_rooms_own():
    shipped = load_settings().calibration.internal
    assert shipped == RULES


def test_internal_calibration_is_a_sites_own_choice_and_parts_its_studies_from_others():
    phantom, internal = load_settings(), load_settings(calibration={"method": "internal"})
    assert phantom.calibration.method == "phantom"
    assert phantom.measurement_sha256 != internal.measurement_sha256
    other = {"internal": {"offset_hu": 9.0}}
    assert load_settings(calibration=other).measurement_sha256 == phantom.measurement_sha256
    assert (
        load_settings(calibration=other | {"method": "internal"}).measurement_sha256
        != internal.measurement_sha256
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"kev": [[120.0, 55.0, 76.0]]},
        {"kev": [[120.0, 55.0, 76.0], [80.0, 46.0, 60.0]]},
        {"kev": [[80.0, 60.0, 46.0], [120.0, 55.0, 76.0]]},
        {"adipose_density_g_cm3": 1.2},
        {"sampling": {"air_hu": [-980.0, -1030.0]}},
    ],
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"calibration\.internal"):
        load_settings(calibration={"internal": wrong})
