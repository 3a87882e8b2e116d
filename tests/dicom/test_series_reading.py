"""CT slices become a volume only where they really are one."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.dicom.ct.headers import group_series, identity_of, is_ct_image, read_headers
from node.dicom.ct.reading import read_series
from node.dicom.ct.series_choice import coverage_mm
from node.dicom.ct.slice_geometry import stack_slices
from node.dicom.errors import SeriesUnusable, Unusable


def _ramp(folder: Path, make_slice, count: int = 6, shape: tuple[int, int] = (8, 7), **changes) -> Path:
    """`count` slices, 5 mm apart along z; pixel [r, c] of slice k is 100 k + 10 r + c."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.indices(shape)
    for k in range(count):
        pixels = 100 * k + 10 * rows + columns
        make_slice(folder / f"{k:03d}.dcm", pixels, (-10.0, 20.0, 5.0 * k), **changes)
    return folder


def _edit(path: Path, **changes) -> None:
    dataset = dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def _refusal(folder: Path, load_series) -> SeriesUnusable:
    with pytest.raises(SeriesUnusable) as caught:
        load_series(folder)
    return caught.value


def test_slices_are_sorted_by_position_not_by_name(study):
    """The study's files run from the top slice to the bottom one."""
    depths = [float(header.ImagePositionPatient[2]) for header in study.series.headers]
    assert depths == sorted(depths)
    assert study.series.headers[0].InstanceNumber == 44


def test_anisotropic_pixels_keep_row_column_order(study):
    grid = study.series.volume.grid
    assert grid.spacing_mm == pytest.approx((4.0, 1.6, 1.8))
    assert grid.to_patient((0, 1, 0))[1] - grid.to_patient((0, 0, 0))[1] == pytest.approx(1.6)
    assert grid.to_patient((0, 0, 1))[0] - grid.to_patient((0, 0, 0))[0] == pytest.approx(1.8)
    assert study.series.facts.pixel_spacing_mm == pytest.approx((1.6, 1.8))


def test_rescale_gives_hounsfield_units_per_slice(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice, RescaleSlope=2, RescaleIntercept=-1024)
    _edit(folder / "003.dcm", RescaleIntercept=-1000)
    hu = load_series(folder).volume.hu
    assert hu.dtype == np.float32
    assert hu[2, 1, 3] == 2 * 213 - 1024
    assert hu[3, 1, 3] == 2 * 313 - 1000


@pytest.mark.parametrize(
    ("cosines", "step"),
    [
        ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
        ((1, 0, 0, 0, -1, 0), (0, 0, -1)),  # rows run forwards: the normal points down
        ((0, 1, 0, 0, 0, -1), (-1, 0, 0)),  # sagittal
        ((1, 0, 0, 0, 0, -1), (0, 1, 0)),  # coronal
        ((0.8, 0.6, 0, -0.6, 0.8, 0), (0, 0, 1)),  # turned in plane
        ((1, 0, 0, 0, 0.8, 0.6), (0, -0.6, 0.8)),  # oblique, as a reformat along the spine
    ],
)
def test_every_voxel_lies_where_its_slice_says(tmp_path, make_slice, load_series, cosines, step):
    folder = tmp_path / "s"
    folder.mkdir()
    rows, columns = np.indices((5, 4))
    corner = np.array([3.0, -7.0, 11.0])
    places = [2, 0, 3, 1]
    for name, k in enumerate(places):
        make_slice(
            folder / f"{name:03d}.dcm",
            100 * k + 10 * rows + columns,
            tuple(corner + 2.5 * k * np.asarray(step)),
            ImageOrientationPatient=list(cosines),
            PixelSpacing=[0.7, 0.9],
        )
    volume = load_series(folder).volume
    for k, j, i in ((0, 0, 0), (3, 4, 3), (1, 2, 3)):
        value = int(volume.hu[k, j, i])
        expected = (
            corner
            + 2.5 * (value // 100) * np.asarray(step)
            + 0.7 * (value // 10 % 10) * np.asarray(cosines[3:])
            + 0.9 * (value % 10) * np.asarray(cosines[:3])
        )
        assert volume.grid.to_patient((k, j, i)) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(7)), spacing=st.floats(0.4, 10), start=st.floats(-900, 900))
def test_any_file_order_gives_the_same_stack(order, spacing, start):
    headers = []
    for k in order:
        header = Dataset()
        header.Rows, header.Columns = 4, 5
        header.PixelSpacing = [1.0, 2.0]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [0.0, 0.0, round(start + spacing * k, 3)]
        headers.append(header)
    stack = stack_slices(headers)
    assert [order[place] for place in stack.order] == list(range(7))
    assert stack.grid.spacing_mm[0] == pytest.approx(spacing, abs=1e-3)


