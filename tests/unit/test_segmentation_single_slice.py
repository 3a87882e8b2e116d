"""A lumbar body in one thick slice is measured, and anything else is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from config.findings import load_findings
from node.reference.attenuation import HA, hu_per_mg
from node.reference.spec import BODIES, StudySpec
from node.reference.spine import build_spine
from node.reference.study import planes_of, render_planes
from segmentation.ct_volume import CtVolume, Grid
from segmentation.settings import GateSettings, RegionSettings
from segmentation.single_slice import SliceBody, SliceFinder

pytestmark = pytest.mark.slow

TABLE = load_findings()

AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
FINDER = SliceFinder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """One reference slice, with what it truly shows."""

    volume: CtVolume
    kvp: float
    hu_per_mg: float

    def read(self) -> float | None:
        """Density in mg/cm3, by the true calibration; None where the slice is not measured."""
        shown = FINDER.find(self.volume, "slice 1", self.kvp)
        if shown.region is None:
            return None
        return float(self.volume.hu[shown.region].mean()) / self.hu_per_mg


def rendered(level: str, offset_mm: float, bmd_mg_cm3: float, kvp: float) -> Scanned:
    spec = StudySpec.one_slice_each(
        level,
        slice_offset_mm=offset_mm,
        bmd_mg_cm3=dict.fromkeys(BODIES, bmd_mg_cm3),
        pixel_spacing_mm=(0.9, 0.9),
        matrix=280,
        kvp=kvp,
    )
    spine = build_spine(spec)
    (plane,) = planes_of(spec, spine)
    hu = render_planes(spec, spine, [plane])
    x, y, z = map(float, plane.corner_mm)
    normal, down = tuple(map(float, plane.normal)), tuple(map(float, plane.down))
    grid = Grid(
        shape=hu.shape,
        spacing_mm=(spec.slice_thickness_mm, *spec.pixel_spacing_mm),
        origin_mm=(x, y, z),
        direction=(normal, down, (1.0, 0.0, 0.0)),
    )
    return Scanned(volume=CtVolume(hu=hu, grid=grid), kvp=kvp, hu_per_mg=hu_per_mg(HA, spec.kev))


@cache
def _rendered(level: str, offset_mm: float, bmd_mg_cm3: float, kvp: float) -> Scanned:
    return rendered(level, offset_mm, bmd_mg_cm3, kvp)


def scanned(level: str, offset_mm: float = 0.0, bmd_mg_cm3: float = 100.0, kvp: float = 80.0) -> Scanned:
    """HU are linear in a body's density, and the noise of all renderings is the same."""
    with_bone = _rendered(level, offset_mm, 100.0, kvp)
    if bmd_mg_cm3 == 100.0:
        return with_bone
    without = _rendered(level, offset_mm, 0.0, kvp)
    hu = without.volume.hu + (with_bone.volume.hu - without.volume.hu) * np.float32(bmd_mg_cm3 / 100.0)
    return replace(without, volume=CtVolume(hu=hu, grid=without.volume.grid))


def reference_slice(level: str, offset_mm: float = 0.0) -> CtVolume:
    return scanned(level, offset_mm).volume


def shown_by(volume: CtVolume, kvp: float | None = 80.0) -> SliceBody:
    return FINDER.find(volume, "slice 1", kvp)


def codes(shown: SliceBody) -> list[str]:
    return [TABLE.describe(observation).code for observation in shown.observations]  # each must have words


def test_a_mixed_slice_is_what_rendering_gives():
    mixed, whole = scanned("L3", 8.0, 40.0), rendered("L3", 8.0, 40.0, 80.0)
    assert np.allclose(mixed.volume.hu, whole.volume.hu, atol=0.5)


DENSITIES = (20.0, 40.0, 80.0, 140.0, 220.0)


@pytest.mark.parametrize("kvp", [80.0, 100.0, 120.0, 140.0])
@pytest.mark.parametrize("level", ["L1", "L3", "L5"])
def test_every_density_is_read_right_through_the_middle(level, kvp):
    for bmd_mg_cm3 in DENSITIES:
        read = scanned(level, 0.0, bmd_mg_cm3, kvp).read()
        assert read == pytest.approx(bmd_mg_cm3, abs=2.0), bmd_mg_cm3


@pytest.mark.parametrize("offset_mm", [-2.0, 3.0])
@pytest.mark.parametrize("level", ["L2", "L4"])
def test_a_slice_planned_a_little_off_the_middle_is_still_read(level, offset_mm):
    for bmd_mg_cm3 in DENSITIES:
        read = scanned(level, offset_mm, bmd_mg_cm3).read()
        assert read == pytest.approx(bmd_mg_cm3, abs=4.0), bmd_mg_cm3


