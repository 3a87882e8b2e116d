"""Watches studies that are being received, and closes each as soon as it is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from config.sections import CompletenessSettings
from node.dicom.ct.slice_geometry import slice_positions
from node.logs import describe
from node.pipeline.archives import ArchiveAnswer, ArchiveQueries, StudyQueries
from node.pipeline.artefacts import to_json
from node.pipeline.completeness import (
    CountComparison,
    Evidence,
    closed_by,
    compare_counts,
    completeness_of,
    fetches_due,
    in_words,
    lacking_in_words,
    needs_gap_check,
    without_gaps,
)
from node.pipeline.ports import Step
from node.store.errors import StoreError, StoreUnavailable
from node.store.jobs import DueJob
from node.store.store import Store
from node.store.study_lifecycle import Closing, ReceivingStudy
from node.study_report import ClosedBy, Completeness

log = structlog.get_logger(__name__)

# The listener beats every 5 s; four missed beats mean that it is gone.
ASSOCIATION_STALE_S = 20.0
_AT_ONCE = 4  # threads that query archives or read headers
_FETCHES_AT_ONCE = 2
_FORGOTTEN_AFTER_S = 600.0  # since a study was last examined

_PAGE = 500  # studies examined in one call
_CLOSED_AT_ONCE = 100  # in one transaction, for which reception waits

Key = tuple[str, int]  # study and generation


@dataclass(frozen=True, slots=True, kw_only=True)
class _CompleteStudy:
    """A study that is to be closed."""

    study: ReceivingStudy
    found: Completeness

    @property
    def closing(self) -> Closing:
        return Closing(
            closed_by=self.found.closed_by,
            reason=in_words(self.found),
            content=to_json(self.found).decode(),
        )


@dataclass(slots=True, kw_only=True)
class _StudyProgress:
    """Queries, checks and retrievals for one study in reception. Times are by the process's clock."""

    queries: StudyQueries = field(default_factory=StudyQueries)
    answer: Future[ArchiveAnswer[int] | None] | None = None  # under way
    gap_check: Future[bool] | None = None  # whether no slice is missing
    gap_check_of: float = 0.0  # time of the last image when it began, by the database's clock
    fetch: Future[None] | None = None
    fetches: int = 0  # since the last image
    fetched_of: float = 0.0  # time of that image, by the database's clock
    seen_at_s: float = 0.0


