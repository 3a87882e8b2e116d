"""CT volumes and their grids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentation.errors import GridMismatch

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
LabelMap = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating[Any]]  # positions, shape (..., 3) unless stated otherwise
Profile = npt.NDArray[np.floating[Any]]  # values along lines, rays or columns
Vector = tuple[float, float, float]
Box = tuple[slice, slice, slice]  # of an array (z, y, x): each slice with start and stop, without step

# Array axes (z, y, x) of the canonical frame run towards superior, posterior and left (DICOM's LPS).
_CANONICAL_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where voxels lie in the patient.

    The centre of voxel (k, j, i) is ``origin_mm + k*s[0]*d[0] + j*s[1]*d[1] + i*s[2]*d[2]`` in DICOM
    patient coordinates (LPS, mm).

    Attributes
    ----------
    shape : (z, y, x).
    spacing_mm : along the array axes (z, y, x).
    origin_mm : (x, y, z) in LPS: centre of voxel [0, 0, 0].
    direction : unit vectors in LPS, one for each array axis (z, y, x).
    """

    shape: tuple[int, int, int]
    spacing_mm: Vector
    origin_mm: Vector
    direction: tuple[Vector, Vector, Vector]

    @property
    def voxel_volume_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    def step_matrix(self) -> npt.NDArray[np.float64]:
        """Displacement of one step along each array axis.

        Returns
        -------
        (3, 3), mm in LPS (x, y, z); columns in the order of the array axes (z, y, x).
        """
        steps: npt.NDArray[np.float64] = np.asarray(self.direction, dtype=float).T * np.asarray(
            self.spacing_mm
        )
        return steps

    def to_patient(self, index_zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Patient coordinates of array indices.

        Parameters
        ----------
        index_zyx : (..., 3), 0-based, may be fractional.

        Returns
        -------
        (..., 3), mm in LPS (x, y, z).
        """
        offset: npt.NDArray[np.float64] = np.asarray(index_zyx, dtype=float) @ self.step_matrix().T
        point: npt.NDArray[np.float64] = offset + np.asarray(self.origin_mm)
        return point

    def to_index(self, point_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Array indices of patient coordinates: the inverse of `to_patient`.

        Parameters
        ----------
        point_mm : (..., 3), mm in LPS (x, y, z).

        Returns
        -------
        (..., 3), fractional (z, y, x), 0-based.
        """
        inverse = np.linalg.inv(self.step_matrix())
        index: npt.NDArray[np.float64] = (
            np.asarray(point_mm, dtype=float) - np.asarray(self.origin_mm)
        ) @ inverse.T
        return index

    def part(self, box: Box) -> Grid:
        """The grid of ``array[box]``."""
        corner = self.to_patient([part.start for part in box])
        shape = tuple(part.stop - part.start for part in box)
        return replace(
            self,
            shape=(shape[0], shape[1], shape[2]),
            origin_mm=(float(corner[0]), float(corner[1]), float(corner[2])),
        )

    def require_same(self, other: Grid, *, tolerance_mm: float = 1e-3) -> None:
        """Require that another grid equals this one.

        Parameters
        ----------
        tolerance_mm : absolute tolerance of each spacing, coordinate and direction cosine.

        Raises
        ------
        GridMismatch
            If shape, spacing, origin or direction differ.
        """
        if self.shape != other.shape:
            raise GridMismatch("shape", self.shape, other.shape)
        for what in ("spacing_mm", "origin_mm", "direction"):
            left, right = getattr(self, what), getattr(other, what)
            if not np.allclose(left, right, atol=tolerance_mm, rtol=0):
                raise GridMismatch(what.removesuffix("_mm"), left, right)


@dataclass(frozen=True, slots=True, kw_only=True)
class CtVolume:
    """A CT series as one array of Hounsfield units.

    Attributes
    ----------
    hu : (z, y, x), float32.
    kvp : tube voltage in kV, where it is known.

    Raises
    ------
    GridMismatch
        If `hu` has another shape than the grid.
    """

    hu: FloatArray
    grid: Grid
    kvp: float | None = None

    def __post_init__(self) -> None:
        if self.hu.shape != self.grid.shape:
            raise GridMismatch("shape", self.hu.shape, self.grid.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorientation:
    """A lossless change of axis order and sense between a source grid and the canonical frame.

    In the canonical frame array axes (z, y, x) run most nearly towards superior, posterior and left.

    Attributes
    ----------
    axes : source axis that becomes canonical axis 0, 1, 2.
    flips : per canonical axis: reversed after the permutation.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def forward(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Source array (z, y, x) -> canonical array."""
        moved = np.transpose(array, self.axes)
        return np.ascontiguousarray(moved[tuple(slice(None, None, -1 if f else 1) for f in self.flips)])

    def backward(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Canonical array -> source array: the exact inverse of `forward`."""
        unflipped = array[tuple(slice(None, None, -1 if f else 1) for f in self.flips)]
        return np.ascontiguousarray(np.transpose(unflipped, tuple(int(a) for a in np.argsort(self.axes))))

    def box_backward(self, box: Box, shape: tuple[int, int, int]) -> Box:
        """A box of the canonical array as a box of the source array.

        Parameters
        ----------
        shape : of the canonical array (z, y, x).
        """
        turned = [
            slice(size - part.stop, size - part.start) if flip else part
            for part, size, flip in zip(box, shape, self.flips, strict=True)
        ]
        back = [turned[int(axis)] for axis in np.argsort(self.axes)]
        return (back[0], back[1], back[2])


def reorientation_of(grid: Grid) -> Reorientation:
    """The permutation and flips that bring a grid nearest to the canonical frame."""
    direction = np.asarray(grid.direction, dtype=float)
    cosines = _CANONICAL_AXES @ direction.T  # [canonical axis, source axis]
    remaining = np.abs(cosines)
    axes = [0, 0, 0]
    for _ in range(3):
        canonical, source = np.unravel_index(int(np.argmax(remaining)), remaining.shape)
        axes[canonical] = int(source)
        remaining[canonical, :] = -1
        remaining[:, source] = -1
    flips = tuple(bool(cosines[axis, axes[axis]] < 0) for axis in range(3))
    return Reorientation(axes=(axes[0], axes[1], axes[2]), flips=(flips[0], flips[1], flips[2]))


def canonical(volume: CtVolume) -> tuple[CtVolume, Reorientation]:
    """The same voxels with array axes towards superior, posterior and left.

    Returns
    -------
    The volume in the canonical frame, and the reorientation that led there.
    """
    turn = reorientation_of(volume.grid)
    return replace(volume, hu=turn.forward(volume.hu), grid=canonical_grid(volume.grid, turn)), turn


def canonical_grid(grid: Grid, turn: Reorientation) -> Grid:
    """The grid of an array after `turn.forward`."""
    shape = tuple(grid.shape[a] for a in turn.axes)
    spacing = tuple(grid.spacing_mm[a] for a in turn.axes)
    direction = []
    corner = [0.0, 0.0, 0.0]
    for axis in range(3):
        source = turn.axes[axis]
        sense = -1.0 if turn.flips[axis] else 1.0
        x, y, z = grid.direction[source]
        direction.append((sense * x, sense * y, sense * z))
        if turn.flips[axis]:
            corner[source] = grid.shape[source] - 1
    origin = grid.to_patient(corner)
    return Grid(
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=(direction[0], direction[1], direction[2]),
    )


# HU per mg of bone mineral, relative to 80 kV: hydroxyapatite's attenuation over water's at 50, 57, 63 and
# 69 keV (NIST tables), which are assumed to be the effective energies behind an abdomen (R).
_BONE_BY_KVP = {80.0: 1.0, 100.0: 0.80, 120.0: 0.68, 140.0: 0.60}

# R: tube voltages of CT scanners reach from 70 to 150 kV. Archives write 0 and worse where none is known.
_TUBE_VOLTAGE_KV = (50.0, 180.0)


def known_kvp(stated: float | None) -> float | None:
    """A tube voltage in kV; None where it is not stated, or not one of a CT scanner (50 to 180 kV)."""
    lowest, highest = _TUBE_VOLTAGE_KV
    return stated if stated is not None and lowest <= stated <= highest else None


def bone_contrast(kvp: float | None, *, relative_to: float = 80.0) -> float:
    """Contrast of bone at a tube voltage, as a ratio.

    Parameters
    ----------
    kvp : in kV.
    relative_to : tube voltage in kV at which the contrast is 1.

    Returns
    -------
    The ratio; 1 where `kvp` is unknown. Interpolated linearly, constant outside 80 to 140 kV.
    """
    known = known_kvp(kvp)
    return 1.0 if known is None else _contrast(known) / _contrast(relative_to)


def _contrast(kvp: float) -> float:
    return float(np.interp(kvp, list(_BONE_BY_KVP), list(_BONE_BY_KVP.values())))