@pytest.mark.parametrize("kvp", [80.0, 140.0])
@pytest.mark.parametrize("offset_mm", [-12.0, -10.0, -8.0, 8.0, 10.0, 12.0])
@pytest.mark.parametrize("level", ["L1", "L4"])
def test_an_endplate_is_not_read_as_bone_however_faint_the_bone(level, offset_mm, kvp):
    """Before the arch was asked for, bone of 30 mg/cm3 read 67 to 69 here."""
    read = {bmd: scanned(level, offset_mm, bmd, kvp).read() for bmd in DENSITIES}
    assert {bmd: value for bmd, value in read.items() if value is not None} == {}


def test_without_a_tube_voltage_a_slice_is_held_to_the_strictest_limits():
    found = scanned("L3", 2.0, 100.0, kvp=140.0)
    assert codes(shown_by(found.volume, 140.0)) == []
    assert codes(shown_by(found.volume, None)) == ["slice_ring_open"]


def test_a_site_s_limits_for_regions_and_metal_hold_in_slices_too():
    volume = reference_slice("L3")
    shown = shown_by(volume)
    thinner = SliceFinder(regions=RegionSettings(erosion_mm=6.0)).find(volume, "slice 1", 80.0)
    assert thinner.region.sum() < 0.8 * shown.region.sum()
    wary = SliceFinder(quality=GateSettings(metal_hu=220.0)).find(volume, "slice 1", 80.0)
    assert codes(wary) == ["metal_near_body"]


def test_the_region_lies_in_the_body_clear_of_its_cortex():
    volume = reference_slice("L3")
    shown = shown_by(volume)
    assert shown.body is not None
    depth_mm = ndimage.distance_transform_edt(shown.body[0], sampling=volume.grid.spacing_mm[1:])
    assert float(depth_mm[shown.region[0]].min()) >= 3.0
    width_mm = np.ptp(np.flatnonzero(shown.body[0].any(axis=0))) * 0.9
    assert width_mm == pytest.approx(46 * 0.91, abs=2.0)  # the reference's L3 is 46 mm wide, less its waist


def test_a_slice_is_read_the_same_however_its_array_is_stored():
    volume = reference_slice("L2")
    rows = volume.grid.shape[1]
    first = volume.grid.to_patient([0, rows - 1, 0])
    upside_down = CtVolume(
        hu=np.ascontiguousarray(volume.hu[:, ::-1]),
        grid=replace(
            volume.grid,
            origin_mm=tuple(map(float, first)),
            direction=(
                volume.grid.direction[0],
                tuple(-part for part in volume.grid.direction[1]),
                volume.grid.direction[2],
            ),
        ),
    )
    straight, turned = shown_by(volume), shown_by(upside_down)
    assert np.array_equal(turned.region[:, ::-1], straight.region)


@pytest.mark.parametrize("offset_mm", [-18.0, -12.0, -9.0, 9.0, 12.0, 18.0])
@pytest.mark.parametrize("level", ["L1", "L3", "L4"])
def test_a_slice_through_an_endplate_or_a_disc_is_not_measured(level, offset_mm):
    shown = FINDER.find(reference_slice(level, offset_mm), "slice 2", 80.0)
    assert shown.region is None
    assert set(codes(shown)) <= {
        "slice_not_mid_body",
        "slice_ring_open",
        "slice_body_not_found",
        "slice_uneven",
    }
    assert all(observation.level == "slice 2" for observation in shown.observations)


@pytest.mark.parametrize(("level", "code"), [("S1", "slice_not_lumbar"), ("S2", "slice_body_not_found")])
def test_the_sacrum_is_not_measured(level, code):
    assert codes(shown_by(reference_slice(level))) == [code]


