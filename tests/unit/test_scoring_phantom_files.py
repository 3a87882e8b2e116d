"""What a phantom's file may state of its fit, and one phantom's own certificate."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from config.catalog import (
    CatalogEntryInvalid,
    CatalogEntryMissing,
    configured_phantoms,
    list_phantoms,
    load_phantom,
    require_configured,
)
from config.settings import ConfigurationError, load_settings
from scoring.calibration import FitRules, RodReading
from scoring.calibration.methods import SHIPPED_RULES
from scoring.phantoms import PhantomReading, SliceReading
from scoring.phantoms.checks import reading_observations
from scoring.phantoms.rod_reading import calibrate_from_reading

CERTIFICATE = """
model = "b-mas-200"
serial = "S17"
source = "made for this test"
rods = [
    {name = "water", density_mg_cm3 = 0.0},
    {name = "HA 50", density_mg_cm3 = 50.8},
    {name = "HA 100", density_mg_cm3 = 101.3},
    {name = "HA 150", density_mg_cm3 = 149.1},
    {name = "HA 200", density_mg_cm3 = 202.6},
]
"""


def shipped(name: str) -> str:
    return files("config").joinpath("phantoms", f"{name}.toml").read_text("utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "phantoms").mkdir()
    return tmp_path


def with_fit(site: Path, fit: str) -> FitRules:
    text = shipped("intable").replace('name = "intable"', 'name = "ours"')
    (site / "phantoms" / "ours.toml").write_text(f"{text}\n[fit]\n{fit}\n", "utf-8")
    return load_phantom("ours", site)[0].rules


def test_without_rules_of_its_own_a_phantom_has_the_shipped_ones():
    assert all(load_phantom(name)[0].rules == SHIPPED_RULES for name in list_phantoms())


def test_a_phantoms_file_states_its_own_fit_rules(site):
    rules = with_fit(site, "r2_doubted_below = 0.995\nhu_per_mg = [[80, 1.9, 2.3], [120.0, 1.3, 1.6]]")
    assert rules == FitRules(r2_doubted_below=0.995, hu_per_mg=((80.0, 1.9, 2.3), (120.0, 1.3, 1.6)))


@pytest.mark.parametrize(
    "fit",
    [
        "r2 = 0.9",
        "r2_doubted_below = 0.5",
        "r2_refused_below = 1.5",
        "hu_per_mg = []",
        "hu_per_mg = [[80, 2.3, 1.9]]",
        "hu_per_mg = [[120, 1.3, 1.6], [80, 1.9, 2.3]]",
        "hu_per_mg = [[80, 1.9]]",
        'residual_doubted_hu = "few"',
        "residual_doubted_hu = -1.0",
        "hu_per_mg = [[80, -1.9, 2.3]]",
        "displaced_water = nan",
    ],
)
def test_fit_rules_that_make_no_sense_are_refused(site, fit):
    with pytest.raises(CatalogEntryInvalid):
        with_fit(site, fit)


def test_a_files_rules_decide_on_its_calibration(site):
    """75 mg 12 HU off the line: said by the shipped limit of 10 HU; refused or let pass by a file's own."""
    rods = tuple(
        RodReading(name=f"{mg:g}", density_mg_cm3=mg, hu_mean=hu, hu_sd=20.0, voxels=900, axis_points_mm=())
        for mg, hu in ((0.0, 0.0), (75.0, 112.5 + 18.0), (150.0, 225.0))
    )

    def judged(fit: str) -> list[str]:
        with_fit(site, fit)
        model = load_phantom("ours", site)[0]
        _, noticed = calibrate_from_reading(PhantomReading(model="ours", rods=rods), model, 120.0)
        return [one.code for one in noticed]

    assert judged("") == ["calibration_fit_poor"]
    assert judged("residual_doubted_hu = 20.0\nr2_doubted_below = 0.95") == []
    assert judged("r2_refused_below = 0.995\nr2_doubted_below = 0.999") == ["calibration_fit_failed"]
    assert judged("hu_per_mg = [[120, 1.6, 1.9]]") == ["calibration_slope_off"]


def test_a_serial_numbers_certificate_changes_densities_and_nothing_else(site):
    (site / "phantoms" / "b-mas-200.S17.toml").write_text(CERTIFICATE, "utf-8")
    model, sha256 = load_phantom("b-mas-200", site, serial="S17")
    plain, _ = load_phantom("b-mas-200", site)
    assert [rod.density_mg_cm3 for rod in model.rods] == [0.0, 50.8, 101.3, 149.1, 202.6]
    assert [(rod.name, rod.offset_mm, rod.expected_hu) for rod in model.rods] == [
        (rod.name, rod.offset_mm, rod.expected_hu) for rod in plain.rods
    ]
    assert (model.name, model.serial, plain.serial) == ("b-mas-200", "S17", "")
    assert "made for this test" in model.source
    both = shipped("b-mas-200") + CERTIFICATE
    assert model.sha256 == sha256 == hashlib.sha256(both.encode()).hexdigest() != plain.sha256
    assert list_phantoms(site) == list_phantoms()  # a certificate is no model


