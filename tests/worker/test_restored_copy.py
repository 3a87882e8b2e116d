"""A node that was restored from an older copy names the reports that it has no record of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from config.sections import Destination, Peer
from node.dicom.uids import derived_uid, series_uid_of
from node.pipeline.ports import ArchivedReport, Issue, QueryResult, Step
from node.pipeline.study_run import StepResult, StudyRun
from node.store.files import ReceivedInstance
from node.store.states import Reopening, StudyState
from node.store.store import Store
from tests.worker.bench import SR_UID, Bench, make_report

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
SR_3D, SR_2D = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"
LOST, LATER = derived_uid("instance", "lost"), derived_uid("instance", "later")


@dataclass
class Archive:
    """What destinations hold of this node's reports."""

    held: dict[str, ArchivedReport] = field(default_factory=dict)
    problem: str = ""
    asked: list[str] = field(default_factory=list)

    def find_reports(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[ArchivedReport]:
        self.asked.append(study_instance_uid)
        if self.problem == "broken":
            raise RuntimeError("a library's own words, of Doe^Jane")
        if self.problem:
            return QueryResult(matches=None, problem=self.problem)
        return QueryResult(matches=dict(self.held))


def archived(stated_at: str = "", offset: str = "", sop_class: str = SR_3D) -> ArchivedReport:
    return ArchivedReport(sop_class_uid=sop_class, stated_at=stated_at, offset=offset)


@pytest.fixture
def report(bench: Bench) -> Callable[[Archive], Issue]:
    """Has the study measured and sent, and gives what its report says of its predecessor."""

    def run(archive: Archive) -> Issue:
        issues: list[Issue] = []

        def note(study: StudyRun) -> StepResult:
            issues.append(study.issue())
            assert study.issue() == issues[-1]  # once minted it stays, whatever the archive says by then
            return make_report(study)

        bench.close()
        functions = {**bench.dependencies.functions, Step.REPORT: note}
        bench.work(bench.replaced(functions=functions, finder=archive))
        # The second time these objects, which are the same, have arrived already.
        assert bench.summary.state in (StudyState.SENT, StudyState.DELIVERED)
        return issues[0]

    return run


def test_the_first_report_of_a_study_amends_nothing(report: Callable[[Archive], Issue], bench: Bench) -> None:
    archive = Archive()
    issue = report(archive)
    assert (issue.predecessor_uid, issue.amendment_reason) == (None, None)
    assert archive.asked == [bench.summary.study_instance_uid]  # once for a report, not for each look at it


def test_a_study_that_was_reported_in_the_time_that_is_lost_is_not_reported_as_if_for_the_first_time(
    report: Callable[[Archive], Issue], bench: Bench
) -> None:
    held = {
        LOST: archived("20260301120000", "+0100"),
        LATER: archived("20260302083000", "+0100", SR_2D),
    }
    issue = report(Archive(held))
    assert issue.predecessor_uid == LATER
    assert issue.predecessor_class_uid == SR_2D
    assert issue.predecessor_issued_at == datetime(2026, 3, 2, 7, 30, tzinfo=UTC)
    assert issue.amendment_reason == Reopening.UNRECORDED
    (row,) = bench.detail.reports
    assert (row.predecessor_uid, row.amendment_reason) == (LATER, Reopening.UNRECORDED)


def test_a_time_without_its_distance_from_utc_is_not_told(report: Callable[[Archive], Issue]) -> None:
    issue = report(Archive({LOST: archived("20260301120000")}))
    assert (issue.predecessor_uid, issue.predecessor_issued_at) == (LOST, None)


def test_an_amended_report_names_the_later_one_that_was_lost_and_not_the_one_on_record(
    report: Callable[[Archive], Issue], bench: Bench, make_instance: Make
) -> None:
    assert report(Archive()).predecessor_uid is None
    bench.store.instances.receive(make_instance(2))
    issue = report(Archive({SR_UID: archived("20260301120000", "+0000"), LOST: archived("20260302120000")}))
    assert issue.predecessor_uid == LOST
    assert issue.amendment_reason == f"{Reopening.IMAGES}; {Reopening.UNRECORDED}"


def test_what_is_on_record_is_named_as_ever(
    report: Callable[[Archive], Issue], bench: Bench, make_instance: Make
) -> None:
    report(Archive())
    bench.store.instances.receive(make_instance(2))
    issue = report(Archive({SR_UID: archived("20260301120000", "+0000")}))
    assert issue.predecessor_uid == SR_UID
    assert (issue.amendment_reason, issue.predecessor_class_uid) == (Reopening.IMAGES, None)


@pytest.mark.parametrize("problem", ["the peer does not accept queries", "broken"])
def test_an_archive_that_does_not_answer_holds_no_report_up_and_is_told(
    report: Callable[[Archive], Issue], problem: str
) -> None:
    with capture_logs() as told:
        assert report(Archive(problem=problem)).predecessor_uid is None
    (line,) = [one for one in told if one["event"] == "earlier_reports_not_told"]
    assert line["destination"] == "pacs"
    assert "Doe" not in str(told)


def _come_back(store: Store, make_instance: Make, uid: str, series_uid: str) -> None:
    store.instances.note_own(
        make_instance(9, sop_instance_uid=uid, series_instance_uid=series_uid, sop_class_uid=SR_3D)
    )


def test_a_report_that_the_archive_sent_back_is_known_without_a_query(
    report: Callable[[Archive], Issue], bench: Bench, make_instance: Make
) -> None:
    _come_back(bench.store, make_instance, LOST, series_uid_of([LOST]))
    assert report(Archive(problem="the peer does not accept queries")).predecessor_uid == LOST


def test_a_report_whose_uids_are_of_others_making_is_nobodys_predecessor(
    report: Callable[[Archive], Issue], bench: Bench, make_instance: Make
) -> None:
    _come_back(bench.store, make_instance, LOST, "2.25.4711")
    assert (
        report(Archive({LATER: archived(sop_class="1.2.840.10008.5.1.4.1.1.88.59")})).predecessor_uid is None
    )
