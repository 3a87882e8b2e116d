"""When a study is whole: every rule by what it is told, and how archives are asked."""

from __future__ import annotations

from typing import Any

import pytest

from config.sections import CompletenessSettings
from config.settings import load_settings
from node.dicom.ct.slice_geometry import SlicePosition
from node.pipeline.archives import ArchiveAnswer, StudyQueries
from node.pipeline.completeness import (
    ArchiveReading,
    CountComparison,
    Evidence,
    ask_after_s,
    backoff_s,
    closed_by,
    compare_counts,
    completeness_of,
    fetches_due,
    in_words,
    needs_gap_check,
    quiet_connected_s,
    quiet_s,
    without_gaps,
)
from node.study_report import ClosedBy

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def rules(**replaced: Any) -> CompletenessSettings:
    """The shipped ones: confirm 2 s, quiet 5 and 10 s, 5 pauses up to 120 s, at most 900 s."""
    return load_settings(completeness=replaced).completeness


def reading(
    images: dict[str, int], steady_s: float = 2.0, *, after_last_image: bool = True
) -> ArchiveReading:
    return ArchiveReading(archive="pacs", images=images, steady_s=steady_s, after_last_image=after_last_image)


def evidence(**replaced: Any) -> Evidence:
    """One CT series of 20 images, the last of which came a second ago."""
    known: dict[str, Any] = {"images": {"a": 20}, "ct_series": frozenset("a"), "silent_s": 1.0}
    return Evidence(**{**known, "longest_pause_s": 0.1, **replaced})


EQUAL, MORE, FEWER, NONE = reading({"a": 20}), reading({"a": 21}), reading({"a": 19}), reading({})


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param({"reading": EQUAL}, ClosedBy.COUNTS, id="as many images, twice"),
        pytest.param({"reading": reading({"a": 20}, 1.9)}, None, id="as many, but only just"),
        pytest.param(
            {"reading": reading({"a": 20}, 60.0, after_last_image=False)},
            None,
            id="asked before the last image",
        ),
        pytest.param({"reading": EQUAL, "silent_s": 0.0}, ClosedBy.COUNTS, id="counts need no silence"),
        pytest.param({"reading": MORE, "silent_s": 899.0, "without_gaps": True}, None, id="one is missing"),
        pytest.param({"reading": MORE, "silent_s": 900.0}, ClosedBy.INCOMPLETE, id="one never came"),
        pytest.param(
            {"reading": reading({"a": 20, "b": 3}), "silent_s": 60.0}, None, id="a series is missing"
        ),
        pytest.param(
            {"reading": reading({"a": 19, "b": 3}), "silent_s": 60.0},
            None,
            id="a series is missing, one is new",
        ),
        pytest.param({"reading": FEWER, "silent_s": 9.9}, None, id="the archive is behind"),
        pytest.param({"reading": FEWER, "silent_s": 10.0}, ClosedBy.QUIET, id="behind, and silence"),
        pytest.param({"reading": NONE, "silent_s": 10.0}, ClosedBy.QUIET, id="not known there, and silence"),
        pytest.param(
            {"answer_due": True, "silent_s": 60.0, "without_gaps": True}, None, id="an answer is due"
        ),
        pytest.param({"answer_due": True, "reading": EQUAL}, ClosedBy.COUNTS, id="the answer has come"),
        pytest.param({"without_gaps": True, "silent_s": 4.9}, None, id="even slices, too early"),
        pytest.param({"without_gaps": True, "silent_s": 5.0}, ClosedBy.GEOMETRY, id="even slices"),
        pytest.param({"without_gaps": False, "silent_s": 9.9}, None, id="a gap"),
        pytest.param({"without_gaps": False, "silent_s": 10.0}, ClosedBy.QUIET, id="a gap, and silence"),
        pytest.param({"silent_s": 9.9}, None, id="nothing tells"),
        pytest.param({"silent_s": 10.0}, ClosedBy.QUIET, id="nothing tells, and silence"),
        pytest.param({"silent_s": 14.9, "longest_pause_s": 3.0}, None, id="a sender that hesitates"),
        pytest.param(
            {"silent_s": 15.0, "longest_pause_s": 3.0}, ClosedBy.QUIET, id="longer than five pauses"
        ),
        pytest.param(
            {"silent_s": 14.9, "longest_pause_s": 3.0, "without_gaps": True},
            None,
            id="even slices, hesitating",
        ),
        pytest.param(
            {"sender_connected": True, "reading": EQUAL}, ClosedBy.COUNTS, id="connected, but all is here"
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 49.9, "without_gaps": True}, None, id="connected"
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 50.0}, ClosedBy.QUIET, id="connected, and brings nothing"
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 50.0, "without_gaps": True},
            ClosedBy.GEOMETRY,
            id="connected, even slices, and brings nothing",
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 299.9, "longest_pause_s": 60.0},
            None,
            id="connected, an image a minute",
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 300.0, "longest_pause_s": 60.0},
            ClosedBy.QUIET,
            id="connected, an image a minute, and then none",
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 900.0, "longest_pause_s": 7200.0},
            ClosedBy.QUIET,
            id="connected for days",
        ),
        pytest.param(
            {"sender_connected": True, "silent_s": 899.0, "reading": MORE}, None, id="connected, one missing"
        ),
        pytest.param({"answer_due": True, "silent_s": 900.0}, ClosedBy.QUIET, id="an answer never comes"),
        pytest.param({"silent_s": 119.9, "longest_pause_s": 7200.0}, None, id="a pause of hours"),
        pytest.param({"silent_s": 120.0, "longest_pause_s": 7200.0}, ClosedBy.QUIET, id="but not for hours"),
    ],
)
def test_a_study_is_closed_by_the_first_rule_that_holds(
    known: dict[str, Any], expected: ClosedBy | None
) -> None:
    assert closed_by(evidence(**known), rules()) is expected


