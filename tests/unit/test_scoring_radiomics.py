"""Features: the stock extractor's values bit for bit, IBSI's digital phantom, and where features end."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its own documentation gives it
from radiomics.featureextractor import RadiomicsFeatureExtractor

from config.catalog import load_radiomics_settings_text
from config.phrases import in_english
from scoring.errors import FeaturesImpossible, RadiomicsSettingsInvalid, UnknownFeature
from scoring.radiomics import compute_features, feature_names, parse_settings
from segmentation.ct_volume import CtVolume, Grid
from segmentation.errors import GridMismatch

AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
SIX = (
    "wavelet-LLL_firstorder_10Percentile",
    "wavelet-LLL_firstorder_Median",
    "wavelet-LLH_firstorder_Median",
    "wavelet-LLH_firstorder_InterquartileRange",
    "wavelet-LLH_firstorder_Skewness",
    "wavelet-LLH_glrlm_ShortRunLowGrayLevelEmphasis",
)


@pytest.fixture(scope="module")
def settings():
    return parse_settings(load_radiomics_settings_text()[0])


def textured(shape: tuple[int, int, int], seed: int = 1) -> CtVolume:
    hu = np.rint(np.random.default_rng(seed).normal(110.0, 45.0, shape)).astype(np.float32)
    grid = Grid(shape=shape, spacing_mm=(2.5, 0.7, 0.8), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    return CtVolume(hu=hu, grid=grid)


def ellipsoid(shape, centre, radii) -> np.ndarray:
    index = np.indices(shape).astype(float)
    return sum(((i - c) / r) ** 2 for i, c, r in zip(index, centre, radii, strict=True)) < 1


def stock_values(volume: CtVolume, region: np.ndarray) -> dict[str, float]:
    """pyradiomics' own extractor on the whole, uncropped image; it reads the shipped file by itself."""
    image = sitk.GetImageFromArray(volume.hu.astype(np.int16))
    image.SetSpacing(volume.grid.spacing_mm[::-1])
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    mask.CopyInformation(image)
    extractor = RadiomicsFeatureExtractor(str(files("config") / "radiomics.yaml"), additionalInfo=False)
    return {name: float(value) for name, value in extractor.execute(image, mask).items()}


# pyradiomics reads its parameter file by pykwalify, whose way of loading it is deprecated.
@pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")
@pytest.mark.parametrize(
    ("shape", "centre"),
    [
        ((24, 72, 81), (12.0, 30.0, 40.0)),  # even and odd sizes
        ((21, 65, 60), (10.0, 33.0, 30.0)),
        ((14, 64, 64), (6.0, 9.0, 31.0)),  # the image ends within the margin
    ],
)
def test_all_851_features_of_the_crop_are_those_of_the_whole_image_bit_for_bit(settings, shape, centre):
    volume = textured(shape)
    region = ellipsoid(shape, centre, (5.6, 9.3, 12.1))
    names = feature_names(settings)
    assert len(names) == 851
    ours = compute_features(volume, region, names, settings)
    stock = stock_values(volume, region)
    assert set(stock) == set(names)
    assert {name for name in names if ours[name] != stock[name]} == set()


def test_a_few_features_alone_are_the_same_as_among_all(settings):
    volume = textured((22, 60, 60))
    region = ellipsoid((22, 60, 60), (11.0, 30.0, 30.0), (5.0, 9.0, 11.0))
    everything = compute_features(volume, region, feature_names(settings), settings)
    six = compute_features(volume, region, SIX, settings)
    assert list(six) == list(SIX)
    assert six == {name: everything[name] for name in SIX}


