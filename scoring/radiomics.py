"""Radiomic features of a region by pyradiomics. The sole importer of pyradiomics.

pyradiomics' own extractor filters the whole image and computes whole classes. This module crops the image to
the region, with a margin wider than the wavelet's reach, and computes the requested filters and features
only. The values equal those of the extractor bit for bit.

Volumes are brought to the canonical frame first: wavelet-LLH means "high-pass along the patient's long axis",
however the array was stored.

pyradiomics bins grey levels at multiples of the bin width from 0 and gives kurtosis without subtracting 3;
its wavelets lie outside IBSI-1.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from io import StringIO
from math import isclose, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the name that its own documentation gives it
from radiomics import featureextractor, getFeatureClasses, imageoperations
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from scoring.errors import FeaturesImpossible, RadiomicsSettingsInvalid, UnknownFeature
from segmentation.ct_volume import CtVolume, Grid, Mask, canonical
from segmentation.errors import GridMismatch
from segmentation.phrase import phrase

CROP_MARGIN = 6  # voxels; coif1's transform at level 1 reaches 4, and pyradiomics pads odd sizes by one
MINIMUM_SLICES = 4  # R: with fewer, a high-pass along z is numerical noise
SUB_BANDS = tuple(
    f"wavelet-{x}{y}{z}" for x in "LH" for y in "LH" for z in "LH"
)  # low or high pass, per axis

_FEATURE_CLASSES = frozenset({"shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"})
# Settings that leave the measured voxels as they are, so that a crop gives the whole image's values.
_SETTINGS = frozenset(
    {"binWidth", "distances", "gldm_a", "label", "minimumROIDimensions", "minimumROISize", "normalize"}
    | {"symmetricalGLCM", "voxelArrayShift", "weightingNorm"}
)

# pyradiomics logs at length; what matters is raised below.
logging.getLogger("radiomics").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiomicsSettings:
    """Settings of pyradiomics, as its parameter file states them.

    Attributes
    ----------
    wavelet : settings of the filter; None without wavelets.
    feature_classes : names of features by class.
    parameters : settings of pyradiomics, defaults included.
    """

    wavelet: Mapping[str, Any] | None
    feature_classes: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, Any]


def parse_settings(text: str) -> RadiomicsSettings:
    """Read a parameter file in pyradiomics' format (YAML).

    pyradiomics itself takes a misspelt setting for a new one; therefore settings are checked here.

    Raises
    ------
    RadiomicsSettingsInvalid
        If it is no such file, or requests anything but the original image and one level of wavelets on the
        measured voxels.
    """
    try:
        raw = YAML(typ="safe").load(StringIO(text))
    except YAMLError as error:
        raise RadiomicsSettingsInvalid(f"no YAML: {error}") from error
    if not isinstance(raw, dict) or set(raw) != {"imageType", "featureClass", "setting"}:
        raise RadiomicsSettingsInvalid("imageType, featureClass and setting are needed, and nothing else")
    image_types, classes, parameters = (
        dict(raw[key] or {}) for key in ("imageType", "featureClass", "setting")
    )
    _require_known("image type", image_types, {"Original", "Wavelet"})
    _require_known("feature class", classes, _FEATURE_CLASSES)
    _require_known("setting", parameters, _SETTINGS)
    wavelet = dict(image_types["Wavelet"] or {}) if "Wavelet" in image_types else None
    if wavelet is not None:
        _require_known("wavelet setting", wavelet, {"wavelet", "level", "start_level"})
        if (wavelet.get("level", 1), wavelet.get("start_level", 0)) != (1, 0):
            raise RadiomicsSettingsInvalid("only the first wavelet level is supported")
    if parameters.get("normalize", False) is not False:
        raise RadiomicsSettingsInvalid("HU are measured values: they are not normalised")
    features = {name: tuple(chosen or ()) or _all_of(name) for name, chosen in classes.items()}
    for name, chosen in features.items():
        _require_known(f"{name} feature", chosen, set(_all_of(name)))
    defaults = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False).settings
    return RadiomicsSettings(wavelet=wavelet, feature_classes=features, parameters={**defaults, **parameters})


def _require_known(what: str, names: Iterable[str], known: Set[str]) -> None:
    unknown = sorted(set(names) - known)
    if unknown:
        raise RadiomicsSettingsInvalid(f"unsupported {what}: {', '.join(unknown)}")


def _all_of(feature_class: str) -> tuple[str, ...]:
    names = getFeatureClasses()[feature_class].getFeatureNames()
    return tuple(name for name, deprecated in names.items() if not deprecated)


def feature_names(settings: RadiomicsSettings) -> tuple[str, ...]:
    """Every feature that the settings provide: 851 with the shipped ones.

    Only the original image has shape features.
    """
    bands = SUB_BANDS if settings.wavelet is not None else ()
    return tuple(
        f"{image}_{feature_class}_{feature}"
        for image in ("original", *bands)
        for feature_class, features in settings.feature_classes.items()
        if image == "original" or feature_class != "shape"
        for feature in features
    )


def compute_features(
    volume: CtVolume, region: Mask, names: Sequence[str], settings: RadiomicsSettings
) -> dict[str, float]:
    """The named features of one region.

    Parameters
    ----------
    volume : HU; any axis order and sense.
    region : bool, on the volume's grid.
    names : pyradiomics names, e.g. "wavelet-LLH_firstorder_Skewness", of `feature_names`.

    Returns
    -------
    dict
        One finite value for each name, in the order of `names`.

    Raises
    ------
    GridMismatch
        If region and volume differ in shape.
    UnknownFeature
        If the settings do not provide a name.
    FeaturesImpossible
        If the region is too small or spans too few slices, or a feature has no finite value there.
    """
    if region.shape != volume.hu.shape:
        raise GridMismatch("shape", volume.hu.shape, region.shape)
    unknown = tuple(sorted(set(names) - set(feature_names(settings))))
    if unknown:
        raise UnknownFeature(unknown)
    image, mask = _cropped_images(volume, region)
    try:
        bounding_box, _ = imageoperations.checkMask(image, mask, **settings.parameters)
    except ValueError as error:
        raise FeaturesImpossible("features_impossible", str(error)) from error
    wanted: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        image_name, feature_class, feature = name.split("_", 2)
        wanted[image_name][feature_class].append(feature)
    values: dict[str, float] = {}
    for filtered, image_name, parameters in _filtered_images(image, mask, wanted, settings):
        cut_image, cut_mask = imageoperations.cropToTumorMask(filtered, mask, bounding_box)
        for feature_class, features in wanted[image_name].items():
            calculator = getFeatureClasses()[feature_class](cut_image, cut_mask, **parameters)
            for feature in features:
                calculator.enableFeatureByName(feature)
            for feature, value in calculator.execute().items():
                values[f"{image_name}_{feature_class}_{feature}"] = float(value)
    undefined = [name for name in names if not isfinite(values[name])]
    if undefined:
        raise FeaturesImpossible(
            "features_impossible", phrase("feature-undefined", names=", ".join(undefined))
        )
    return {name: values[name] for name in names}


def _filtered_images(
    image: sitk.Image, mask: sitk.Image, wanted: Mapping[str, Any], settings: RadiomicsSettings
) -> Iterator[tuple[sitk.Image, str, dict[str, Any]]]:
    """The images that are wanted, with their names and the settings for features on them."""
    parameters = dict(settings.parameters)
    if "original" in wanted:
        yield image, "original", parameters
    if settings.wavelet is not None and any(name in wanted for name in SUB_BANDS):
        with_wavelet = {**parameters, **settings.wavelet}
        for band, name, own in imageoperations.getWaveletImage(image, mask, **with_wavelet):
            if name in wanted:
                yield band, name, own


def _cropped_images(volume: CtVolume, region: Mask) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask about the region, in the canonical frame, as SimpleITK images (float64, uint32).

    float64, as PyWavelets would compute from the integers of a stored CT.
    """
    turned, turn = canonical(volume)
    inside = turn.forward(region)
    occupied = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    slices = len(occupied[0])
    if slices < MINIMUM_SLICES:
        raise FeaturesImpossible(
            "features_impossible", phrase("region-slices", slices=slices, needed=MINIMUM_SLICES)
        )
    if not np.isfinite(turned.hu[inside]).all():
        raise FeaturesImpossible("features_impossible", phrase("region-not-finite"))
    window = tuple(_window(at, size) for at, size in zip(occupied, inside.shape, strict=True))
    spacing_mm = turned.grid.spacing_mm
    return (
        _sitk_image(turned.hu[window].astype(np.float64), spacing_mm),
        _sitk_image(inside[window].astype(np.uint32), spacing_mm),
    )


