"""Real CTs without a phantom are nobody's business, whole or in pieces, and whatever model is looked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread, dcmwrite

from node.pipeline.study_run import StepResult, Verdict
from segmentation.gates.noise import shows_lumbar_spine
from tests.e2e.in_process import select_in, unchecked

pytestmark = pytest.mark.slow

NEGATIVES = {
    "chest with contrast": "negatives/ts_aorta_cta_chest_1.5mm.nii.gz",
    "neck": "negatives/ts_s0521_neck_1.5mm.nrrd",
    "abdomen": "ts_example_ct/example_ct.nii.gz",
    "lumbar spine": "verse014/sub-verse014_ct.nii.gz",
}


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory, test_data: Path, make_slice: Callable[..., None]
) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("real")
            image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(test_data / NEGATIVES[name])), "LPS")
            hu = np.clip(SimpleITK.GetArrayFromImage(image), -1024, 3071).astype(np.int16)
            dx, dy, dz = image.GetSpacing()
            for k, pixels in enumerate(hu):
                place = image.TransformIndexToPhysicalPoint((0, 0, k))
                path = folders[name] / f"{k:04d}.dcm"
                make_slice(path, pixels, place, PixelSpacing=[dy, dx], SliceThickness=round(dz, 3), KVP=120)
        return folders[name]

    return write


def is_not_applicable(folder, **how):
    ended = select_in(folder, **how)
    return isinstance(ended, StepResult) and ended.verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize("name", NEGATIVES)
def test_a_real_ct_without_a_phantom_is_not_applicable(written, name):
    assert is_not_applicable(written(name))


@pytest.mark.parametrize("name", ["chest with contrast", "abdomen"])
def test_nor_is_one_that_cannot_be_stacked(written, tmp_path, name):
    for number, path in enumerate(sorted(written(name).glob("*.dcm"))):
        dataset = dcmread(path)
        dataset.SeriesInstanceUID += f".{number + 1}"
        dcmwrite(tmp_path / path.name, dataset)
    assert is_not_applicable(tmp_path)


def test_nor_is_an_abdomen_where_every_model_is_looked_for(written, tmp_path):
    for path in written("abdomen").glob("*.dcm"):
        dataset = dcmread(path)
        del dataset.FrameOfReferenceUID
        dcmwrite(tmp_path / path.name, dataset)
    settings = unchecked(calibration={"phantom": "auto"})
    assert is_not_applicable(tmp_path, settings=settings)


def test_nor_are_twenty_compressed_slices_without_identity(test_data, tmp_path):
    for path in (test_data / "ts_dicom20").glob("CT.*"):
        shutil.copyfile(path, tmp_path / f"{path.name}.dcm")
    assert is_not_applicable(tmp_path)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("abdomen", 0.9, 1.0), ("lumbar spine", 0.9, 1.0), ("chest with contrast", 0, 0.3)],
)
def test_slices_through_the_lumbar_spine_are_told_from_a_chest(written, name, least, most):
    datasets = list(map(dcmread, sorted(written(name).glob("*.dcm"))[::10]))
    shown = [shows_lumbar_spine(one.pixel_array.astype(np.float32), one.PixelSpacing) for one in datasets]
    assert least <= np.mean(shown) <= most
