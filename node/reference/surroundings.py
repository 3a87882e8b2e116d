"""What lies under the patient: couch, mat, and the calibration phantom.

The phantom is a tissue-equivalent bar 200 mm wide and 30 mm thick (36 HU) with a row of upright rods; it lies
in a mat between table and back. The default is like a Siemens Osteo phantom: its water-equivalent rod lies
on the patient's right, and 60 mm from it, on the left, that of 200 mg HA/cm3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.reference.phantom_rows import ROWS
from node.reference.shapes import Common, EllipticCylinder, Slab, Solid
from node.reference.spec import StudySpec

AIR_HU = -1000.0
PHANTOM_BODY_HU = 36.0
SKIN_BACK_MM = 88.0  # y of the skin behind L3
PHANTOM_MIDDLE_MM = SKIN_BACK_MM + 22.0
_COUCH_TOP_MM = PHANTOM_MIDDLE_MM + 26.0
_COUCH_MM = 24.0  # thick
_COUCH_RADIUS_MM = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """A solid and the HU it is filled with; later ones cover earlier ones."""

    solid: Solid
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rod:
    """A rod of the phantom as it really is."""

    name: str
    density_mg_cm3: float
    hu: float
    centre_mm: tuple[float, float]  # x, y


def rods(spec: StudySpec) -> tuple[Rod, ...]:
    """The rods' truth; none where the study has no phantom."""
    if spec.phantom == "none":
        return ()
    row = ROWS[spec.phantom]
    return tuple(
        Rod(
            name=rod.name,
            density_mg_cm3=rod.mineral_mg_cm3,
            hu=rod.hu(spec.kev),
            centre_mm=(row.across_mm(place), PHANTOM_MIDDLE_MM),
        )
        for place, rod in enumerate(row.rods)
    )


def table_and_phantom(spec: StudySpec) -> Iterator[Painted]:
    """The couch, the mat on it, and the phantom in the mat."""
    frame = Slab(low=(-210.0, 90.0), high=(210.0, 190.0))
    # Hollow towards the patient: shells of wide circles about an axis far above.
    for depth, hu in ((_COUCH_MM, -130.0), (_COUCH_MM - 2.5, -930.0), (2.5, -130.0), (0.0, AIR_HU)):
        radius = _COUCH_RADIUS_MM + depth
        circle = EllipticCylinder(centre=(0.0, _COUCH_TOP_MM - _COUCH_RADIUS_MM), radii=(radius, radius))
        yield Painted(solid=Common(first=circle, second=frame), hu=hu)
    mat = Slab(low=(-130.0, SKIN_BACK_MM + 2), high=(130.0, PHANTOM_MIDDLE_MM + 16.5))
    yield Painted(solid=mat, hu=-860.0)
    if spec.phantom != "none":
        bar = Slab(low=(-100.0, PHANTOM_MIDDLE_MM - 15), high=(100.0, PHANTOM_MIDDLE_MM + 15))
        yield Painted(solid=bar, hu=PHANTOM_BODY_HU)
        radius = ROWS[spec.phantom].diameter_mm / 2
        for rod in rods(spec):
            yield Painted(solid=EllipticCylinder(centre=rod.centre_mm, radii=(radius, radius)), hu=rod.hu)
