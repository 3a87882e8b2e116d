"""How a series was made, beside scanner, tube voltage and kernel, and whether two were made alike."""

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
    single_slice: bool = False  # one thick slice, its gantry tilted, in place of a volume


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueTolerance:
    """By how much two techniques may differ and still be alike. R: chosen here, for a site to confirm."""

    table_height_mm: float = 20.0  # R
    field_of_view_mm: float = 50.0  # R


def technique_differences(
    own: ScanTechnique, theirs: ScanTechnique, tolerance: TechniqueTolerance
) -> tuple[str, ...]:
    """What parts two series that are both to show the same HU, in words; empty where they are alike.

    A length that neither header states counts as equal here: who lends asks for more.
    """
    words = {
        "spectral filter": (own.spectral_filter, theirs.spectral_filter),
        "energy": (own.energy, theirs.energy),
        "reconstruction": (own.reconstruction, theirs.reconstruction),
    }
    found = [f"{name} {other or 'not stated'}" for name, (one, other) in words.items() if one != other]
    lengths = (
        ("table height", own.table_height_mm, theirs.table_height_mm, tolerance.table_height_mm),
        ("field of view", own.field_of_view_mm, theirs.field_of_view_mm, tolerance.field_of_view_mm),
    )
    for name, one_mm, other_mm, tolerance_mm in lengths:
        if one_mm is None and other_mm is None:
            continue
        if one_mm is None or other_mm is None:
            found.append(f"{name} not stated")
        elif abs(one_mm - other_mm) > tolerance_mm:
            found.append(f"{name} {abs(one_mm - other_mm):.0f} mm off")
    if own.single_slice != theirs.single_slice:
        found.append("single slices" if theirs.single_slice else "a volume")
    return tuple(found)