def _window(occupied: npt.NDArray[np.intp], size: int) -> slice:
    """Region and margin along one axis; the whole axis where the image ends within the margin.

    The transform is periodic: near an end it takes values from the other one, as the stock extractor's does.
    """
    first, last = int(occupied[0]) - CROP_MARGIN, int(occupied[-1]) + CROP_MARGIN + 1
    return slice(first, last) if first >= 0 and last <= size else slice(0, size)


def _sitk_image(array: npt.NDArray[Any], spacing_mm: tuple[float, float, float]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])  # SimpleITK counts x, y, z
    return image


# The golden image: whether the installed software reproduces known features of a known image. The image is
# made of whole numbers by arithmetic, without random numbers or files, and is therefore equal on all
# installations.

# Other processors round the last digits differently; another filter, bin width or version changes the first
# ones.
RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-9

_SHAPE = (10, 18, 20)  # (z, y, x): even sizes, as pyradiomics pads odd ones
_SPACING_MM = (2.0, 0.7, 0.8)
_DIRECTION = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDrift:
    """Features of the known image that do not come out as they should.

    Attributes
    ----------
    drifted : names of features; empty where all are reproduced.
    example : the first of them with both values; "" where all are reproduced.
    """

    drifted: tuple[str, ...]
    checked: int
    example: str


