"""What lies around the bones: soft tissue; couch, mat and calibration phantom; the European Spine Phantom.

Soft tissue has shapes and HU that are typical of an unenhanced abdominal CT of a slim adult; they belong to
nobody.

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

from node.reference.attenuation import ADIPOSE, HA, K2HPO4, ROWS, hounsfield, hu_per_mg
from node.reference.shapes import (
    Common,
    Ellipsoid,
    EllipticCylinder,
    Point,
    RoundedBox,
    Slab,
    Solid,
    TrunkSection,
    Tube,
    point_on,
    tube,
)
from node.reference.spec import LUMBAR, StudySpec
from node.reference.spine import Vertebra

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


# Soft tissue and the canal.


MUSCLE_HU = 54.0
GAS_HU = -850.0
_MIDDLE = (0.0, -22.0)
_SIDES = (-1.0, 1.0)  # patient's right, left
_BACK_MM = SKIN_BACK_MM - _MIDDLE[1]
_SKIN = TrunkSection(middle=_MIDDLE, half_width=161, front=114, back=_BACK_MM, furrow=9, flare=0.025)
_FAT = TrunkSection(middle=_MIDDLE, half_width=159, front=112, back=_BACK_MM - 2, furrow=9, flare=0.025)
_WALL = TrunkSection(middle=_MIDDLE, half_width=143, front=97, back=84, flare=0.02)
_CAVITY = TrunkSection(middle=_MIDDLE, half_width=130, front=90, back=66, flare=0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blood:
    """HU of the organs that contrast medium enhances."""

    aorta_hu: float = 42.0
    cava_hu: float = 39.0
    kidney_hu: float = 33.0
    liver_hu: float = 56.0
    spleen_hu: float = 48.0


_PLAIN = _Blood()
_ENHANCED = _Blood(aorta_hu=165.0, cava_hu=135.0, kidney_hu=180.0, liver_hu=112.0, spleen_hu=125.0)


def trunk(spec: StudySpec) -> Iterator[Painted]:
    """Skin, subcutaneous fat, the muscular wall and the fat inside it, in painting order."""
    fat = hounsfield(ADIPOSE, spec.kev)
    yield Painted(solid=_SKIN, hu=20.0)
    yield Painted(solid=_FAT, hu=fat)
    yield Painted(solid=_WALL, hu=MUSCLE_HU - 4)
    yield Painted(solid=_CAVITY, hu=fat)
    for side in _SIDES:  # straight muscles beside the white line
        belly = EllipticCylinder(centre=(side * 36, _MIDDLE[1] - 90), radii=(31, 6.5))
        yield Painted(solid=belly, hu=MUSCLE_HU - 2)


def organs(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """The organs of the cavity, from front to back, and the muscles of the back, in painting order.

    Parameters
    ----------
    spec : its seed places bowel, and its faults decide on contrast medium in vessels and bowel.
    spine : of `build_spine`: vessels and muscles follow it.
    """
    rng = np.random.default_rng([spec.seed, 7])
    fat = hounsfield(ADIPOSE, spec.kev)
    yield from _small_bowel(rng)
    if spec.faults.oral_contrast:
        yield from _filled_loop(spine)
    yield from _colon(rng)
    blood = _ENHANCED if spec.faults.contrast else _PLAIN
    yield from _upper_abdomen(blood)
    yield from _kidneys(fat, blood)
    yield from _vessels(spine, blood)
    yield from _muscles(spine, fat)


def _blob(centre: tuple[float, float, float], radii: tuple[float, float, float], hu: float) -> Painted:
    solid = Ellipsoid(centre=np.array(centre), radii=np.array(radii))
    return Painted(solid=Common(first=solid, second=_CAVITY), hu=hu)


def _small_bowel(rng: np.random.Generator) -> Iterator[Painted]:
    """Loops in front of the spine, with the vessels that lead to them."""
    for _ in range(34):
        start = rng.uniform([-85, -92, -150], [85, -42, 45])
        path = np.cumsum(np.vstack([start, rng.normal(0, [22, 9, 16], (3, 3))]), axis=0)
        radius = float(rng.uniform(9, 13))
        inside = Common(first=tube(path, radius), second=_CAVITY)
        yield Painted(solid=inside, hu=float(rng.uniform(32, 46)))
        yield Painted(
            solid=Common(first=tube(path, radius - 4.0), second=_CAVITY), hu=float(rng.uniform(8, 26))
        )
        if rng.random() < 0.2:
            yield _blob(tuple(start - [0, radius * 0.45, 0]), (radius * 0.6, radius * 0.4, 9.0), GAS_HU)
        root = np.array([rng.normal(4, 5), -36.0, np.clip(start[2], -60, 60)])
        vessel = tube([root, (root + start) / 2 + rng.normal(0, 4, 3), start], 1.9)
        yield Painted(solid=vessel, hu=40.0)


def _filled_loop(spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Jejunum full of positive oral contrast medium that hangs from L2 to L4 before the great vessels."""
    lumbar = [spine[name] for name in ("L2", "L3", "L4")]
    path = [one.at(2.0, -one.body.depth / 2 - 36.0, 0) for one in lumbar]
    path = [path[0] + [-30, -10, 4], *path, path[-1] + [34, -8, -6]]
    yield Painted(solid=Common(first=tube(path, 12.0), second=_CAVITY), hu=60.0)
    yield Painted(solid=Common(first=tube(path, 10.0), second=_CAVITY), hu=260.0)


