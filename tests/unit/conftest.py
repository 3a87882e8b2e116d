"""Fixtures of the trained engines' tests."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.nnunet import missing_packages


@pytest.fixture(scope="session")
def trained_packages() -> None:
    """torch, nnU-Net and TotalSegmentator; their absence fails where CI is set."""
    if missing := missing_packages("torch", "nnunetv2", "totalsegmentator"):
        text = f"{', '.join(missing)} not installed: make setup-totalsegmentator adds the trained engines"
        if os.environ.get("CI") == "true":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)


@pytest.fixture(scope="session")
def weights_mini(test_data: Path) -> Path:
    """Small networks that know one CT by heart: 297 names its vertebrae, 305 its bodies."""
    return test_data / "fixture_model" / "weights_mini"


@pytest.fixture(scope="session")
def weights_constant(test_data: Path) -> Path:
    """Small networks that answer "L3" (292, 297, 298) and "body" (305) everywhere."""
    return test_data / "fixture_model" / "weights_constant"


@pytest.fixture(scope="session")
def example_ct(test_data: Path) -> CtVolume:
    """T11 to sacrum at 3 mm: the CT that `weights_mini` knows."""
    image = SimpleITK.ReadImage(str(test_data / "ts_example_ct" / "example_ct.nii.gz"))
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    columns = np.reshape(image.GetDirection(), (3, 3)).T[::-1]
    x, y, z = image.GetSpacing()
    i, j, k = image.GetOrigin()
    return CtVolume(
        hu=hu,
        grid=Grid(
            shape=hu.shape,
            spacing_mm=(z, y, x),
            origin_mm=(i, j, k),
            direction=tuple(tuple(float(one) for one in axis) for axis in columns),
        ),
    )


@pytest.fixture(scope="session")
def example_bodies(test_data: Path) -> np.ndarray:
    """Bodies of that CT by TotalSegmentator's real networks: values of `LABELS`."""
    folder = test_data / "ts_example_ct" / "spine_report" / "example_ct_report"
    names, bodies = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{name}.nii.gz")))
        for name in ("totalseg", "totalseg_vertebrae_body")
    )
    return np.where(bodies == 1, names, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def no_network() -> list[object]:
    """Refuses connections, and lists who tried."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("a test of this module wanted the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield tried
