"""The same patient, stored otherwise, has the same density: the whole way from image to mg/cm3.

Segmentation by the model-free engine, both regions, the phantom's rods and the calibration; only what holds
the numbers is changed: order and sense of the array's axes, origin, spacing, order of the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from config.catalog import load_phantom
from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.reading import read_series
from node.reference.spec import StudySpec
from scoring.density.bmd import BmdResult, measure_bmd
from scoring.phantoms.rod_reading import calibrate_from_reading, find_rods
from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.geometric import GeometricEngine
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import DensityRegions, RegionSettings
from segmentation.vertebrae import RegionKind, is_lumbar
from tests.made_studies import write_reference_study
from tests.unit.segmentation_matrix_run import volume_of

pytestmark = pytest.mark.slow

MODEL = load_phantom("siemens-osteo")[0]
REGIONS = RegionSettings(bmd=DensityRegions.BOTH)
VIEW = ("L3", "L3")
PIXEL_MM = (1.3, 1.8)  # row, column: as unlike as they come
MATRIX = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What came out of one volume."""

    densities: Mapping[tuple[str, RegionKind], BmdResult]
    body_mm3: Mapping[str, float]


def chain(volume: CtVolume) -> Chain:
    found = GeometricEngine().segment(volume)
    calibration, barred = calibrate_from_reading(find_rods(volume, MODEL), MODEL, 120.0)
    assert barred == ()
    whole = [level for level in found.levels if level.complete and is_lumbar(level.name)]
    densities = {}
    for level in whole:
        regions = cut_regions(volume, found, level.name, REGIONS)
        for kind, mask in ((RegionKind.CORE, regions.bmd), (RegionKind.ELLIPSE, regions.ellipse)):
            densities[level.name, kind] = measure_bmd(volume, mask, calibration, level=level.name, kind=kind)
    return Chain(densities=densities, body_mm3={level.name: level.body_volume_mm3 for level in whole})


def scanned(pixel_mm: tuple[float, float] = PIXEL_MM) -> CtVolume:
    spec = StudySpec.reduced(view=VIEW, pixel_spacing_mm=pixel_mm, matrix=MATRIX, noise_hu=12.0)
    return volume_of(spec)


def stored(volume: CtVolume, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> CtVolume:
    """The same voxels at the same places, the array's axes in another order and sense."""
    grid = volume.grid
    corner = [size - 1 if flip else 0 for size, flip in zip(grid.shape, flips, strict=True)]
    direction = [
        tuple(-part if flip else part for part in axis)
        for axis, flip in zip(grid.direction, flips, strict=True)
    ]
    hu = np.transpose(volume.hu[tuple(slice(None, None, -1 if flip else 1) for flip in flips)], axes)
    return CtVolume(
        hu=np.ascontiguousarray(hu),
        grid=Grid(
            shape=hu.shape,
            spacing_mm=tuple(grid.spacing_mm[axis] for axis in axes),
            origin_mm=tuple(float(part) for part in grid.to_patient(corner)),
            direction=tuple(direction[axis] for axis in axes),
        ),
    )


def resampled(volume: CtVolume, spacing_mm: tuple[float, float, float]) -> CtVolume:
    """Linear interpolation at other places of the same space."""
    grid = volume.grid
    axes = [
        np.arange(0.0, (size - 1) * own, new) / own
        for size, own, new in zip(grid.shape, grid.spacing_mm, spacing_mm, strict=True)
    ]
    index = np.meshgrid(*axes, indexing="ij")
    hu = ndimage.map_coordinates(volume.hu, index, order=1).astype(np.float32)
    return CtVolume(hu=hu, grid=replace(grid, shape=hu.shape, spacing_mm=spacing_mm))


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    return scanned()


@pytest.fixture(scope="module")
def usual(volume: CtVolume) -> Chain:
    found = chain(volume)
    assert len(found.densities) == 2  # one body wholly in view, in core and ellipse
    return found


@pytest.mark.parametrize(
    ("axes", "flips"),
    [
        ((0, 1, 2), (True, False, True)),  # slices from the head down, columns from the left
        ((0, 2, 1), (False, False, False)),  # rows for columns, spacing with them
        ((2, 0, 1), (True, False, True)),  # sagittal
        ((1, 2, 0), (False, True, False)),  # coronal, slices along columns
    ],
    ids=str,
)
def test_order_and_sense_of_the_axes_do_not_change_density(volume, usual, axes, flips):
    found = chain(stored(volume, axes, flips))
    assert found.densities.keys() == usual.densities.keys()
    for key, read in usual.densities.items():
        assert found.densities[key].bmd_mg_cm3 == pytest.approx(read.bmd_mg_cm3, abs=0.02)
        assert found.densities[key].voxels == pytest.approx(read.voxels, rel=0.01)


def test_where_the_origin_lies_does_not_change_density(volume, usual):
    grid = replace(
        volume.grid,
        origin_mm=tuple(at + by for at, by in zip(volume.grid.origin_mm, (123.4, -56.7, 890.1), strict=True)),
    )
    found = chain(CtVolume(hu=volume.hu, grid=grid))
    for key, read in usual.densities.items():
        assert found.densities[key].bmd_mg_cm3 == pytest.approx(read.bmd_mg_cm3, abs=0.02)


@pytest.mark.parametrize("spacing_mm", [(3.0, 1.5, 1.5), (2.0, 1.3, 1.8)], ids=str)
def test_another_spacing_does_not_change_density_beyond_its_uncertainty(volume, usual, spacing_mm):
    """The same noise interpolated is no other measurement: the first uncertainty alone must cover it."""
    found = chain(resampled(volume, spacing_mm))
    for key, read in usual.densities.items():
        low, high = read.bmd_interval95_mg_cm3
        assert low <= found.densities[key].bmd_mg_cm3 <= high


def test_row_and_column_spacing_are_never_swapped(volume, usual):
    """Pixels tall or wide, the vertebra is the same: swapped once, it would be a third wider or narrower."""
    found = chain(scanned(PIXEL_MM[::-1]))
    for name, body_mm3 in usual.body_mm3.items():
        assert found.body_mm3[name] == pytest.approx(body_mm3, rel=0.05)
    for key, read in usual.densities.items():
        other = found.densities[key]
        apart = hypot(read.bmd_uncertainty_mg_cm3, other.bmd_uncertainty_mg_cm3)
        assert abs(other.bmd_mg_cm3 - read.bmd_mg_cm3) <= 3 * apart


def test_neither_file_names_nor_instance_numbers_put_slices_in_order(tmp_path: Path):
    spec = StudySpec.reduced(view=("L3", "L3"), pixel_spacing_mm=(4.0, 5.0), matrix=90)
    write_reference_study(tmp_path / "written", spec)
    (tmp_path / "shuffled").mkdir()
    files = sorted((tmp_path / "written").glob("*.dcm"))
    order = np.random.default_rng(5).permutation(len(files))
    for number, place in enumerate(order):
        dataset = dcmread(files[place])
        dataset.InstanceNumber = int(1 + (7 * number) % len(files))
        dataset.save_as(tmp_path / "shuffled" / f"{number:03d}.dcm", enforce_file_format=True)
    written, shuffled = (
        read_series(group_series(read_headers((tmp_path / name).glob("*.dcm")))[0]).volume
        for name in ("written", "shuffled")
    )
    shuffled.grid.require_same(written.grid)
    assert np.array_equal(shuffled.hu, written.hu)
