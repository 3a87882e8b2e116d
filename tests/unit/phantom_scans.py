"""Scans of a phantom under a slab of tissue, drawn with the rods of the digital reference study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, radians, sin, tan
from typing import Literal

import numpy as np
import numpy.typing as npt

from node.reference.attenuation import EFFECTIVE_KEV, ROWS
from segmentation.ct_volume import CtVolume, Grid

BODY_HU = 36.0
_AXIAL = np.eye(3)[::-1]
_TISSUE_HU = 50.0
_LENGTH_MM = 60.0
_FIRST_MM = (-300.0, -110.0, -140.0)  # z, y, x of the first voxel
_ROW_MM = 60.0  # y of the row of rods

Image = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """How a phantom under a slab of tissue is scanned."""

    phantom: str
    kvp: int = 120
    spacing_mm: tuple[float, float, float] = (2.0, 1.2, 1.2)  # z, y, x
    tilt_degrees: float = 0.0
    turn_degrees: float = 0.0
    noise_hu: float = 18.0
    oblique_degrees: float = 0.0  # of the slice normal, about x
    aside_mm: tuple[float, float] = (0.0, 0.0)  # y, x
    bed: Literal["air", "mat", "table"] = "air"  # what the phantom lies in
    tubes: bool = False  # lines full of contrast medium along the phantom
    streaks_hu: float = 0.0  # of metal beside the phantom, where they are strongest


def drawn(scan: Scan) -> CtVolume:
    """A bar with the phantom's rods below soft tissue with bone, bowel and a line of metal in it."""
    dz, dy, dx = scan.spacing_mm
    y = np.arange(_FIRST_MM[1], -_FIRST_MM[1], dy)[:, None]
    x = np.arange(_FIRST_MM[2], -_FIRST_MM[2], dx)[None, :]
    turn = radians(scan.turn_degrees)
    hu = np.empty((round(_LENGTH_MM / dz), y.size, x.size), np.float32)
    for place in range(len(hu)):
        image = _tissue(y, x)
        slope_mm = tan(radians(scan.tilt_degrees)) * (place - len(hu) / 2) * dz
        v, u = y - _ROW_MM - slope_mm - scan.aside_mm[0], x - scan.aside_mm[1]
        u, v = u * cos(turn) + v * sin(turn), v * cos(turn) - u * sin(turn)
        _lay_bed(image, scan, u, v)
        _lay_phantom(image, scan, u, v)
        if scan.tubes:
            image[np.hypot(u - 116, v) < 10] = 350.0  # beside the bar, in line with its rods
            image[np.hypot(u + 20, v + 19) < 4] = 600.0  # upon it
        if scan.streaks_hu:
            _add_metal(image, scan, u, v)
        hu[place] = image
    hu += np.random.default_rng(11).normal(0.0, scan.noise_hu, hu.shape).astype(np.float32)
    a = radians(scan.oblique_degrees)
    turned = np.array([[1.0, 0.0, 0.0], [0.0, cos(a), -sin(a)], [0.0, sin(a), cos(a)]])
    grid = Grid(
        shape=hu.shape,
        spacing_mm=scan.spacing_mm,
        origin_mm=(_FIRST_MM[2], _FIRST_MM[1], _FIRST_MM[0]),
        direction=tuple(tuple(float(part) for part in turned @ axis) for axis in _AXIAL),
    )
    return CtVolume(hu=hu, grid=grid)


def cut(volume: CtVolume, *, beyond_mm: float, keep: Literal["left", "right"]) -> CtVolume:
    """Without what lies on the other side of an x: columns, as a small field of view leaves them."""
    column = round((beyond_mm - _FIRST_MM[2]) / volume.grid.spacing_mm[2])
    part = slice(0, column) if keep == "left" else slice(column, None)
    hu = np.ascontiguousarray(volume.hu[:, :, part])
    origin = tuple(float(value) for value in volume.grid.to_patient([0, 0, part.start or 0]))
    return CtVolume(hu=hu, grid=replace(volume.grid, shape=hu.shape, origin_mm=origin))


def _tissue(y: Image, x: Image) -> Image:
    image = np.full((y.size, x.size), -1000.0)
    image[(x / 130) ** 2 + ((y + 45) / 62) ** 2 < 1] = _TISSUE_HU
    image[(x / 23) ** 2 + ((y + 20) / 17) ** 2 < 1] = 160.0
    image[np.hypot(x - 75, y + 55) < 10] = 350.0  # tubing with contrast, as straight as a rod
    image[np.hypot(x + 80, y + 50) < 3] = 3000.0
    return image


def _lay_bed(image: Image, scan: Scan, u: Image, v: Image) -> None:
    if scan.bed == "mat":
        image[(np.abs(u) < 130) & (np.abs(v) < 17)] = -860.0
    if scan.bed == "table":  # foam between two sheets, with the phantom in it
        image[(np.abs(u) < 136) & (np.abs(v) < 24)] = -130.0
        image[(np.abs(u) < 134) & (np.abs(v) < 21.5)] = -930.0


def _lay_phantom(image: Image, scan: Scan, u: Image, v: Image) -> None:
    row = ROWS[scan.phantom]
    image[(np.abs(u) < 104) & (np.abs(v) < 15)] = BODY_HU
    for index, rod in enumerate(row.rods):
        inside = np.hypot(u - row.across_mm(index), v) < row.diameter_mm / 2
        image[inside] = rod.hu(EFFECTIVE_KEV[scan.kvp])


def _add_metal(image: Image, scan: Scan, u: Image, v: Image) -> None:
    """A screw behind the bar, and the bright and dark streaks that leave it."""
    distance = np.hypot(u - 40, v - 24)
    angle = np.arctan2(v - 24, u - 40)
    image += scan.streaks_hu * np.cos(9 * angle) / (1 + distance / 30)
    image[distance < 4] = 3071.0
