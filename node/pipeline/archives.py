"""Queries of archives, with pauses after failures; their answers; and reports that the database lacks."""

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
from node.pipeline.ports import Archive, ArchivedReport, Match, QueryResult, ReportFinder
from node.store.reports import Reports, UnrecordedReport

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveAnswer(Generic[Match]):
    """Answer of the first archive that has the study.

    Attributes
    ----------
    matches : empty: no archive has the study.
    """

    archive: str
    matches: Mapping[str, Match]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pause:
    failures: int
    until_s: float
    problem: str


class ArchiveQueries:
    """Archives that are queried one after another.

    A peer that failed is not queried again before a pause of 1, 2, 4 and up to 30 s. Thread-safe.

    Parameters
    ----------
    peers : by name, in the order in which they are queried.
    clock : seconds, increasing.
    """

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
        self._pauses: dict[str, _Pause] = {}

    def __bool__(self) -> bool:
        """Whether any archive is configured."""
        return bool(self._peers)

    def count(self, study_instance_uid: str) -> ArchiveAnswer[int] | None:
        """Number of CT images by series, from the first archive that has any.

        Returns
        -------
        None where no archive has any and at least one did not answer.
        """
        return self._ask(lambda peer: self._archive.count_ct_images(peer, study_instance_uid))

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        """Attributes of patient and order, of the first archive with the study; see `IdentitySource`."""
        found = self._ask(lambda peer: self._archive.identify(peer, study_instance_uid))
        return found.matches if found is not None and found.matches else None

    def retrieve(self, archive: str, study_instance_uid: str, series: Sequence[str]) -> str:
        """C-MOVE from the archive of this name; see `Archive.retrieve`.

        Returns
        -------
        The failure, in words; "" where all were sent.
        """
        try:
            return self._archive.retrieve(self._peers[archive], study_instance_uid, series)
        except Exception as error:  # noqa: BLE001 - as below
            return describe(error)

    def _ask(
        self, question: Callable[[Peer | Destination], QueryResult[Match]]
    ) -> ArchiveAnswer[Match] | None:
        """The first answer with matches; None where there is none and an archive did not answer."""
        found, unanswered = None, False
        for name, peer in self._peers.items():
            if self._is_paused(name):
                unanswered = True
                continue
            answer = _query(question, peer)
            self._record(name, answer)
            if answer.matches is None:
                unanswered = True
                continue
            found = ArchiveAnswer(archive=name, matches=answer.matches)
            if found.matches:
                return found
        return None if unanswered else found

    def _is_paused(self, name: str) -> bool:
        with self._lock:
            pause = self._pauses.get(name)
        return pause is not None and self._clock() < pause.until_s

    def _record(self, name: str, answer: QueryResult[Any]) -> None:
        """Pause a peer that failed. Each problem is logged once, not for every study."""
        with self._lock:
            before = self._pauses.pop(name, None)
            if answer.matches is None:
                failures = before.failures + 1 if before else 1
                self._pauses[name] = _Pause(
                    failures=failures, until_s=self._clock() + backoff_s(failures), problem=answer.problem
                )
        if answer.matches is None and (before is None or before.problem != answer.problem):
            log.warning("archive_does_not_tell", archive=name, problem=answer.problem)
        if answer.matches is not None and before is not None:
            log.info("archive_tells_again", archive=name)


def _query(
    question: Callable[[Peer | Destination], QueryResult[Match]], peer: Peer | Destination
) -> QueryResult[Match]:
    try:
        return question(peer)
    except Exception as error:  # noqa: BLE001 - a study continues without an archive that fails
        return QueryResult(matches=None, problem=describe(error))