def test_the_calibration_says_whose_certificate_it_used(site):
    (site / "phantoms" / "b-mas-200.S17.toml").write_text(CERTIFICATE, "utf-8")
    model, sha256 = load_phantom("b-mas-200", site, serial="S17")
    rods = tuple(
        RodReading(
            name=rod.name,
            density_mg_cm3=rod.density_mg_cm3,
            hu_mean=1.5 * rod.density_mg_cm3,
            hu_sd=20.0,
            voxels=900,
            axis_points_mm=(),
        )
        for rod in model.rods
    )
    found, noticed = calibrate_from_reading(PhantomReading(model=model.name, rods=rods), model, 120.0)
    assert noticed == ()
    assert (found.phantom, found.phantom_serial, found.phantom_sha256) == ("b-mas-200", "S17", sha256)
    assert found.phantom_named == "b-mas-200 S17"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('serial = "S17"', 'serial = "S18"'),
        ('model = "b-mas-200"', 'model = "intable"'),
        ('source = "made for this test"', ""),
        ('source = "', 'roi_margin_mm = 1.0\nsource = "'),
        ('{name = "HA 150", density_mg_cm3 = 149.1},', ""),
        ('"HA 150"', '"HA 100"'),
        ('{name = "HA 150",', '{name = "HA 150", diameter_mm = 10.0,'),
        ('name = "water", density_mg_cm3 = 0.0', 'name = "water", density_mg_cm3 = 3.0'),
        ("rods = [", "rods = ["[:-1]),
        ('source = "made for this test"', 'source = " "'),
        ("density_mg_cm3 = 149.1", "density_mg_cm3 = 101.3"),
        ("density_mg_cm3 = 50.8", "density_mg_cm3 = 508.0"),
    ],
)
def test_a_certificate_that_makes_no_sense_is_refused(site, before, after):
    assert before in CERTIFICATE
    (site / "phantoms" / "b-mas-200.S17.toml").write_text(CERTIFICATE.replace(before, after, 1), "utf-8")
    with pytest.raises(CatalogEntryInvalid, match=r"b-mas-200\.S17"):
        load_phantom("b-mas-200", site, serial="S17")


def test_a_mindways_certificate_needs_the_water_of_every_rod(site):
    rods = [
        f'{{name = "{rod.name}", density_mg_cm3 = {rod.density_mg_cm3}}},'
        for rod in load_phantom("mindways-3")[0].rods
    ]
    text = 'model = "mindways-3"\nserial = "4541A"\nsource = "x"\nrods = [' + "".join(rods) + "]"
    (site / "phantoms" / "mindways-3.4541A.toml").write_text(text, "utf-8")
    with pytest.raises(CatalogEntryInvalid, match="water_mg_cm3"):
        load_phantom("mindways-3", site, serial="4541A")


def test_an_unknown_serial_number_stops_the_start(site):
    settings = load_settings(node={"site": str(site)}, calibration={"phantom": "b-mas-200", "serial": "S17"})
    with pytest.raises(ConfigurationError, match=r"b-mas-200\.S17"):
        require_configured(settings)
    with pytest.raises(CatalogEntryMissing):
        load_phantom("b-mas-200", site, serial="../S17")


@pytest.mark.parametrize(
    "calibration",
    [
        {"phantom": "auto", "serial": "S17"},
        {"phantom": "intable", "candidates": ["intable"]},
        {"serial": "S/17"},
    ],
)
def test_a_serial_number_belongs_to_a_named_phantom_and_candidates_to_auto(calibration):
    with pytest.raises(ConfigurationError):
        load_settings(calibration=calibration)


def test_auto_chooses_among_the_whole_catalogue_or_the_candidates(site):
    text = shipped("intable").replace('name = "intable"', 'name = "ours"')
    (site / "phantoms" / "ours.toml").write_text(text, "utf-8")
    every = load_settings(node={"site": str(site)}, calibration={"phantom": "auto"})
    assert tuple(configured_phantoms(every)) == tuple(sorted((*list_phantoms(), "ours")))
    owned = load_settings(calibration={"phantom": "auto", "candidates": ["intable", "qrm-bdc-3"]})
    assert tuple(configured_phantoms(owned)) == ("intable", "qrm-bdc-3")
    with pytest.raises(ConfigurationError, match="nonesuch"):
        require_configured(load_settings(calibration={"phantom": "auto", "candidates": ["nonesuch"]}))