def changed(volume: CtVolume, radius_mm: float, hu: float, left_mm: float, front_mm: float) -> CtVolume:
    """The slice with a disc of other HU, placed from the middle of the reference's L3 (x = y = 0)."""
    _, rows, columns = volume.grid.shape
    points = volume.grid.to_patient(
        np.stack(np.meshgrid([0], np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    )
    inside = np.hypot(points[..., 0] - left_mm, points[..., 1] + front_mm) < radius_mm
    return CtVolume(hu=np.where(inside, np.float32(hu), volume.hu), grid=volume.grid)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"radius_mm": 2.0, "hu": 3000.0, "left_mm": 8.0, "front_mm": 4.0}, "metal_near_body"),
        ({"radius_mm": 2.0, "hu": 3000.0, "left_mm": 30.0, "front_mm": 0.0}, "metal_near_body"),
        ({"radius_mm": 7.0, "hu": 480.0, "left_mm": 8.0, "front_mm": 4.0}, "slice_uneven"),  # sclerosis
        ({"radius_mm": 7.0, "hu": 30.0, "left_mm": 8.0, "front_mm": 4.0}, "slice_uneven"),  # lysis
    ],
)
def test_what_is_no_bone_in_the_body_withholds_its_density(change, code):
    shown = shown_by(changed(reference_slice("L3"), **change))
    assert codes(shown) == [code]
    assert shown.region is None


def test_noise_is_not_measured():
    volume = reference_slice("L3")
    noise = np.random.default_rng(3).normal(0.0, 110.0, volume.hu.shape).astype(np.float32)
    shown = shown_by(CtVolume(hu=volume.hu + noise, grid=volume.grid))
    assert shown.region is None


def test_a_body_cut_by_the_image_is_not_measured():
    volume = reference_slice("L3")
    middle = volume.grid.shape[2] // 2
    box = (slice(0, 1), slice(0, volume.grid.shape[1]), slice(middle - 12, volume.grid.shape[2]))
    cut = CtVolume(hu=volume.hu[box], grid=volume.grid.part(box))
    assert shown_by(cut).region is None


def test_more_than_one_slice_is_wrong_use():
    grid = Grid(shape=(2, 9, 9), spacing_mm=(10.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    with pytest.raises(ValueError, match="more than one slice"):
        shown_by(CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid))


@pytest.mark.parametrize("value_hu", [-1000.0, 0.0, 300.0])
def test_an_image_of_nothing_shows_no_body(value_hu):
    grid = Grid(shape=(1, 60, 60), spacing_mm=(10.0, 2.0, 2.0), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    blank = CtVolume(hu=np.full(grid.shape, value_hu, np.float32), grid=grid)
    assert codes(shown_by(blank)) == ["slice_body_not_found"]


ASSUMED_KVP = 120.0  # of real CTs: the files do not state it


def slabs(path: Path, every: int, thickness_mm: float = 9.0) -> dict[int, CtVolume]:
    """Axial slabs of a CT, by the number of their middle slice."""
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    dx, dy, dz = image.GetSpacing()
    half = round((thickness_mm / dz - 1) / 2)
    found = {}
    for k in range(half, len(hu) - half, every):
        mean = hu[k - half : k + half + 1].mean(axis=0, keepdims=True)
        grid = Grid(
            shape=mean.shape,
            spacing_mm=(thickness_mm, dy, dx),
            origin_mm=(0.0, 0.0, k * dz),
            direction=AXIAL,
        )
        found[k] = CtVolume(hu=mean, grid=grid)
    return found


@pytest.mark.parametrize(
    ("name", "every"), [("ts_aorta_cta_chest_1.5mm.nii.gz", 8), ("ts_s0521_neck_1.5mm.nrrd", 12)]
)
def test_no_slab_of_a_chest_or_a_neck_is_measured(test_data, name, every):
    measured = [
        k
        for k, volume in slabs(test_data / "negatives" / name, every=every).items()
        if shown_by(volume, ASSUMED_KVP).region is not None
    ]
    assert measured == []


def test_slabs_of_a_real_ct_are_measured_only_where_they_lie_mid_body(test_data):
    """L2, L3 and L4 of a CT at 3 mm; its masks were drawn by another program."""
    folder = test_data / "ts_example_ct"
    labels, bodies = (
        SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS"))
        for name in ("totalseg", "totalseg_vertebrae_body")
        for path in [folder / "spine_report" / "example_ct_report" / f"{name}.nii.gz"]
    )
    body = bodies == 1
    measured = {}
    for k, volume in slabs(folder / "example_ct.nii.gz", every=2).items():
        shown = shown_by(volume, ASSUMED_KVP)
        if shown.region is not None:
            inside = labels[k][shown.region[0]]
            label = int(np.bincount(inside[inside > 0]).argmax())
            assert float(body[k][shown.region[0]].mean()) > 0.9, k
            heights = np.flatnonzero(((labels == label) & body).any(axis=(1, 2)))
            share = (k - heights[0]) / (heights[-1] - heights[0])
            assert 0.3 <= share <= 0.75, (k, share)
            measured.setdefault(label, []).append(k)
    assert set(measured) == {28, 29, 30}  # L4, L3, L2
