"""Every phantom of the catalogue is found, read rod by rod and turned into a calibration that holds.

The rods are drawn with the physics of the digital reference study, which shares nothing with scoring.
"""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest

from config.catalog import CatalogEntryInvalid, list_phantoms, load_phantom
from node.reference.attenuation import EFFECTIVE_KEV, HA, K2HPO4, ROWS, hu_per_mg
from node.reference.render import raster_of, render
from node.reference.spec import PHANTOMS, StudySpec
from node.reference.spine import build_spine
from node.reference.surroundings import rods
from scoring.calibration import Mineral
from scoring.calibration.methods import calibrate, density_uncertainty
from scoring.phantoms.rod_reading import PhantomImage, find_rods, read_phantom
from segmentation.ct_volume import CtVolume, Grid
from tests.unit.phantom_scans import Scan, cut, drawn

pytestmark = pytest.mark.slow

SAMPLE = [  # every phantom under two of many conditions; each condition is met by several phantoms
    Scan(phantom="qrm-bdc-3", kvp=80, spacing_mm=(0.6, 1.4, 1.4), tilt_degrees=4.0),
    Scan(phantom="qrm-bdc-3", kvp=140, spacing_mm=(5.0, 1.0, 1.6), turn_degrees=180.0, noise_hu=30.0),
    Scan(phantom="qrm-bdc-6", kvp=100, spacing_mm=(3.0, 1.2, 1.2), tilt_degrees=2.0, oblique_degrees=12.0),
    Scan(phantom="qrm-bdc-6", kvp=140, spacing_mm=(1.0, 1.6, 1.0), turn_degrees=6.0),
    Scan(phantom="b-mas-200", kvp=80, spacing_mm=(5.0, 1.2, 1.2), tilt_degrees=3.0, oblique_degrees=-20.0),
    Scan(phantom="b-mas-200", kvp=140, spacing_mm=(2.0, 0.8, 1.2), noise_hu=30.0),  # 50 mg is faint here
    Scan(phantom="image-analysis-g2730", kvp=100, spacing_mm=(5.0, 1.0, 1.4), aside_mm=(10.0, 25.0)),
    Scan(phantom="image-analysis-g2730", kvp=140, tilt_degrees=4.0, turn_degrees=-5.0, noise_hu=25.0),
    Scan(phantom="intable", kvp=120, spacing_mm=(1.0, 1.4, 1.4), turn_degrees=180.0),
    Scan(phantom="intable", kvp=80, spacing_mm=(3.0, 1.2, 1.2), tilt_degrees=1.0, oblique_degrees=8.0),
    Scan(phantom="mindways-3", kvp=80, spacing_mm=(0.6, 1.4, 1.4), tilt_degrees=2.0),
    Scan(phantom="mindways-3", kvp=140, spacing_mm=(5.0, 1.2, 1.4), turn_degrees=180.0, noise_hu=30.0),
]


@pytest.mark.parametrize("scan", SAMPLE, ids=lambda scan: f"{scan.phantom}-{scan.kvp}-{scan.spacing_mm[0]}")
def test_each_phantom_is_read_rod_by_rod_and_calibrates_without_bias(scan):
    model = load_phantom(scan.phantom)[0]
    kev = EFFECTIVE_KEV[scan.kvp]
    reading = find_rods(drawn(scan), model)
    assert reading.observations == ()
    truths = ROWS[scan.phantom].rods
    for rod, truth in zip(reading.rods, truths, strict=True):
        assert rod.density_mg_cm3 == truth.mineral_mg_cm3
        assert rod.water_mg_cm3 == truth.water_mg_cm3
        assert rod.hu_mean == pytest.approx(truth.hu(kev), abs=0.1 + 3 * rod.hu_standard_error)
    calibration = calibrate(
        method=model.method,
        phantom=model.name,
        equivalent=model.equivalent,
        rods=reading.rods,
        kvp=float(scan.kvp),
    )
    mineral = HA if model.equivalent is Mineral.HA else K2HPO4
    for density_mg_cm3 in (50.0, 100.0, 200.0):
        hu = density_mg_cm3 * hu_per_mg(mineral, kev)
        # Two rods of 18 mm, 60 mm long, in a noise of 30 HU at 140 kV tell 50 mg/cm3 to within 0.9 (k = 1).
        allowed = max(1.0, 2 * density_uncertainty(calibration, hu, 0.0))
        assert calibration.bmd(hu) == pytest.approx(density_mg_cm3, abs=allowed)


