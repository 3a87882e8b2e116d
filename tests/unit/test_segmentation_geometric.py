"""The model-free engine on real CTs whose masks were drawn by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from config.findings import load_findings
from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.geometric import GeometricEngine
from segmentation.vertebrae import LABELS, Vertebrae
from tests.unit.reference_images import as_volume

pytestmark = pytest.mark.slow

TABLE = load_findings()


def load(path: Path) -> CtVolume:
    return as_volume(SimpleITK.ReadImage(str(path)))


def dice(left: np.ndarray, right: np.ndarray) -> float:
    return float(2 * (left & right).sum() / (left.sum() + right.sum()))


def codes(found: Vertebrae) -> list[str]:
    return [TABLE.describe(observation).code for observation in found.observations]  # each must have words


@pytest.fixture(scope="module")
def abdomen(test_data: Path) -> CtVolume:
    return load(test_data / "ts_example_ct" / "example_ct.nii.gz")


@pytest.fixture(scope="module")
def found(abdomen: CtVolume) -> Vertebrae:
    return GeometricEngine().segment(abdomen)


@pytest.fixture(scope="module")
def given_bodies(test_data: Path) -> np.ndarray:
    """TotalSegmentator's numbers on its own mask of the bodies."""
    report = test_data / "ts_example_ct" / "spine_report" / "example_ct_report"
    body = load(report / "totalseg_vertebrae_body.nii.gz").hu == 1
    return np.where(body, load(report / "totalseg.nii.gz").hu, 0).astype(np.uint8)


def test_every_lumbar_level_of_a_real_ct_gets_its_name_from_sacrum_and_last_rib(found: Vertebrae) -> None:
    assert [level.name for level in found.levels] == ["T12", "L1", "L2", "L3", "L4", "L5"]
    assert [level.name for level in found.levels if level.complete] == ["L1", "L2", "L3", "L4", "L5"]
    assert found.numbering_confirmed
    assert found.numbering_basis == "sacrum and last rib"
    assert found.observations == ()
    assert found.engine.model_free


@pytest.mark.parametrize("name", ["L1", "L2", "L3", "L4", "L5"])
def test_real_bodies_overlap_the_mask_drawn_by_others(
    found: Vertebrae, given_bodies: np.ndarray, name: str
) -> None:
    assert dice(found.bodies == LABELS[name], given_bodies == LABELS[name]) >= 0.90


def test_levels_describe_the_label_map(abdomen: CtVolume, found: Vertebrae) -> None:
    for level in found.levels:
        index = np.argwhere(found.bodies == level.label)
        share = found.occupancy[level.name].share / 255
        voxel_mm3 = abdomen.grid.voxel_volume_mm3
        assert level.body_volume_mm3 == pytest.approx(share.sum() * voxel_mm3, rel=1e-3)
        assert level.body_volume_mm3 == pytest.approx(len(index) * voxel_mm3, rel=0.05)
        centre = abdomen.grid.to_patient(index.mean(axis=0))
        assert np.linalg.norm(np.subtract(level.centroid_mm, centre)) <= 0.5