def test_features_do_not_depend_on_how_the_array_is_stored(settings):
    volume = textured((22, 60, 64))
    region = ellipsoid((22, 60, 64), (11.0, 31.0, 30.0), (5.0, 9.0, 11.0))
    expected = compute_features(volume, region, SIX, settings)
    # The same voxels stored as sagittal images, from cranial to caudal.
    hu = np.transpose(volume.hu, (2, 0, 1))[:, ::-1, :]
    grid = Grid(
        shape=hu.shape,
        spacing_mm=(0.8, 2.5, 0.7),
        origin_mm=(0.0, 0.0, 21 * 2.5),
        direction=((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    )
    stored_otherwise = CtVolume(hu=np.ascontiguousarray(hu), grid=grid)
    mask = np.ascontiguousarray(np.transpose(region, (2, 0, 1))[:, ::-1, :])
    assert compute_features(stored_otherwise, mask, SIX, settings) == expected


def test_the_ibsi_digital_phantom_has_its_published_values(test_data: Path):
    folder = test_data / "ibsi1" / "digital_phantom"
    image = sitk.ReadImage(str(next((folder / "image").glob("*.nii.gz"))))
    mask = sitk.ReadImage(str(next((folder / "mask").glob("*.nii.gz"))))
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    grid = Grid(shape=hu.shape, spacing_mm=(2.0, 2.0, 2.0), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    shipped, _ = load_radiomics_settings_text()
    one_bin_per_level = parse_settings(shipped.replace("binWidth: 25", "binWidth: 1"))
    values = compute_features(
        CtVolume(hu=hu, grid=grid),
        sitk.GetArrayFromImage(mask) > 0,
        (
            "original_firstorder_10Percentile",
            "original_firstorder_Median",
            "original_firstorder_InterquartileRange",
            "original_firstorder_Skewness",
            "original_glrlm_ShortRunLowGrayLevelEmphasis",
        ),
        one_bin_per_level,
    )
    # IBSI reference manual, digital phantom: QG58, Y12H, SALO, KE2A, HTZT (3D, averaged).
    assert list(values.values()) == pytest.approx([1.0, 1.0, 3.0, 1.08, 0.352], abs=0.005)


def test_too_few_slices_have_no_features(settings):
    region = np.zeros((20, 40, 40), bool)
    region[8:11, 10:30, 10:30] = True
    with pytest.raises(FeaturesImpossible, match="region-slices") as refused:
        compute_features(textured((20, 40, 40)), region, SIX, settings)
    assert refused.value.code == "features_impossible"
    assert in_english(refused.value.reason) == "3 slices in the region, 4 required"


def test_too_small_a_region_has_no_features(settings):
    region = np.zeros((20, 40, 40), bool)
    region[6:11, 10:13, 10:13] = True
    with pytest.raises(FeaturesImpossible, match="too small"):
        compute_features(textured((20, 40, 40)), region, SIX, settings)


def test_an_empty_region_has_no_features(settings):
    with pytest.raises(FeaturesImpossible, match="region-slices"):
        compute_features(textured((20, 40, 40)), np.zeros((20, 40, 40), bool), SIX, settings)


def test_a_region_with_a_voxel_that_is_no_number_is_refused(settings):
    volume = textured((20, 40, 40))
    region = np.zeros((20, 40, 40), bool)
    region[5:12, 10:20, 10:20] = True
    volume.hu[8, 15, 15] = np.nan
    with pytest.raises(FeaturesImpossible, match="region-not-finite"):
        compute_features(volume, region, ("original_firstorder_Mean",), settings)


def test_a_region_of_another_shape_is_refused(settings):
    with pytest.raises(GridMismatch):
        compute_features(textured((20, 40, 40)), np.ones((20, 40, 41), bool), SIX, settings)


def test_a_feature_that_the_settings_do_not_provide_is_refused(settings):
    with pytest.raises(UnknownFeature) as refused:
        compute_features(
            textured((20, 40, 40)), np.ones((20, 40, 40), bool), ("log_firstorder_Mean",), settings
        )
    assert refused.value.names == ("log_firstorder_Mean",)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("binWidth: 25", "binwidth: 25"),
        ("binWidth: 25", "binWidth: 25\n  resampledPixelSpacing: [1, 1, 1]"),
        ("normalize: false", "normalize: true"),
        ("Original: {}", "LoG: {}"),
        ("level: 1", "level: 2"),
        ("firstorder:", "secondorder:"),
        ("firstorder:", "firstorder: [Meen]"),
        ("setting:", "settings:"),
        ("imageType:", "[imageType"),
    ],
)
def test_settings_that_would_be_misread_are_refused(before, after):
    text, _ = load_radiomics_settings_text()
    assert before in text
    with pytest.raises(RadiomicsSettingsInvalid):
        parse_settings(text.replace(before, after, 1))


def test_pyradiomics_writes_nothing_to_the_terminal(settings, capfd, caplog):
    region = np.zeros((20, 40, 40), bool)
    region[5:12, 10:20, 10:20] = True
    with caplog.at_level(logging.DEBUG):
        compute_features(textured((20, 40, 40)), region, SIX, settings)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("radiomics")] == []
