"""Limits of segmentation and its gates: stated once in their room, and a site's to set."""

from __future__ import annotations

import pytest

from config.settings import ConfigurationError, load_settings
from node.pipeline.steps.score import slice_finder
from segmentation.settings import (
    AnchorSettings,
    CanalSettings,
    DensityRegions,
    DiscSettings,
    EllipseSettings,
    FractureSettings,
    GateSettings,
    IdentitySettings,
    ImageSettings,
    RegionSettings,
)
from segmentation.single_slice import SliceFinder


def test_shipped_limits_are_the_room_s_own():
    settings = load_settings().segmentation
    assert (settings.regions, settings.quality) == (RegionSettings(), GateSettings())
    assert (settings.identity, settings.image) == (IdentitySettings(), ImageSettings())
    assert slice_finder(settings) == SliceFinder()


def test_a_site_s_limits_reach_single_slices(tmp_path):
    (tmp_path / "site.toml").write_text(
        "[segmentation.single_slice]\nring_hu = 150.0\n[segmentation.regions]\nerosion_mm = 4.0\n"
        "[segmentation.quality]\nmetal_hu = 900.0\n"
    )
    finder = slice_finder(load_settings(tmp_path / "site.toml").segmentation)
    assert (finder.slices.ring_hu, finder.regions.erosion_mm, finder.quality.metal_hu) == (150.0, 4.0, 900.0)
    assert finder.info.parameters["ring_hu"] == 150.0


def test_a_site_s_limits_of_canal_discs_and_anchors_reach_the_model_free_engine(tmp_path):
    (tmp_path / "site.toml").write_text(
        "[segmentation.geometric.canal]\nray_mm = 18.0\nmarrow_above_sac_hu = 60.0\nmarrow_mm = 12.0\n"
        "[segmentation.geometric.discs]\nwaist_share = 0.8\nwaist_least_discs = 5\n"
        "[segmentation.geometric.anchors]\nrib_reach_mm = 60.0\nrib_neck_behind_mm = [12.0, 50.0]\n"
    )
    settings = load_settings(tmp_path / "site.toml").segmentation
    geometric = settings.geometric
    canal = CanalSettings(ray_mm=18.0, marrow_above_sac_hu=60.0, marrow_mm=12.0)
    assert geometric.canal == slice_finder(settings).canal == canal
    assert geometric.discs == DiscSettings(waist_share=0.8, waist_least_discs=5)
    assert geometric.anchors == AnchorSettings(rib_reach_mm=60.0, rib_neck_behind_mm=(12.0, 50.0))


def test_a_site_s_limits_reach_the_rooms_and_change_the_hash(tmp_path):
    (tmp_path / "site.toml").write_text(
        "[segmentation.regions]\nerosion_mm = 4.0\n\n[segmentation.quality.fracture]\nrefused_loss = 0.4\n"
        "[segmentation.identity]\nspacing_mm = [20.0, 50.0]\n"
        "[segmentation.image]\ncontrast_hu = 70.0\nnoise_hu = 40.0\nstreaks_share = 0.3\n"
        "contrast_edge_hu = 20.0\nmotion_thickest_mm = 4.0\nmuscle_hu = [-10.0, 90.0]\n"
    )
    settings = load_settings(tmp_path / "site.toml")
    limits = settings.segmentation
    assert limits.regions == RegionSettings(erosion_mm=4.0)
    assert limits.quality == GateSettings(fracture=FractureSettings(refused_loss=0.4))
    assert limits.identity == IdentitySettings(spacing_mm=(20.0, 50.0))
    assert limits.image == ImageSettings(
        contrast_hu=70.0,
        noise_hu=40.0,
        streaks_share=0.3,
        contrast_edge_hu=20.0,
        motion_thickest_mm=4.0,
        muscle_hu=(-10.0, 90.0),
    )
    assert settings.sha256 != load_settings().sha256


@pytest.mark.parametrize(
    ("variable", "value", "regions"),
    [
        ("EROSION_MM", "4", RegionSettings(erosion_mm=4.0)),
        ("BMD", "both", RegionSettings(bmd=DensityRegions.BOTH)),
        ("ELLIPSE__FRONT", "0.2", RegionSettings(ellipse=EllipseSettings(front=0.2))),
        ("ELLIPSE", '{"front": 0.2}', RegionSettings(ellipse=EllipseSettings(front=0.2))),
    ],
)
def test_the_environment_sets_a_limit_within_a_table(monkeypatch, variable, value, regions):
    monkeypatch.setenv(f"OSTEONODE_SEGMENTATION__REGIONS__{variable}", value)
    assert load_settings().segmentation.regions == regions


def test_the_environment_sets_a_span_and_leaves_a_file_the_rest_of_the_table(tmp_path, monkeypatch):
    (tmp_path / "site.toml").write_text("[segmentation.identity]\nspacing_ratio = 1.5\n")
    monkeypatch.setenv("OSTEONODE_SEGMENTATION__IDENTITY__SPACING_MM", "[20, 50]")
    identity = load_settings(tmp_path / "site.toml").segmentation.identity
    assert identity == IdentitySettings(spacing_mm=(20.0, 50.0), spacing_ratio=1.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[segmentation.regions]\nerosion = 4.0\n", "regions.erosion: Extra inputs are not permitted"),
        (
            "[segmentation.regions]\ncentral_height = 1.5\n",
            "central_height: Input should be less than",
        ),
        ("[segmentation.regions]\nerosion_mm = nan\n", "regions.erosion_mm: Input should be a finite number"),
        ("[segmentation.regions]\nbmd = 'all'\n", "regions.bmd: Input should be 'core', 'ellipse' or 'both'"),
        ("[segmentation.regions.ellipse]\nfront = 0.6\n", "front must be less than back"),
        ("[segmentation.identity]\nspacing_mm = [50.0, 20.0]\n", "spacing_mm must rise"),
        ("[segmentation.geometric]\nworking_step_mm = 4.0\n", "working_step_mm: Input should be less than"),
        ("[segmentation.geometric.canal]\nsoft_hu = [110.0, -120.0]\n", "soft_hu must rise"),
        (
            "[segmentation.geometric.canal]\nmarrow_mm = 0.0\n",
            "marrow_mm: Input should be greater than 0",
        ),
        ("[segmentation.geometric.discs]\nwaist_share = 0.0\n", "discs.waist_share"),
        ("[segmentation.geometric.discs]\nwaist_least_discs = 2\n", "discs.waist_least_discs"),
        ("[segmentation.geometric.anchors]\nprocess_reach_mm = 59.0\n", "must not exceed rib_reach_mm"),
        ("[segmentation.quality.fracture]\nsuspected_loss = 0.3\n", "must not exceed refused_loss"),
        ("[segmentation.quality.lesions]\nlytic_hu = [80.0]\n", "lesions.lytic_hu.1: Field required"),
        ("[segmentation.image]\nmotion_mm = 0\n", "image.motion_mm: Input should be greater than 0"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(tmp_path, text, told):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"segmentation\.") as caught:
        load_settings(tmp_path / "site.toml")
    assert told in str(caught.value)
