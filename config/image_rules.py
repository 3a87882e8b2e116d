"""Limits of segmentation and its quality gates that a site may change.

Each section has the fields of the settings of the pure room that it is named for; a test holds fields and
defaults together. They are written again here so that a process which only listens loads no image library.
All values are proposals until a site has confirmed them (R).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Loss = Annotated[float, Field(gt=0, lt=1)]
Ratio = Annotated[float, Field(ge=1)]
Hounsfield = Annotated[float, Field(ge=-1024, le=32767)]
Span = tuple[float, float]  # from, to


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _spans_rise(self) -> _Rules:
        for name, value in self:
            if isinstance(value, tuple) and value[0] >= value[1]:
                raise ValueError(f"{name} must rise")
        return self


class CanalRules(_Rules):
    """`segmentation.engines.geometric.canal.CanalSettings`."""

    bone_hu: Hounsfield
    soft_hu: Span
    ray_mm: Positive
    min_enclosure: Share
    near_midline_mm: NotNegative
    marrow_above_sac_hu: Positive
    marrow_mm: Positive


class DiscRules(_Rules):
    """`segmentation.engines.geometric.discs.DiscSettings`."""

    min_contrast_hu: Positive
    spacing_mm: Span
    usual_spacing_mm: float = Field(ge=28)  # the body between two endplates is looked for in its middle
    waist_share: Share
    waist_least_discs: int = Field(ge=3)  # a false disc lies between two others


class AnchorRules(_Rules):
    """`segmentation.engines.geometric.numbering.AnchorSettings`."""

    bone_hu: Hounsfield
    rib_reach_mm: Positive
    process_reach_mm: Positive
    rib_neck_behind_mm: Span
    rib_room_mm: Positive
    thoracic_spacing_mm: Positive
    wing_root_behind_mm: Positive
    wing_height_mm: Positive
    wing_hu: Hounsfield
    wing_bright_hu: Hounsfield
    wing_bright_share: Positive
    sacral_height_mm: Positive

    @model_validator(mode="after")
    def _process_before_rib(self) -> AnchorRules:
        if self.process_reach_mm > self.rib_reach_mm:
            raise ValueError("process_reach_mm must not exceed rib_reach_mm")
        return self


class GeometricRules(_Rules):
    """`segmentation.engines.geometric.GeometricSettings`."""

    working_step_mm: float = Field(ge=1, le=3)  # at 4 mm the sacrum is lost; below 1 mm a study takes minutes
    cortex_hu: Hounsfield
    min_width_mm: Positive
    min_depth_mm: Positive
    height_mm: Span
    canal: CanalRules
    discs: DiscRules
    anchors: AnchorRules


class IdentityRules(_Rules):
    """`segmentation.levels.IdentitySettings`."""

    spacing_mm: Span
    spacing_ratio: Ratio
    volume_ratio: Ratio
    max_height_mm: Positive
    max_gap_mm: Positive
    min_volume_trend: Positive
    min_sacrum_mm3: Positive


class EllipseRules(_Rules):
    """`segmentation.ellipse.EllipseSettings`."""

    height_mm: Positive
    width: Share
    front: float = Field(ge=0, lt=1)
    back: Share

    @model_validator(mode="after")
    def _front_before_back(self) -> EllipseRules:
        if self.front >= self.back:
            raise ValueError("front must be less than back")
        return self


class RegionRules(_Rules):
    """`segmentation.vertebra.RegionSettings`."""

    bmd: Literal["core", "ellipse", "both"]

    erosion_mm: NotNegative
    min_erosion_voxels: int = Field(ge=0)
    central_height: Share
    wedge_half_angle_deg: float = Field(ge=0, lt=90)
    dense_hu: Hounsfield
    dense_above_median_hu: NotNegative
    dense_smoothing_mm: NotNegative
    dense_min_mm3: NotNegative
    ellipse: EllipseRules


class FractureRules(_Rules):
    """`segmentation.fracture.FractureSettings`."""

    suspected_loss: Loss
    refused_loss: Loss
    max_step_mm: Positive
    max_step_of_shares_mm: Positive
    middle_share: Share
    posterior_share: Share
    posterior_excess: Ratio
    proportion: Positive
    neighbours_apart: int = Field(ge=1)
    alike_loss: Loss
    alike_bodies: int = Field(ge=2)

    @model_validator(mode="after")
    def _suspected_before_refused(self) -> FractureRules:
        if self.suspected_loss > self.refused_loss:
            raise ValueError("suspected_loss must not exceed refused_loss")
        return self


class LesionRules(_Rules):
    """`segmentation.lesions.LesionSettings`."""

    depth_mm: NotNegative
    smoothing_mm: NotNegative
    cement_hu: Hounsfield
    cement_min_mm3: NotNegative
    dense_above_median_hu: NotNegative
    dense_hu: Hounsfield
    dense_min_mm3: NotNegative
    lytic_below_median_hu: NotNegative
    lytic_hu: Span
    lytic_min_mm3: NotNegative
    lytic_tissue_hu: Hounsfield
    unlike_hu: Positive
    unlike_share: NotNegative


class QualityRules(_Rules):
    """`segmentation.quality.QualitySettings`."""

    height_mm: Span
    metal_hu: Hounsfield
    metal_near_hu: Hounsfield
    metal_margin_mm: NotNegative
    metal_min_mm3: NotNegative
    metal_min_voxels: int = Field(ge=1)
    min_contrast_hu: NotNegative
    min_region_cm3: NotNegative
    min_ellipse_cm3: NotNegative
    max_region_sd_hu: Positive
    fracture: FractureRules
    lesions: LesionRules


class ImageRules(_Rules):
    """The limits of `segmentation.image_quality.ImageQualitySettings`, and of thickness and compression."""

    # Slices thicker than this, or further apart, blend endplates into cancellous bone and leave little
    # texture along the body.
    thick_slices_mm: Positive
    # Uncompressed to compressed size; above, no density (R: measured on made images, docs/segmentation.md).
    lossy_ratio: Positive
    contrast_hu: Positive
    contrast_length_mm: Positive
    contrast_edge_hu: Positive
    motion_mm: Positive
    motion_thickest_mm: Positive
    alternate_mm: Positive
    noise_hu: Positive
    streaks_hu: Positive
    streaks_ratio: Ratio
    streaks_share: Share
    muscle_hu: Span


class SingleSliceRules(_Rules):
    """`segmentation.slice_settings.SliceSettings`."""

    enclosure: Share
    canal_behind_mm: Span
    canal_beside_mm: Positive
    supported: Share
    width_mm: Span
    depth_mm: Span
    region_mm2: Positive
    ring_hu: NotNegative
    soft_hu: Hounsfield
    rim: NotNegative
    rim_of_dense: NotNegative
    dense_interior_hu: Span
    cortex_hu: Hounsfield
    rim_above_hu: NotNegative
    rim_everywhere: Share
    beside_bone: Share
    bone_hu: Hounsfield
    lung_cm2: NotNegative
    lung_hu: Span
    region_sd_hu: Positive
    cluster_hu: Positive
    cluster_mm2: NotNegative
    metal_min_mm2: NotNegative
    excess_mg_cm3: NotNegative
    excess_ratio: Ratio
