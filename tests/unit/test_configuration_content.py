"""The hash by which results name their configuration follows the content of every file that it names."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from config.catalog import CatalogEntryMissing, configuration_sha256
from config.settings import load_settings


def shipped(name: str) -> bytes:
    return files("config").joinpath(name).read_bytes()


NAMED = (
    "phantoms/siemens-osteo.toml",
    "references/demonstration.toml",
    "models/demonstration.json",
    "radiomics.yaml",
    "findings.toml",
    "phrases/zh.ftl",
)


@pytest.mark.parametrize("name", NAMED)
def test_a_file_of_the_same_name_and_other_content_is_another_configuration(
    tmp_path: Path, name: str
) -> None:
    settings = load_settings(node={"site": str(tmp_path)})
    own, content = tmp_path / name, shipped(name)
    own.parent.mkdir(exist_ok=True)
    own.write_bytes(content)
    before = configuration_sha256(settings)
    own.write_bytes(content + b"\n")
    assert configuration_sha256(settings) != before


def test_every_phantom_counts_where_the_model_is_recognised(tmp_path: Path) -> None:
    settings = load_settings(node={"site": str(tmp_path)}, calibration={"phantom": "auto"})
    before = configuration_sha256(settings)
    (tmp_path / "phantoms").mkdir()
    (tmp_path / "phantoms" / "intable.toml").write_bytes(shipped("phantoms/intable.toml") + b"\n")
    assert configuration_sha256(settings) != before


def test_a_certificate_counts_with_its_content(tmp_path: Path) -> None:
    settings = load_settings(
        node={"site": str(tmp_path)}, calibration={"phantom": "siemens-osteo", "serial": "7"}
    )
    with pytest.raises(CatalogEntryMissing):
        configuration_sha256(settings)
    (tmp_path / "phantoms").mkdir()
    certificate = tmp_path / "phantoms" / "siemens-osteo.7.toml"
    certificate.write_text("a = 1\n")
    before = configuration_sha256(settings)
    certificate.write_text("a = 2\n")
    assert configuration_sha256(settings) != before


def test_machines_that_compute_elsewhere_have_the_same_configuration() -> None:
    """Where an engine computed stands in its own provenance."""
    here, there = (load_settings(segmentation={"device": one}) for one in ("cpu", "cuda:1"))
    assert configuration_sha256(here) == configuration_sha256(there)
    assert configuration_sha256(here) != configuration_sha256(load_settings(scoring={"model": ""}))
