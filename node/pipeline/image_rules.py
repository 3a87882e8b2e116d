"""A site's limits for segmentation and quality gates, as the pure rooms take them."""

from __future__ import annotations

from config.settings import SegmentationSettings
from segmentation.contrast import ContrastSettings
from segmentation.ellipse import EllipseSettings
from segmentation.engines.geometric import GeometricEngine, GeometricSettings
from segmentation.engines.geometric.canal import CanalSettings
from segmentation.engines.geometric.discs import DiscSettings
from segmentation.engines.geometric.numbering import AnchorSettings
from segmentation.fracture import FractureSettings
from segmentation.image_quality import ImageQualitySettings
from segmentation.lesions import LesionSettings
from segmentation.levels import IdentitySettings
from segmentation.motion import MotionSettings
from segmentation.noise import NoiseSettings
from segmentation.quality import QualitySettings
from segmentation.single_slice import SliceFinder
from segmentation.slice_settings import SliceSettings
from segmentation.vertebra import DensityRegions, RegionSettings


def geometric_settings(settings: SegmentationSettings) -> GeometricSettings:
    rules = settings.geometric.model_dump()
    canal, discs, anchors = rules.pop("canal"), rules.pop("discs"), rules.pop("anchors")
    return GeometricSettings(
        **rules,
        canal=CanalSettings(**canal),
        discs=DiscSettings(**discs),
        anchors=AnchorSettings(**anchors),
    )


def identity_settings(settings: SegmentationSettings) -> IdentitySettings:
    return IdentitySettings(**settings.identity.model_dump())


def geometric_engine(settings: SegmentationSettings) -> GeometricEngine:
    """The model-free engine, be it the configured one or the one that others are checked against."""
    return GeometricEngine(geometric_settings(settings), identity_settings(settings))


def region_settings(settings: SegmentationSettings) -> RegionSettings:
    rules = settings.regions.model_dump()
    return RegionSettings(
        **{
            **rules,
            "bmd": DensityRegions(settings.regions.bmd),
            "ellipse": EllipseSettings(**rules["ellipse"]),
        }
    )


def quality_settings(settings: SegmentationSettings) -> QualitySettings:
    rules = settings.quality.model_dump()
    fracture, lesions = rules.pop("fracture"), rules.pop("lesions")
    return QualitySettings(**rules, fracture=FractureSettings(**fracture), lesions=LesionSettings(**lesions))


def slice_finder(settings: SegmentationSettings) -> SliceFinder:
    """Canal, regions and metal in single slices follow the limits of those in volumes."""
    return SliceFinder(
        slices=SliceSettings(**settings.single_slice.model_dump()),
        regions=region_settings(settings),
        quality=quality_settings(settings),
        canal=geometric_settings(settings).canal,
    )


def image_settings(settings: SegmentationSettings) -> ImageQualitySettings:
    limits = settings.image
    return ImageQualitySettings(
        contrast=ContrastSettings(
            limit_hu=limits.contrast_hu,
            length_mm=limits.contrast_length_mm,
            edge_hu=limits.contrast_edge_hu,
        ),
        motion=MotionSettings(
            limit_mm=limits.motion_mm,
            thickest_mm=limits.motion_thickest_mm,
            alternate_mm=limits.alternate_mm,
        ),
        noise=NoiseSettings(
            noise_hu=limits.noise_hu,
            streaks_hu=limits.streaks_hu,
            streaks_ratio=limits.streaks_ratio,
            streaks_share=limits.streaks_share,
            muscle_hu=limits.muscle_hu,
        ),
    )