@pytest.mark.parametrize(
    ("longest_pause_s", "needed_s"), [(0.1, 2.0), (0.4, 2.0), (1.0, 5.0), (2.0, 10.0), (30.0, 10.0)]
)
def test_an_archive_that_pauses_between_images_must_say_the_same_for_longer(
    longest_pause_s: float, needed_s: float
) -> None:
    """It may forward each image as it gets it, and then has as many as came whenever it is asked."""

    def after(steady_s: float) -> Evidence:
        return evidence(longest_pause_s=longest_pause_s, reading=reading({"a": 20}, steady_s))

    assert closed_by(after(needed_s - 0.1), rules()) is None
    assert closed_by(after(needed_s), rules()) is ClosedBy.COUNTS
    assert ask_after_s(after(0.0), rules(), asked=1, failed=False) == needed_s


def test_a_site_may_leave_series_alone_of_which_nothing_came() -> None:
    known = evidence(reading=reading({"a": 20, "b": 300}))
    assert closed_by(known, rules()) is None
    assert closed_by(known, rules(all_series=False)) is ClosedBy.COUNTS
    begun = evidence(images={"a": 20, "b": 1}, ct_series=frozenset("ab"), reading=known.reading)
    assert closed_by(begun, rules(all_series=False)) is None


def test_a_page_of_text_in_a_ct_series_counts_as_arrived() -> None:
    """A dose report is a Secondary Capture whose series an archive gives as CT."""
    dose = evidence(images={"a": 20, "dose": 1}, reading=reading({"a": 20, "dose": 1}))
    assert compare_counts(dose, all_series=True) is CountComparison.EQUAL


def test_a_ct_series_that_the_archive_does_not_know_makes_its_counts_no_measure() -> None:
    known = evidence(images={"a": 20, "b": 5}, ct_series=frozenset("ab"), reading=EQUAL)
    assert compare_counts(known, all_series=True) is CountComparison.INCONCLUSIVE


