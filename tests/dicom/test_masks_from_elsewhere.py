"""A mask drawn elsewhere lies where its file says, in DICOM's axes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from node.dicom.errors import MaskUnreadable
from node.dicom.seg.vertebra_masks import read_mask


def test_a_nifti_mask_keeps_its_place_in_the_patient(tmp_path):
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    labels[3, 1, 2] = 29
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((1.5, 2.5, 3.5))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    path = tmp_path / "mask.nii.gz"
    sitk.WriteImage(image, str(path))
    read, grid = read_mask(path)
    assert np.argwhere(read == 29).tolist() == [[3, 1, 2]]
    assert grid.spacing_mm == pytest.approx((3.5, 2.5, 1.5))
    expected = image.TransformIndexToPhysicalPoint((2, 1, 3))
    assert grid.to_patient((3, 1, 2)) == pytest.approx(expected, abs=1e-4)


def test_a_real_mask_shares_the_grid_of_its_image(test_data):
    folder = test_data / "ts_example_ct"
    labels, grid = read_mask(folder / "example_seg_fast_force_split.nii.gz")
    _, image_grid = read_mask(folder / "example_ct.nii.gz")
    grid.require_same(image_grid)
    voxels = np.argwhere(labels == 29)  # L3 in TotalSegmentator's numbers
    assert 55_000 < len(voxels) * grid.voxel_volume_mm3 < 75_000
    above, below = (grid.to_patient(np.argwhere(labels == label).mean(axis=0)) for label in (30, 28))
    assert above[2] > grid.to_patient(voxels.mean(axis=0))[2] > below[2]


@pytest.mark.parametrize("kind", ["text", "fractions", "flat"])
def test_what_is_no_label_image_is_refused(tmp_path, kind):
    path = tmp_path / "mask.nii.gz"
    if kind == "text":
        path = tmp_path / "mask.nii"
        path.write_text("not an image")
    else:
        shape = (3, 3, 3) if kind == "fractions" else (3, 3)
        sitk.WriteImage(sitk.GetImageFromArray(np.full(shape, 0.5, dtype=np.float32)), str(path))
    with pytest.raises(MaskUnreadable):
        read_mask(path)
