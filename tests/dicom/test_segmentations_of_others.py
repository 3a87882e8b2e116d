"""A segmentation that other software made lies where its frames say, and names what its codes say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from highdicom.seg import SegmentationTypeValues
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from node.dicom.ct.reading import LoadedSeries
from node.dicom.errors import SegProblem, SegUnusable
from node.dicom.result_headers import MANUFACTURER as OWN_MANUFACTURER
from node.dicom.seg import encode_segmentation, plan_segments
from node.dicom.seg.vertebra_masks import SegMask, read_segmentation, segmentations_among
from segmentation.engines.mask import LabelImage, resample_mask
from segmentation.vertebrae import LABELS
from tests.dicom import foreign_seg
from tests.dicom.foreign_seg import coded, describe, make_seg, save, shuffled

pytestmark = pytest.mark.slow

LEVELS = ("L1", "L2", "L3", "L4", "L5")


@pytest.fixture
def masks(study) -> dict[str, np.ndarray]:
    return {name: study.vertebrae.bodies == LABELS[name] for name in LEVELS}


@pytest.fixture
def read(study, tmp_path) -> Callable[..., SegMask]:
    def run(seg: Dataset, **labels: str) -> SegMask:
        return read_segmentation(save(seg, tmp_path / "seg.dcm"), study.series, labels)

    return run


def in_the_ct(found: SegMask, series: LoadedSeries) -> np.ndarray:
    return resample_mask(LabelImage(labels=found.labels, grid=found.grid), series.volume.grid)


@pytest.mark.parametrize("kind", [SegmentationTypeValues.BINARY, SegmentationTypeValues.FRACTIONAL])
def test_every_voxel_comes_back_whatever_the_order_of_the_frames(study, masks, read, kind):
    seg = make_seg(study.series.headers, masks, kind=kind)
    found = read(shuffled(seg))
    assert np.array_equal(in_the_ct(found, study.series), study.vertebrae.bodies)
    assert (found.sop_instance_uid, found.manufacturer, found.model) == (
        seg.SOPInstanceUID, foreign_seg.MANUFACTURER, foreign_seg.MODEL,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [SegmentationTypeValues.BINARY, SegmentationTypeValues.FRACTIONAL])
def test_frames_that_do_not_fill_bytes_are_read_voxel_for_voxel(tmp_path, make_slice, load_series, kind):
    """206 x 205: a frame of one bit ends in the middle of a byte, and the next begins there."""
    folder = tmp_path / "ct"
    folder.mkdir()
    shape = (5, 206, 205)
    for k in range(shape[0]):
        make_slice(folder / f"{k:03d}.dcm", np.zeros(shape[1:], dtype=np.int16), (0.0, 0.0, 3.0 * k))
    series = load_series(folder)
    drawn = np.random.default_rng(1).integers(0, 3, shape)  # of each voxel: neither, or one of two
    seg = make_seg(series.headers, {"L3": drawn == 1, "L4": drawn == 2}, kind=kind)
    found = read_segmentation(save(shuffled(seg), tmp_path / "seg.dcm"), series, {})
    expected = np.choose(drawn, [0, LABELS["L3"], LABELS["L4"]])
    assert np.array_equal(in_the_ct(found, series), expected)


def test_a_label_map_is_read_by_its_pixels(study, masks, read):
    """The newer storage class, whose pixels are segment numbers."""
    found = read(make_seg(study.series.headers, masks, kind=SegmentationTypeValues.LABELMAP))
    assert np.array_equal(in_the_ct(found, study.series), study.vertebrae.bodies)


def test_a_fraction_counts_from_one_half_on(study, masks, read):
    shares = {"L3": masks["L3"] * np.float32(0.5), "L4": masks["L4"] * np.float32(0.49)}
    found = read(make_seg(study.series.headers, shares, kind=SegmentationTypeValues.FRACTIONAL))
    there = in_the_ct(found, study.series)
    assert np.array_equal(there == LABELS["L3"], masks["L3"])
    assert not (there == LABELS["L4"]).any()


def test_a_single_segment_with_frames_missing_between_others_stays_in_place(study, masks, read):
    masks["L3"][np.flatnonzero(masks["L3"].any(axis=(1, 2)))[2:4]] = False
    seg = make_seg(study.series.headers, {"L3": masks["L3"]})
    for group in (*seg.PerFrameFunctionalGroupsSequence, *seg.SharedFunctionalGroupsSequence):
        if "PixelMeasuresSequence" in group:
            group.PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)
    found = read(seg)
    assert np.array_equal(in_the_ct(found, study.series) == LABELS["L3"], masks["L3"])


def test_frames_that_run_the_other_way_are_placed_by_their_own_cosines(study, masks, read):
    """The same voxels, each image turned by half a turn: rows and columns run backwards."""
    seg = make_seg(study.series.headers, masks)
    rows, columns = int(seg.Rows), int(seg.Columns)
    frames = seg.pixel_array.reshape(-1, rows, columns)[:, ::-1, ::-1]
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    spacing = [float(step) for step in shared.PixelMeasuresSequence[0].PixelSpacing]
    far = cosines[3:] * spacing[0] * (rows - 1) + cosines[:3] * spacing[1] * (columns - 1)
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = (-cosines).tolist()
    for group in seg.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = (np.asarray(place.ImagePositionPatient, dtype=float) + far).tolist()
    seg.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    found = read(seg)
    assert np.array_equal(in_the_ct(found, study.series), study.vertebrae.bodies)


def test_a_level_is_told_by_code_then_region_then_configured_label(study, masks, read):
    older = Code("T-11940", "SRT", "L4 vertebra")  # SNOMED's former values
    tumour = Code("108369006", "SCT", "Neoplasm")
    described = [
        describe(1, "five", coded("L2")),
        describe(2, "b", codes.SCT.Bone, [coded("L3")]),
        describe(3, "c", older),
        describe(4, "Lumbar 5", Code("ours", "99AI", "something")),
        describe(5, "L1 metastasis", tumour, [coded("L1")], codes.SCT.MorphologicallyAbnormalStructure),
    ]
    ordered = {name: masks[name] for name in ("L2", "L3", "L4", "L5", "L1")}
    seg = make_seg(study.series.headers, ordered, descriptions=described)
    found = read(seg, **{"five": "L5", "LUMBAR 5": "L5"})
    assert set(np.unique(found.labels)) - {0} == {LABELS[name] for name in ("L2", "L3", "L4", "L5")}
    there = in_the_ct(found, study.series)
    assert all(np.array_equal(there == LABELS[name], masks[name]) for name in ("L2", "L3", "L4", "L5"))


def test_segment_numbers_say_nothing(study, masks, read):
    described = [describe(number, f"{number}", codes.SCT.Vertebra) for number in range(1, 6)]
    seg = make_seg(study.series.headers, masks, descriptions=described)
    with pytest.raises(SegUnusable) as caught:
        read(seg)
    assert caught.value.reason is SegProblem.NO_LEVEL


def _other_series(seg: Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()


def _no_source(seg: Dataset) -> None:
    del seg.ReferencedSeriesSequence
    for group in seg.PerFrameFunctionalGroupsSequence:
        group.pop("DerivationImageSequence", None)


def _other_frame(seg: Dataset) -> None:
    seg.FrameOfReferenceUID = generate_uid()


def _made_here(seg: Dataset) -> None:
    item = Dataset()
    item.Manufacturer = OWN_MANUFACTURER
    seg.ContributingEquipmentSequence = [item]


def _uneven(seg: Dataset) -> None:
    place = seg.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    place.ImagePositionPatient[2] = float(place.ImagePositionPatient[2]) + 1.3


def _shifted(seg: Dataset) -> None:
    place = seg.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    place.ImagePositionPatient[0] = float(place.ImagePositionPatient[0]) + 2.0


def _cut_short(seg: Dataset) -> None:
    seg.PixelData = seg.PixelData[: len(seg.PixelData) // 2]


def _without_places(seg: Dataset) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_series, SegProblem.OTHER_SERIES),
        (_no_source, SegProblem.OTHER_SERIES),
        (_other_frame, SegProblem.FRAME_OF_REFERENCE),
        (_made_here, SegProblem.OWN),
        (_uneven, SegProblem.GEOMETRY),
        (_shifted, SegProblem.GEOMETRY),
        (_cut_short, SegProblem.DAMAGED),
        (_without_places, SegProblem.DAMAGED),
    ],
)
def test_what_cannot_be_this_series_mask_is_refused_with_its_reason(study, masks, read, change, reason):
    seg = make_seg(study.series.headers, masks)
    change(seg)
    with pytest.raises(SegUnusable) as caught:
        read(seg)
    assert caught.value.reason is reason


def test_images_that_frames_were_derived_from_name_the_source_too(study, masks, read):
    seg = make_seg(study.series.headers, masks)
    del seg.ReferencedSeriesSequence
    assert np.array_equal(in_the_ct(read(seg), study.series), study.vertebrae.bodies)


def test_vertebrae_that_claim_the_same_voxels_are_refused(study, masks, read):
    both = {"L3": masks["L3"], "L4": masks["L4"] | np.roll(masks["L3"], 3, axis=2)}
    with pytest.raises(SegUnusable) as caught:
        read(make_seg(study.series.headers, both))
    assert caught.value.reason is SegProblem.OVERLAP


def test_real_segmentations_of_other_images_are_refused(study, test_data):
    paths = sorted((test_data / "dicom_refs").rglob("*seg*.dcm"))
    assert len(paths) == 5
    for path in paths:
        with pytest.raises(SegUnusable) as caught:
            read_segmentation(path, study.series, {})
        assert caught.value.reason is SegProblem.OTHER_SERIES, path.name


def test_an_image_is_no_segmentation(study):
    with pytest.raises(SegUnusable) as caught:
        read_segmentation(next(study.folder.glob("*.dcm")), study.series, {})
    assert caught.value.reason is SegProblem.NOT_A_SEGMENTATION


@pytest.mark.parametrize(
    ("wanted", "counts"),
    [
        ({"manufacturer": "spine software*"}, True),
        ({"manufacturer": "Spine*", "model": "Vertebrae ?", "series_description": "*vertebrae"}, True),
        ({"manufacturer": "Spine*", "model": "Vertebrae"}, False),
        ({"software": "4.1"}, True),
        ({"software": "4"}, False),
        ({}, False),
    ],
)
def test_only_the_named_origin_counts(study, masks, tmp_path, wanted, counts):
    path = save(make_seg(study.series.headers, masks), tmp_path / "seg.dcm")
    save(make_seg(study.series.headers, masks), tmp_path / "other.dcm").write_bytes(path.read_bytes())
    (tmp_path / "truth.json").write_text("{}")
    found = segmentations_among([*study.folder.glob("*.dcm"), *tmp_path.iterdir()], wanted)
    assert len(found) == int(counts)  # an exact copy counts once


def test_the_node_s_own_segmentation_never_counts(study, tmp_path):
    """By its own word, whatever a site's patterns say."""
    own = encode_segmentation(
        study.report, study.series, plan_segments(study.report, study.vertebrae, study.regions)
    )
    path = tmp_path / "own.dcm"
    Path(path).write_bytes(own.content)
    assert segmentations_among([path], {"manufacturer": "*"}) == ()
    with pytest.raises(SegUnusable) as caught:
        read_segmentation(path, study.series, {})
    assert caught.value.reason is SegProblem.OWN
