"""Steps on a real store, with small step functions and a sender that answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from config.sections import Destination
from node.pipeline.artefacts import store_objects
from node.pipeline.ports import SendOutcome, Step
from node.pipeline.runner import run_step
from node.pipeline.study_run import PROCEED, StepResult, StudyRun, Verdict
from node.store.errors import StorageFull
from node.store.files import ReceivedInstance
from node.store.states import StudyState
from node.study_report import ObjectKind
from tests.claiming import claim
from tests.waiting import LIMIT_S
from tests.worker.bench import SEG_UID, SR_UID, Bench, ScriptedSender, made_object, republish

pytestmark = pytest.mark.slow


def test_a_study_goes_through_all_steps_and_is_sent_once(bench: Bench) -> None:
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.sender.sent == [SEG_UID, SR_UID]  # what the report refers to goes first
    assert {(one.state, one.proof) for one in bench.detail.deliveries} == {("sent", "status")}
    assert bench.detail.reports[0].sop_instance_uid == SR_UID


def test_the_next_step_is_published_after_the_commit_without_waiting_for_reconcile(bench: Bench) -> None:
    bench.close()
    republish(bench.store, bench.queue)
    run_step(bench.queue.messages.pop(), bench.dependencies)
    (message,) = bench.queue.messages
    assert message.step is Step.SEGMENT
    assert bench.summary.step == "segment"


def test_each_step_leaves_its_time_behind(bench: Bench) -> None:
    bench.close()
    bench.work()
    timings_s = json.loads(bench.store.artefacts.get(bench.summary.study_instance_uid, 1, "timings.json"))
    assert list(timings_s) == ["select", "segment", "score", "report"]


def test_a_step_is_told_how_the_study_arrived(bench: Bench) -> None:
    seen: list[StudyRun] = []

    def look(study: StudyRun) -> StepResult:
        seen.append(study)
        return PROCEED

    bench.close()
    bench.work(bench.with_step(Step.SELECT, look))
    (study,) = seen
    assert study.arrival.called_ae_titles == {"QCT"}
    assert [path.read_bytes() for path in study.images.paths] == [b"headerpixels 1"]
    assert not study.arrival.declared_qct


def test_stale_and_repeated_messages_do_nothing(bench: Bench) -> None:
    bench.close()
    republish(bench.store, bench.queue)
    (first,) = bench.queue.messages
    bench.work()
    done = bench.detail
    for message in (
        first,
        replace(first, step=Step.DELIVER),
        replace(first, generation=2),
        replace(first, job_id=999),
    ):
        run_step(message, bench.dependencies)
    assert bench.detail == done
    assert bench.queue.messages == []


def test_a_wiped_broker_costs_nothing_but_time(bench: Bench) -> None:
    bench.close()
    for _ in range(4):
        republish(bench.store, bench.queue)
        message = bench.queue.messages.pop(0)
        bench.queue.messages.clear()
        run_step(message, bench.dependencies)
        bench.queue.messages.clear()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.sender.sent == [SEG_UID, SR_UID]


def test_a_busy_worker_does_not_let_the_queue_grow(bench: Bench) -> None:
    bench.close()
    assert [republish(bench.store, bench.queue) for _ in range(5)] == [1, 0, 0, 0, 0]


def test_a_failing_step_is_tried_three_times_and_then_set_aside(bench: Bench) -> None:
    attempts = []

    def fail(study: StudyRun) -> StepResult:
        attempts.append(1)
        raise ValueError("Doe^Jane")

    bench.close()
    bench.work(bench.with_step(Step.SCORE, fail))
    assert len(attempts) == 3
    assert bench.summary.state == StudyState.SET_ASIDE
    assert "ValueError at node.pipeline.runner:" in bench.summary.last_error
    assert "Doe" not in bench.summary.last_error  # a library's message may quote a header

    bench.retry()
    bench.work()
    assert bench.summary.state == StudyState.SENT


def test_a_full_disk_is_waited_for_and_costs_no_attempt(bench: Bench) -> None:
    attempts = []

    def fail_for_a_while(study: StudyRun) -> StepResult:
        attempts.append(1)
        if len(attempts) < 6:  # twice as often as a step may fail
            raise StorageFull("no space left")
        return PROCEED

    bench.close()
    bench.work(bench.with_step(Step.SCORE, fail_for_a_while))
    assert len(attempts) == 6
    assert bench.summary.state != StudyState.SET_ASIDE


def test_a_step_that_recovers_starts_the_next_one_with_a_clean_count(bench: Bench) -> None:
    failures = iter([ValueError(), ValueError()])

    def recover(study: StudyRun) -> StepResult:
        for failure in failures:
            raise failure
        return PROCEED

    bench.close()
    bench.work(bench.with_step(Step.SEGMENT, recover))
    assert bench.summary.state == StudyState.SENT
    assert bench.summary.attempts == 0


def test_an_error_that_no_retry_can_cure_is_set_aside_at_once(bench: Bench) -> None:
    attempts = []

    def segment(study: StudyRun) -> StepResult:
        attempts.append(1)
        study.engine()
        return PROCEED

    bench.close()
    bench.work(bench.with_step(Step.SEGMENT, segment))
    assert len(attempts) == 1
    assert bench.summary.state == StudyState.SET_ASIDE
    assert "is not available" in bench.summary.last_error


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict.NOT_APPLICABLE, StudyState.NOT_APPLICABLE),
        (Verdict.SET_ASIDE, StudyState.SET_ASIDE),
    ],
)
def test_a_verdict_ends_the_study_and_nothing_is_sent(
    bench: Bench, verdict: Verdict, state: StudyState
) -> None:
    bench.close()
    whose = {"patient_id": "P", "issuer": ""}
    bench.store.scans.keep(
        study_instance_uid=bench.summary.study_instance_uid,
        taken_on=date(2026, 1, 5),
        content="of an earlier generation",
        **whose,
    )
    bench.work(bench.with_step(Step.SELECT, lambda study: StepResult(verdict=verdict, reason="because")))
    assert (bench.summary.state, bench.summary.reason) == (state, "because")
    assert bench.sender.sent == []
    assert bench.store.scans.of_patient(**whose) == ()


def test_a_lost_worker_is_counted_and_a_study_that_kills_workers_is_set_aside(bench: Bench) -> None:
    bench.close()
    for _ in range(3):  # each dies without a word: its lease runs out
        (due,) = bench.store.jobs.due()
        claim(bench.store, due, owner="dead", lease_s=-1.0)
    bench.work()
    assert bench.summary.state == StudyState.SET_ASIDE
    assert "lost 3 times" in bench.summary.last_error


def test_a_step_longer_than_its_lease_keeps_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(worker={"lease_s": 0.3})
    renewals = threading.Semaphore(0)

    class CountingJobs:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench.store.jobs, name)

        def renew(self, lease: Any, lease_s: float) -> None:
            bench.store.jobs.renew(lease, lease_s)
            renewals.release()

    def outlast(study: StudyRun) -> StepResult:
        for _ in range(5):  # renewed every third of the lease: this outlasts it
            assert renewals.acquire(timeout=LIMIT_S)
        return PROCEED

    bench.close()
    slow = replace(bench.with_step(Step.SELECT, outlast), store=replace(bench.store, jobs=CountingJobs()))
    republish(bench.store, bench.queue)
    run_step(bench.queue.messages.pop(), slow)
    assert (bench.summary.step, bench.summary.attempts) == ("segment", 0)


def test_a_step_that_lost_its_lease_writes_nothing(bench: Bench) -> None:
    def robbed(study: StudyRun) -> StepResult:
        bench.store.jobs.release_all("bench")
        study.artefacts.put("selection.json", b"stale")
        return PROCEED

    bench.close()
    republish(bench.store, bench.queue)
    run_step(bench.queue.messages.pop(), bench.with_step(Step.SELECT, robbed))
    assert bench.summary.step == "select"
    assert bench.detail.artefacts == ()


def test_without_a_destination_results_are_kept_and_it_is_said(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(destinations=[])
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.REPORTED
    assert "no destination is configured" in bench.summary.reason
    assert bench.store.instances.is_own(SR_UID)


def test_only_what_a_destination_refused_for_now_is_sent_again(bench: Bench) -> None:
    bench.sender.outcomes[SR_UID] = [SendOutcome.TRANSIENT, SendOutcome.TRANSIENT, SendOutcome.SENT]
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.sender.sent == [SEG_UID, SR_UID]
    assert {one.artefact: one.attempts for one in bench.detail.deliveries} == {
        "report.dcm": 3,
        "segmentation.dcm": 1,
    }


def test_waiting_for_a_pacs_never_sets_a_study_aside(bench: Bench) -> None:
    bench.sender.outcomes[SR_UID] = [SendOutcome.TRANSIENT] * 10 + [SendOutcome.SENT]
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT


def test_a_refusal_for_good_is_a_dead_letter_that_a_person_can_retry(bench: Bench) -> None:
    bench.sender.outcomes[SR_UID] = [SendOutcome.PERMANENT, SendOutcome.SENT]
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.UNDELIVERED
    assert {one.artefact: one.state for one in bench.detail.deliveries} == {
        "report.dcm": "failed",
        "segmentation.dcm": "sent",
    }
    bench.retry()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.sender.sent == [SEG_UID, SR_UID]


def test_a_pacs_that_stays_away_too_long_becomes_a_dead_letter(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(worker={"send_give_up_after_s": 1e-6})
    bench.sender.outcomes[SR_UID] = [SendOutcome.TRANSIENT]
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.UNDELIVERED


def test_the_lease_is_checked_before_each_object_leaves(bench: Bench) -> None:
    class Robber(ScriptedSender):
        def send(self, destination: Destination, objects: Any, **options: Any) -> Any:
            before_each = options["before_each"]
            before_each()
            bench.store.jobs.release_all("bench")
            before_each()
            raise AssertionError("an object left under a lost lease")

    bench.close()
    for _ in range(4):
        republish(bench.store, bench.queue)
        run_step(bench.queue.messages.pop(0), bench.dependencies)
        bench.queue.messages.clear()
    republish(bench.store, bench.queue)
    run_step(bench.queue.messages.pop(0), bench.replaced(sender=Robber()))
    assert {one.state for one in bench.detail.deliveries} == {"pending"}
    bench.queue.messages.clear()
    bench.work()
    assert bench.summary.state == StudyState.SENT


def test_late_images_make_an_amended_report(
    bench: Bench, make_instance: Callable[..., ReceivedInstance]
) -> None:
    bench.close()
    bench.work()
    bench.store.instances.receive(make_instance(2))
    bench.close()

    def amended(study: StudyRun) -> StepResult:
        store_objects(study.artefacts, (made_object(ObjectKind.STRUCTURED_REPORT, "report.dcm", "2.25.12"),))
        assert study.issue().predecessor_uid == SR_UID
        return PROCEED

    bench.work(bench.with_step(Step.REPORT, amended))
    assert bench.summary.state == StudyState.SENT
    assert bench.sender.sent == [SEG_UID, SR_UID, "2.25.12"]
