"""A CT volume in coarse blocks, prepared for the search of rods (`scoring.phantoms.rods`).

Coordinates are millimetres in the canonical frame's own axes, from the centre of voxel [0, 0, 0]: (y, x) in
the plane, z along the slice normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.signal import fftconvolve

from segmentation.ct_volume import CtVolume

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Images = npt.NDArray[np.float32]

BLOCK_MM = 10.0  # slices are averaged over this length
PITCH_MM = 1.4  # in-plane sampling
CORE_MARGIN_MM = 3.0  # a rod's core ends this far inside its wall
CORE_SD_HU = 20.0  # structure allowed within a core, beyond noise
RING_MM = (1.5, 4.0)  # the densest rod is compared with a ring this far outside its wall
MINIMUM_COVERAGE = 0.5  # part of a core that must lie inside the image for it to be considered


@dataclass(frozen=True, slots=True, kw_only=True)
class RodTarget:
    """The search's description of one rod.

    Attributes
    ----------
    offset_mm : position along the phantom's row of rods.
    search_hu : range wide enough to find a rod that fails its checks later.
    brighter : whether the rod is denser than the phantom's body.
    """

    diameter_mm: float
    offset_mm: float
    search_hu: tuple[float, float]
    brighter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A canonical volume averaged over `BLOCK_MM` of slices and about `PITCH_MM` in the plane.

    Attributes
    ----------
    hu : (blocks, y, x), caudal to cranial.
    inside : (blocks, y, x); False outside the scanner's field of view (padding).
    z_mm : (blocks,), middles of the blocks along the slice normal.
    pitch_mm : (2,), y and x.
    corner_mm : (2,), y and x of the centre of pixel [0, 0].
    """

    hu: Images
    inside: Bools
    z_mm: Floats
    pitch_mm: Floats
    corner_mm: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class RodVolume(Blocks):
    """Coarse blocks, with maps of what the core of each rod reads at every pixel.

    Attributes
    ----------
    core_hu : for each rod (blocks, y, x), mean HU of a core centred at each pixel.
    possible : for each rod (blocks, y, x), whether that core has the rod's HU, is even, and lies in the
        image.
    ring_hu : for each rod (blocks, y, x), mean HU of the ring around that core.
    targets : the last is the densest rod.
    body_hu : range of the phantom's body.
    """

    core_hu: tuple[Images, ...]
    possible: tuple[Bools, ...]
    ring_hu: tuple[Images, ...]
    targets: tuple[RodTarget, ...]
    body_hu: tuple[float, float]

    def stands_out_hu(self, rod: int) -> Images:
        """Contrast of one rod's core to its ring at each pixel, positive towards the rod's expected side.

        Parameters
        ----------
        rod : index of the target.

        Returns
        -------
        (blocks, y, x), HU.
        """
        above: Images = self.core_hu[rod] - self.ring_hu[rod]
        return above if self.targets[rod].brighter else -above

    def part(self, rods: Sequence[int]) -> RodVolume:
        """The same blocks, with the maps of some of the rods only.

        Parameters
        ----------
        rods : indices of the targets.
        """
        return replace(
            self,
            core_hu=tuple(self.core_hu[rod] for rod in rods),
            possible=tuple(self.possible[rod] for rod in rods),
            ring_hu=tuple(self.ring_hu[rod] for rod in rods),
            targets=tuple(self.targets[rod] for rod in rods),
        )

    def border_mm(self, block: int) -> Floats:
        """Distance (y, x) in mm of every pixel of one block to the outside of the image."""
        framed = np.pad(self.inside[block], 1)
        distance: Floats = distance_transform_edt(framed, sampling=tuple(self.pitch_mm))[1:-1, 1:-1]
        return distance

    def is_cut(self, block: int, centres_mm: Floats, radius_mm: float) -> Bools:
        """Which discs do not lie wholly in the image.

        Parameters
        ----------
        centres_mm : (n, 2), y and x.

        Returns
        -------
        bool, (n,).
        """
        angles = np.arange(8) * (2 * np.pi / 8)
        wall = radius_mm * np.column_stack([np.sin(angles), np.cos(angles)])
        row, column, in_image = self.pixels(centres_mm[:, None, :] + wall)
        cut: Bools = ~np.all(in_image & self.inside[block, row, column], axis=1)
        return cut

    def pixels(self, points_mm: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Bools]:
        """Nearest pixels of points.

        Parameters
        ----------
        points_mm : (..., 2), y and x.

        Returns
        -------
        Rows and columns (...), clipped to the image, and which of the points lie in the image (bool).
        """
        index = np.rint((points_mm - self.corner_mm) / self.pitch_mm).astype(np.intp)
        limit = np.asarray(self.hu.shape[1:]) - 1
        in_image = np.all((index >= 0) & (index <= limit), axis=-1)
        index = np.clip(index, 0, limit)
        return index[..., 0], index[..., 1], in_image


