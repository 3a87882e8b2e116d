"""A study is measured with one configuration and software: who may take its steps, what an upgrade does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from node.pipeline.housekeeping import restart_stranded
from node.pipeline.ports import ArtefactMissing, Step
from node.pipeline.result_basis import result_basis
from node.pipeline.runner import run_step
from node.pipeline.study_run import PROCEED, StepResult, StudyRun
from node.store import schema
from node.store.database import now_s
from node.store.errors import LeaseLost, NoSuchArtefact
from node.store.files import ReceivedInstance
from node.store.jobs import Declined, DueJob, Lease
from node.store.states import StudyState
from node.store.store import Store
from node.store.workers import ResultBasis, Worker
from tests.claiming import MEASURED_WITH, claim
from tests.worker.bench import Bench, republish
from tests.worker.conftest import STUDY

pytestmark = pytest.mark.slow

OTHERS = (
    replace(MEASURED_WITH, configuration_sha256="cd" * 32),
    replace(MEASURED_WITH, software="1.0 (numpy 3)"),
)
STEPS = ("select", "segment", "score", "report", "deliver")
PATIENCE_S = 300.0


@pytest.fixture
def job(
    store: Store, make_instance: Callable[..., ReceivedInstance], close_study: Callable[[Store], DueJob]
) -> DueJob:
    store.instances.receive(make_instance())
    return close_study(store)


def ask(store: Store, job: DueJob, result_basis: ResultBasis, host: str = "two") -> Lease | Declined | None:
    return store.jobs.claim(
        job_id=job.job_id,
        step=job.step,
        generation=job.generation,
        owner="other",
        lease_s=60.0,
        result_basis=result_basis,
        begins=job.step == "select",
        host=host,
    )


def make_due(store: Store) -> None:
    """As if what a job waits for had passed."""
    with store.database.writing() as connection:
        connection.execute(update(schema.jobs).values(not_before=now_s() - 1.0))


def enter(
    store: Store, result_basis: ResultBasis, *, host: str, since_s: float = 0.0, heard_s: float = 0.0
) -> None:
    """A worker that began so long ago, and was heard of last so long ago."""
    worker = Worker(worker_id=host, host=host, pid=1, queues=STEPS, engine="")
    store.workers.enter(worker, result_basis, "", lambda _: True)
    with store.database.writing() as connection:
        connection.execute(
            update(schema.workers)
            .where(schema.workers.c.worker_id == host)
            .values(started_at=now_s() - since_s, heartbeat_at=now_s() - heard_s)
        )


@pytest.mark.parametrize("other", OTHERS)
def test_a_worker_that_would_measure_otherwise_takes_no_later_step(
    store: Store, job: DueJob, other: ResultBasis
) -> None:
    following = store.jobs.advance(claim(store, job), "segment")
    answer = ask(store, following, other)
    assert isinstance(answer, Declined)
    assert answer.reason.startswith("waits for a worker with software 1.0, configuration abababab")
    summary = store.overview.list()[0]
    assert (summary.last_error, summary.attempts) == (answer.reason, 0)
    assert store.jobs.due() == ()  # it is left to others for a moment, not offered again at once
    make_due(store)
    assert claim(store, following).attempt == 1


def test_the_first_step_is_anybody_s_and_binds_anew(store: Store, job: DueJob) -> None:
    lease = claim(store, job)
    store.jobs.retry_in(lease, "the disk was busy", 0.0)
    taken = ask(store, job, OTHERS[0])
    assert isinstance(taken, Lease)
    following = store.jobs.advance(taken, "segment")
    assert isinstance(ask(store, following, MEASURED_WITH), Declined)
    make_due(store)
    assert isinstance(ask(store, following, OTHERS[0]), Lease)


def test_what_is_made_is_delivered_by_anybody(store: Store, job: DueJob) -> None:
    following = store.jobs.advance(claim(store, job), "deliver", unbind=True)
    assert isinstance(ask(store, following, OTHERS[1]), Lease)


def test_a_step_that_is_done_is_no_matter_of_fitness(store: Store, job: DueJob) -> None:
    store.jobs.advance(claim(store, job), "segment")
    assert ask(store, job, OTHERS[0]) is None


def test_a_study_whose_workers_are_gone_for_good_begins_again_and_says_so(store: Store, job: DueJob) -> None:
    lease = claim(store, job)
    store.artefacts.put(lease, "selection.json", b"{}", {})
    following = store.jobs.advance(lease, "segment")
    (kept,) = (store.files.root / "artefacts").rglob("*-*")
    enter(store, OTHERS[0], host="upgraded", since_s=PATIENCE_S + 1)
    (begun,) = store.bindings.restart_stranded(first_step="select", after_s=PATIENCE_S)
    assert begun.step == "segment"
    assert store.bindings.restart_stranded(first_step="select", after_s=PATIENCE_S) == ()
    with pytest.raises(NoSuchArtefact):  # nothing of the former configuration is mixed in
        store.artefacts.get(STUDY, 1, "selection.json")
    assert not kept.exists()
    assert ask(store, following, MEASURED_WITH) is None
    again = ask(store, job, OTHERS[0])
    assert isinstance(again, Lease)
    assert again.attempt == 1
    assert again.begun_again is not None
    assert (
        "begun again at select: what came before segment had been done with software 1.0" in again.begun_again
    )
    with pytest.raises(LeaseLost):
        store.jobs.renew(lease, 60.0)


@pytest.mark.parametrize(
    ("fit_heard_s", "other_since_s"),
    [
        (PATIENCE_S - 10, 2 * PATIENCE_S),  # it may be starting again
        (2 * PATIENCE_S, PATIENCE_S - 10),  # all of the node is starting
    ],
)
def test_a_study_waits_for_its_worker_before_it_begins_again(
    store: Store, job: DueJob, fit_heard_s: float, other_since_s: float
) -> None:
    store.jobs.advance(claim(store, job), "segment")
    enter(store, MEASURED_WITH, host="fit", since_s=1000.0, heard_s=fit_heard_s)
    enter(store, OTHERS[0], host="other", since_s=other_since_s)
    assert store.bindings.restart_stranded(first_step="select", after_s=PATIENCE_S) == ()


def test_work_in_hand_and_results_on_their_way_do_not_begin_again(store: Store, job: DueJob) -> None:
    enter(store, OTHERS[0], host="other", since_s=2 * PATIENCE_S)
    following = store.jobs.advance(claim(store, job), "segment")
    held = claim(store, following)
    assert store.bindings.restart_stranded(first_step="select", after_s=PATIENCE_S) == ()
    store.jobs.advance(held, "deliver", unbind=True)
    assert store.bindings.restart_stranded(first_step="select", after_s=PATIENCE_S) == ()


def test_a_step_that_lacked_a_file_is_left_to_another_machine_where_there_is_one(
    store: Store, job: DueJob
) -> None:
    following = store.jobs.advance(claim(store, job), "segment")
    store.jobs.retry_in(claim(store, following), "its file is gone", 0.0, avoids="one")
    enter(store, MEASURED_WITH, host="one")
    enter(store, OTHERS[0], host="two")  # of no use to this study
    assert isinstance(ask(store, following, MEASURED_WITH, host="one"), Lease)
    store.jobs.release_all("other")
    enter(store, MEASURED_WITH, host="three")
    answer = ask(store, following, MEASURED_WITH, host="one")
    assert isinstance(answer, Declined)
    assert "another machine than one" in answer.reason
    make_due(store)
    assert isinstance(ask(store, following, MEASURED_WITH, host="three"), Lease)


def test_a_missing_artefact_is_looked_for_elsewhere_before_a_person_is_called(bench: Bench) -> None:
    hosts: list[str] = []

    def lacks(host: str) -> Callable[[StudyRun], StepResult]:
        def segment(study: StudyRun) -> StepResult:
            hosts.append(host)
            if host == "one":
                raise ArtefactMissing("selection.json: its file is gone")
            return PROCEED

        return segment

    ours = result_basis(bench.dependencies.settings)
    bench.close()
    enter(bench.store, ours, host="one")
    enter(bench.store, ours, host="two")
    machines = [replace(bench.with_step(Step.SEGMENT, lacks(host)), host=host) for host in ("one", "two")]
    for _ in range(30):
        make_due(bench.store)
        republish(bench.store, bench.queue)
        while bench.queue.messages:
            message = bench.queue.messages.pop(0)
            for machine in machines:  # the one that lacks it is always the first to ask
                run_step(message, machine)
        if bench.summary.state != StudyState.PROCESSING:
            break
    assert bench.summary.state == StudyState.SENT
    assert hosts == ["one", "two"]


def test_what_no_machine_has_is_set_aside_after_three_attempts(bench: Bench) -> None:
    def segment(study: StudyRun) -> StepResult:
        raise ArtefactMissing("selection.json: its file is gone")

    bench.close()
    bench.work(bench.with_step(Step.SEGMENT, segment))
    assert bench.summary.state == StudyState.SET_ASIDE
    assert "its file is gone" in bench.summary.last_error
    assert bench.detail.jobs[0].attempts == 3


def test_a_second_configuration_takes_part_in_no_study_of_the_first(
    make_bench: Callable[..., Bench], make_settings: Callable[..., object]
) -> None:
    bench = make_bench()
    seen: list[tuple[str, str]] = []

    def note(study: StudyRun) -> StepResult:
        seen.append((study.settings.scoring.reference, study.settings.node.language))
        study.artefacts.put("noted.txt", b"")
        return PROCEED

    first = bench.with_step(Step.SEGMENT, note)
    second = replace(first, settings=make_settings(scoring={"reference": ""}, destinations=[]))
    bench.close()
    republish(bench.store, bench.queue)
    run_step(bench.queue.messages.pop(), first)  # select, which binds
    message = bench.queue.messages.pop()
    run_step(message, second)
    assert (seen, bench.summary.step) == ([], "segment")
    assert "waits for a worker with software" in bench.summary.last_error
    make_due(bench.store)
    run_step(message, first)
    assert (len(seen), bench.summary.step) == (1, "score")


def test_a_file_that_changes_while_a_step_runs_has_the_step_done_again(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make_bench(node={"site": str(tmp_path)})
    runs: list[int] = []

    def select(study: StudyRun) -> StepResult:
        runs.append(1)
        if len(runs) == 1:
            (tmp_path / "findings.toml").write_text("# a new row comes\n")
        return PROCEED

    bench.close()
    bench.work(bench.with_step(Step.SELECT, select))
    assert len(runs) == 2
    assert bench.summary.state == StudyState.SENT


def test_a_study_that_began_again_tells_its_steps_so(bench: Bench) -> None:
    told: list[str | None] = []

    def report(study: StudyRun) -> StepResult:
        told.append(study.begun_again)
        return bench.dependencies.functions[Step.REPORT](study)

    bench.close()
    republish(bench.store, bench.queue)
    run_step(bench.queue.messages.pop(), bench.dependencies)
    bench.queue.messages.clear()
    with bench.store.database.writing() as connection:  # an earlier version did the first step
        connection.execute(update(schema.jobs).values(software="0.0.9"))
    enter(bench.store, result_basis(bench.dependencies.settings), host="one", since_s=2 * PATIENCE_S)
    restart_stranded(bench.store, PATIENCE_S)
    assert bench.summary.step == "select"
    bench.work(bench.with_step(Step.REPORT, report))
    assert bench.summary.state == StudyState.SENT
    assert told[0] is not None
    assert "software 0.0.9" in told[0]
