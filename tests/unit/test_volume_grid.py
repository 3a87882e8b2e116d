"""Grids: indices, patient coordinates, and the canonical frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.ct_volume import CtVolume, Grid, canonical, reorientation_of
from segmentation.errors import GridMismatch


@st.composite
def grids(draw):
    """Axis-aligned grids in any order and sense, a little rotated, anisotropic."""
    axes = np.eye(3)[list(draw(st.permutations([0, 1, 2])))]
    axes = axes * np.array(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))[:, None]
    angle = np.deg2rad(draw(st.floats(-20, 20)))
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return Grid(
        shape=draw(st.tuples(*[st.integers(1, 5)] * 3)),
        spacing_mm=draw(st.tuples(*[st.floats(0.3, 5)] * 3)),
        origin_mm=draw(st.tuples(*[st.floats(-300, 300)] * 3)),
        direction=tuple(tuple(float(c) for c in row) for row in axes @ turn.T),
    )


@given(grid=grids(), seed=st.integers(0, 99))
def test_canonical_keeps_every_voxel_where_it_was_and_comes_back(grid, seed):
    hu = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)
    turned, way = canonical(CtVolume(hu=hu, grid=grid))
    assert np.array_equal(way.backward(turned.hu), hu)
    index = tuple(int(n) for n in np.random.default_rng(seed).integers(0, turned.hu.shape))
    source = np.round(grid.to_index(turned.grid.to_patient(index))).astype(int)
    assert hu[tuple(source)] == turned.hu[index]


@given(grid=grids())
def test_canonical_axes_run_to_superior_posterior_left(grid):
    turned, _ = canonical(CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid))
    cosines = np.einsum("ij,ij->i", turned.grid.direction, [[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    assert (cosines > 0.7).all()
    assert reorientation_of(turned.grid).axes == (0, 1, 2)


@given(grid=grids(), point=st.tuples(*[st.floats(-100, 100)] * 3))
def test_patient_coordinates_and_indices_are_inverse(grid, point):
    assert np.allclose(grid.to_patient(grid.to_index(point)), point, atol=1e-6)


def test_grids_that_differ_are_refused_by_name():
    grid = Grid(
        shape=(1, 2, 3),
        spacing_mm=(1, 1, 1),
        origin_mm=(0, 0, 0),
        direction=((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    )
    moved = Grid(shape=(1, 2, 3), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 1), direction=grid.direction)
    grid.require_same(grid)
    with pytest.raises(GridMismatch, match="origin"):
        grid.require_same(moved)


def test_a_part_of_a_grid_keeps_its_voxels_in_place() -> None:
    grid = Grid(
        shape=(10, 20, 30),
        spacing_mm=(2.0, 0.5, 0.7),
        origin_mm=(5.0, -7.0, 11.0),
        direction=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)),
    )
    part = grid.part((slice(3, 9), slice(4, 20), slice(0, 5)))
    assert part.shape == (6, 16, 5)
    assert part.to_patient([1, 2, 3]) == pytest.approx(grid.to_patient([4, 6, 3]))
