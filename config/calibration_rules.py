"""Rules of calibration without a phantom in view that a site may change.

Each section has the fields of the pure room's rules that it is named for; a test holds fields and defaults
together. R-tagged values are proposals until a site has confirmed them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


Span = tuple[float, float]  # from, to


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _spans_rise(self) -> _Rules:
        for name, value in self:
            if isinstance(value, tuple) and isinstance(value[0], float) and value[0] >= value[1]:
                raise ValueError(f"{name} must rise")
        return self


class AsynchronousRules(_Rules):
    """`scoring.calibration.prior_scan.LendingRules`, and whether they are used at all."""

    enabled: bool
    max_age_days: int = Field(ge=0)
    table_height_mm: NotNegative
    field_of_view_mm: NotNegative
    minimum_readings: int = Field(ge=2)
    unknown_slope_percent: Positive
    unknown_water_hu: Positive


class PatientRules(_Rules):
    """`scoring.phantoms.PatientRules`."""

    tissue_hu: Span
    least_cm2: Positive
    share_of_slices: float = Field(ge=0, lt=1)


class TissueSamplingRules(_Rules):
    """`scoring.calibration.internal.TissueRules`."""

    air_hu: Span
    adipose_hu: Span
    blood_hu: Span
    muscle_hu: Span
    smoothing_mm: NotNegative
    inside_mm: NotNegative
    from_body_mm: NotNegative
    every_mm: Positive
    beside_mm: Positive
    behind_mm: Positive
    from_bone_mm: NotNegative
    minimum_cm3: Positive


class InternalRules(_Rules):
    """`scoring.calibration.internal.InternalRules`."""

    adipose_density_g_cm3: float = Field(ge=0.85, le=1.0)
    kev: tuple[tuple[float, float, float], ...] = Field(min_length=2)  # kV, lowest, highest keV
    offset_hu: Positive
    scale_percent: Positive
    air_sd_hu: Positive
    adipose_sd_hu: Positive
    blood_sd_hu: Positive
    muscle_sd_hu: Positive
    least_uncertainty_percent: Positive
    sampling: TissueSamplingRules

    @field_validator("kev")
    @classmethod
    def _rising(cls, rows: tuple[tuple[float, float, float], ...]) -> tuple[tuple[float, float, float], ...]:
        kilovolts = [row[0] for row in rows]
        if sorted(set(kilovolts)) != kilovolts or any(low >= high for _, low, high in rows):
            raise ValueError("kev must list kV, lowest and highest keV, by rising kV")
        return rows
