"""Archives that are asked one after another, each left alone for a while when it does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

import structlog

from config.sections import CompletenessSettings, Destination, Peer
from node.dicom.destination_objects import SR_CLASSES
from node.dicom.uids import series_uid_of
from node.logs import describe
from node.pipeline.completeness import ArchiveReading, Evidence, ask_after_s, backoff_s, is_answer_due
from node.pipeline.ports import Answer, Archive, ArchivedReport, ReportFinder, Stated
from node.store.reports import Reports, UnrecordedReport

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Generic[Stated]):
    """What the first archive that knows a study says of it.

    Attributes
    ----------
    stated : empty: no archive knows the study.
    """

    archive: str
    stated: Mapping[str, Stated]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    failures: int
    until_s: float
    problem: str


class ArchivesInTurn:
    """Threads may share one. A peer that failed is not asked by any of them until it has rested."""

    def __init__(
        self,
        archive: Archive,
        peers: Mapping[str, Peer | Destination],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archive = archive
        self._peers = peers
        self._clock = clock
        self._lock = threading.Lock()
        self._rests: dict[str, _Rest] = {}

    def __bool__(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._peers)

    def count(self, study_instance_uid: str) -> Told[int] | None:
        """CT images by series, as the first archive has them that has any; None where one was silent."""
        return self._ask(lambda peer: self._archive.count_ct_images(peer, study_instance_uid))

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        """As `IdentitySource`, by the first archive that knows the study."""
        told = self._ask(lambda peer: self._archive.identify(peer, study_instance_uid))
        return told.stated if told is not None and told.stated else None

    def send_again(self, archive: str, study_instance_uid: str, series: Sequence[str]) -> str:
        """As `Archive.send_again`, of the archive that is called so."""
        try:
            return self._archive.send_again(self._peers[archive], study_instance_uid, series)
        except Exception as error:  # noqa: BLE001 - as below
            return describe(error)

    def _ask(self, question: Callable[[Peer | Destination], Answer[Stated]]) -> Told[Stated] | None:
        """The first answer that says something; None where nothing is said and somebody was silent."""
        told, unheard = None, False
        for name, peer in self._peers.items():
            if self._rests_now(name):
                unheard = True
                continue
            answer = _answer(question, peer)
            self._note(name, answer)
            if answer.stated is None:
                unheard = True
                continue
            told = Told(archive=name, stated=answer.stated)
            if told.stated:
                return told
        return None if unheard else told

    def _rests_now(self, name: str) -> bool:
        with self._lock:
            rest = self._rests.get(name)
        return rest is not None and self._clock() < rest.until_s

    def _note(self, name: str, answer: Answer[Any]) -> None:
        """Have a peer rest that failed. Each problem is told once, not for every study."""
        with self._lock:
            before = self._rests.pop(name, None)
            if answer.stated is None:
                failures = before.failures + 1 if before else 1
                self._rests[name] = _Rest(
                    failures=failures, until_s=self._clock() + backoff_s(failures), problem=answer.problem
                )
        if answer.stated is None and (before is None or before.problem != answer.problem):
            log.warning("archive_does_not_tell", archive=name, problem=answer.problem)
        if answer.stated is not None and before is not None:
            log.info("archive_tells_again", archive=name)


def _answer(
    question: Callable[[Peer | Destination], Answer[Stated]], peer: Peer | Destination
) -> Answer[Stated]:
    try:
        return question(peer)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with an archive, studies go on without it
        return Answer(stated=None, problem=describe(error))


# What has been asked of archives about one study, and what came of it.


@dataclass(slots=True, kw_only=True)
class Asking:
    """Questions and answers about one study. Times in seconds, by one clock that the caller keeps."""

    asked: int = 0
    _asked_at_s: float = 0.0  # the last question
    _asked_of: float = 0.0  # the last image that had come by then, by when it came
    _ended_at_s: float = 0.0  # when it was answered, or given up
    _failed: bool = False  # it had no answer
    _told: Told[int] | None = None  # the last answer
    _told_since_s: float = 0.0  # when the first of equal answers had come
    _told_at_s: float = 0.0  # when the last of them was asked for
    _told_of: float = 0.0  # the last image that had come by then

    def begin(self, now_s: float, last_received_at: float) -> None:
        """A question goes out."""
        self.asked += 1
        self._asked_at_s, self._asked_of = now_s, last_received_at

    def end(self, told: Told[int] | None, now_s: float) -> None:
        """It was answered, or not. Without an answer the last one stands."""
        self._ended_at_s, self._failed = now_s, told is None
        if told is None:
            return
        if told != self._told:
            self._told_since_s = now_s
        self._told, self._told_at_s, self._told_of = told, self._asked_at_s, self._asked_of

    def reading(self, last_received_at: float) -> ArchiveReading | None:
        """What an archive said last, now that the last image is the one that came at that time."""
        if self._told is None:
            return None
        return ArchiveReading(
            archive=self._told.archive,
            images=self._told.stated,
            # From answer to question: when in between a slow archive counted is not known.
            steady_s=max(0.0, self._told_at_s - self._told_since_s),
            after_last_image=self._told_of == last_received_at,
        )

    def is_due(self, evidence: Evidence, rules: CompletenessSettings, now_s: float) -> bool:
        """Whether to ask now. Not while images come one by one: each would be asked about."""
        if evidence.silent_s < rules.confirm_s / 2:
            return False
        pause_s = ask_after_s(evidence, rules, asked=self.asked, failed=self._failed)
        return self.asked == 0 or now_s - self._ended_at_s >= pause_s

    def is_waited_for(self, evidence: Evidence, rules: CompletenessSettings) -> bool:
        """Whether the study waits for an answer: for the first, or for one that confirms the last."""
        if self._told is None and not self._failed:
            return True
        return not self._failed and is_answer_due(evidence, rules)


# Reports of this node that an archive holds and of which the database, an older copy, has no record.
#
# A node that was restored from a backup gets a study again of which it had issued a report in the time that
# is lost. The new report must not look like the first: it names the one that is there as its predecessor.


def latest_unrecorded(
    study_instance_uid: str,
    reports: Reports,
    finder: ReportFinder | None,
    destinations: Sequence[Destination],
) -> UnrecordedReport | None:
    """The latest report on a study that was made by this software and is not in the database.

    Every destination is asked, and what came back by itself counts, too. One that does not answer holds
    nothing up: the log says so, and the report goes without its word.

    Raises
    ------
    StoreUnavailable
    """
    found = dict(_returned(reports, study_instance_uid))
    for destination in destinations if finder is not None else ():
        assert finder is not None, "looked at above"
        answer = _ask(finder, destination, study_instance_uid)
        if answer.stated is None:
            log.warning("earlier_reports_not_told", destination=destination.name, problem=answer.problem)
            continue
        found |= {uid: one for uid, one in answer.stated.items() if one.sop_class_uid in _CLASSES}
    unknown = reports.unknown_among(sorted(found))
    if not unknown:
        return None
    uid = max(unknown, key=lambda one: (found[one].stated_at, one))
    log.warning("report_not_recorded", study_instance_uid=study_instance_uid, sop_instance_uid=uid)
    return UnrecordedReport(
        sop_instance_uid=uid, sop_class_uid=found[uid].sop_class_uid, issued_at=_moment(found[uid])
    )


_CLASSES = frozenset(str(uid) for uid in SR_CLASSES.values())


def _returned(reports: Reports, study_instance_uid: str) -> Mapping[str, ArchivedReport]:
    """Own reports that a PACS sent back, as one does whose rules forward everything."""
    return {
        uid: ArchivedReport(sop_class_uid=sop_class, stated_at="", offset="")
        for sop_class, series, uid in reports.returned(study_instance_uid)
        if sop_class in _CLASSES and series == series_uid_of([uid])
    }


def _ask(finder: ReportFinder, destination: Destination, uid: str) -> Answer[ArchivedReport]:
    try:
        return finder.find_reports(destination, uid)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with an archive, studies go on without it
        return Answer(stated=None, problem=describe(error))


def _moment(report: ArchivedReport) -> datetime | None:
    """When it was issued; None where the archive does not say it with its distance from UTC."""
    try:
        return datetime.strptime(f"{report.stated_at}{report.offset}", "%Y%m%d%H%M%S%z")
    except ValueError:
        return None
