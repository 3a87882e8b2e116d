"""Rules that decide when a study is complete, without database, network or clock.

DICOM gives a sender no way to say that it has sent everything. The evidence is weighed in this order: an
archive's counts of the study's CT series, the positions of its slices, and silence. If an archive holds more
than came, the study waits up to `wait_max_s`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import log2

import numpy as np

from config.sections import CompletenessSettings
from node.dicom.ct.slice_geometry import SlicePosition
from node.study_report import ClosedBy, Completeness, SeriesCount

_LEAST_SLICES = 3  # two have one step, and nothing to compare it with
_SAME_COSINE = 1e-3
_SAME_PLACE_MM = 0.01
_STEP_TOLERANCE = 0.25  # of the median step: rounding and couch are far below, a missing slice far above


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReading:
    """An archive's last answer about one study, and for how long it has been the same.

    Attributes
    ----------
    images : number by CT series; empty: it has no CT of the study.
    steady_s : from the first equal answer to the last query; 0 after the first.
    after_last_image : whether the last image had come before the last query.
    """

    archive: str
    images: Mapping[str, int]
    steady_s: float
    after_last_image: bool


class CountComparison(Enum):
    """How an archive's counts compare with what came."""

    EQUAL = auto()
    MORE = auto()
    INCONCLUSIVE = auto()  # it does not know all that is here: it says nothing about what is to come


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about a study that is being received.

    Attributes
    ----------
    images : number of received instances by series, of any class but the node's own.
    ct_series : received series that hold CT images.
    silent_s : seconds since the last CT image.
    longest_pause_s : between two CT images.
    reading : None where no archive has answered.
    answer_due : whether an expected answer of an archive may decide.
    without_gaps : None where the slice positions have not been examined.
    sender_connected : whether an association that brought CT images of it is still open.
    """

    images: Mapping[str, int]
    ct_series: frozenset[str]
    silent_s: float
    longest_pause_s: float
    reading: ArchiveReading | None = None
    answer_due: bool = False
    without_gaps: bool | None = None
    sender_connected: bool = False


def compare_counts(evidence: Evidence, *, all_series: bool) -> CountComparison | None:
    """Compare an archive's counts with what came.

    A CT series is one whose Modality is CT at the archive. It may contain a text page (a dose report) that is
    no CT image, so all instances are counted.

    Parameters
    ----------
    all_series : whether a series of which nothing came counts as missing.

    Returns
    -------
    None without a reading.
    """
    if evidence.reading is None:
        return None
    archived = _archived(evidence, all_series=all_series)
    if any(number > evidence.images.get(uid, 0) for uid, number in archived.items()):
        return CountComparison.MORE
    known = evidence.ct_series <= archived.keys()
    if known and all(number == evidence.images.get(uid, 0) for uid, number in archived.items()):
        return CountComparison.EQUAL
    return CountComparison.INCONCLUSIVE


def closed_by(evidence: Evidence, rules: CompletenessSettings) -> ClosedBy | None:
    """Reason to close the study now; None where it must wait.

    Returns
    -------
    COUNTS, GEOMETRY or QUIET where it counts as complete; INCOMPLETE where an archive holds more and
    `wait_max_s` is over.
    """
    archived = compare_counts(evidence, all_series=rules.all_series)
    if archived is CountComparison.EQUAL and _is_confirmed(evidence, rules):
        return ClosedBy.COUNTS
    if archived is CountComparison.MORE:
        return ClosedBy.INCOMPLETE if evidence.silent_s >= rules.wait_max_s else None
    if _is_held(evidence, rules):
        return None
    if evidence.without_gaps and evidence.silent_s >= quiet_whole_s(evidence, rules):
        return ClosedBy.GEOMETRY
    if evidence.silent_s >= quiet_s(evidence, rules):
        return ClosedBy.QUIET
    return None


def needs_gap_check(evidence: Evidence, rules: CompletenessSettings) -> bool:
    """Whether slice positions would decide now and have not been examined yet."""
    return (
        evidence.without_gaps is None
        and not _is_held(evidence, rules)
        and compare_counts(evidence, all_series=rules.all_series) is not CountComparison.MORE
        and evidence.silent_s >= quiet_whole_s(evidence, rules)
    )


def confirm_s(evidence: Evidence, rules: CompletenessSettings) -> float:
    """Seconds for which an archive's counts must stay the same.

    An archive that forwards each image as it gets it always has as many as came. Its longest pause extends
    the time, but never beyond `quiet_s`.
    """
    return max(rules.confirm_s, min(rules.quiet_s, rules.quiet_pauses * evidence.longest_pause_s))


def quiet_s(evidence: Evidence, rules: CompletenessSettings) -> float:
    """Seconds of silence that close a study without other evidence; longer for a slow sender."""
    return max(rules.quiet_s, _of_pauses_s(evidence, rules))


def quiet_whole_s(evidence: Evidence, rules: CompletenessSettings) -> float:
    """Seconds of silence after which a study is closed if no slice is missing."""
    return max(rules.quiet_whole_s, _of_pauses_s(evidence, rules))


def quiet_connected_s(evidence: Evidence, rules: CompletenessSettings) -> float:
    """Seconds of silence after which a sender that stays connected counts as done with the study.

    The time grows with the sender's longest pause, or with the quiet time if that is longer, up to
    `wait_max_s`. A router that keeps its association open for days delays a study no longer.
    """
    pause_s = max(rules.quiet_s, evidence.longest_pause_s)
    return max(quiet_s(evidence, rules), min(rules.wait_max_s, rules.quiet_pauses * pause_s))


def is_answer_due(evidence: Evidence, rules: CompletenessSettings) -> bool:
    """Whether an archive's next answer may confirm its counts."""
    archived = compare_counts(evidence, all_series=rules.all_series)
    return archived is CountComparison.EQUAL and not _is_confirmed(evidence, rules)


