"""The known image: features come out as stock pyradiomics gave them, and a drift withholds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its own documentation gives it
from radiomics.featureextractor import RadiomicsFeatureExtractor

from config.catalog import load_golden_features, load_radiomics_settings_text
from config.settings import load_settings
from node.commands.check import CheckStatus, examine
from node.pipeline import result_basis as installed
from node.reference.spec import StudySpec
from scoring.radiomics import feature_drift, feature_names, golden_features, golden_image, parse_settings
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

pytestmark = pytest.mark.slow

TEXT, SHA256 = load_radiomics_settings_text()
SETTINGS = parse_settings(TEXT)
GOLDEN = load_golden_features()


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One stored value is another than this installation computes, by one part in ten thousand."""
    name = "wavelet-LLH_glcm_Idn"
    changed = {**GOLDEN, name: GOLDEN[name] * 1.0001}
    monkeypatch.setattr(installed, "load_golden_features", lambda: changed)
    installed.installed_feature_drift.cache_clear()
    yield name
    installed.installed_feature_drift.cache_clear()


def test_the_stored_values_are_the_stock_extractors_under_the_shipped_settings():
    volume, region = golden_image()
    image = sitk.GetImageFromArray(volume.hu.astype(np.float64))
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing(volume.grid.spacing_mm[::-1])
    extractor = RadiomicsFeatureExtractor(**{**SETTINGS.parameters, "additionalInfo": False})
    extractor.enableImageTypes(Original={}, Wavelet=dict(SETTINGS.wavelet or {}))
    stock = extractor.execute(image, mask)
    assert {name: float(stock[name]) for name in feature_names(SETTINGS)} == pytest.approx(
        dict(GOLDEN), rel=1e-9
    )
    stored = json.loads(files("config").joinpath("golden_features.json").read_text("utf-8"))
    assert stored["radiomics_settings_sha256"] == SHA256


def test_this_installation_computes_all_851_of_them():
    assert len(GOLDEN) == 851
    assert tuple(GOLDEN) == feature_names(SETTINGS)
    drift = feature_drift(GOLDEN, SETTINGS)
    assert (drift.drifted, drift.checked, drift.example) == ((), 851, "")


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": {**SETTINGS.parameters, "binWidth": 24}},
        {"parameters": {**SETTINGS.parameters, "distances": [2]}},
        {"wavelet": {**(SETTINGS.wavelet or {}), "wavelet": "haar"}},
        {"feature_classes": {"firstorder": SETTINGS.feature_classes["firstorder"]}},
    ],
    ids=["bin width", "distance", "wavelet", "classes"],
)
def test_an_extractor_that_computes_otherwise_is_noticed(changed: Mapping[str, object]):
    drift = feature_drift(GOLDEN, replace(SETTINGS, **changed))
    assert len(drift.drifted) > 100
    assert drift.drifted[0] in drift.example


def test_rounding_is_no_drift_and_a_sixth_digit_is():
    now = golden_features(SETTINGS)
    name = "original_firstorder_Energy"
    assert feature_drift({**now, name: now[name] * (1 + 1e-9)}, SETTINGS).drifted == ()
    assert feature_drift({**now, name: now[name] * (1 + 1e-5)}, SETTINGS).drifted == (name,)


def test_a_drift_withholds_features_and_scores_and_density_goes_on(drifting, tmp_path):
    write_reference_study(tmp_path, StudySpec.reduced(view=("L2", "L4")))
    run = Run(tmp_path, tmp_path / "truth_mask.nii.gz", files=False)
    assert "features_drift" in run.codes
    (finding,) = [one for one in run.report.findings if one.code == "features_drift"]
    assert f"1 of 851 features of a known image differ ({drifting} " in finding.text
    result = run.result
    assert [result[name] for name in ("features", "rad_score", "nomogram")] == [None, None, None]
    assert result["levels"]["L3"]["bmd_mg_cm3"] == pytest.approx(96.0, abs=3.0)
    assert result["t_score"] is not None


def test_check_says_that_features_drift(drifting, tmp_path):
    settings = load_settings(storage={"root": str(tmp_path)})
    (line,) = [one for one in examine(settings) if one.what == "features"]
    assert line.standing is CheckStatus.FAILED
    assert f"1 of 851 drifted: {drifting}" in line.detail
