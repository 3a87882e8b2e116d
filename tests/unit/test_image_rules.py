"""Limits of segmentation and its gates are a site's to set, and ship as the pure rooms have them."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from config.settings import ConfigurationError, load_settings
from node.pipeline.image_rules import (
    geometric_settings,
    identity_settings,
    image_settings,
    quality_settings,
    region_settings,
    slice_finder,
)
from segmentation.engines.geometric import GeometricSettings
from segmentation.engines.geometric.canal import CanalSettings
from segmentation.engines.geometric.discs import DiscSettings
from segmentation.engines.geometric.numbering import AnchorSettings
from segmentation.image_quality import ImageQualitySettings
from segmentation.levels import IdentitySettings
from segmentation.quality import QualitySettings
from segmentation.single_slice import SliceFinder
from segmentation.slice_settings import SliceSettings
from segmentation.vertebra import RegionSettings

PAIRS = (
    ("geometric", geometric_settings, GeometricSettings),
    ("identity", identity_settings, IdentitySettings),
    ("regions", region_settings, RegionSettings),
    ("quality", quality_settings, QualitySettings),
)


@pytest.mark.parametrize(("section", "made", "room"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_shipped_limits_are_the_pure_rooms_own(section, made, room):
    """Field by field: a limit that a site cannot set, or one that no room knows, fails here too."""
    settings = load_settings().segmentation
    assert getattr(settings, section).model_dump() == asdict(room())
    assert made(settings) == room()


def test_shipped_limits_of_single_slices_are_the_pure_rooms_own():
    settings = load_settings().segmentation
    assert settings.single_slice.model_dump() == asdict(SliceSettings())
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
    geometric = geometric_settings(settings)
    canal = CanalSettings(ray_mm=18.0, marrow_above_sac_hu=60.0, marrow_mm=12.0)
    assert geometric.canal == slice_finder(settings).canal == canal
    assert geometric.discs == DiscSettings(waist_share=0.8, waist_least_discs=5)
    assert geometric.anchors == AnchorSettings(rib_reach_mm=60.0, rib_neck_behind_mm=(12.0, 50.0))


def test_shipped_limits_of_the_image_are_the_pure_rooms_own():
    assert image_settings(load_settings().segmentation) == ImageQualitySettings()


def test_a_site_s_limits_reach_the_rooms_and_change_the_hash(tmp_path):
    (tmp_path / "site.toml").write_text(
        "[segmentation.regions]\nerosion_mm = 4.0\n\n[segmentation.quality.fracture]\nrefused_loss = 0.4\n"
        "[segmentation.identity]\nspacing_mm = [20.0, 50.0]\n"
        "[segmentation.image]\ncontrast_hu = 70.0\nnoise_hu = 40.0\nstreaks_share = 0.3\n"
        "contrast_edge_hu = 20.0\nmotion_thickest_mm = 4.0\nmuscle_hu = [-10.0, 90.0]\n"
    )
    settings = load_settings(tmp_path / "site.toml")
    assert region_settings(settings.segmentation) == RegionSettings(erosion_mm=4.0)
    assert quality_settings(settings.segmentation).fracture.refused_loss == 0.4
    assert quality_settings(settings.segmentation).lesions == QualitySettings().lesions
    assert identity_settings(settings.segmentation).spacing_mm == (20.0, 50.0)
    image = image_settings(settings.segmentation)
    assert (image.contrast.limit_hu, image.noise.noise_hu) == (70.0, 40.0)
    assert (image.contrast.edge_hu, image.motion.thickest_mm) == (20.0, 4.0)
    assert (image.noise.streaks_share, image.noise.muscle_hu) == (0.3, (-10.0, 90.0))
    assert image.motion.limit_mm == ImageQualitySettings().motion.limit_mm
    assert settings.sha256 != load_settings().sha256


@pytest.mark.parametrize(
    "text",
    [
        "[segmentation.regions]\nerosion = 4.0\n",
        "[segmentation.regions]\ncentral_height = 1.5\n",
        "[segmentation.regions]\nerosion_mm = nan\n",
        "[segmentation.identity]\nspacing_mm = [50.0, 20.0]\n",
        "[segmentation.geometric]\nworking_step_mm = 4.0\n",
        "[segmentation.geometric.canal]\nsoft_hu = [110.0, -120.0]\n",
        "[segmentation.geometric.canal]\nmarrow_mm = 0.0\n",
        "[segmentation.geometric.discs]\nwaist_share = 0.0\n",
        "[segmentation.geometric.discs]\nwaist_least_discs = 2\n",
        "[segmentation.geometric.anchors]\nprocess_reach_mm = 59.0\n",
        "[segmentation.quality.fracture]\nsuspected_loss = 0.3\n",
        "[segmentation.quality.lesions]\nlytic_hu = [80.0]\n",
        "[segmentation.image]\nmotion_mm = 0\n",
    ],
)
def test_a_limit_that_makes_no_sense_is_named(tmp_path, text):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"segmentation\."):
        load_settings(tmp_path / "site.toml")
