"""The SEG holds the masks that were measured, voxel for voxel and in their place."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from node.dicom.conformance import check_object
from node.dicom.errors import SegmentationMismatch
from node.dicom.seg import encode_segmentation, plan_segments, require_same_voxels, with_rods
from scoring.calibration import Grade


@pytest.fixture(scope="module")
def segments(study):
    return plan_segments(study.report, study.vertebrae, study.regions)


@pytest.fixture(scope="module")
def seg(study, segments):
    return encode_segmentation(study.report, study.series, segments)


def _voxels(dataset, series) -> dict[int, np.ndarray]:
    """Masks by segment number on the source's grid, by SOP Instance UID alone: no geometry is trusted."""
    slices = {str(header.SOPInstanceUID): k for k, header in enumerate(series.headers)}
    masks = {
        int(item.SegmentNumber): np.zeros(series.volume.grid.shape, dtype=bool)
        for item in dataset.SegmentSequence
    }
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame, group in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        # One segment alone is named for all frames at once.
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        masks[number][slices[str(source.ReferencedSOPInstanceUID)]] = frame.astype(bool)
    return masks


def test_every_segment_reads_back_voxel_for_voxel(study, segments, seg):
    masks = _voxels(dcmread(BytesIO(seg.content)), study.series)
    assert len(masks) == 11  # body and core of five levels, radiomics region of L3
    for segment in segments:
        assert np.array_equal(masks[segment.number], segment.mask), segment.label


def test_segments_are_coded_and_tracked(segments, seg):
    dataset = dcmread(BytesIO(seg.content))
    assert dataset.SegmentationType == "BINARY"
    by_label = {item.SegmentLabel: item for item in dataset.SegmentSequence}
    assert {"L3 vertebral body", "L3 cancellous core (BMD region)", "L3 radiomics region"} <= set(by_label)
    core = by_label["L3 cancellous core (BMD region)"]
    assert core.AnatomicRegionSequence[0].CodeValue == "36470004"
    assert core.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "85756007"
    assert core.SegmentedPropertyTypeCodeSequence[0].CodeValue == "3138006"
    assert core.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "geometric"
    assert core.SegmentAlgorithmType == "AUTOMATIC"
    tracked = {item.TrackingID: item.TrackingUID for item in dataset.SegmentSequence}
    assert tracked == {segment.tracking_id: segment.tracking_uid for segment in segments}


def test_rods_are_segments_of_their_own_with_the_voxels_that_were_read(study, segments):
    grid = study.series.volume.grid
    with_them = with_rods(study.report, grid, segments)
    assert with_them[: len(segments)] == segments
    rods = with_them[len(segments) :]
    assert [one.tracking_id for one in rods] == [f"rod {rod.name}" for rod in study.report.calibration.rods]
    occupied = np.flatnonzero(np.logical_or.reduce([one.mask.any(axis=(1, 2)) for one in segments]))
    for one in rods:
        assert set(np.flatnonzero(one.mask.any(axis=(1, 2)))) <= set(range(occupied[0], occupied[-1] + 1))
    dataset = dcmread(BytesIO(encode_segmentation(study.report, study.series, with_them).content))
    masks = _voxels(dataset, study.series)
    for one in with_them:
        assert np.array_equal(masks[one.number], one.mask), one.label
    coded = [item for item in dataset.SegmentSequence if "rod" in item.SegmentLabel]
    assert [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in coded] == ["706342009"] * len(
        rods
    )
    assert all(
        item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "Osteonode" for item in coded
    )


def test_rods_of_an_earlier_scan_and_of_a_withheld_calibration_are_not_drawn(study, segments):
    grid = study.series.volume.grid
    earlier = replace(study.report.calibration, grade=Grade.ASYNCHRONOUS)
    for calibration in (earlier, None):
        assert with_rods(replace(study.report, calibration=calibration), grid, segments) == segments
    assert with_rods(study.report, grid, ()) == ()


def test_a_withheld_region_is_not_drawn(study):
    levels = tuple(
        replace(level, volume_mm3=None, measured=None) if level.name == "L2" else level
        for level in study.report.levels
    )
    planned = plan_segments(replace(study.report, levels=levels), study.vertebrae, study.regions)
    assert "L2" not in {segment.level for segment in planned}


def test_a_presumed_level_says_so_in_its_label(study):
    planned = plan_segments(replace(study.report, numbering_confirmed=False), study.vertebrae, study.regions)
    assert planned[0].label == "L1 (level presumed) vertebral body"


@pytest.mark.parametrize("damage", ["mirrored", "shifted", "incomplete"])
def test_a_damaged_mask_is_caught_before_it_leaves(study, segments, seg, damage):
    mask = segments[0].mask
    wrong = {
        "mirrored": mask[::-1],
        "shifted": np.roll(mask, 1, axis=2),
        "incomplete": mask & (np.arange(mask.shape[2]) > 90),
    }[damage]
    with pytest.raises(SegmentationMismatch, match="L1 vertebral body"):
        require_same_voxels(seg.content, study.series.volume.grid, [replace(segments[0], mask=wrong)])


@pytest.mark.parametrize("cosines", [[1, 0, 0, 0, -1, 0], [0, 1, 0, 0, 0, -1], [0.8, 0.6, 0, -0.6, 0.8, 0]])
def test_any_orientation_keeps_its_voxels(tmp_path, make_slice, load_series, study, segments, cosines):
    """Reversed, sagittal and oblique slices; encode_segmentation itself compares what it wrote."""
    normal = np.cross(cosines[:3], cosines[3:])
    shape = (9, 20, 24)
    for k in range(shape[0]):
        make_slice(
            tmp_path / f"{k:03d}.dcm",
            np.zeros(shape[1:], dtype=np.int16),
            tuple(float(v) for v in np.array([5.0, 6.0, 7.0]) + 3.0 * k * normal),
            ImageOrientationPatient=cosines,
            PixelSpacing=[0.8, 1.1],
        )
    series = load_series(tmp_path)
    mask = np.zeros(shape, dtype=bool)
    mask[2:6, 3:9, 10:12] = True
    mask[5, 3, 12] = True
    segment = replace(segments[0], mask=mask)
    encoded = encode_segmentation(study.report, series, [segment])
    assert np.array_equal(_voxels(dcmread(BytesIO(encoded.content)), series)[1], mask)


@pytest.mark.parametrize("size", [(206, 205), (5, 7)], ids=["206 x 205", "5 x 7"])
def test_frames_that_do_not_fill_bytes_keep_their_voxels(
    tmp_path, make_slice, load_series, study, segments, size
):
    """A frame of one bit ends in the middle of a byte, and the next begins there."""
    shape = (6, *size)
    for k in range(shape[0]):
        make_slice(tmp_path / f"{k:03d}.dcm", np.zeros(size, dtype=np.int16), (0.0, 0.0, 3.0 * k))
    series = load_series(tmp_path)
    rng = np.random.default_rng(1)
    wanted = [replace(one, mask=rng.random(shape) > 0.5) for one in segments[:3]]
    encoded = encode_segmentation(study.report, series, wanted)
    masks = _voxels(dcmread(BytesIO(encoded.content)), series)
    for segment in wanted:
        assert np.array_equal(masks[segment.number], segment.mask), segment.label
    check_object(encoded.content)