def _colon(rng: np.random.Generator) -> Iterator[Painted]:
    """Ascending and descending with mottled content, transverse with gas above fluid."""
    right = np.array([[-96, -24, -110], [-106, -12, -60], [-108, -8, 0], [-100, -22, 40]], dtype=float)
    left = np.array([[112, 8, 80], [113, 6, 10], [112, -2, -60], [98, -18, -120]], dtype=float)
    for path, radius in ((right, 19.0), (left, 14.0)):
        yield Painted(solid=Common(first=tube(path, radius), second=_CAVITY), hu=38.0)
        yield Painted(solid=Common(first=tube(path, radius - 3), second=_CAVITY), hu=2.0)
        for _ in range(60):
            centre = point_on(path, rng.uniform(0, len(path) - 1.001))
            offset = rng.normal(0, radius * 0.28, 3)
            size = rng.uniform(1.2, 3.4, 3)
            yield _blob(tuple(centre + offset), tuple(size), float(rng.uniform(-700, -250)))
    across = np.array([[-98, -50, 36], [-55, -86, 14], [0, -92, 2], [55, -90, 20], [104, -30, 70]], float)
    yield Painted(solid=Common(first=tube(across, 19.0), second=_CAVITY), hu=38.0)
    yield Painted(solid=Common(first=tube(across, 16.0), second=_CAVITY), hu=14.0)
    gas = Common(first=tube(across, 16.0), second=Slab(low=(-120.0, -130.0), high=(120.0, -88.0)))
    yield Painted(solid=Common(first=gas, second=_CAVITY), hu=GAS_HU)


def _upper_abdomen(blood: _Blood) -> Iterator[Painted]:
    yield _blob((52.0, -58.0, 112.0), (44.0, 34.0, 44.0), 40.0)  # stomach
    yield _blob((52.0, -58.0, 112.0), (40.0, 30.0, 40.0), 12.0)
    gas = Ellipsoid(centre=np.array([52.0, -58.0, 112.0]), radii=np.array([40.0, 30.0, 40.0]))
    above = Slab(low=(0.0, -130.0), high=(110.0, -68.0))
    yield Painted(solid=Common(first=gas, second=above), hu=GAS_HU)
    yield _blob((-84.0, -34.0, 126.0), (78.0, 72.0, 104.0), blood.liver_hu)
    yield _blob((-34.0, -66.0, 140.0), (74.0, 40.0, 56.0), blood.liver_hu)  # its left lobe
    yield _blob((-62.0, -66.0, 46.0), (15.0, 17.0, 24.0), 12.0)  # gallbladder
    yield _blob((106.0, 6.0, 118.0), (30.0, 44.0, 46.0), blood.spleen_hu)
    pancreas = tube(
        [np.array(p) for p in ((-34, -40, 42), (-8, -48, 56), (30, -42, 70), (72, -22, 84))], 10.0
    )
    yield Painted(solid=pancreas, hu=38.0)


