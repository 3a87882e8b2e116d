"""Queries of archives: in turn and with rests after failures, what they answered, and unrecorded reports."""

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
    """Answer of the first archive that has the study.

    Attributes
    ----------
    stated : empty: no archive has the study.
    """

    archive: str
    stated: Mapping[str, Stated]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    failures: int
    until_s: float
    problem: str


class ArchivesInTurn:
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
        self._rests: dict[str, _Rest] = {}

    def __bool__(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._peers)

    def count(self, study_instance_uid: str) -> Told[int] | None:
        """CT images by series, as the first archive counts them that has any.

        Returns
        -------
        None where no archive has any and one of them did not answer.
        """
        return self._ask(lambda peer: self._archive.count_ct_images(peer, study_instance_uid))

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        """Attributes of patient and order, by the first archive that has the study; see `IdentitySource`."""
        told = self._ask(lambda peer: self._archive.identify(peer, study_instance_uid))
        return told.stated if told is not None and told.stated else None

    def send_again(self, archive: str, study_instance_uid: str, series: Sequence[str]) -> str:
        """C-MOVE from the archive of this name; see `Archive.send_again`.

        Returns
        -------
        The failure, in words; "" where all were sent.
        """
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


@dataclass(slots=True, kw_only=True)
class Asking:
    """Queries about one study, and their answers. Times are in seconds, by one clock of the caller."""

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
        """Record that a query starts.

        Parameters
        ----------
        now_s : by the caller's clock.
        last_received_at : when the last image came, by the database's clock.
        """
        self.asked += 1
        self._asked_at_s, self._asked_of = now_s, last_received_at

    def end(self, told: Told[int] | None, now_s: float) -> None:
        """Record the answer.

        Parameters
        ----------
        told : None: no answer; the last one remains valid.
        now_s : by the caller's clock.
        """
        self._ended_at_s, self._failed = now_s, told is None
        if told is None:
            return
        if told != self._told:
            self._told_since_s = now_s
        self._told, self._told_at_s, self._told_of = told, self._asked_at_s, self._asked_of

    def reading(self, last_received_at: float) -> ArchiveReading | None:
        """The last answer; None before the first.

        Parameters
        ----------
        last_received_at : when the last image came, by the database's clock.
        """
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
        """Whether to query now. False while images come one after another: each would cause a query."""
        if evidence.silent_s < rules.confirm_s / 2:
            return False
        pause_s = ask_after_s(evidence, rules, asked=self.asked, failed=self._failed)
        return self.asked == 0 or now_s - self._ended_at_s >= pause_s

    def is_waited_for(self, evidence: Evidence, rules: CompletenessSettings) -> bool:
        """Whether the study waits for an answer: for the first, or for one that confirms the last."""
        if self._told is None and not self._failed:
            return True
        return not self._failed and is_answer_due(evidence, rules)


def latest_unrecorded(
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
