"""The sacrum of a real CT is still seen where the patient lies turned, or has less bone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segmentation.engines.geometric import GeometricEngine
from segmentation.volume import CtVolume, Grid

LUMBAR = ["L1", "L2", "L3", "L4", "L5"]


def as_volume(image: SimpleITK.Image) -> CtVolume:
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return CtVolume(
        hu=hu,
        grid=Grid(
            shape=hu.shape,
            spacing_mm=tuple(image.GetSpacing()[::-1]),
            origin_mm=tuple(image.GetOrigin()),
            direction=tuple(tuple(direction[:, axis]) for axis in (2, 1, 0)),
        ),
    )


@pytest.fixture(scope="module")
def abdomen(test_data: Path) -> SimpleITK.Image:
    path = test_data / "ts_example_ct" / "example_ct.nii.gz"
    return SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)


def turned(image: SimpleITK.Image, degrees: tuple[float, float, float]) -> SimpleITK.Image:
    """About the axes from right to left, front to back and foot to head, through the image's middle."""
    middle = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    turn = SimpleITK.Euler3DTransform(middle, *np.deg2rad(degrees))
    return SimpleITK.Resample(image, image, turn, SimpleITK.sitkLinear, -1000.0)


@pytest.mark.parametrize("degrees", [(0, 0, 8), (0, 0, 15), (-8, 0, 0), (0, 12, 0)])
def test_a_turned_patient_keeps_his_sacrum(
    abdomen: SimpleITK.Image, degrees: tuple[float, float, float]
) -> None:
    found = GeometricEngine().segment(as_volume(turned(abdomen, degrees)))
    assert found.numbering_basis in {"sacrum", "sacrum and last rib"}
    assert found.numbering_confirmed
    assert [level.name for level in found.levels if level.complete] == LUMBAR


@pytest.mark.parametrize("share", [0.8, 0.65])
def test_a_sacrum_of_faint_bone_is_seen(abdomen: SimpleITK.Image, share: float) -> None:
    """All that is denser than soft tissue keeps this share of what it has above 60 HU."""
    volume = as_volume(abdomen)
    faded = np.where(volume.hu > 60.0, 60.0 + (volume.hu - 60.0) * share, volume.hu).astype(np.float32)
    found = GeometricEngine().segment(CtVolume(hu=faded, grid=volume.grid))
    assert found.numbering_basis == "sacrum and last rib"
    assert found.numbering_confirmed
    assert [level.name for level in found.levels if level.complete] == LUMBAR
