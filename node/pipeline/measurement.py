"""What is read from pixels: calibration, density and features. Later steps need no pixels again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.pipeline.artefacts import SegmentationArtefact
from node.pipeline.golden import drift_observations
from node.report import LevelResult, SliceResult
from scoring.bmd import BmdResult, measure_bmd
from scoring.calibration import Calibration
from scoring.errors import FeaturesImpossible, RegionEmpty
from scoring.radiomics import RadiomicsSettings, compute_features
from segmentation.image_quality import image_observations
from segmentation.levels import anchor_observations
from segmentation.observation import Observation
from segmentation.plausibility import bone_observations
from segmentation.quality import ellipse_objection, quality_observations
from segmentation.settings import GateSettings, ImageSettings
from segmentation.vertebrae import LUMBAR, RegionKind, Regions
from segmentation.volume import CtVolume

FEATURE_LEVEL = "L3"  # Xie et al. 2022 compute their features on L3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Numbers of one study before anything is withheld."""

    levels: tuple[LevelResult, ...] = ()  # superior to inferior
    numbering_confirmed: bool = False
    numbering_basis: str = "none"
    calibration: Calibration | None = None
    features: Mapping[str, float] | None = None
    observations: tuple[Observation, ...] = ()
    unnamed: tuple[SliceResult, ...] = ()  # of single slices; then there are no levels


def measure(
    volume: CtVolume,
    segmentation: SegmentationArtefact,
    calibration: Calibration | None,
    *,
    feature_names: Sequence[str],
    radiomics: RadiomicsSettings,
    quality: GateSettings,
    image: ImageSettings,
    noise_window_mm: float,
) -> Measurements:
    """Every number that this study's pixels give.

    Parameters
    ----------
    calibration : None where there is none; the caller says why.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.
    feature_names : pyradiomics names of the features that the model asks for; none where there is no model.
    """
    vertebrae = segmentation.vertebrae
    regions = {region.level: region for region in segmentation.regions}
    levels = tuple(
        LevelResult(
            name=level.name,
            complete=level.complete,
            centroid_mm=level.centroid_mm,
            volume_mm3=level.body_volume_mm3 if level.complete else None,
            core_volume_mm3=regions[level.name].core_volume_mm3 if level.name in regions else None,
            measured=_density(volume, regions.get(level.name), calibration, noise_window_mm),
            ellipse=_ellipse_density(volume, regions.get(level.name), calibration, noise_window_mm, quality),
        )
        for level in vertebrae.levels
        if level.name in LUMBAR
    )
    features, impossible = _features(volume, regions.get(FEATURE_LEVEL), feature_names, radiomics)
    return Measurements(
        levels=levels,
        numbering_confirmed=vertebrae.numbering_confirmed,
        numbering_basis=vertebrae.numbering_basis,
        calibration=calibration,
        features=features,
        observations=(
            *vertebrae.observations,
            *anchor_observations(vertebrae),
            *quality_observations(volume, vertebrae, regions, quality),
            *bone_observations(volume, vertebrae, minimum_contrast_hu=quality.min_contrast_hu),
            *image_observations(volume, vertebrae, image),
            *impossible,
        ),
    )


def _density(
    volume: CtVolume, regions: Regions | None, calibration: Calibration | None, noise_window_mm: float
) -> BmdResult | None:
    if regions is None:
        return None
    try:
        return measure_bmd(
            volume,
            regions.bmd,
            calibration,
            level=regions.level,
            kind=regions.kind,
            noise_window_mm=noise_window_mm,
        )
    except RegionEmpty:  # the quality gates say that the region is too small
        return None


def _ellipse_density(
    volume: CtVolume,
    regions: Regions | None,
    calibration: Calibration | None,
    noise_window_mm: float,
    quality: GateSettings,
) -> BmdResult | None:
    """Of the ellipse beside the core, where there is one that serves; else the quality gates say why not."""
    if regions is None or regions.ellipse is None or ellipse_objection(volume, regions.ellipse, quality):
        return None
    return measure_bmd(
        volume,
        regions.ellipse,
        calibration,
        level=regions.level,
        kind=RegionKind.ELLIPSE,
        noise_window_mm=noise_window_mm,
    )


def _features(
    volume: CtVolume, regions: Regions | None, names: Sequence[str], settings: RadiomicsSettings
) -> tuple[Mapping[str, float] | None, tuple[Observation, ...]]:
    if regions is None or not names:
        return None, ()
    if drifted := drift_observations():
        return None, drifted
    try:
        return compute_features(volume, regions.radiomics, names, settings), ()
    except FeaturesImpossible as error:
        return None, (Observation(code=error.code, values={"reason": str(error)}),)
