"""The couch, the mat and the calibration phantom under the patient; and the European Spine Phantom.

The calibration phantom is a tissue-equivalent bar 200 mm wide and 30 mm thick (36 HU) with a row of upright
rods; it lies in a mat between table and back. The default is like a Siemens Osteo phantom: its
water-equivalent rod lies on the patient's right, and 60 mm from it, on the left, that of 200 mg HA/cm3.

The European Spine Phantom lies in the patient's place: calibrated densities are accepted by it. It has three
artificial vertebrae of 50, 100 and 200 mg hydroxyapatite per cm3 in a water-equivalent block, named L1 to L3
from above. The densities are those cited in the Ogo software's reference (Michalski); all dimensions, the
cortical shells and the arches are this study's own: no drawing was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from node.reference.attenuation import HA, K2HPO4, ROWS, hu_per_mg
from node.reference.shapes import Common, EllipticCylinder, RoundedBox, Slab, Solid
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
    """A solid and the HU that it is filled with.

    Attributes
    ----------
    solid : later ones cover earlier ones.
    hu : before partial volume, blur and noise.
    """

    solid: Solid
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rod:
    """A rod of the phantom as it really is.

    Attributes
    ----------
    name : as `attenuation.ROWS` has it.
    density_mg_cm3 : of its mineral.
    hu : at the study's effective energy, without noise.
    centre_mm : (x, y) in mm.
    """

    name: str
    density_mg_cm3: float
    hu: float
    centre_mm: tuple[float, float]


def rods(spec: StudySpec) -> tuple[Rod, ...]:
    """The true rods of a study's phantom.

    Returns
    -------
    From the patient's right to the left; empty where the study has no phantom.
    """
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
    """The couch, the mat on it, and the phantom in the mat, in painting order."""
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


_BLOCK_RADII_MM = (140.0, 88.0)
_BLOCK_LENGTH_MM = 170.0
_BODY_RADII_MM = (18.0, 15.0)
_BODY_HEIGHT_MM = 25.0
_PITCH_MM = 35.0  # from vertebra to vertebra: what lies between is water-equivalent
_BODY_BEFORE_BACK_MM = 62.0
_SHELL_MM = 1.0
_SHELL_MG_CM3 = 400.0
_ARCH_MG_CM3 = 300.0
_WATER_HU = 0.0
_MARGIN_MM = 12.0  # of image above and below the vertebrae
_EVERYWHERE_MM = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtificialVertebra:
    """A vertebra of the European Spine Phantom.

    Attributes
    ----------
    name : L1, L2 or L3.
    bmd_mg_cm3 : hydroxyapatite in the place of water.
    centre_mm : (x, y, z) in mm (LPS).
    """

    name: str
    bmd_mg_cm3: float
    centre_mm: tuple[float, float, float]

    @property
    def body(self) -> Solid:
        """Shell included."""
        return _upright(self.centre_mm, _BODY_RADII_MM, _BODY_HEIGHT_MM)

    @property
    def core(self) -> Solid:
        a, b = (radius - _SHELL_MM for radius in _BODY_RADII_MM)
        return _upright(self.centre_mm, (a, b), _BODY_HEIGHT_MM - 2 * _SHELL_MM)

    @property
    def volume_mm3(self) -> float:
        """Of the body."""
        return pi * _BODY_RADII_MM[0] * _BODY_RADII_MM[1] * _BODY_HEIGHT_MM


_BODY_Y_MM = SKIN_BACK_MM - _BODY_BEFORE_BACK_MM
VERTEBRAE = tuple(
    ArtificialVertebra(name=name, bmd_mg_cm3=bmd, centre_mm=(0.0, _BODY_Y_MM, z))
    for name, bmd, z in (("L1", 50.0, _PITCH_MM), ("L2", 100.0, 0.0), ("L3", 200.0, -_PITCH_MM))
)


def z_range_mm() -> tuple[float, float]:
    """z of the lowest and of the highest slice of a scan of the European Spine Phantom."""
    reach = _PITCH_MM + _BODY_HEIGHT_MM / 2 + _MARGIN_MM
    return -reach, reach


def spine_phantom(spec: StudySpec) -> Iterator[Painted]:
    """The block of the European Spine Phantom, and in it arches, shells and cores, in painting order."""
    per_mg = hu_per_mg(HA, spec.kev)
    back = (0.0, SKIN_BACK_MM - _BLOCK_RADII_MM[1], 0.0)
    yield Painted(solid=_upright(back, _BLOCK_RADII_MM, _BLOCK_LENGTH_MM), hu=_WATER_HU)
    for one in VERTEBRAE:
        x, y, z = one.centre_mm
        arch = RoundedBox(
            centre=np.array([x, y + _BODY_RADII_MM[1] + 16.0, z]),
            axes=np.eye(3),
            half=np.array([16.0, 5.0, 8.0]),
            rounding=2.0,
        )
        yield Painted(solid=arch, hu=_ARCH_MG_CM3 * per_mg)
        yield Painted(solid=one.body, hu=_SHELL_MG_CM3 * per_mg)
        yield Painted(solid=one.core, hu=one.bmd_mg_cm3 * per_mg)


def compositions(spec: StudySpec) -> Mapping[str, Mapping[str, Any]]:
    """What each vertebra of the European Spine Phantom consists of, for truth.json.

    Returns
    -------
    By vertebra: `hu`, `mineral_mg_cm3`, `fat_fraction`, and `equivalents`: what an ideal calibration in
    either mineral reads, in mg/cm3.
    """
    per_mg = {"HA": hu_per_mg(HA, spec.kev), "K2HPO4": hu_per_mg(K2HPO4, spec.kev)}
    return {
        one.name: {
            "hu": one.bmd_mg_cm3 * per_mg["HA"],
            "mineral_mg_cm3": one.bmd_mg_cm3,
            "fat_fraction": 0.0,
            "equivalents": {
                mineral: one.bmd_mg_cm3 * per_mg["HA"] / factor for mineral, factor in per_mg.items()
            },
        }
        for one in VERTEBRAE
    }


def _upright(centre_mm: tuple[float, float, float], radii_mm: tuple[float, float], height_mm: float) -> Solid:
    """A cylinder along z with flat ends."""
    wide = _EVERYWHERE_MM
    ends = RoundedBox(
        centre=np.array(centre_mm),
        axes=np.eye(3),
        half=np.array([wide, wide, height_mm / 2]),
        rounding=0.0,
    )
    return Common(first=EllipticCylinder(centre=centre_mm[:2], radii=radii_mm), second=ends)