@pytest.mark.parametrize("name", [name for name in PHANTOMS if name not in ("none", "siemens-osteo")])
def test_each_phantom_is_read_under_a_reference_patient(name):
    spec = StudySpec.reduced(phantom=name, kvp=100)
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    grid = Grid(
        shape=(raster.slices, spec.matrix, spec.matrix),
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    volume = CtVolume(hu=np.rint(render(spec, spine, raster)).astype(np.float32), grid=grid)
    reading = find_rods(volume, load_phantom(name)[0])
    assert reading.observations == ()
    for rod, truth in zip(reading.rods, rods(spec), strict=True):
        assert rod.hu_mean == pytest.approx(truth.hu, abs=1.0)
        assert rod.axis_points_mm[0][:2] == pytest.approx(truth.centre_mm, abs=0.85)  # half a pixel


@pytest.mark.parametrize(
    ("name", "kept", "keep", "beyond"),
    [
        ("qrm-bdc-6", 5, "left", "within the next rod"),
        ("qrm-bdc-6", 4, "left", "before the next rod"),
        ("qrm-bdc-6", 2, "right", "before the next rod"),
        ("b-mas-200", 3, "left", "before the next rod"),
        ("b-mas-200", 1, "right", "before the next rod"),
        ("mindways-3", 4, "right", "before the next rod"),
        ("mindways-3", 2, "left", "within the next rod"),
        ("qrm-bdc-3", 2, "left", "before the next rod"),
        ("intable", 2, "right", "before the next rod"),
    ],
)
def test_a_row_cut_by_the_field_of_view_is_named_truncated(name, kept, keep, beyond):
    row, side = ROWS[name], 1 if keep == "left" else -1
    last = kept - 1 if keep == "left" else len(row.rods) - kept
    share = 1.0 if beyond == "within the next rod" else 0.5
    volume = cut(
        drawn(Scan(phantom=name)),
        beyond_mm=row.across_mm(last) + side * share * row.distance_mm,
        keep=keep,
    )
    models = {each: load_phantom(each)[0] for each in list_phantoms()}
    named = find_rods(volume, models[name])
    (recognised,) = read_phantom([PhantomImage(volume=volume, kvp=120.0)], models)
    for reading in (named, recognised):
        assert [one.code for one in reading.observations] == ["phantom_truncated"]


def test_the_study_can_carry_every_phantom_of_the_catalogue():
    assert set(list_phantoms()) == set(ROWS) == set(PHANTOMS) - {"none"}


def test_rods_stand_in_the_order_in_which_they_must_read():
    for name in list_phantoms():
        for kev in EFFECTIVE_KEV.values():
            truths = {rod.mineral_mg_cm3: rod.hu(kev) for rod in ROWS[name].rods}
            read = [truths[rod.density_mg_cm3] for rod in load_phantom(name)[0].rods]
            assert all(a < b for a, b in pairwise(read))


def test_every_rod_reads_as_its_file_expects_at_every_tube_voltage():
    for name in list_phantoms():
        for rod in load_phantom(name)[0].rods:
            truth = next(t for t in ROWS[name].rods if t.mineral_mg_cm3 == rod.density_mg_cm3)
            for kev in EFFECTIVE_KEV.values():
                assert rod.expected_hu[0] <= truth.hu(kev) <= rod.expected_hu[1]


def test_mindways_rods_state_their_water(tmp_path):
    model = load_phantom("mindways-3")[0]
    assert [(rod.name, rod.water_mg_cm3) for rod in model.rods] == [
        ("A", 1012.25),
        ("B", 1056.95),
        ("C", 1103.57),
        ("D", 1119.52),
        ("E", 923.20),
    ]
    (tmp_path / "phantoms").mkdir()
    (tmp_path / "phantoms" / "dry.toml").write_text(
        "\n".join(
            line for line in _shipped("mindways-3").splitlines() if "water_mg_cm3 = 1056.95" not in line
        ),
        "utf-8",
    )
    with pytest.raises(CatalogEntryInvalid, match="water_mg_cm3"):
        load_phantom("dry", tmp_path)


def _shipped(name: str) -> str:
    return files("config").joinpath("phantoms", f"{name}.toml").read_text("utf-8")
