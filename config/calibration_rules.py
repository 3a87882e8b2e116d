"""Rules of calibration without a phantom in view that a site may change.

Each section has the fields of the pure room's rules that it is named for; a test holds fields and defaults
together. R-tagged values are proposals until a site has confirmed them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AsynchronousRules(_Rules):
    """`scoring.asynchronous.LendingRules`, and whether they are used at all."""

    enabled: bool
    max_age_days: int = Field(ge=0)
    table_height_mm: NotNegative
    field_of_view_mm: NotNegative
    minimum_readings: int = Field(ge=2)
    unknown_slope_percent: Positive
    unknown_water_hu: Positive
