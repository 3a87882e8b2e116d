"""The rods of each phantom that a digital reference study can carry, as they really are in it.

Mineral contents are those the makers state, as cited in the Ogo software's reference (Michalski); those of
intable are recalled. Distances and diameters are this study's own: no drawings were at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.reference.attenuation import HA, K2HPO4, hu_per_mg, relative_mass_attenuation


@dataclass(frozen=True, slots=True, kw_only=True)
class RodContent:
    """Mineral in the place of water or, where `water_mg_cm3` is given, dissolved in that much water."""

    name: str
    mineral_mg_cm3: float
    water_mg_cm3: float | None = None

    def hu(self, kev: float) -> float:
        """Hydroxyapatite takes the place of water; a solution attenuates by the sum of its parts."""
        if self.water_mg_cm3 is None:
            return self.mineral_mg_cm3 * hu_per_mg(HA, kev)
        dissolved = self.mineral_mg_cm3 * relative_mass_attenuation(K2HPO4, kev)
        return dissolved + self.water_mg_cm3 - 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOfRods:
    """Upright cylinders at equal distances, the first on the patient's right."""

    rods: tuple[RodContent, ...]
    diameter_mm: float
    distance_mm: float  # from centre to centre

    def across_mm(self, place: int) -> float:
        """x of a rod's centre, the row's middle being 0."""
        return (place - (len(self.rods) - 1) / 2) * self.distance_mm


def _hydroxyapatite(*contents_mg_cm3: float) -> tuple[RodContent, ...]:
    return tuple(RodContent(name=f"HA {content:g}", mineral_mg_cm3=content) for content in contents_mg_cm3)


ROWS: Mapping[str, RowOfRods] = {
    "siemens-osteo": RowOfRods(
        rods=(RodContent(name="water", mineral_mg_cm3=0.0), RodContent(name="bone", mineral_mg_cm3=200.0)),
        diameter_mm=20.0,
        distance_mm=60.0,
    ),
    "qrm-bdc-3": RowOfRods(rods=_hydroxyapatite(100.0, 400.0, 800.0), diameter_mm=18.0, distance_mm=40.0),
    "qrm-bdc-6": RowOfRods(
        rods=_hydroxyapatite(0.0, 100.0, 200.0, 400.0, 600.0, 800.0), diameter_mm=18.0, distance_mm=34.0
    ),
    "b-mas-200": RowOfRods(
        rods=_hydroxyapatite(0.0, 50.0, 100.0, 150.0, 200.0), diameter_mm=20.0, distance_mm=36.0
    ),
    "image-analysis-g2730": RowOfRods(
        rods=_hydroxyapatite(8.0, 97.3, 189.8), diameter_mm=20.0, distance_mm=50.0
    ),
    "intable": RowOfRods(rods=_hydroxyapatite(0.0, 75.0, 150.0), diameter_mm=20.0, distance_mm=50.0),
    "mindways-3": RowOfRods(
        rods=(
            RodContent(name="A", mineral_mg_cm3=-51.83, water_mg_cm3=1012.25),
            RodContent(name="B", mineral_mg_cm3=-53.40, water_mg_cm3=1056.95),
            RodContent(name="C", mineral_mg_cm3=58.88, water_mg_cm3=1103.57),
            RodContent(name="D", mineral_mg_cm3=157.05, water_mg_cm3=1119.52),
            RodContent(name="E", mineral_mg_cm3=375.83, water_mg_cm3=923.20),
        ),
        diameter_mm=20.0,
        distance_mm=38.0,
    ),
}