def test_a_connected_sender_is_never_cut_off_sooner_than_one_that_left() -> None:
    for pause_s in (0.0, 0.5, 5.0, 40.0, 500.0):
        for pauses in (0.0, 1.0, 5.0):
            known = evidence(longest_pause_s=pause_s)
            wanted = rules(quiet_pauses=pauses)
            assert quiet_connected_s(known, wanted) >= quiet_s(known, wanted)


def test_headers_are_read_only_where_they_would_decide() -> None:
    assert needs_gap_check(evidence(silent_s=5.0), rules())
    assert not needs_gap_check(evidence(silent_s=4.9), rules())
    assert not needs_gap_check(evidence(silent_s=5.0, without_gaps=False), rules())
    assert not needs_gap_check(evidence(silent_s=5.0, answer_due=True), rules())
    assert not needs_gap_check(evidence(silent_s=5.0, reading=MORE), rules())


def test_what_is_missing_is_recorded_by_series_and_told() -> None:
    known = evidence(silent_s=900.0, reading=reading({"a": 21, "b": 7}))
    found = completeness_of(known, rules(), ClosedBy.INCOMPLETE)
    assert [(one.series_instance_uid, one.arrived, one.archived) for one in found.lacking] == [
        ("a", 20, 21),
        ("b", 0, 7),
    ]
    assert in_words(found) == "closed incomplete: pacs holds 28 images of 2 CT series, 20 arrived"


def test_what_is_missing_is_fetched_ever_more_seldom_and_only_where_wished() -> None:
    missing = [evidence(reading=MORE, silent_s=silent_s) for silent_s in (29.9, 30, 89, 90, 210, 449, 450)]
    assert [fetches_due(one, rules(fetch=True)) for one in missing] == [0, 1, 1, 2, 3, 3, 4]
    assert [fetches_due(one, rules()) for one in missing] == [0] * 7
    assert fetches_due(evidence(reading=FEWER, silent_s=90.0), rules(fetch=True)) == 0
    assert fetches_due(evidence(silent_s=90.0), rules(fetch=True)) == 0


