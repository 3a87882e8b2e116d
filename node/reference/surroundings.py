"""Everything but bone: skin, fat, muscle, bowel, vessels, table, and the calibration phantom under the back.

The phantom is like a Siemens Osteo phantom: a tissue-equivalent bar 200 mm wide and 30 mm thick (36 HU)
with two upright cylinders 20 mm in diameter, their centres 60 mm apart: water-equivalent (0 mg HA/cm3) on the
patient's right and 200 mg HA/cm3 on the left. It lies in a mat between table and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from node.reference.attenuation import ADIPOSE, HA, hounsfield, hu_per_mg
from node.reference.shapes import Ellipsoid, EllipticCylinder, Slab, Solid, Tube
from node.reference.spec import LUMBAR, StudySpec
from node.reference.spine import Vertebra

AIR_HU = -1000.0
WATER_ROD_MG_CM3 = 0.0
MINERAL_ROD_MG_CM3 = 200.0
ROD_DIAMETER_MM = 20.0
ROD_DISTANCE_MM = 60.0
PHANTOM_BODY_HU = 36.0
SKIN_BACK_MM = 88.0  # y of the skin behind L3
PHANTOM_MIDDLE_MM = SKIN_BACK_MM + 22.0
_SKIN = (168.0, 112.0)


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
    return tuple(
        Rod(
            name=name,
            density_mg_cm3=density,
            hu=density * hu_per_mg(HA, spec.kev),
            centre_mm=(side * ROD_DISTANCE_MM / 2, PHANTOM_MIDDLE_MM),
        )
        for name, density, side in (
            ("water", WATER_ROD_MG_CM3, -1.0),
            ("bone", MINERAL_ROD_MG_CM3, 1.0),
        )
    )


def table_and_phantom(spec: StudySpec) -> Iterator[Painted]:
    """The couch, the mat on it, and the phantom in the mat."""
    top = PHANTOM_MIDDLE_MM + 19
    yield Painted(solid=Slab(low=(-210.0, top), high=(210.0, top + 24)), hu=-130.0)
    yield Painted(solid=Slab(low=(-207.0, top + 2.5), high=(207.0, top + 21.5)), hu=-930.0)
    yield Painted(solid=Slab(low=(-130.0, SKIN_BACK_MM + 2), high=(130.0, top - 1)), hu=-860.0)
    if spec.phantom != "none":
        bar = Slab(low=(-100.0, PHANTOM_MIDDLE_MM - 15), high=(100.0, PHANTOM_MIDDLE_MM + 15))
        yield Painted(solid=bar, hu=PHANTOM_BODY_HU)
        radius = ROD_DIAMETER_MM / 2
        for rod in rods(spec):
            yield Painted(solid=EllipticCylinder(centre=rod.centre_mm, radii=(radius, radius)), hu=rod.hu)


def trunk(spec: StudySpec) -> Iterator[Painted]:
    """Skin, subcutaneous fat, the muscular wall and the fat inside it."""
    a, b = _SKIN
    middle = (0.0, SKIN_BACK_MM - b)
    fat = hounsfield(ADIPOSE, spec.kev)
    yield Painted(solid=EllipticCylinder(centre=middle, radii=(a, b)), hu=20.0)
    yield Painted(solid=EllipticCylinder(centre=middle, radii=(a - 2, b - 2)), hu=fat)
    yield Painted(solid=EllipticCylinder(centre=(0.0, middle[1] - 2), radii=(a - 20, b - 15)), hu=52.0)
    yield Painted(solid=EllipticCylinder(centre=(0.0, middle[1] - 8), radii=(a - 31, b - 27)), hu=fat)


def organs(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Kidneys, bowel with some gas, aorta and vena cava, psoas and back muscles."""
    rng = np.random.default_rng([spec.seed, 7])
    for side in (-1.0, 1.0):
        kidney = np.array([side * 74.0, 14.0, 32.0])
        yield Painted(solid=Ellipsoid(centre=kidney, radii=np.array([26.0, 23.0, 54.0])), hu=34.0)
        sinus = kidney - [side * 10, 2, 0]
        yield Painted(solid=Ellipsoid(centre=sinus, radii=np.array([11.0, 9.0, 26.0])), hu=-60.0)
    for _ in range(46):
        centre = np.array([rng.uniform(-105, 105), rng.uniform(-108, -52), rng.uniform(-150, 130)])
        radii = rng.uniform([12, 9, 14], [24, 16, 38])
        yield Painted(solid=Ellipsoid(centre=centre, radii=radii), hu=float(rng.uniform(18, 42)))
        if rng.random() < 0.25:
            gas = Ellipsoid(centre=centre - [0, radii[1] * 0.35, 0], radii=radii * 0.45)
            yield Painted(solid=gas, hu=-820.0)
    bodies = [spine[name] for name in LUMBAR]
    for left, ahead, radius, hu in ((13.0, 15.0, 10.0, 41.0), (-15.0, 14.0, 10.5, 39.0)):
        path = np.array([one.at(left, -one.body.depth / 2 - ahead, 0) for one in bodies[:4]])
        path = np.vstack([path[0] + [0, 0, 80], path])
        yield Painted(solid=Tube(path=path, radii=np.full(len(path), radius)), hu=hu)
    for side in (-1.0, 1.0):
        thickness = np.array([9.0, 13.0, 17.0, 21.0, 22.0])
        psoas = np.array(
            [
                one.at(side * (one.body.width / 2 + r * 0.8), 5, 0)
                for one, r in zip(bodies, thickness, strict=True)
            ]
        )
        lower = psoas[-1] + [side * 20, -22, -60]
        yield Painted(solid=Tube(path=np.vstack([psoas, lower]), radii=np.append(thickness, 20.0)), hu=55.0)
        back = np.array([one.at(side * 37, one.body.depth / 2 + 34, 0) for one in spine.values()])
        ends = np.vstack([back[0] + [0, 0, 80], back])
        ends[:, 1] = np.minimum(ends[:, 1], SKIN_BACK_MM - 40)
        yield Painted(solid=Tube(path=ends, radii=np.full(len(ends), 27.0), flatten=0.8), hu=54.0)


def canal(spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Epidural fat and the thecal sac inside it."""
    path = np.array([one.canal for one in spine.values()])
    path = np.vstack([path[0] + (path[0] - path[1]) * 3, path, path[-1] + (path[-1] - path[-2])])
    narrow = np.concatenate([np.full(len(path) - 3, 1.0), [0.75, 0.6, 0.5]])
    yield Painted(solid=Tube(path=path, radii=11.5 * narrow, flatten=0.8), hu=-40.0)
    yield Painted(solid=Tube(path=path, radii=9.5 * narrow, flatten=0.8), hu=22.0)
