"""Writes config/golden_features.json: the known image's features by pyradiomics' own extractor.

To be run when config/radiomics.yaml or the pinned pyradiomics changes, and never to silence a drift.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its own documentation gives it
from radiomics.featureextractor import RadiomicsFeatureExtractor

from config.catalog import load_radiomics_settings_text
from scoring.radiomics import feature_names, golden_image, parse_settings

CONFIG = Path(__file__).parents[1] / "config"


def main() -> None:
    volume, region = golden_image()
    image = sitk.GetImageFromArray(volume.hu.astype(np.float64))
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing(volume.grid.spacing_mm[::-1])
    text, sha256 = load_radiomics_settings_text()
    values = RadiomicsFeatureExtractor(str(CONFIG / "radiomics.yaml"), additionalInfo=False).execute(
        image, mask
    )
    content = {
        "pyradiomics": version("pyradiomics"),
        "radiomics_settings_sha256": sha256,
        "features": {name: float(values[name]) for name in feature_names(parse_settings(text))},
    }
    (CONFIG / "golden_features.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