def _kidneys(fat: float, blood: _Blood) -> Iterator[Painted]:
    for side in _SIDES:
        low = 8.0 if side < 0 else 18.0
        path = [
            np.array(p) for p in ((side * 80, 4, low), (side * 74, 10, low + 30), (side * 64, 16, low + 62))
        ]
        yield Painted(solid=tube(path, [20.0, 25.0, 20.0]), hu=blood.kidney_hu)
        sinus = path[1] - [side * 13, 5, 0]
        yield Painted(solid=Ellipsoid(centre=sinus, radii=np.array([13.0, 8.0, 20.0])), hu=fat * 0.7)
        yield Painted(solid=Ellipsoid(centre=sinus, radii=np.array([6.0, 4.5, 10.0])), hu=12.0)


def _vessels(spine: dict[str, Vertebra], blood: _Blood) -> Iterator[Painted]:
    """Aorta and vena cava, and the common iliac vessels below L4."""
    lumbar = [spine[name] for name in LUMBAR]
    fork = lumbar[3]
    end = spine["S1"]
    for left, ahead, radius, hu in (
        (11.0, 12.5, 9.5, blood.aorta_hu),
        (-15.0, 12.0, 10.5, blood.cava_hu),
    ):
        path = [one.at(left, -one.body.depth / 2 - ahead, 0) for one in lumbar[:4]]
        trunk_path = [path[0] + [0, 0, 80], *path]
        yield Painted(solid=tube(trunk_path, radius), hu=hu)
        for side in _SIDES:
            below = end.at(side * 36 + left * 0.25, -end.body.depth / 2 - 10, 2)
            middle = (fork.at(left, -fork.body.depth / 2 - ahead, 0) + below) / 2 + [side * 3, 3, 0]
            yield Painted(solid=tube([path[-1], middle, below], [7.5, 6.5, 6.0]), hu=hu)


def _muscles(spine: dict[str, Vertebra], fat: float) -> Iterator[Painted]:
    lumbar = [spine[name] for name in LUMBAR]
    for side in _SIDES:
        crus = [one.at(side * 13, -one.body.depth / 2 - 4, 0) for one in lumbar[:3]]
        yield Painted(solid=tube([crus[0] + [0, 0, 60], *crus], [6.0, 5.0, 4.5, 2.5]), hu=MUSCLE_HU)
        thickness = [8.0, 12.0, 16.0, 19.0, 20.0]
        psoas = [
            one.at(side * (one.body.width / 2 + radius * 0.82), 4, 0)
            for one, radius in zip(lumbar, thickness, strict=True)
        ]
        psoas.append(psoas[-1] + [side * 20, -22, -60])
        yield Painted(solid=tube(psoas, [*thickness, 19.0]), hu=MUSCLE_HU)
        square = [one.at(side * 50, one.body.depth / 2 + 12, 0) for one in lumbar[:4]]
        yield Painted(solid=tube(square, [8.0, 10.0, 12.0, 13.0], flatten=0.75), hu=MUSCLE_HU)
        yield from _back_muscles(list(spine.values()), side, fat)


def _back_muscles(vertebrae: list[Vertebra], side: float, fat: float) -> Iterator[Painted]:
    """Outer and inner column of the erector, with the fatty seam of an older patient between them."""

    def column(left: float, behind: float) -> list[Point]:
        path = [one.at(side * left, one.body.depth / 2 + behind, 0) for one in vertebrae]
        path.insert(0, path[0] + [0, 0, 80])
        for point in path:
            point[1] = min(point[1], SKIN_BACK_MM - 36)
        return path

    yield Painted(solid=tube(column(41, 33), 25.0, flatten=0.8), hu=MUSCLE_HU)
    yield Painted(solid=tube(column(17, 36), 15.0), hu=MUSCLE_HU - 4)
    seam: Solid = tube(column(26, 42), 1.6)
    yield Painted(solid=seam, hu=fat * 0.6)
    yield Painted(solid=tube(column(30, 30), 1.3), hu=fat * 0.5)


def canal(spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Epidural fat and the thecal sac inside it, in painting order."""
    path = np.array([one.canal for one in spine.values()])
    path = np.vstack([path[0] + (path[0] - path[1]) * 3, path, path[-1] + (path[-1] - path[-2])])
    narrow = np.concatenate([np.full(len(path) - 3, 1.0), [0.75, 0.6, 0.5]])
    for radius, hu in ((11.5, -40.0), (9.5, 22.0)):
        yield Painted(solid=Tube(path=path, radii=radius * narrow, flatten=0.8), hu=hu)
