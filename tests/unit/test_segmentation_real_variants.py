"""A real CT as it would be of a patient who lies turned or has less bone, and on thick slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.geometric import GeometricEngine
from tests.unit.reference_images import as_volume

pytestmark = pytest.mark.slow

LUMBAR = ["L1", "L2", "L3", "L4", "L5"]


@pytest.fixture(scope="module")
def abdomen(test_data: Path) -> SimpleITK.Image:
    path = test_data / "ts_example_ct" / "example_ct.nii.gz"
    return SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)


def turned(image: SimpleITK.Image, degrees: tuple[float, float, float]) -> SimpleITK.Image:
    """About the axes from right to left, front to back and foot to head, through the image's middle."""
    middle = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    turn = SimpleITK.Euler3DTransform(middle, *np.deg2rad(degrees))
    return SimpleITK.Resample(image, image, turn, SimpleITK.sitkLinear, -1000.0)


@pytest.mark.parametrize("degrees", [(0, 0, 15), (-8, 0, 0)])
def test_a_turned_patient_keeps_his_sacrum(
    abdomen: SimpleITK.Image, degrees: tuple[float, float, float]
) -> None:
    found = GeometricEngine().segment(as_volume(turned(abdomen, degrees)))
    assert found.numbering_basis in {"sacrum", "sacrum and last rib"}
    assert found.numbering_confirmed
    assert [level.name for level in found.levels if level.complete] == LUMBAR


def test_a_sacrum_of_faint_bone_is_seen(abdomen: SimpleITK.Image) -> None:
    """All that is denser than soft tissue loses a third of what it has above 60 HU."""
    volume = as_volume(abdomen)
    faded = np.where(volume.hu > 60.0, 60.0 + (volume.hu - 60.0) * 0.65, volume.hu).astype(np.float32)
    found = GeometricEngine().segment(CtVolume(hu=faded, grid=volume.grid))
    assert found.numbering_basis == "sacrum and last rib"
    assert found.numbering_confirmed
    assert [level.name for level in found.levels if level.complete] == LUMBAR


def test_every_lumbar_body_is_found_on_slices_of_5_mm(abdomen: SimpleITK.Image) -> None:
    """Each slice is the mean of five of 1 mm: the ends of bodies blur as on a scanner."""
    size = [round(count * step) for count, step in zip(abdomen.GetSize(), abdomen.GetSpacing(), strict=True)]
    fine = SimpleITK.Resample(
        abdomen,
        [size[0] * 2 // 3, size[1] * 2 // 3, size[2]],
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        abdomen.GetOrigin(),
        (1.5, 1.5, 1.0),
        abdomen.GetDirection(),
        -1000.0,
    )
    volume = as_volume(fine)
    count = volume.grid.shape[0] // 5
    slabs = volume.hu[: 5 * count].reshape(count, 5, *volume.grid.shape[1:]).mean(axis=1)
    grid = Grid(
        shape=slabs.shape,
        spacing_mm=(5.0, 1.5, 1.5),
        origin_mm=tuple(volume.grid.to_patient([2.0, 0.0, 0.0])),
        direction=volume.grid.direction,
    )
    found = GeometricEngine().segment(CtVolume(hu=slabs, grid=grid))
    assert found.numbering_confirmed
    assert [level.name for level in found.levels if level.complete] == LUMBAR
