"""How a series was made, beside what a control chart is kept for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTechnique:
    """What moves HU on one scanner at one tube voltage and kernel; "" or None where the header is silent."""

    spectral_filter: str
    energy: str  # "single", "virtual 70 keV", ...
    reconstruction: str
    table_height_mm: float | None
    field_of_view_mm: float | None