def test_pauses_between_questions_double_up_to_half_a_minute() -> None:
    assert [backoff_s(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff_s(5000) == 30


def asked(
    queries: StudyQueries,
    told: ArchiveAnswer[int] | None,
    *,
    at_s: float,
    of: float = 1.0,
    takes_s: float = 0.0,
) -> None:
    queries.begin(at_s, of)
    queries.end(told, at_s + takes_s)


def test_counts_are_steady_from_the_first_answer_that_had_them() -> None:
    queries, told = StudyQueries(), ArchiveAnswer(archive="pacs", matches={"a": 20})
    asked(queries, ArchiveAnswer(archive="pacs", matches={"a": 19}), at_s=100.0)
    asked(queries, told, at_s=101.0)
    asked(queries, told, at_s=103.5)
    assert queries.reading(1.0) == reading({"a": 20}, 2.5)
    assert queries.reading(2.0) == reading({"a": 20}, 2.5, after_last_image=False)
    asked(queries, None, at_s=110.0, of=2.0)
    assert queries.reading(1.0) == reading({"a": 20}, 2.5)  # what was said stands, and is no newer


def test_a_slow_archive_s_time_to_answer_does_not_count_as_steady() -> None:
    queries, told = StudyQueries(), ArchiveAnswer(archive="pacs", matches={"a": 20})
    asked(queries, told, at_s=100.0, takes_s=4.0)
    confirming = evidence(reading=queries.reading(1.0))
    assert not queries.is_due(confirming, rules(), 105.9)
    assert queries.is_due(confirming, rules(), 106.0)
    asked(queries, told, at_s=106.0, takes_s=4.0)
    assert queries.reading(1.0) == reading({"a": 20}, 2.0)


def test_an_archive_is_asked_soon_to_confirm_and_ever_more_seldom_else() -> None:
    queries, due_at_s = StudyQueries(), []
    at_s, told, shipped = 0.0, ArchiveAnswer(archive="pacs", matches={"a": 21}), rules()
    while at_s < 120.0:
        if queries.is_due(evidence(reading=queries.reading(1.0)), shipped, at_s):
            asked(queries, told, at_s=at_s)
            due_at_s.append(at_s)
        at_s += 0.5
    assert due_at_s == [0, 1, 3, 7, 15, 31, 61, 91]
    told = ArchiveAnswer(archive="pacs", matches={"a": 20})
    asked(queries, told, at_s=120.0)
    confirming = evidence(reading=queries.reading(1.0))
    assert not queries.is_due(confirming, rules(), 121.9)
    assert queries.is_due(confirming, rules(), 122.0)


def test_no_archive_is_asked_while_images_come_one_by_one() -> None:
    assert not StudyQueries().is_due(evidence(silent_s=0.9), rules(), 0.0)
    assert StudyQueries().is_due(evidence(silent_s=1.0), rules(), 0.0)


def test_a_study_waits_for_the_first_answer_and_for_the_one_that_confirms() -> None:
    queries = StudyQueries()
    assert queries.is_awaited(evidence(), rules())
    asked(queries, ArchiveAnswer(archive="pacs", matches={"a": 20}), at_s=0.0)
    assert queries.is_awaited(evidence(reading=queries.reading(1.0)), rules())
    asked(queries, ArchiveAnswer(archive="pacs", matches={"a": 19}), at_s=2.0)
    assert not queries.is_awaited(evidence(reading=queries.reading(1.0)), rules())


def test_a_study_does_not_wait_for_an_archive_that_does_not_answer() -> None:
    silent, gone = StudyQueries(), StudyQueries()
    asked(silent, None, at_s=0.0)
    assert not silent.is_awaited(evidence(), rules())
    asked(gone, ArchiveAnswer(archive="pacs", matches={"a": 20}), at_s=0.0)
    asked(gone, None, at_s=2.0)
    assert not gone.is_awaited(evidence(reading=gone.reading(1.0)), rules())


def stack(positions_mm: list[float], series: str = "a", **replaced: Any) -> list[SlicePosition]:
    place: dict[str, Any] = {"series_instance_uid": series, "is_localizer": False, "orientation": AXIAL}
    return [
        SlicePosition(**{**place, "position_mm": (-100.0, -100.0, z_mm), **replaced}) for z_mm in positions_mm
    ]


LOCALIZER = stack([0.0], "scout", is_localizer=True, orientation=CORONAL)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        pytest.param(stack([0.0, 3.0, 1.0, 2.0]), True, id="in any order"),
        pytest.param(stack([0.0, 1.0, 2.0, 4.0]), False, id="one is missing"),
        pytest.param(stack([0.0, 1.25, 2.49, 3.75, 5.01]), True, id="rounded"),
        pytest.param(stack([0.0, 1.0, 2.0, 3.0]) + LOCALIZER, True, id="a localizer beside them"),
        pytest.param(LOCALIZER, False, id="a localizer alone"),
        pytest.param(
            stack([0.0, 1.0, 2.0]) + stack([0.0, 5.0, 15.0], "b"), False, id="a gap in another series"
        ),
        pytest.param(stack([0.0, 1.0]), False, id="two slices"),
        pytest.param(stack([0.0, 1.0, 1.0, 2.0]), False, id="two at one place"),
        pytest.param(stack([2.0, 2.0, 2.0]), False, id="all at one place"),
        pytest.param(stack([0.0, 1.0, 2.0], position_mm=None), False, id="no positions"),
        pytest.param(stack([0.0, 1.0, 2.0], orientation=None), False, id="no orientation"),
        pytest.param(
            stack([0.0, 1.0, 2.0]) + stack([3.0], orientation=CORONAL), False, id="two orientations"
        ),
        pytest.param([], False, id="nothing"),
    ],
)
def test_slices_without_gaps_are_told_from_their_places(places: list[SlicePosition], expected: bool) -> None:
    assert without_gaps(places) is expected