def golden_image() -> tuple[CtVolume, Mask]:
    """A known image of HU from -40 to 170 without repetition, and an ellipsoid in it.

    Returns
    -------
    A volume of (10, 18, 20) voxels, and the region (bool).
    """
    z, y, x = np.indices(_SHAPE)
    hu = (z * 37 + y * 101 + x * 71 + (x * y) % 13 * 17 + (y * z) % 7 * 29) % 211 - 40
    region = ((2 * z - 9) / 8) ** 2 + ((2 * y - 17) / 14) ** 2 + ((2 * x - 19) / 16) ** 2 < 1
    grid = Grid(shape=_SHAPE, spacing_mm=_SPACING_MM, origin_mm=(0.0, 0.0, 0.0), direction=_DIRECTION)
    return CtVolume(hu=hu.astype(np.float32), grid=grid), region


def golden_features(settings: RadiomicsSettings) -> dict[str, float]:
    """Every feature of the known image, as computed by the installed software.

    Raises
    ------
    FeaturesImpossible
        If the extractor refuses the image.
    """
    volume, region = golden_image()
    return compute_features(volume, region, feature_names(settings), settings)


def feature_drift(golden: Mapping[str, float], settings: RadiomicsSettings) -> FeatureDrift:
    """Compare computed features of the known image with their known values.

    Parameters
    ----------
    golden : the known values of every feature that `settings` provide.
    settings : with which the known values were computed.
    """
    try:
        now = golden_features(settings)
    except FeaturesImpossible as error:
        return FeatureDrift(drifted=tuple(golden), checked=len(golden), example=str(error))
    drifted = tuple(
        name
        for name in sorted(golden.keys() | now.keys())
        if name not in golden or name not in now or not _is_reproduced(now[name], golden[name])
    )
    return FeatureDrift(
        drifted=drifted,
        checked=len(golden),
        example=_drift_example(drifted[0], golden, now) if drifted else "",
    )


def _is_reproduced(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def _drift_example(name: str, golden: Mapping[str, float], now: Mapping[str, float]) -> str:
    known, found = (f"{values[name]:.9g}" if name in values else "nothing" for values in (golden, now))
    return f"{name} {found}, known {known}"