def padding_value(hu: Images) -> float | None:
    """Value that fills the corners outside a circular field of view; None without such a value.

    Parameters
    ----------
    hu : (z, y, x). All corners must share one value of at most -900.
    """
    corners = hu[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    value = float(corners.flat[0])
    return value if value <= -900 and bool(np.all(corners == value)) else None


def block_edges(slices: int, spacing_mm: float) -> list[tuple[int, int]]:
    """Slice ranges [from, to) of about `BLOCK_MM` that cover the volume."""
    count = min(slices, max(1, round(slices * spacing_mm / BLOCK_MM)))
    return [(int(a), int(b)) for a, b in pairwise(np.linspace(0, slices, count + 1).round())]


def average_blocks(volume: CtVolume) -> Blocks:
    """The coarse blocks of a volume in the canonical frame."""
    dz, dy, dx = volume.grid.spacing_mm
    fy, fx = max(1, round(PITCH_MM / dy)), max(1, round(PITCH_MM / dx))
    padding = padding_value(volume.hu)
    edges = block_edges(volume.grid.shape[0], dz)
    images, insides = [], []
    for first, last in edges:
        stack = volume.hu[first:last]
        outside = np.zeros(stack.shape[1:], bool) if padding is None else np.all(stack == padding, axis=0)
        images.append(_binned(stack.mean(axis=0, dtype=np.float32), fy, fx))
        insides.append(_binned(outside.astype(np.float32), fy, fx) == 0)
    return Blocks(
        hu=np.stack(images),
        inside=np.stack(insides),
        z_mm=np.array([(first + last - 1) / 2 * dz for first, last in edges]),
        pitch_mm=np.array([fy * dy, fx * dx]),
        corner_mm=np.array([(fy - 1) / 2 * dy, (fx - 1) / 2 * dx]),
    )


def prepare_rod_volume(
    volume: CtVolume, targets: Sequence[RodTarget], body_hu: tuple[float, float]
) -> RodVolume:
    """The coarse blocks of a volume in the canonical frame, caudal to cranial, with the maps of each rod.

    Parameters
    ----------
    body_hu : range of the phantom's body.
    """
    blocks = average_blocks(volume)
    hu, inside = blocks.hu, blocks.inside
    pitch = (float(blocks.pitch_mm[0]), float(blocks.pitch_mm[1]))
    noise_hu = _noise_hu(hu, body_hu)
    radii = {target.diameter_mm / 2 for target in targets}  # most phantoms have rods of one size
    cores = {radius: _core_of(hu, inside, pitch, radius, noise_hu) for radius in radii}
    rings = {
        radius: _disc_means(hu, inside, pitch, radius + RING_MM[0], radius + RING_MM[1])[0]
        for radius in radii
    }
    return RodVolume(
        z_mm=blocks.z_mm,
        hu=hu,
        inside=inside,
        core_hu=tuple(cores[target.diameter_mm / 2][0] for target in targets),
        possible=tuple(_possible(*cores[target.diameter_mm / 2], target.search_hu) for target in targets),
        ring_hu=tuple(rings[target.diameter_mm / 2] for target in targets),
        targets=tuple(targets),
        body_hu=body_hu,
        pitch_mm=blocks.pitch_mm,
        corner_mm=blocks.corner_mm,
    )


def _binned(image: Images, fy: int, fx: int) -> Images:
    rows, columns = image.shape[0] // fy, image.shape[1] // fx
    trimmed = image[: rows * fy, : columns * fx]
    binned: Images = trimmed.reshape(rows, fy, columns, fx).mean(axis=(1, 3), dtype=np.float32)
    return binned


def _noise_hu(hu: Images, body_hu: tuple[float, float]) -> float:
    """SD of a coarse pixel's noise, from neighbours that both read about like the phantom's body."""
    alike = (hu > body_hu[0] - 100) & (hu < body_hu[1] + 100)
    steps = np.abs(np.diff(hu, axis=2))[alike[:, :, 1:] & alike[:, :, :-1]]
    return float(np.median(steps)) * 1.4826 / 2**0.5 if steps.size else 0.0


def _core_of(
    hu: Images, inside: Bools, pitch_mm: tuple[float, float], radius_mm: float, noise_hu: float
) -> tuple[Images, Bools]:
    """What the core of a rod of that size reads about every pixel, and whether it is even and in view."""
    outer = radius_mm - CORE_MARGIN_MM
    mean, part = _disc_means(hu, inside, pitch_mm, 0.0, outer)
    square, _ = _disc_means(hu * hu, inside, pitch_mm, 0.0, outer)
    # 1.3: the scatter of a sample SD over the few pixels of a core.
    even = square - mean * mean <= CORE_SD_HU**2 + (1.3 * noise_hu) ** 2
    return mean, even & (part >= MINIMUM_COVERAGE)


def _possible(core_hu: Images, sound: Bools, search_hu: tuple[float, float]) -> Bools:
    low, high = search_hu
    possible: Bools = sound & (core_hu >= low) & (core_hu <= high)
    return possible


def _disc_means(
    hu: Images, inside: Bools, pitch_mm: tuple[float, float], inner_mm: float, outer_mm: float
) -> tuple[Images, Images]:
    """Mean over a ring about every pixel, of what lies inside the image, and how much of the ring does."""
    dy, dx = pitch_mm
    ny, nx = int(outer_mm / dy) + 1, int(outer_mm / dx) + 1
    y, x = np.mgrid[-ny : ny + 1, -nx : nx + 1]
    distance = np.hypot(y * dy, x * dx)
    kernel = ((distance >= inner_mm) & (distance <= outer_mm)).astype(np.float32)[None]
    weight = fftconvolve(inside.astype(np.float32), kernel, mode="same", axes=(1, 2))
    total = fftconvolve(np.where(inside, hu, np.float32(0)), kernel, mode="same", axes=(1, 2))
    # Pixels wider than the ring leave the kernel empty: then nothing is covered.
    return total / np.maximum(weight, 0.5), weight / max(float(kernel.sum()), 1.0)