class CompletenessWatch:
    """Closes complete studies. Only the answers of archives are in memory; all else is in the database.

    Its own threads query archives and read headers, so a slow archive delays no other study. A restarted
    process queries again.

    Parameters
    ----------
    rules : settings of `completeness`.
    archives : may be empty.
    clock : seconds, increasing.
    urgent_titles : AE titles; studies that came to one of them are urgent.
    """

    def __init__(
        self,
        store: Store,
        rules: CompletenessSettings,
        archives: ArchiveQueries,
        clock: Callable[[], float] = time.monotonic,
        *,
        urgent_titles: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._rules = rules
        self._urgent_titles = urgent_titles
        self._archives = archives
        self._clock = clock
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="completeness")
        self._fetchers = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="fetching")
        self._watched: dict[Key, _StudyProgress] = {}
        self._seen_at_s = 0.0  # the last call of `close_studies`
        self._last: ReceivingStudy | None = None  # the next call continues after it; None: from the beginning
        self._more = False  # whether the next call should follow at once
        self._failed: set[Key] = set()  # studies whose examination failed; each is logged once

    def close_studies(self) -> Sequence[DueJob]:
        """Close studies that are complete, and start what is needed to decide about the others.

        Each call examines one page of studies, and the next call continues after it, so that ten thousand
        studies delay nothing else. Urgent studies are examined in each call.

        Returns
        -------
        The jobs of the closed studies.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used.
        """
        self._seen_at_s = self._clock()
        seen: dict[Key, ReceivingStudy] = {}
        if self._urgent_titles:
            urgent = self._store.studies.receiving(
                stale_s=ASSOCIATION_STALE_S, most=_PAGE, sent_to=self._urgent_titles
            )
            seen = {_key(study): study for study in urgent}
        page = self._store.studies.receiving(stale_s=ASSOCIATION_STALE_S, most=_PAGE, after=self._last)
        is_full = len(page) == _PAGE
        self._last = page[-1] if is_full else None
        for study in page:
            seen.setdefault(_key(study), study)
        whole = [found for study in seen.values() if (found := self._examine_safely(study)) is not None]
        closed: list[DueJob] = []
        for begin in range(0, len(whole), _CLOSED_AT_ONCE):
            closed += self._close(whole[begin : begin + _CLOSED_AT_ONCE])
        self._more = is_full and bool(closed)
        self._watched = {
            key: one
            for key, one in self._watched.items()
            if self._seen_at_s - one.seen_at_s < _FORGOTTEN_AFTER_S
        }
        self._failed &= self._watched.keys()
        return closed

    def wait(self, stop: threading.Event, pause_s: float) -> bool:
        """Wait until the next call of `close_studies` is worthwhile.

        Parameters
        ----------
        stop : ends the wait where no answer is pending.
        pause_s : at most so long; less where an answer arrives.

        Returns
        -------
        Whether `stop` is set.
        """
        if self._more:
            return stop.is_set()
        seen = [one for one in self._watched.values() if one.seen_at_s == self._seen_at_s]
        pending: list[Future[Any]] = [one.answer for one in seen if one.answer is not None]
        pending += [one.gap_check for one in seen if one.gap_check is not None and not one.gap_check.done()]
        if not pending:
            return stop.wait(pause_s)
        wait(pending, timeout=pause_s, return_when=FIRST_COMPLETED)
        return stop.is_set()

    def shut(self) -> None:
        """Start no more queries, and do not wait for those under way."""
        for threads in (self._threads, self._fetchers):
            threads.shutdown(wait=False, cancel_futures=True)

    def _examine_safely(self, study: ReceivingStudy) -> _CompleteStudy | None:
        """As `_examine`; a study that raises is logged and skipped.

        Raises
        ------
        StoreUnavailable
        """
        try:
            return self._examine(study)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of one study: the others continue
            self._report_failure(study, error)
            return None

    def _report_failure(self, study: ReceivingStudy, error: Exception) -> None:
        """Log the failure once for each study, and store it as the reason of the study's state."""
        if _key(study) in self._failed:
            return
        self._failed.add(_key(study))
        log.error("study_not_looked_at", study_instance_uid=study.study_instance_uid, error=describe(error))
        try:
            self._store.studies.note(study, f"whether it is complete cannot be determined: {describe(error)}")
        except StoreError as store_error:
            log.warning("reason_not_noted", error=describe(store_error))

    def _examine(self, study: ReceivingStudy) -> _CompleteStudy | None:
        watched = self._watched.setdefault(_key(study), _StudyProgress())
        watched.seen_at_s = self._seen_at_s
        evidence = self._evidence(study, watched)
        by = closed_by(evidence, self._rules)
        if by is not None:
            return _CompleteStudy(study=study, found=completeness_of(evidence, self._rules, by))
        if needs_gap_check(evidence, self._rules) and watched.gap_check_of != study.last_received_at:
            watched.gap_check_of = study.last_received_at
            watched.gap_check = self._threads.submit(self._is_without_gaps, study.study_instance_uid)
        if compare_counts(evidence, all_series=self._rules.all_series) is CountComparison.MORE:
            self._request_missing(study, evidence, watched)
        return None

    def _request_missing(self, study: ReceivingStudy, evidence: Evidence, watched: _StudyProgress) -> None:
        """Record which images are missing, and retrieve them where `completeness.fetch` is on."""
        found = completeness_of(evidence, self._rules, ClosedBy.INCOMPLETE)
        reason = f"images are missing: {lacking_in_words(found)}"
        if reason != study.reason:
            self._store.studies.note(study, reason)
        if watched.fetched_of != study.last_received_at:
            watched.fetched_of, watched.fetches = study.last_received_at, 0
        idle = watched.fetch is None or watched.fetch.done()
        if idle and fetches_due(evidence, self._rules) > watched.fetches:
            watched.fetches = fetches_due(evidence, self._rules)
            watched.fetch = self._fetchers.submit(self._fetch, study.study_instance_uid, found)

    def _evidence(self, study: ReceivingStudy, watched: _StudyProgress) -> Evidence:
        """What is known now; starts a query of the archives if one is due."""
        now_s = self._clock()
        if watched.answer is not None and watched.answer.done():
            answer, watched.answer = watched.answer.result(), None
            watched.queries.end(answer, now_s)
            if answer is not None:
                log.info(
                    "archive_counted",
                    study_instance_uid=study.study_instance_uid,
                    archive=answer.archive,
                    images=sum(answer.matches.values()),
                    arrived=sum(study.images.values()),
                )
        known = Evidence(
            images=study.images,
            ct_series=study.ct_series,
            silent_s=study.silent_s,
            longest_pause_s=study.longest_pause_s,
            sender_connected=study.sender_connected,
            reading=watched.queries.reading(study.last_received_at),
        )
        due = bool(self._archives) and watched.queries.is_due(known, self._rules, now_s)
        if due and watched.answer is None:
            watched.queries.begin(now_s, study.last_received_at)
            watched.answer = self._threads.submit(self._archives.count, study.study_instance_uid)
        gap_check = watched.gap_check if watched.gap_check_of == study.last_received_at else None
        return replace(
            known,
            answer_due=bool(self._archives) and watched.queries.is_awaited(known, self._rules),
            without_gaps=gap_check.result() if gap_check is not None and gap_check.done() else None,
        )

    def _close(self, whole: Sequence[_CompleteStudy]) -> Sequence[DueJob]:
        """Close studies in one transaction; one by one where that fails.

        Raises
        ------
        StoreUnavailable
        """
        try:
            return self._close_together(whole)
        except StoreUnavailable:
            raise
        except StoreError as error:
            if len(whole) == 1:
                self._report_failure(whole[0].study, error)
                return ()
        return [job for one in whole for job in self._close([one])]

    def _close_together(self, whole: Sequence[_CompleteStudy]) -> Sequence[DueJob]:
        begun = self._store.studies.close_all(
            [(one.study, one.closing) for one in whole],
            first_step=Step.SELECT,
            urgent_titles=self._urgent_titles,
        )
        by_uid = {one.study.study_instance_uid: one for one in whole}
        for uid, job in begun.items():
            one = by_uid[uid]
            self._watched.pop(_key(one.study), None)
            log.info(
                "study_closed",
                job_id=job.job_id,
                generation=job.generation,
                closed_by=one.found.closed_by.value,
                archive=one.found.archive,
                silent_s=one.found.silent_s,
                urgent=job.urgent,
            )
        return tuple(begun.values())

    def _fetch(self, study_instance_uid: str, found: Completeness) -> None:
        assert found.archive is not None, "only an archive can tell that something is missing"
        series = [one.series_instance_uid for one in found.lacking]
        problem = self._archives.retrieve(found.archive, study_instance_uid, series)
        log.info(
            "missing_images_fetched",
            study_instance_uid=study_instance_uid,
            archive=found.archive,
            series=len(series),
            problem=problem,
        )

    def _is_without_gaps(self, study_instance_uid: str) -> bool:
        try:
            paths = self._store.instances.paths(study_instance_uid, ct_alone=True)
            return without_gaps(slice_positions(paths))
        except Exception as error:  # noqa: BLE001 - with unreadable headers, silence closes the study
            log.warning("slices_not_looked_at", study_instance_uid=study_instance_uid, error=describe(error))
            return False


def _key(study: ReceivingStudy) -> Key:
    return study.study_instance_uid, study.generation
