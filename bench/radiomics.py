"""Radiomic features of L3: the stock extractor on the whole image against this project's, in one run.

    python bench/radiomics.py [--json] [--rounds 5]

512 x 512 x 40 voxels, one core. `ratios`: `all_vs_stock`, 851 features over the stock extractor's 851;
`six_vs_stock`, the six of the demonstration model over the same; medians of interleaved rounds, below 1 is
faster. `unequal`: features that are not the stock extractor's to the last bit; the exit status is 1 where
there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported: one core
sys.path.pop(0)  # this folder: its radiomics.py would be taken for the package of that name

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its own documentation gives it
from radiomics.featureextractor import RadiomicsFeatureExtractor

from config.catalog import load_model_card, load_radiomics_settings_text
from scoring.radiomics import compute_features, feature_names, parse_settings
from segmentation.ct_volume import CtVolume, Grid

SHAPE = (40, 512, 512)
SPACING_MM = (2.0, 0.7, 0.7)
CENTRE = (20.0, 260.0, 255.0)
RADII = (11.0, 21.0, 29.0)  # voxels: about the cancellous core of L3


def study() -> tuple[CtVolume, np.ndarray]:
    """Correlated noise of bone's mean and spread, and an ellipsoid in its middle."""
    rng = np.random.default_rng(11)
    noise = sitk.DiscreteGaussian(sitk.GetImageFromArray(rng.standard_normal(SHAPE)), 1.0)
    hu = np.rint(140 + 55 * sitk.GetArrayFromImage(noise) / sitk.GetArrayFromImage(noise).std())
    apart = [(np.arange(n) - c) / r for n, c, r in zip(SHAPE, CENTRE, RADII, strict=True)]
    inside = sum(one**2 for one in np.ix_(*apart)) <= 1
    grid = Grid(
        shape=SHAPE,
        spacing_mm=SPACING_MM,
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    return CtVolume(hu=hu.astype(np.float32), grid=grid), inside


def stock(volume: CtVolume, region: np.ndarray, settings_file: Path) -> dict[str, float]:
    extractor = RadiomicsFeatureExtractor(str(settings_file), additionalInfo=False)
    images = []
    for array in (volume.hu.astype(np.float64), region.astype(np.uint32)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING_MM[::-1])
        images.append(image)
    return {name: float(value) for name, value in extractor.execute(*images).items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    volume, region = study()
    text, _ = load_radiomics_settings_text()
    settings = parse_settings(text)
    every = feature_names(settings)
    six = [feature.name for feature in load_model_card("demonstration")[0].features]
    with tempfile.TemporaryDirectory() as folder:
        settings_file = Path(folder) / "radiomics.yaml"
        settings_file.write_text(text, "utf-8")
        ways: dict[str, Callable[[], dict[str, float]]] = {
            "stock": lambda: stock(volume, region, settings_file),
            "all": lambda: compute_features(volume, region, every, settings),
            "six": lambda: compute_features(volume, region, six, settings),
        }
        values, seconds = timed(ways, asked.rounds)
    unequal = [name for name in every if values["stock"][name] != values["all"][name]]
    unequal += [f"{name} (six)" for name in six if values["stock"][name] != values["six"][name]]
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    told: dict[str, Any] = {
        "ratios": {
            "all_vs_stock": median["all"] / median["stock"],
            "six_vs_stock": median["six"] / median["stock"],
        },
        "seconds": median,
        "features": len(every),
        "unequal": unequal,
    }
    if asked.json:
        print(json.dumps(told))
    else:
        for name, value in median.items():
            print(f"{name:6} {value:8.3f} s  {value / median['stock']:.4f} of stock")
        print(f"{len(every)} features, {len(unequal)} unequal {' '.join(unequal)}")
    return 1 if unequal else 0


def timed(
    ways: dict[str, Callable[[], dict[str, float]]], rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """What each way gives, and its seconds in each round; a first round is not counted."""
    values: dict[str, dict[str, float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            values[name] = way()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return values, seconds


if __name__ == "__main__":
    sys.exit(main())
