"""A known image whose features are known: does the installed software still compute what it computed?

The image is made of whole numbers by arithmetic alone, so that no generator of random numbers and no file
stands between two installations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose

import numpy as np

from scoring.errors import FeaturesImpossible
from scoring.radiomics import RadiomicsSettings, compute_features, feature_names
from segmentation.volume import CtVolume, Grid, Mask

# Other processors round last digits otherwise; another filter, bin width or version changes the first ones.
RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-9

_SHAPE = (10, 18, 20)  # (z, y, x): even sizes, as pyradiomics pads odd ones
_SPACING_MM = (2.0, 0.7, 0.8)
_DIRECTION = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDrift:
    """Features of the known image that do not come out as they should."""

    drifted: tuple[str, ...]  # names; none where all is well
    checked: int
    example: str  # the first of them in words; "" where all is well


def golden_image() -> tuple[CtVolume, Mask]:
    """HU of -40 to 170 that repeat nowhere, and an ellipsoid within."""
    z, y, x = np.indices(_SHAPE)
    hu = (z * 37 + y * 101 + x * 71 + (x * y) % 13 * 17 + (y * z) % 7 * 29) % 211 - 40
    region = ((2 * z - 9) / 8) ** 2 + ((2 * y - 17) / 14) ** 2 + ((2 * x - 19) / 16) ** 2 < 1
    grid = Grid(shape=_SHAPE, spacing_mm=_SPACING_MM, origin_mm=(0.0, 0.0, 0.0), direction=_DIRECTION)
    return CtVolume(hu=hu.astype(np.float32), grid=grid), region


def golden_features(settings: RadiomicsSettings) -> dict[str, float]:
    """Every feature of the known image, as computed now.

    Raises
    ------
    FeaturesImpossible
        If the extractor refuses the image.
    """
    volume, region = golden_image()
    return compute_features(volume, region, feature_names(settings), settings)


def feature_drift(golden: Mapping[str, float], settings: RadiomicsSettings) -> FeatureDrift:
    """How far what is computed now departs from what is known.

    Parameters
    ----------
    golden : the known values of every feature that `settings` provide.
    settings : those that the known values were computed with.
    """
    try:
        now = golden_features(settings)
    except FeaturesImpossible as error:
        return FeatureDrift(drifted=tuple(golden), checked=len(golden), example=str(error))
    drifted = tuple(
        name
        for name in sorted(golden.keys() | now.keys())
        if name not in golden or name not in now or not _equal(now[name], golden[name])
    )
    return FeatureDrift(
        drifted=drifted,
        checked=len(golden),
        example=_words(drifted[0], golden, now) if drifted else "",
    )


def _equal(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def _words(name: str, golden: Mapping[str, float], now: Mapping[str, float]) -> str:
    known, found = (f"{values[name]:.9g}" if name in values else "nothing" for values in (golden, now))
    return f"{name} {found}, known {known}"
