"""The engine that `resolve_engine` chooses from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load_settings
from node.commands.check import CheckStatus, examine
from node.pipeline.engine import resolve_engine
from segmentation.errors import EngineUnavailable

pytestmark = pytest.mark.slow


def engine_name(**segmentation: object) -> str:
    return resolve_engine(load_settings(segmentation=segmentation).segmentation).info.name


@pytest.mark.usefixtures("trained_packages")
def test_auto_is_totalsegmentator_where_its_weights_are(weights_constant):
    assert engine_name(weights=weights_constant) == "totalsegmentator"


def test_auto_is_the_model_free_engine_where_weights_are_missing(tmp_path):
    assert engine_name(weights=tmp_path) == "geometric"


@pytest.mark.usefixtures("trained_packages")
def test_auto_asks_for_the_weights_of_the_configured_mode(weights_mini):
    assert engine_name(weights=weights_mini) == "geometric"
    assert engine_name(weights=weights_mini, totalsegmentator_mode="fast") == "totalsegmentator"


def test_none_replaces_a_configured_engine_that_lacks_its_weights(tmp_path):
    with pytest.raises(EngineUnavailable, match="geometric"):
        engine_name(engine="totalsegmentator", weights=tmp_path)
    with pytest.raises(EngineUnavailable, match="nnunet_model names no folder"):
        engine_name(engine="nnunet")
    with pytest.raises(EngineUnavailable, match="its own mask"):
        resolve_engine(load_settings(segmentation={"engine": "geometric"}).segmentation, Path("mask.nii"))


@pytest.mark.usefixtures("trained_packages")
def test_an_nnunet_model_works_by_configuration_alone(weights_mini):
    model = next(weights_mini.glob("Dataset297_*/*__3d_fullres"))
    assert engine_name(engine="nnunet", nnunet_model=str(model)) == "nnunet"


def test_totalsegmentator_s_variable_names_the_weights_unless_the_site_does(monkeypatch, tmp_path):
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", "/theirs")
    assert load_settings().segmentation.weights == Path("/theirs")
    (tmp_path / "site.toml").write_text('[segmentation]\nweights = "/ours"\n')
    assert load_settings(tmp_path / "site.toml").segmentation.weights == Path("/ours")


def test_where_weights_lie_does_not_change_what_the_settings_hash_to():
    assert load_settings(segmentation={"weights": "/a"}).sha256 == load_settings().sha256
    assert load_settings(segmentation={"totalsegmentator_mode": "fast"}).sha256 != load_settings().sha256


@pytest.mark.usefixtures("trained_packages")
def test_check_loads_the_weights_and_names_them(weights_constant, tmp_path):
    settings = load_settings(segmentation={"weights": weights_constant, "device": "cpu"})
    line = next(one for one in examine(settings) if one.what == "engine")
    assert line.standing is CheckStatus.OK
    assert "totalsegmentator 2.18.0, configured as 'auto'; weights" in line.detail
    assert "mode standard" in line.detail
    settings = load_settings(segmentation={"engine": "totalsegmentator", "weights": tmp_path})
    line = next(one for one in examine(settings) if one.what == "engine")
    assert line.standing is CheckStatus.FAILED
    assert "check --download" in line.detail