@dataclass(slots=True, kw_only=True)
class StudyQueries:
    """Queries about one study, and the latest answer. Times are in seconds, by the caller's clock."""

    asked: int = 0
    _asked_at_s: float = 0.0  # start of the last query
    _asked_of: float = 0.0  # time of reception of the last image before that query
    _ended_at_s: float = 0.0  # end of the last query, answered or not
    _failed: bool = False  # whether the last query had no answer
    _answer: ArchiveAnswer[int] | None = None  # the last answer
    _answer_since_s: float = 0.0  # when the first of equal answers arrived
    _answer_at_s: float = 0.0  # start of the query that gave the last of them
    _answer_of: float = 0.0  # time of reception of the last image before that query

    def begin(self, now_s: float, last_received_at: float) -> None:
        """Record that a query starts.

        Parameters
        ----------
        now_s : by the caller's clock.
        last_received_at : when the last image came, by the database's clock.
        """
        self.asked += 1
        self._asked_at_s, self._asked_of = now_s, last_received_at

    def end(self, answer: ArchiveAnswer[int] | None, now_s: float) -> None:
        """Record the answer.

        Parameters
        ----------
        answer : None: no answer; the last one remains valid.
        now_s : by the caller's clock.
        """
        self._ended_at_s, self._failed = now_s, answer is None
        if answer is None:
            return
        if answer != self._answer:
            self._answer_since_s = now_s
        self._answer, self._answer_at_s, self._answer_of = answer, self._asked_at_s, self._asked_of

    def reading(self, last_received_at: float) -> ArchiveReading | None:
        """The last answer; None before the first.

        Parameters
        ----------
        last_received_at : when the last image came, by the database's clock.
        """
        if self._answer is None:
            return None
        return ArchiveReading(
            archive=self._answer.archive,
            images=self._answer.matches,
            # From an answer to a later query: when a slow archive counted in between is not known.
            steady_s=max(0.0, self._answer_at_s - self._answer_since_s),
            after_last_image=self._answer_of == last_received_at,
        )

    def is_due(self, evidence: Evidence, rules: CompletenessSettings, now_s: float) -> bool:
        """Whether to query now. False while images are arriving: each would cause a query."""
        if evidence.silent_s < rules.confirm_s / 2:
            return False
        pause_s = ask_after_s(evidence, rules, asked=self.asked, failed=self._failed)
        return self.asked == 0 or now_s - self._ended_at_s >= pause_s

    def is_awaited(self, evidence: Evidence, rules: CompletenessSettings) -> bool:
        """Whether the study waits for the first answer, or for one that confirms the last."""
        if self._answer is None and not self._failed:
            return True
        return not self._failed and is_answer_due(evidence, rules)


def latest_unrecorded_report(
    study_instance_uid: str,
    reports: Reports,
    finder: ReportFinder | None,
    destinations: Sequence[Destination],
) -> UnrecordedReport | None:
    """The latest report on a study that this software made and the database does not record.

    A node that was restored from a backup may have issued a report in the lost time. The next report must
    name it as its predecessor. All destinations are queried, and reports that came back count too. A
    destination that does not answer is logged and skipped.

    Returns
    -------
    None where there is none.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    found = dict(_returned(reports, study_instance_uid))
    for destination in destinations if finder is not None else ():
        assert finder is not None, "looked at above"
        answer = _find_reports(finder, destination, study_instance_uid)
        if answer.matches is None:
            log.warning("earlier_reports_not_told", destination=destination.name, problem=answer.problem)
            continue
        found |= {uid: one for uid, one in answer.matches.items() if one.sop_class_uid in _CLASSES}
    unknown = reports.unrecorded_among(sorted(found))
    if not unknown:
        return None
    uid = max(unknown, key=lambda one: (found[one].stated_at, one))
    log.warning("report_not_recorded", study_instance_uid=study_instance_uid, sop_instance_uid=uid)
    return UnrecordedReport(
        sop_instance_uid=uid, sop_class_uid=found[uid].sop_class_uid, issued_at=_issued_at(found[uid])
    )


_CLASSES = frozenset(str(uid) for uid in SR_CLASSES.values())


def _returned(reports: Reports, study_instance_uid: str) -> Mapping[str, ArchivedReport]:
    """Own reports that a PACS sent back, for example because its rules forward everything."""
    return {
        uid: ArchivedReport(sop_class_uid=sop_class, stated_at="", offset="")
        for sop_class, series, uid in reports.returned_objects(study_instance_uid)
        if sop_class in _CLASSES and series == series_uid_of([uid])
    }


def _find_reports(finder: ReportFinder, destination: Destination, uid: str) -> QueryResult[ArchivedReport]:
    try:
        return finder.find_reports(destination, uid)
    except Exception as error:  # noqa: BLE001 - a study continues without an archive that fails
        return QueryResult(matches=None, problem=describe(error))


def _issued_at(report: ArchivedReport) -> datetime | None:
    """Time of issue; None where the archive does not state it with its offset from UTC."""
    try:
        return datetime.strptime(f"{report.stated_at}{report.offset}", "%Y%m%d%H%M%S%z")
    except ValueError:
        return None