def test_repeated_positions_are_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    _edit(folder / "003.dcm", ImagePositionPatient=[-10.0, 20.0, 10.0])
    refusal = _refusal(folder, load_series)
    assert refusal.reason is Unusable.DUPLICATE_POSITIONS
    assert str(refusal) == "duplicate slice positions: different images at 10.0 mm"


def test_an_image_sent_twice_is_left_out_and_counted(tmp_path, make_slice, load_series):
    """As an archive sends it: another UID, the same place, the same pixels."""
    folder = _ramp(tmp_path / "s", make_slice)
    plain = load_series(folder)
    for name in ("002", "004"):
        dataset = dcmread(folder / f"{name}.dcm")
        dataset.SOPInstanceUID += ".9"
        dataset.save_as(folder / f"{name}-again.dcm")
    again = load_series(folder)
    assert (plain.copies, again.copies) == (0, 2)
    assert np.array_equal(again.volume.hu, plain.volume.hu)
    assert [str(h.SOPInstanceUID) for h in again.headers] == [str(h.SOPInstanceUID) for h in plain.headers]
    assert again.facts.instances == 6


def test_equal_pixels_on_another_scale_are_no_copy(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    dataset = dcmread(folder / "002.dcm")
    dataset.RescaleIntercept = float(dataset.RescaleIntercept) + 10
    dataset.save_as(folder / "002-again.dcm")
    assert _refusal(folder, load_series).reason is Unusable.DUPLICATE_POSITIONS


def test_the_thickest_slice_gives_the_thickness(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice, SliceThickness=2.0)
    _edit(folder / "003.dcm", SliceThickness=7.0)
    assert load_series(folder).facts.slice_thickness_mm == 7.0


def test_a_missing_slice_is_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    (folder / "002.dcm").unlink()
    refusal = _refusal(folder, load_series)
    assert refusal.reason is Unusable.SLICE_GAP
    assert str(refusal) == ("missing slices: image spacing 5.00 mm, images missing after 5.0 mm")


def test_varying_spacing_is_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    _edit(folder / "005.dcm", ImagePositionPatient=[-10.0, 20.0, 26.0])
    assert _refusal(folder, load_series).reason is Unusable.SPACING_VARIES


def test_varying_orientation_is_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    _edit(folder / "005.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0.8, 0.6])
    assert _refusal(folder, load_series).reason is Unusable.ORIENTATION_VARIES


def test_varying_pixel_spacing_is_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    _edit(folder / "005.dcm", PixelSpacing=[1.0, 1.0])
    assert _refusal(folder, load_series).reason is Unusable.SIZE_VARIES


def test_gantry_tilt_is_refused_by_tag(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice, GantryDetectorTilt=12.5)
    refusal = _refusal(folder, load_series)
    assert refusal.reason is Unusable.GANTRY_TILT
    assert str(refusal) == "gantry tilt: 12.5 degrees by the header, 0.0 degrees by the images"


@pytest.mark.parametrize("stated", [0.5, -0.9, [0.0, 0.7]])
def test_a_nominal_tilt_over_straight_slices_is_passed_over(tmp_path, make_slice, load_series, stated):
    folder = _ramp(tmp_path / "s", make_slice, GantryDetectorTilt=stated)
    assert load_series(folder).volume.grid.spacing_mm[0] == 5.0


def test_how_far_a_stated_tilt_may_lie_from_the_images_is_the_sites(tmp_path, make_slice):
    folder = _ramp(tmp_path / "s", make_slice, GantryDetectorTilt=1.4)
    (series,) = group_series(read_headers(folder.iterdir()))
    with pytest.raises(SeriesUnusable, match=r"1\.4 degrees by the header"):
        read_series(series)
    assert read_series(series, tilt_tolerance_degrees=1.5).facts.instances == 6


@pytest.mark.parametrize(("stated", "is_straight"), [(10.0, True), (10.8, True), (12.0, False), (4.0, False)])
def test_a_tilt_that_the_cosines_show_too_has_not_been_lost(
    tmp_path, make_slice, load_series, stated, is_straight
):
    """Slices tilted by 10 degrees that follow one another along their normal."""
    sine, cosine = np.sin(np.radians(10)), np.cos(np.radians(10))
    folder = _ramp(tmp_path / "s", make_slice, GantryDetectorTilt=stated)
    for k in range(6):
        place = [-10.0, round(20.0 - 5 * k * sine, 6), round(5 * k * cosine, 6)]
        _edit(
            folder / f"{k:03d}.dcm",
            ImageOrientationPatient=[1, 0, 0, 0, round(cosine, 8), round(sine, 8)],
            ImagePositionPatient=place,
        )
    if is_straight:
        assert load_series(folder).volume.grid.spacing_mm[0] == pytest.approx(5.0, abs=1e-4)
    else:
        assert _refusal(folder, load_series).reason is Unusable.GANTRY_TILT


def test_numbers_are_compared_as_numbers(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice, KVP="80")
    for k in range(0, 6, 2):
        _edit(folder / f"{k:03d}.dcm", KVP="80.0")
    assert load_series(folder).facts.kvp == 80
    _edit(folder / "001.dcm", KVP="100")
    assert str(_refusal(folder, load_series)) == "technique varies between slices: KVP"


def test_a_copy_whose_numbers_are_written_otherwise_is_a_copy(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    dataset = dcmread(folder / "002.dcm")
    dataset.SOPInstanceUID += ".9"
    dataset.ImagePositionPatient = ["-10.000", "2.0e1", "10.0"]
    dataset.PixelSpacing = [f"{float(step):.6f}" for step in dataset.PixelSpacing]
    dataset.save_as(folder / "002-again.dcm")
    assert load_series(folder).copies == 1


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")  # pydicom writes them and says so
@pytest.mark.parametrize("stated", ["0", "0.0", "-1", "-120", "1", "1.2", "120000", "9999", "nan", "inf"])
def test_what_is_no_tube_voltage_is_not_known(tmp_path, make_slice, load_series, stated):
    series = load_series(_ramp(tmp_path / "s", make_slice, KVP=stated))
    assert (series.facts.kvp, series.volume.kvp) == (None, None)


@pytest.mark.parametrize("kvp", [70, 80.5, 120, 150])
def test_every_tube_voltage_of_a_scanner_is_taken_as_stated(tmp_path, make_slice, load_series, kvp):
    assert load_series(_ramp(tmp_path / "s", make_slice, KVP=kvp)).facts.kvp == kvp


def test_sheared_slices_are_refused_without_the_tag(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    for k in range(6):
        _edit(folder / f"{k:03d}.dcm", ImagePositionPatient=[-10.0, 20.0 + k, 5.0 * k])
    assert _refusal(folder, load_series).reason is Unusable.GANTRY_TILT


def test_slices_shifted_amid_the_stack_are_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    for k in (2, 3):
        _edit(folder / f"{k:03d}.dcm", ImagePositionPatient=[-10.0 + 15.0, 20.0, 5.0 * k])
    refusal = _refusal(folder, load_series)
    assert refusal.reason is Unusable.OFF_LINE
    assert "up to 15.0 mm" in str(refusal)


def test_a_tilt_of_several_values_counts_by_its_largest(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice, GantryDetectorTilt=[0.0, -12.5])
    assert _refusal(folder, load_series).reason is Unusable.GANTRY_TILT


def test_a_position_of_two_numbers_is_missing_geometry(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    _edit(folder / "002.dcm", ImagePositionPatient=[-10.0, 20.0])
    series = group_series(read_headers(sorted(folder.glob("*.dcm"))))[0]
    assert coverage_mm(series) > 0
    assert _refusal(folder, load_series).reason is Unusable.GEOMETRY_MISSING


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"])
def test_missing_geometry_is_never_invented(tmp_path, make_slice, load_series, keyword):
    folder = _ramp(tmp_path / "s", make_slice)
    _edit(folder / "000.dcm", **{keyword: None})
    refusal = _refusal(folder, load_series)
    assert refusal.reason is Unusable.GEOMETRY_MISSING
    assert refusal.detail == keyword


def test_missing_rescale_is_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice, RescaleIntercept=None)
    assert _refusal(folder, load_series).reason is Unusable.RESCALE_MISSING


@pytest.mark.parametrize("value", [b"1\\0\\0\\0\\1\\x", b"1\\0\\0\\0\\1  ", b"1\\0\\0\\0\\1e9999"[:11]])
def test_an_orientation_that_is_none_counts_as_missing(tmp_path, make_slice, load_series, value):
    """As transfer damages it: told in words, where reckoning with it would end in an error of arithmetic."""
    folder = _ramp(tmp_path / "s", make_slice, ImageOrientationPatient=None)
    element = b"\x20\x00\x37\x00LO" + len(value).to_bytes(2, "little") + value
    for path in folder.iterdir():
        behind = b"\x20\x00\x52\x00UI"  # the next one
        path.write_bytes(path.read_bytes().replace(behind, element + behind))
    assert _refusal(folder, load_series).reason is Unusable.GEOMETRY_MISSING


def test_a_file_that_breaks_off_behind_its_identifiers_does_not_vanish(tmp_path, make_slice, load_series):
    """The uppermost slice of a stack, so that no gap would tell."""
    folder = _ramp(tmp_path / "s", make_slice)
    content = (folder / "005.dcm").read_bytes()
    at = content.index(b"\x20\x00\x32\x00DS")  # ImagePositionPatient
    broken = b"\x20\x00\x12\x00SQ\0\0\xff\xff\xff\xff" + b"no item, but other bytes"
    (folder / "005.dcm").write_bytes(content[:at] + broken)
    assert len(read_headers(folder.iterdir())) == 6
    assert _refusal(folder, load_series).reason is Unusable.DAMAGED
    (folder / "005.dcm").write_bytes(content[: at + 20])
    assert len(read_headers(folder.iterdir())) == 6
    assert _refusal(folder, load_series).reason is Unusable.TECHNIQUE_VARIES


def test_one_slice_says_that_it_is_one(tmp_path, make_slice, load_series):
    refusal = _refusal(_ramp(tmp_path / "s", make_slice, count=1), load_series)
    assert refusal.reason is Unusable.SINGLE_SLICE
    assert refusal.slices == 1


def test_cut_off_pixels_are_refused(tmp_path, make_slice, load_series):
    folder = _ramp(tmp_path / "s", make_slice)
    dataset = dcmread(folder / "004.dcm")
    dataset.PixelData = dataset.PixelData[:50]
    dataset.save_as(folder / "004.dcm")
    assert _refusal(folder, load_series).reason is Unusable.UNDECODABLE


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_compressed_slices_read_as_the_same_values(tmp_path, make_slice, load_series, syntax):
    folder = _ramp(tmp_path / "s", make_slice, shape=(64, 96))
    plain = load_series(folder)
    for path in folder.iterdir():
        dataset = dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    packed = load_series(folder)
    assert np.array_equal(packed.volume.hu, plain.volume.hu)
    assert not packed.facts.lossy


def test_other_files_and_objects_are_passed_over(tmp_path, make_slice):
    folder = _ramp(tmp_path / "s", make_slice)
    (folder / "truth.json").write_text(json.dumps({"levels": {}}))
    (folder / "truth_mask.nii.gz").write_bytes(b"\x1f\x8b not a DICOM file")
    (folder / "empty.dcm").write_bytes(b"")
    _edit(folder / "005.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.34")
    instances = read_headers(folder.iterdir())
    assert len(instances) == 6
    assert sum(map(is_ct_image, instances)) == 5
    (series,) = group_series(instances)
    assert len(series.instances) == 5


def test_series_of_one_study_stay_apart(tmp_path, make_slice):
    _ramp(tmp_path / "a", make_slice)
    _ramp(tmp_path / "b", make_slice, SeriesInstanceUID="1.2.3.4")
    grouped = group_series(read_headers([*tmp_path.glob("*/*")]))
    assert sorted(len(series.instances) for series in grouped) == [6, 6]


def test_age_counts_completed_years_at_the_study_date(study):
    identity = identity_of(study.series.headers[0])
    assert identity.age_years == 68  # born 1955-07-01, scanned 2024-05-16
    assert identity.birth_date == date(1955, 7, 1)
    assert (identity.patient_id, identity.issuer_of_patient_id) == ("PID-0815", "HOSPITAL")


@pytest.mark.parametrize(("stated", "age"), [("067Y", 67), ("030M", 2), ("012W", 0), ("", None)])
def test_stated_age_serves_where_the_birth_date_is_missing(tmp_path, make_slice, stated, age):
    folder = _ramp(tmp_path / "s", make_slice, count=1, PatientBirthDate="", PatientAge=stated)
    (instance,) = read_headers(folder.iterdir())
    assert identity_of(instance.header).age_years == age


def test_an_awkward_real_study_is_read_without_inventing_identity(test_data):
    """JPEG 2000, Study, Series and SOP UIDs empty, PatientID empty, kernel of two values."""
    (series,) = group_series(read_headers((test_data / "ts_dicom20").iterdir()))
    loaded = read_series(series)
    assert loaded.volume.grid.shape == (20, 512, 512)
    assert loaded.volume.grid.spacing_mm == pytest.approx((2.0, 0.9765625, 0.9765625))
    identity = identity_of(loaded.headers[0])
    assert (identity.study_instance_uid, identity.patient_id, identity.sex) == ("", "", "")
    assert identity.age_years is None
    facts = loaded.facts
    assert (facts.kvp, facts.kernel, facts.contrast_agent) == (120.0, "Br38f 3", "APPLIED")
    assert -1030 < float(np.median(loaded.volume.hu[:, :20, :20])) < -950  # air in the corner
