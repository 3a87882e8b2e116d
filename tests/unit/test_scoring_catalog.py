"""Phantoms, references, models and settings by name, shipped or from a site's folder."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import pytest

from config.catalog import (
    CatalogEntryInvalid,
    CatalogEntryMissing,
    list_models,
    list_phantoms,
    load_model_card,
    load_phantom,
    load_radiomics_settings_text,
    load_reference,
    require_configured,
)
from config.settings import ConfigurationError, load_settings
from scoring.calibration import Grade, Mineral
from scoring.calibration.methods import METHODS


def test_everything_shipped_loads():
    assert "siemens-osteo" in list_phantoms()
    assert "demonstration" in list_models()
    for name in list_phantoms():
        assert load_phantom(name)[0].name == name
    references = [path.name for path in files("config").joinpath("references").iterdir()]
    assert "demonstration.toml" in references
    for name in references:
        assert load_reference(name.removesuffix(".toml"))[0].name == name.removesuffix(".toml")
    for name in list_models():
        assert load_model_card(name)[0].name == name


def test_the_hash_is_that_of_the_files_bytes():
    content = files("config").joinpath("phantoms", "siemens-osteo.toml").read_bytes()
    assert load_phantom("siemens-osteo")[1] == hashlib.sha256(content).hexdigest()


def test_the_siemens_osteo_phantom_has_a_water_and_a_200_mg_ha_rod():
    model, _ = load_phantom("siemens-osteo")
    assert [rod.density_mg_cm3 for rod in model.rods] == [0.0, 200.0]
    assert model.equivalent is Mineral.HA
    assert model.method in METHODS


def test_the_demonstration_reference_says_that_it_is_invented():
    reference, _ = load_reference("demonstration")
    assert reference.demonstration
    assert "NOT FOR CLINICAL USE" in reference.source
    assert "invented" in reference.population.lower()
    # The demonstration patient: a woman of 67 with about 95 to 100 mg HA/cm3 in L3.
    for bmd in (95.0, 100.0):
        assert -2.8 < (bmd - reference.young.mean_mg_cm3) / reference.young.sd_mg_cm3 < -2.2


def test_a_sites_file_takes_the_place_of_the_shipped_one(tmp_path: Path):
    (tmp_path / "references").mkdir()
    shipped = files("config").joinpath("references", "demonstration.toml").read_text("utf-8")
    (tmp_path / "references" / "demonstration.toml").write_text(
        shipped.replace('population = "DEMONSTRATION', 'population = "OUR OWN DEMONSTRATION'), "utf-8"
    )
    (tmp_path / "references" / "ours.toml").write_text(
        shipped.replace('name = "demonstration"', 'name = "ours"'), "utf-8"
    )
    own, own_hash = load_reference("demonstration", tmp_path)
    assert own.population.startswith("OUR OWN")
    assert own_hash != load_reference("demonstration")[1]
    assert load_phantom("siemens-osteo", tmp_path) == load_phantom("siemens-osteo")
    assert load_radiomics_settings_text(tmp_path) == load_radiomics_settings_text()


@pytest.mark.parametrize("name", ["nonesuch", "../findings", "/etc/passwd", ""])
def test_what_is_not_in_the_catalogue_is_named_with_what_is(name):
    with pytest.raises(CatalogEntryMissing) as missing:
        load_phantom(name)
    assert missing.value.name == name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('method = "two-point"', 'method = "by eye"'),
        ('equivalent = "HA"', 'equivalent = "chalk"'),
        ("roi_margin_mm = 3.5", "roi_margin_mm = 10.0"),
        ("offset_mm = 60.0", "offset_mm = 0.0"),
        ("diameter_mm = 20.0", ""),
        ("body_hu = [10.0, 70.0]", "body_hu = [70.0, 10.0]"),
        ("tilt_degrees = 5.0", "tilt = 5.0"),
        ("[limits]", "[limits"),
        ("tilt_degrees = 5.0", "tilt_degrees = nan"),
        ("density_mg_cm3 = 200.0", "density_mg_cm3 = inf"),
        ("[limits]", "[fits]\nr2_doubted_below = 0.99\n[limits]"),
        ("[limits]", "fit = []\n[limits]"),
        ('method = "two-point"', 'method = "two-point"\nfit = []'),
        ('method = "two-point"', 'method = "two-point"\nfit = ""'),
        ('method = "two-point"', 'method = "two-point"\nroi_margn_mm = 1.0'),
        ("diameter_mm = 20.0", "diameter_mm = 20.0\ncolour = 1"),
        ("tilt_degrees = 5.0", "tilt_degrees = true"),
        ("tilt_degrees = 5.0", 'tilt_degrees = "5"'),
    ],
)
def test_a_phantom_file_that_makes_no_sense_is_refused(tmp_path: Path, before, after):
    shipped = files("config").joinpath("phantoms", "siemens-osteo.toml").read_text("utf-8")
    assert before in shipped
    (tmp_path / "phantoms").mkdir()
    own = tmp_path / "phantoms" / "siemens-osteo.toml"
    own.write_text(shipped, "utf-8")
    assert load_phantom("siemens-osteo", tmp_path)
    own.write_text(shipped.replace(before, after, 1), "utf-8")
    with pytest.raises(CatalogEntryInvalid):
        load_phantom("siemens-osteo", tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('sex = "any"', 'sex = "W"'),
        ("demonstration = true", 'demonstration = "yes"'),
        ("sd_mg_cm3 = 29.0", "sd_mg_cm3 = 0.0"),
        ("age_from = 20", "age_from = 50"),
        ("mean_mg_cm3 = 170.0, ", ""),
        ('roi = "core"', 'roi = "core"\ngrades = ["phantom", "internal"]'),
        ('roi = "core"', 'roi = "core"\ngrades = []'),
        ('roi = "core"', 'roii = "core"'),
        ("sd_mg_cm3 = 29.0", "sd_mg_cm3 = nan"),
        ('levels = ["L3"]', "levels = []"),
        ('levels = ["L3"]', 'levels = ["X9"]'),
        ("age_from = 60, age_to = 69", "age_from = 59, age_to = 69"),
        ("age_from = 60, age_to = 69", "age_from = 61, age_to = 69"),
        ("age_from = 60, age_to = 69", "age_from = 50, age_to = 59"),
        ('levels = ["L3"]', 'levels = ["L3"]\nlevels_stated = "no"'),
        ('name = "ours"', 'name = "theirs"'),
        ('population = "DEMONSTRATION: invented, no people were measured"', 'population = " "'),
        ('source = "Invented for the demonstration; NOT FOR CLINICAL USE"', 'source = ""'),
        ('equivalent = "HA"', ""),
        ('levels = ["L3"]', ""),
        ("{ age_from = 40, age_to = 49", "{ age_from = 39, age_to = 49"),
        ("mean_mg_cm3 = 170.0", "mean_mg_cm3 = -170.0"),
        ("mean_mg_cm3 = 170.0", "mean_mg_cm3 = 0.17"),
        ("sd_mg_cm3 = 29.0", "sd_mg_cm3 = 0.029"),
        ('levels = ["L3"]', 'levels = ["L3", "L3"]'),
        ("young = { age_from = 20, age_to = 39", "young = { age_from = 60, age_to = 69"),
        ("age_from = 60, age_to = 69", "age_from = 60, age_to = 69.9"),
        ("young = { age_from = 20", "young = { age_from = true"),
        ("sd_mg_cm3 = 29.0", "sd_mg_cm3 = 29.0, sex = 'M'"),
        ("kvp = [80.0, 140.0]", "kvp = [-5.0, 140.0]"),
    ],
)
def test_a_reference_file_that_makes_no_sense_is_refused(tmp_path: Path, before, after):
    shipped = files("config").joinpath("references", "demonstration.toml").read_text("utf-8")
    shipped = shipped.replace('name = "demonstration"', 'name = "ours"', 1)
    assert before in shipped
    (tmp_path / "references").mkdir()
    own = tmp_path / "references" / "ours.toml"
    own.write_text(shipped, "utf-8")
    assert load_reference("ours", tmp_path)
    own.write_text(shipped.replace(before, after, 1), "utf-8")
    with pytest.raises(CatalogEntryInvalid):
        load_reference("ours", tmp_path)


def test_bins_of_age_that_leave_one_out_or_hold_one_twice_are_named_by_that_age(tmp_path: Path):
    shipped = files("config").joinpath("references", "demonstration.toml").read_text("utf-8")
    (tmp_path / "references").mkdir()
    own = tmp_path / "references" / "ours.toml"
    for changed, named in (
        ("age_from = 59, age_to = 69", "two age bins hold the age of 59"),
        ("age_from = 61, age_to = 69", "no age bin holds the age of 60"),
    ):
        own.write_text(shipped.replace("age_from = 60, age_to = 69", changed), "utf-8")
        with pytest.raises(CatalogEntryInvalid, match=named):
            load_reference("ours", tmp_path)


def test_a_reference_is_for_phantoms_in_the_image_unless_its_file_says_more(tmp_path: Path):
    assert load_reference("demonstration")[0].grades == (Grade.PHANTOM,)
    shipped = files("config").joinpath("references", "demonstration.toml").read_text("utf-8")
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "ours.toml").write_text(
        shipped.replace('name = "demonstration"', 'name = "ours"', 1).replace(
            'roi = "core"', 'roi = "core"\ngrades = ["phantom", "asynchronous"]', 1
        ),
        "utf-8",
    )
    assert load_reference("ours", tmp_path)[0].grades == (Grade.PHANTOM, Grade.ASYNCHRONOUS)


def test_what_a_reference_leaves_out_is_unstated_and_never_taken_for_anything(tmp_path: Path):
    assert load_reference("demonstration")[0].unstated == ()
    assert load_reference("chinese-men-mindways")[0].unstated == ("kvp", "roi", "levels")
    shipped = files("config").joinpath("references", "demonstration.toml").read_text("utf-8")
    (tmp_path / "references").mkdir()
    own = shipped.replace('roi = "core"\n', "").replace('name = "demonstration"', 'name = "ours"', 1)
    (tmp_path / "references" / "ours.toml").write_text(own, "utf-8")
    assert load_reference("ours", tmp_path)[0].unstated == ("roi",)


def test_a_site_accepts_what_a_reference_leaves_unstated_by_the_names_of_both():
    assert load_settings().scoring.accept_unstated == {}
    own = load_settings(scoring={"accept_unstated": {"chinese-men-mindways": ["kvp"]}})
    require_configured(own)
    assert own.sha256 != load_settings().sha256
    with pytest.raises(ConfigurationError, match="chinese-mne"):
        require_configured(load_settings(scoring={"accept_unstated": {"chinese-mne": ["kvp"]}}))
    with pytest.raises(ConfigurationError, match="accept_unstated"):
        load_settings(scoring={"accept_unstated": {"demonstration": ["equivalent"]}})


def test_a_model_card_that_makes_no_sense_is_refused(tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "ours.json").write_text("{}", "utf-8")
    with pytest.raises(CatalogEntryInvalid, match="missing"):
        load_model_card("ours", tmp_path)


@pytest.mark.parametrize(
    ("folder", "name", "before", "after", "told"),
    [
        ("phantoms", "siemens-osteo", "diameter_mm = 20.0", "", "rods.0.diameter_mm is missing"),
        ("phantoms", "siemens-osteo", "roi_margin_mm", "roi_margn_mm", "a phantom has no roi_margn_mm"),
        ("phantoms", "siemens-osteo", "tilt_degrees = 5.0", "tilt = 5.0", "limits has no tilt"),
        ("phantoms", "siemens-osteo", "[10.0, 70.0]", "[70.0, 10.0]", "body_hu: 70 to 10 is not a range"),
        ("phantoms", "siemens-osteo", '"two-point"', '"by eye"', "not 'by eye'"),
        ("references", "demonstration", 'roi = "core"', 'roii = "core"', "a reference has no roii"),
        ("references", "demonstration", 'sex = "any"', 'sex = "W"', "not 'W'"),
        ("references", "demonstration", "sd_mg_cm3 = 29.0", "sd_mg_cm3 = 0.029", "young.sd_mg_cm3"),
        ("references", "demonstration", "to = 49, ", "to = 49.5, ", "ages.1.age_to: must be a whole number"),
    ],
)
def test_a_refusal_names_the_file_the_key_and_what_is_wrong(
    tmp_path: Path, folder, name, before, after, told
):
    shipped = files("config").joinpath(folder, f"{name}.toml").read_text("utf-8")
    assert before in shipped
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{name}.toml").write_text(shipped.replace(before, after, 1), "utf-8")
    with pytest.raises(CatalogEntryInvalid) as refused:
        (load_phantom if folder == "phantoms" else load_reference)(name, tmp_path)
    assert told in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