@pytest.mark.parametrize(
    ("axes", "flips"), [((2, 0, 1), (True, False, True)), ((1, 2, 0), (False, True, True))]
)
def test_orientation_of_the_array_changes_no_voxel(
    abdomen: CtVolume, found: Vertebrae, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    """The same patient in another voxel order: permuted axes, some reversed."""
    cut = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    corner = [0.0, 0.0, 0.0]
    direction = []
    for axis, flip in zip(axes, flips, strict=True):
        corner[axis] = abdomen.grid.shape[axis] - 1 if flip else 0.0
        direction.append(tuple((-1.0 if flip else 1.0) * part for part in abdomen.grid.direction[axis]))
    turned = CtVolume(
        hu=np.ascontiguousarray(np.transpose(abdomen.hu, axes)[cut]),
        grid=Grid(
            shape=tuple(abdomen.grid.shape[axis] for axis in axes),
            spacing_mm=tuple(abdomen.grid.spacing_mm[axis] for axis in axes),
            origin_mm=tuple(abdomen.grid.to_patient(corner)),
            direction=tuple(direction),
        ),
    )
    again = GeometricEngine().segment(turned)
    assert (again.bodies == np.transpose(found.bodies, axes)[cut]).all()
    assert again.numbering_basis == found.numbering_basis


def test_anisotropic_voxels_give_the_same_bodies(abdomen: CtVolume, found: Vertebrae) -> None:
    """Every second row left out: each body keeps its name, its volume and its place."""
    thinned = CtVolume(
        hu=np.ascontiguousarray(abdomen.hu[:, :, ::2]),
        grid=Grid(
            shape=(*abdomen.grid.shape[:2], (abdomen.grid.shape[2] + 1) // 2),
            spacing_mm=(*abdomen.grid.spacing_mm[:2], 2 * abdomen.grid.spacing_mm[2]),
            origin_mm=abdomen.grid.origin_mm,
            direction=abdomen.grid.direction,
        ),
    )
    again = GeometricEngine().segment(thinned)
    for name in ("L1", "L2", "L3", "L4", "L5"):
        before, after = found.level(name), again.level(name)
        assert before is not None
        assert after is not None, name
        assert after.body_volume_mm3 == pytest.approx(before.body_volume_mm3, rel=0.15)
        assert np.linalg.norm(np.subtract(after.centroid_mm, before.centroid_mm)) <= 2.5


@pytest.mark.parametrize("name", ["ts_aorta_cta_chest_1.5mm.nii.gz", "ts_s0521_neck_1.5mm.nrrd"])
def test_neck_and_chest_hold_no_lumbar_level(test_data: Path, name: str) -> None:
    found = GeometricEngine().segment(load(test_data / "negatives" / name))
    assert found.levels == ()
    assert not found.bodies.any()
    assert codes(found) == ["no_lumbar_level"]


def test_a_crop_without_sacrum_or_rib_is_measured_and_not_named(test_data: Path) -> None:
    """An osteoporotic L3 whose cancellous bone is darker than its discs."""
    folder = test_data / "tptbox_L3"
    volume = load(folder / "sub-ct_label-22_ct.nii.gz")
    found = GeometricEngine().segment(volume)
    assert not found.numbering_confirmed
    assert codes(found) == ["levels_unnamed"]
    (whole,) = [level for level in found.levels if level.complete]
    assert whole.name == "lumbar body 1 of 1"
    vertebra = load(folder / "sub-ct_seg-vert_label-22_msk.nii.gz").hu == 22
    part = load(folder / "sub-ct_seg-subreg_label-22_msk.nii.gz").hu
    assert dice(found.bodies == whole.label, vertebra & ((part == 49) | (part == 50))) >= 0.90


def test_the_lower_half_without_the_last_rib_is_named_from_the_sacrum(
    abdomen: CtVolume, found: Vertebrae
) -> None:
    second = found.level("L2")
    assert second is not None
    top = int(abdomen.grid.to_index(second.centroid_mm)[0])
    again = GeometricEngine().segment(cropped(abdomen, 0, top))
    assert again.numbering_basis == "sacrum"
    assert [level.name for level in again.levels if level.complete] == ["L3", "L4", "L5"]


def test_the_upper_half_without_the_sacrum_is_named_from_the_last_rib(
    abdomen: CtVolume, found: Vertebrae
) -> None:
    fourth = found.level("L4")
    assert fourth is not None
    bottom = int(abdomen.grid.to_index(fourth.centroid_mm)[0])
    again = GeometricEngine().segment(cropped(abdomen, bottom, abdomen.grid.shape[0]))
    assert again.numbering_basis == "last rib"
    assert [level.name for level in again.levels if level.complete] == ["L1", "L2", "L3"]


def cropped(volume: CtVolume, first: int, last: int) -> CtVolume:
    """Slices [first, last) along the array's first axis, which runs towards superior."""
    return CtVolume(
        hu=np.ascontiguousarray(volume.hu[first:last]),
        grid=Grid(
            shape=(last - first, *volume.grid.shape[1:]),
            spacing_mm=volume.grid.spacing_mm,
            origin_mm=tuple(volume.grid.to_patient([first, 0, 0])),
            direction=volume.grid.direction,
        ),
    )


@pytest.mark.parametrize("hu", [-1000.0, 40.0])
def test_air_and_water_hold_no_vertebra(hu: float) -> None:
    grid = Grid(
        shape=(40, 60, 60),
        spacing_mm=(3.0, 3.0, 3.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    found = GeometricEngine().segment(CtVolume(hu=np.full(grid.shape, hu, np.float32), grid=grid))
    assert codes(found) == ["no_lumbar_level"]


def test_a_single_slice_holds_no_vertebra(abdomen: CtVolume) -> None:
    middle = abdomen.grid.shape[0] // 2
    assert codes(GeometricEngine().segment(cropped(abdomen, middle, middle + 1))) == ["no_lumbar_level"]