def test_a_file_that_names_itself_otherwise_is_refused(site):
    (site / "phantoms" / "ours.toml").write_text(shipped("intable"), "utf-8")
    with pytest.raises(CatalogEntryInvalid, match="intable"):
        load_phantom("ours", site)


THIRD_ROD = """
[[rods]]
name = "third"
density_mg_cm3 = 100.0
diameter_mm = 20.0
offset_mm = 30.0
expected_hu = [90.0, 300.0]
search_hu = [60.0, 330.0]
"""


def site_phantom(site: Path, name: str, before: str, after: str) -> str:
    """A site's own phantom, which is the shipped one of that name but for one change."""
    text = shipped(name)
    assert before in text
    text = text.replace(before, after).replace(f'name = "{name}"', 'name = "ours"', 1)
    (site / "phantoms" / "ours.toml").write_text(text, "utf-8")
    return "ours"


@pytest.mark.parametrize(
    ("name", "before", "after", "reason"),
    [
        ("siemens-osteo", "[[rods]]", THIRD_ROD + "[[rods]]", "two rods"),
        ("siemens-osteo", "density_mg_cm3 = 0.0", "density_mg_cm3 = 50.0", "two rods"),
        ("siemens-osteo", "density_mg_cm3 = 0.0", "density_mg_cm3 = -5.0", "below 0"),
        ("siemens-osteo", 'method = "two-point"', 'method = "mindways"', "5 rods of K2HPO4"),
        ("b-mas-200", 'method = "least-squares"', 'method = "two-point"', "two rods"),
        ("b-mas-200", 'method = "least-squares"', 'method = "mindways"', "5 rods of K2HPO4"),
        ("b-mas-200", "density_mg_cm3 = 150.0", "density_mg_cm3 = 100.0", "same density"),
        ("intable", "density_mg_cm3 = 75.0", "density_mg_cm3 = 475.0", "fewer than two"),
        ("mindways-3", 'equivalent = "K2HPO4"', 'equivalent = "HA"', "5 rods of K2HPO4"),
        ("mindways-3", "water_mg_cm3 = 923.2", "", "water_mg_cm3"),
        ("mindways-3", 'method = "mindways"', 'method = "least-squares"', "would ignore it"),
        ("intable", "tilt_degrees = 5.0", "tilt_degrees = -5.0", "negative"),
        ("intable", "roi_margin_mm = 3.5", "roi_margin_mm = -1.0", "negative"),
        ("intable", "tilt_degrees = 5.0", "tilt_degrees = 5.0\ntwist = 1.0", "no twist"),
    ],
)
def test_rods_that_a_method_cannot_be_used_on_are_refused_before_any_image(site, name, before, after, reason):
    own = site_phantom(site, name, before, after)
    if name == "intable" and "fewer" in reason:  # only water is left below fit_up_to_mg_cm3
        path = site / "phantoms" / "ours.toml"
        path.write_text(
            path.read_text("utf-8").replace("density_mg_cm3 = 150.0", "density_mg_cm3 = 500.0"), "utf-8"
        )
    with pytest.raises(CatalogEntryInvalid, match=reason):
        load_phantom(own, site)
    with pytest.raises(ConfigurationError, match=reason):
        require_configured(load_settings(node={"site": str(site)}, calibration={"phantom": own}))


def test_a_certificate_cannot_give_two_rods_one_density(site):
    twice = CERTIFICATE.replace("density_mg_cm3 = 149.1", "density_mg_cm3 = 202.6")
    (site / "phantoms" / "b-mas-200.S17.toml").write_text(twice, "utf-8")
    with pytest.raises(CatalogEntryInvalid, match="another rod"):
        load_phantom("b-mas-200", site, serial="S17")


def test_a_phantoms_file_states_when_a_shift_of_offset_is_seen(site):
    """12 HU in the middle of 60 mm exceed 10 HU in any stretch of 8 mm; stretches of 40 mm there are none."""
    own = site_phantom(site, "b-mas-200", "[limits]", "[limits]\noffset_stretch_mm = 40.0")
    along = np.linspace(0.0, 60.0, 31)
    slices = tuple(
        SliceReading(
            z_mm=float(z), hu=tuple(12.0 * (z > 30.0) + hu for hu in (0.0, 75.0, 150.0, 225.0, 300.0))
        )
        for z in along
    )
    reading = PhantomReading(model="ours", slices=slices)
    for model, seen in ((load_phantom("b-mas-200")[0], True), (load_phantom(own, site)[0], False)):
        bare = replace(model, rods=())
        assert ["water_rod_drift"] * seen == [
            one.code for one in reading_observations(reading, bare, (), truncated=False)
        ]
