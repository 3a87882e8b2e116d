"""Of several passes in one series one is read, or none; acquisitions that follow one another are one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from config.phrases import in_english
from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.reading import LoadedSeries, read_series
from node.dicom.errors import SeriesUnusable, Unusable
from tests.dicom.multi_frame import item
from tests.dicom.multi_frame import write as write_multi_frame

pytestmark = pytest.mark.slow

STEP_MM = 3.0
COUNT = 20
Places = Sequence[float]
Turn = Callable[[int, int], int]  # of the image, by pass and number in it
Edit = Callable[[int, int], dict[str, object]]  # attributes by pass and number of the image in it

WHOLE = tuple(STEP_MM * k for k in range(COUNT))
ODD = tuple(z + 0.4 for z in WHOLE)
BETWEEN = tuple(z + STEP_MM / 2 for z in WHOLE)


def by_number(which: int, k: int) -> dict[str, object]:
    return {"AcquisitionNumber": 1 + which}


def by_nothing(which: int, k: int) -> dict[str, object]:
    return {}


def at_second(second: int) -> dict[str, object]:
    return {"AcquisitionDate": "20260115", "AcquisitionTime": f"10{second // 60:02d}{second % 60:02d}"}


@pytest.fixture
def read(tmp_path: Path, make_slice) -> Callable[..., LoadedSeries]:
    """A series of images of one grey value, that of their pass: 100, 200, ..."""

    def run(
        passes: Iterable[Places], edit: Edit, order: Callable[[int, int], int] | None = None
    ) -> LoadedSeries:
        number = 0
        for which, places in enumerate(passes):
            for k, z in enumerate(places):
                changes: dict[str, object] = {"InstanceNumber": order(which, k) if order else 1}
                changes |= edit(which, k)
                path = tmp_path / f"{number:04d}.dcm"
                grey = np.full((4, 5), 100 * (which + 1)) + (k % 2)
                make_slice(path, grey, (-10.0, 20.0, round(z, 4)), **changes)
                number += 1
        (series,) = group_series(read_headers(tmp_path.glob("*.dcm")))
        return read_series(series)

    return run


def measured(loaded: LoadedSeries) -> tuple[int, int, str]:
    """Which pass is read (by its pixels), of how many, and by what they are told apart."""
    found = loaded.facts.measured_pass
    assert found is not None
    greys = {int(grey) // 100 for grey in np.unique(loaded.volume.hu)}
    assert len(greys) == 1, "a mixture"
    assert found.images_left_out > 0
    return greys.pop(), found.passes, in_english(found.told_by)


def refusal(read: Callable[..., LoadedSeries], *arguments: object) -> str:
    with pytest.raises(SeriesUnusable) as caught:
        read(*arguments)
    assert caught.value.reason is Unusable.SEVERAL_PASSES
    return in_english(caught.value.detail)


def is_whole(loaded: LoadedSeries, count: int) -> bool:
    return loaded.facts.measured_pass is None and loaded.facts.instances == count


# ---- passes that one attribute tells apart ------------------------------------------------------------


@pytest.mark.parametrize("second", [BETWEEN, WHOLE, ODD], ids=["half", "same", "odd"])
@pytest.mark.parametrize(
    ("values", "told_by"),
    [
        ([{"AcquisitionNumber": 3}, {"AcquisitionNumber": 4}], "acquisition number"),
        ([at_second(0), at_second(90)], "acquisition time"),
        (
            [{"AcquisitionDateTime": "20260115101500.25"}, {"AcquisitionDateTime": "20260115101500.75"}],
            "acquisition time",
        ),
        ([{"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}], "temporal position"),
        ([{"TemporalPositionIndex": 1}, {"TemporalPositionIndex": 2}], "temporal position"),
        ([{"TriggerTime": "0"}, {"TriggerTime": "350.5"}], "cardiac phase"),
        (
            [{"NominalPercentageOfCardiacPhase": 10.0}, {"NominalPercentageOfCardiacPhase": 70.0}],
            "cardiac phase",
        ),
        ([{"IrradiationEventUID": "2.25.1"}, {"IrradiationEventUID": "2.25.2"}], "irradiation event"),
        ([{"ContrastBolusVolume": None}, {"ContrastBolusVolume": "100"}], "contrast medium"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_of_two_whole_passes_is_read_alone(read, second, values, told_by):
    def edit(which: int, k: int) -> dict[str, object]:
        return {name: value for name, value in values[which].items() if value is not None}

    loaded = read([WHOLE, second], edit)
    assert measured(loaded) == (1, 2, told_by)
    assert loaded.facts.instances == COUNT
    assert loaded.facts.slice_spacing_mm == pytest.approx(STEP_MM)


def test_the_first_in_time_is_read_whatever_its_number_and_its_place_among_the_files(read):
    def edit(which: int, k: int) -> dict[str, object]:
        return {"AcquisitionNumber": 2 - which, **at_second(100 - 60 * which)}

    loaded = read([WHOLE, BETWEEN], edit)
    assert measured(loaded)[0] == 2
    assert loaded.facts.measured_pass.number == 1


def test_three_passes_are_counted(read):
    third = tuple(z + 1.0 for z in WHOLE)
    assert measured(read([WHOLE, tuple(z + 2.0 for z in WHOLE), third], by_number)) == (
        1, 3, "acquisition number",
    )  # fmt: skip


def test_passes_that_only_their_image_numbers_show_are_taken_apart(read):
    loaded = read([WHOLE, BETWEEN], by_nothing, lambda which, k: 1 + k + which * COUNT)
    assert measured(loaded) == (1, 2, "image number")


@pytest.mark.parametrize("second", [BETWEEN, WHOLE, ODD], ids=["half", "same", "odd"])
@pytest.mark.parametrize("is_back", [False, True], ids=["same way", "and back"])
def test_images_with_a_number_and_a_time_each_are_taken_apart_by_their_turn(read, second, is_back):
    """Sequential scanning: every image is an acquisition of its own, in both passes."""

    def turn(which: int, k: int) -> int:
        return which * COUNT + (COUNT - 1 - k if is_back and which else k)

    def edit(which: int, k: int) -> dict[str, object]:
        return {"AcquisitionNumber": 1 + turn(which, k), **at_second(turn(which, k))}

    loaded = read([WHOLE, second], edit)
    grey, passes, told_by = measured(loaded)
    assert (passes, told_by) == (2, "acquisition number")
    assert grey in (1, 2)
    assert loaded.facts.instances >= COUNT - 1


def test_rotations_that_come_twice_are_taken_apart_by_their_turn(read):
    """Four images for each rotation, which share a time."""

    def edit(which: int, k: int) -> dict[str, object]:
        return at_second(60 * which + k // 4)

    assert measured(read([WHOLE, BETWEEN], edit)) == (1, 2, "acquisition time")


def test_a_whole_repetition_is_read_in_place_of_the_attempt_that_was_broken_off(read):
    loaded = read([BETWEEN[:8], WHOLE], by_number)
    assert measured(loaded)[:2] == (2, 2)
    assert loaded.facts.measured_pass.number == 2


def test_a_pass_with_a_missing_image_gives_way_to_a_whole_one(read):
    assert measured(read([(*WHOLE[:9], *WHOLE[10:]), BETWEEN], by_number))[0] == 2


# ---- what is refused ----------------------------------------------------------------------------------


def test_overlapping_acquisitions_of_which_none_is_whole_are_refused(read):
    detail = refusal(read, [WHOLE[:12], BETWEEN[9:]], by_number)
    assert detail == "2 parts overlap and none is complete by itself; distinguished by acquisition number"


def test_acquisitions_that_share_one_place_are_refused(read):
    refusal(read, [WHOLE[:10], WHOLE[9:]], by_number)


def test_of_four_acquisitions_nobody_knows_which_belong_together(read):
    """Upper part native, upper part enhanced, lower part native, lower part enhanced; nothing says so."""
    refusal(read, [WHOLE[10:], BETWEEN[10:], WHOLE[:10], BETWEEN[:10]], by_number)


def test_two_passes_that_both_lack_an_image_are_refused(read):
    refusal(read, [(*WHOLE[:9], *WHOLE[10:]), (*BETWEEN[:5], *BETWEEN[6:])], by_number)


@pytest.mark.parametrize("off_mm", [0.4, 1.1, 2.2])
def test_woven_passes_that_nothing_but_an_odd_step_shows_are_refused(read, off_mm):
    detail = refusal(read, [WHOLE, tuple(z + off_mm for z in WHOLE)], by_nothing)
    assert detail.endswith("mm, consistent with interleaved passes")
    assert f"{off_mm:.2f}" in detail


def test_images_that_are_missing_in_turn_are_missing_images(read):
    """Two of three came: steps of 1 and 2 in turn are no two passes."""
    with pytest.raises(SeriesUnusable) as caught:
        read([[float(z) for z in range(30) if z % 3]], by_nothing)
    assert caught.value.reason in (Unusable.SLICE_GAP, Unusable.SPACING_VARIES)


# ---- what is one pass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(7, 13), (13, 7), (5, 10)])
def test_acquisitions_that_follow_one_another_are_one_stack(read, parts):
    """In any order: the second may continue above or below, and the third lie between."""
    first, second = parts
    pieces = sorted([WHOLE[: min(parts)], WHOLE[min(parts) : max(parts)], WHOLE[max(parts) :]])
    turned = [pieces[number] for number in ((0, 2, 1) if first < second else (2, 1, 0))]
    assert is_whole(read(turned, by_number), COUNT)


@pytest.mark.parametrize("downwards", [False, True])
def test_a_scanner_that_gives_each_image_its_own_number_and_time_is_read_whole(read, downwards):
    def edit(which: int, k: int) -> dict[str, object]:
        turn = COUNT - k if downwards else k
        return {"AcquisitionNumber": 1 + turn, "IrradiationEventUID": f"2.25.{turn + 5}", **at_second(turn)}

    assert is_whole(read([WHOLE], edit, lambda which, k: 1 + k), COUNT)


def test_rotations_are_read_whole(read):
    assert is_whole(read([WHOLE], lambda which, k: at_second(k // 4)), COUNT)


def test_contrast_medium_from_some_image_on_leaves_one_pass(read):
    loaded = read([WHOLE], lambda which, k: {"ContrastBolusAgent": "Iohexol"} if k > 8 else {})
    assert is_whole(loaded, COUNT)
    assert loaded.facts.contrast_agent == "Iohexol"


@pytest.mark.parametrize("keyword", ["ContrastBolusAgent", "AcquisitionNumber", "TriggerTime"])
def test_an_attribute_of_a_few_images_says_nothing_of_passes(read, keyword):
    value = {"ContrastBolusAgent": "Iohexol", "AcquisitionNumber": None, "TriggerTime": "20"}[keyword]
    assert is_whole(read([WHOLE], lambda which, k: {keyword: value} if k in (3, 4, 11) else {}), COUNT)


def test_times_and_image_numbers_in_an_order_by_chance_say_nothing(read):
    order = np.random.default_rng(4).permutation(COUNT)

    def edit(which: int, k: int) -> dict[str, object]:
        return at_second(int(order[k]))

    assert is_whole(read([WHOLE], edit, lambda which, k: int(order[-1 - k])), COUNT)


def test_a_clock_that_swaps_neighbours_says_nothing(read):
    def edit(which: int, k: int) -> dict[str, object]:
        return at_second(0 if k < 10 or k == 11 else 1)

    assert is_whole(read([WHOLE], edit), COUNT)


def test_two_reconstructions_in_one_place_are_still_two_images(read):
    """Nothing tells them apart: not which is which, nor that there are two passes."""
    with pytest.raises(SeriesUnusable) as caught:
        read([WHOLE, WHOLE], by_nothing)
    assert caught.value.reason is Unusable.DUPLICATE_POSITIONS


# ---- contrast medium in one of the passes -------------------------------------------------------------


def _enhanced(which: int) -> dict[str, object]:
    return {"ContrastBolusAgent": "Iohexol"} if which else {}


def test_the_native_pass_before_the_enhanced_one_is_read_as_native(read):
    loaded = read([WHOLE, BETWEEN], lambda which, k: _enhanced(which) | at_second(60 * which))
    assert measured(loaded) == (1, 2, "contrast medium")
    assert loaded.facts.contrast_agent == ""
    assert in_english(loaded.facts.measured_pass.reason) == "the first complete pass without contrast medium"


def test_a_pass_after_contrast_medium_counts_as_enhanced_whatever_it_says(read):
    loaded = read([WHOLE, BETWEEN], lambda which, k: _enhanced(1 - which) | at_second(60 * which))
    assert (loaded.facts.contrast_agent, loaded.facts.contrast_doubtful) == ("Iohexol", False)


def test_where_nothing_tells_which_pass_came_first_contrast_medium_is_in_doubt(read):
    loaded = read([WHOLE, BETWEEN], lambda which, k: _enhanced(which))
    assert measured(loaded)[1:] == (2, "contrast medium")
    assert (loaded.facts.contrast_agent, loaded.facts.contrast_doubtful) == ("Iohexol", True)


def test_phases_of_several_acquisitions_are_put_together_by_contrast_medium(read):
    """Native and enhanced, each in two acquisitions that follow one another along the patient."""
    passes = [WHOLE[10:], BETWEEN[10:], WHOLE[:10], BETWEEN[:10]]

    def edit(which: int, k: int) -> dict[str, object]:
        return _enhanced(which % 2) | by_number(which, k) | at_second(60 * which)

    loaded = read(passes, edit)
    assert in_english(loaded.facts.measured_pass.told_by) == "contrast medium"
    assert set(np.unique(loaded.volume.hu)) == {100, 101, 300, 301}
    assert loaded.facts.instances == COUNT


# ---- frames -------------------------------------------------------------------------------------------


def _frame(which: int, k: int, z: float, told: str) -> Dataset:
    content = {"StackID": "1", "InStackPositionNumber": k + 1}
    groups: dict[str, object] = {}
    if told == "acquisition number":
        content["FrameAcquisitionNumber"] = 1 + which
    elif told == "acquisition time":
        content["FrameAcquisitionDateTime"] = f"2026011510150{which}"
    elif told == "temporal position":
        content["TemporalPositionIndex"] = 1 + which
    elif told == "cardiac phase":
        phase = item(NominalPercentageOfCardiacPhase=10.0 + which)
        groups["CardiacSynchronizationSequence"] = [phase]
    elif told == "irradiation event":
        groups["IrradiationEventIdentificationSequence"] = [item(IrradiationEventUID=f"2.25.{which + 1}")]
    return item(
        FrameContentSequence=[item(**content)],
        PlanePositionSequence=[item(ImagePositionPatient=[-10.0, 20.0, z])],
        **groups,
    )


@pytest.mark.parametrize(
    "told",
    ["acquisition number", "acquisition time", "temporal position", "cardiac phase", "irradiation event"],
)
def test_passes_among_frames_are_taken_apart_alike(tmp_path, make_slice, told):
    ct = _passes_of_frames(tmp_path, make_slice, told, (WHOLE, BETWEEN))
    write_multi_frame(tmp_path / "frames" / "ct.dcm", ct)
    (series,) = group_series(read_headers((tmp_path / "frames").glob("*.dcm")))
    loaded = read_series(series)
    assert measured(loaded) == (1, 2, told)
    assert loaded.frames == tuple(range(1, COUNT + 1))


def test_two_multi_frame_instances_are_taken_apart_by_what_is_told_of_each(tmp_path, make_slice):
    """Their frames say nothing of passes: each counts its acquisitions from 1."""
    for which, places in enumerate((WHOLE, BETWEEN)):
        ct = _passes_of_frames(tmp_path, make_slice, "acquisition number", (places,), grey=100 * (1 + which))
        ct.SOPInstanceUID, ct.AcquisitionNumber = f"2.25.{which + 7}", 4 + which
        write_multi_frame(tmp_path / "frames" / f"{which}.dcm", ct)
    (series,) = group_series(read_headers((tmp_path / "frames").glob("*.dcm")))
    loaded = read_series(series)
    assert measured(loaded) == (1, 2, "acquisition number")
    assert {str(header.SOPInstanceUID) for header in loaded.headers} == {"2.25.7"}


def _passes_of_frames(
    folder: Path, make_slice, told: str, passes: Sequence[Places], grey: int = 100
) -> Dataset:
    make_slice(folder / "0000.dcm", np.zeros((4, 5)), (-10.0, 20.0, 0.0))
    ct = dcmread(folder / "0000.dcm")
    ct.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    ct.NumberOfFrames = len(passes) * COUNT
    ct.AcquisitionDate, ct.AcquisitionTime = "20260115", "101500"  # of the instance
    ct.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=[1.0, 1.0], SliceThickness=3.0)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            CTXRayDetailsSequence=[item(KVP="80")],
            CTReconstructionSequence=[item(ConvolutionKernel="B40f")],
        )
    ]
    ct.PerFrameFunctionalGroupsSequence = [
        _frame(which, k, z, told) for which, places in enumerate(passes) for k, z in enumerate(places)
    ]
    greys = [
        np.full((4, 5), grey + 100 * which + k % 2, "<i2")
        for which in range(len(passes))
        for k in range(COUNT)
    ]
    ct.PixelData = np.concatenate(greys).tobytes()
    return ct