def ask_after_s(evidence: Evidence, rules: CompletenessSettings, *, asked: int, failed: bool) -> float:
    """Seconds from an answer to the next query: as confirmation needs, otherwise 1, 2, 4 and up to 30.

    Parameters
    ----------
    asked : number of queries about this study so far.
    failed : whether the last query had no answer.
    """
    if not failed and compare_counts(evidence, all_series=rules.all_series) is CountComparison.EQUAL:
        steady_s = evidence.reading.steady_s if evidence.reading else 0.0
        return max(rules.confirm_s, confirm_s(evidence, rules) - steady_s)
    return backoff_s(asked)


def fetches_due(evidence: Evidence, rules: CompletenessSettings) -> int:
    """How many times missing images should have been fetched since the last image came.

    The first is due after `fetch_after_s`, the next after 3, 7, 15 and more times as long.
    """
    if not rules.fetch or compare_counts(evidence, all_series=rules.all_series) is not CountComparison.MORE:
        return 0
    return int(log2(evidence.silent_s / rules.fetch_after_s + 1.0))


def backoff_s(failures: int) -> float:
    """Pause after this number of failures: 1, 2, 4 and up to 30 s."""
    return min(30.0, 2.0 ** min(failures - 1, 5))


def without_gaps(places: Iterable[SlicePosition]) -> bool:
    """Whether the slices of every series have even spacing; localizers are ignored.

    Returns
    -------
    False also where a series cannot be judged: fewer than three slices, several at one position or of several
    orientations, or no stated positions.
    """
    series: defaultdict[str, list[SlicePosition]] = defaultdict(list)
    for place in places:
        if not place.is_localizer:
            series[place.series_instance_uid].append(place)
    return bool(series) and all(_is_even(slices) for slices in series.values())


def completeness_of(evidence: Evidence, rules: CompletenessSettings, by: ClosedBy) -> Completeness:
    """Record of why a study was closed."""
    archived = _archived(evidence, all_series=rules.all_series)
    return Completeness(
        closed_by=by,
        archive=evidence.reading.archive if evidence.reading else None,
        silent_s=round(evidence.silent_s, 3),
        series=tuple(
            SeriesCount(
                series_instance_uid=uid, arrived=evidence.images.get(uid, 0), archived=archived.get(uid)
            )
            for uid in sorted(evidence.ct_series | archived.keys())
        ),
    )


def in_words(found: Completeness) -> str:
    """Why a study was closed, for the operator."""
    arrived = sum(one.arrived for one in found.series)
    match found.closed_by:
        case ClosedBy.COUNTS:
            return f"closed: {found.archive} counts {arrived} CT images, and all of them are here"
        case ClosedBy.GEOMETRY:
            return f"closed: no slice is missing, and none came for {found.silent_s:.1f} s"
        case ClosedBy.QUIET:
            return f"closed after {found.silent_s:.1f} s without images"
        case ClosedBy.INCOMPLETE:
            return f"closed incomplete: {lacking_in_words(found)}"


def lacking_in_words(found: Completeness) -> str:
    """Which images have not come, for the operator."""
    archived = sum(one.archived or 0 for one in found.lacking)
    arrived = sum(one.arrived for one in found.lacking)
    series = "1 CT series" if len(found.lacking) == 1 else f"{len(found.lacking)} CT series"
    return f"{found.archive} holds {archived} images of {series}, {arrived} arrived"


def _archived(evidence: Evidence, *, all_series: bool) -> Mapping[str, int]:
    """Images by CT series, as the archive counts those series that are expected here."""
    counted = evidence.reading.images if evidence.reading else {}
    return {uid: number for uid, number in counted.items() if all_series or evidence.images.get(uid, 0) > 0}


def _is_confirmed(evidence: Evidence, rules: CompletenessSettings) -> bool:
    reading = evidence.reading
    return reading is not None and reading.after_last_image and reading.steady_s >= confirm_s(evidence, rules)


def _is_held(evidence: Evidence, rules: CompletenessSettings) -> bool:
    """Whether silence does not count yet: an answer may decide, or the sender is still connected."""
    if evidence.answer_due and evidence.silent_s < rules.wait_max_s:
        return True
    return evidence.sender_connected and evidence.silent_s < quiet_connected_s(evidence, rules)


def _of_pauses_s(evidence: Evidence, rules: CompletenessSettings) -> float:
    return min(rules.quiet_max_s, rules.quiet_pauses * evidence.longest_pause_s)


def _is_even(slices: Sequence[SlicePosition]) -> bool:
    placed = [(one.position_mm, one.orientation) for one in slices if one.position_mm and one.orientation]
    if len(placed) < len(slices) or len(placed) < _LEAST_SLICES:
        return False
    orientations = np.array([orientation for _, orientation in placed])
    if not np.allclose(orientations, orientations[0], atol=_SAME_COSINE):
        return False
    normal = np.cross(orientations[0][:3], orientations[0][3:])
    steps_mm = np.diff(np.sort(np.array([position for position, _ in placed]) @ normal))
    typical_mm = float(np.median(steps_mm))
    uneven = np.abs(steps_mm - typical_mm) > _STEP_TOLERANCE * typical_mm
    return typical_mm > _SAME_PLACE_MM and not bool(uneven.any())
