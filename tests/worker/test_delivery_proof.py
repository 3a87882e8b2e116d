"""When a study is delivered: committed, found, or no more than answered by Success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from node.pipeline.policy import choose_proof
from node.pipeline.ports import FindResult, SendOutcome
from node.pipeline.runner import run_step
from node.store.commitments import ReportedInstance
from node.store.files import ReceivedInstance
from node.store.states import CommitmentVerdict, Proof, StudyState
from tests.worker.bench import PACS, SEG_UID, SR_UID, Bench, republish

pytestmark = pytest.mark.slow

BOTH = frozenset({Proof.COMMITMENT, Proof.FIND})
PATIENT = {"commitment_wait_s": 0.0, "commitment_patience_s": 600.0}


def said(uid: str, verdict: CommitmentVerdict = CommitmentVerdict.COMMITTED) -> ReportedInstance:
    return ReportedInstance(
        sop_class_uid="1.2.3", sop_instance_uid=uid, verdict=verdict, reason=None, detail="told"
    )


def report(bench: Bench, number: int = -1, **verdicts: CommitmentVerdict) -> None:
    """The destination answers one of the transactions: all committed, but for `seg` and `sr` as told."""
    uid = bench.prover.asked[number][0]
    seg = verdicts.get("seg", CommitmentVerdict.COMMITTED)
    sr = verdicts.get("sr", CommitmentVerdict.COMMITTED)
    bench.store.commitment_transactions.record(
        uid, [said(SEG_UID, seg), said(SR_UID, sr)], ask_again_in_s=0.0
    )


def run_out_of_work(bench: Bench) -> None:
    """Work on whatever is due now, and leave what waits."""
    for _ in range(40):
        republish(bench.store, bench.queue)
        if not bench.queue.messages:
            return
        while bench.queue.messages:
            run_step(bench.queue.messages.pop(0), bench.dependencies)
    raise AssertionError("the study does not come to rest")


def waiting_for_commitment(make_bench: Callable[..., Bench], **destination: Any) -> Bench:
    bench = make_bench(worker=PATIENT, destinations=[{**PACS, **destination}])
    bench.prover.offers = BOTH
    bench.close()
    run_out_of_work(bench)
    return bench


def proofs(bench: Bench) -> set[tuple[str, str]]:
    return {(one.state, one.proof) for one in bench.detail.deliveries}


def test_a_study_is_delivered_only_when_the_destination_has_committed(
    make_bench: Callable[..., Bench],
) -> None:
    bench = waiting_for_commitment(make_bench)
    assert bench.prover.asked[0][1] == [SR_UID, SEG_UID]
    assert bench.summary.state == StudyState.PROCESSING
    assert "proof awaited" in bench.summary.last_error
    report(bench)
    run_out_of_work(bench)
    assert bench.summary.state == StudyState.DELIVERED
    assert bench.summary.reason == "2 objects committed by pacs"
    assert proofs(bench) == {("committed", "commitment")}
    assert len(bench.prover.asked) == 1


def test_a_report_on_the_same_association_ends_the_waiting_at_once(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(worker=PATIENT)
    bench.prover.offers = BOTH
    bench.prover.on_asked = lambda _: report(bench)
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.DELIVERED
    assert bench.prover.sessions == 1


def test_the_transaction_stands_before_the_destination_is_asked(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(worker=PATIENT)
    bench.prover.offers = BOTH
    request = bench.prover.request_commitment

    def look(transaction_uid: str, objects: Any) -> Any:
        assert bench.store.commitment_transactions.is_open(transaction_uid)
        return request(transaction_uid, objects)

    bench.prover.request_commitment = look  # type: ignore[method-assign]
    bench.close()
    run_out_of_work(bench)
    assert len(bench.prover.asked) == 1


def test_a_destination_without_commitment_is_asked_by_query(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.prover.offers = frozenset({Proof.FIND})
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.DELIVERED
    assert bench.summary.reason == "2 objects found by C-FIND at pacs"
    assert proofs(bench) == {("found", "find")}


def test_a_destination_that_offers_neither_is_believed_by_its_status_and_it_is_said(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert "Success alone" in bench.summary.reason
    assert {one.detail for one in bench.detail.deliveries} == {
        "its status alone: the destination offers neither storage commitment nor C-FIND"
    }
    assert all(one.proven_at is None for one in bench.detail.deliveries)


def test_a_site_that_wants_no_proof_opens_no_association_for_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(destinations=[{**PACS, "proof": "sent"}])
    bench.prover.offers = BOTH
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.prover.sessions == 0


def test_one_destination_without_proof_keeps_the_study_from_being_delivered(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(destinations=[PACS, {**PACS, "name": "archive", "proof": "sent"}])
    bench.prover.offers = frozenset({Proof.FIND})
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.summary.reason == (
        "2 objects found by C-FIND at pacs, 2 objects answered by Success alone at archive"
    )


def test_a_commitment_without_an_answer_falls_back_to_the_query(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(worker={"commitment_wait_s": 0.0, "commitment_patience_s": 1e-6})
    bench.prover.offers = BOTH
    bench.close()
    bench.work()
    assert len(bench.prover.asked) == 1
    assert proofs(bench) == {("found", "find")}


def test_a_commitment_without_an_answer_is_asked_anew_where_nothing_else_counts(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(
        worker={"commitment_wait_s": 0.0, "commitment_patience_s": 1e-6},
        destinations=[{**PACS, "proof": "commitment"}],
    )
    bench.prover.offers = BOTH
    bench.prover.on_asked = lambda _: report(bench) if len(bench.prover.asked) == 3 else None
    bench.close()
    bench.work()
    assert len({uid for uid, _ in bench.prover.asked}) == 3
    assert bench.prover.queries == []
    assert bench.summary.state == StudyState.DELIVERED


def test_what_the_destination_lost_is_sent_again(make_bench: Callable[..., Bench]) -> None:
    bench = waiting_for_commitment(make_bench)
    report(bench, seg=CommitmentVerdict.MISSING)
    run_out_of_work(bench)
    assert bench.sender.sent == [SEG_UID, SR_UID, SEG_UID]
    assert bench.prover.asked[1][1] == [SEG_UID]
    report(bench)
    run_out_of_work(bench)
    assert bench.summary.state == StudyState.DELIVERED


def test_a_destination_that_cannot_commit_now_is_asked_again_and_not_outvoted_by_a_query(
    make_bench: Callable[..., Bench],
) -> None:
    bench = waiting_for_commitment(make_bench)
    report(bench, seg=CommitmentVerdict.TRANSIENT)
    run_out_of_work(bench)
    assert bench.prover.queries == []
    assert bench.prover.asked[1][1] == [SEG_UID]


def test_what_the_destination_will_not_commit_is_a_dead_letter_that_a_person_can_retry(
    make_bench: Callable[..., Bench],
) -> None:
    bench = waiting_for_commitment(make_bench)
    report(bench, sr=CommitmentVerdict.REFUSED)
    run_out_of_work(bench)
    assert bench.summary.state == StudyState.UNDELIVERED
    assert bench.summary.reason.startswith("not delivered: 1 object to pacs (told)")
    bench.retry()
    run_out_of_work(bench)
    assert bench.sender.sent == [SEG_UID, SR_UID, SR_UID]
    report(bench)
    run_out_of_work(bench)
    assert bench.summary.state == StudyState.DELIVERED


def test_a_destination_that_refuses_the_question_for_good_is_queried(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.prover.offers, bench.prover.answer = BOTH, SendOutcome.PERMANENT
    bench.close()
    bench.work()
    assert proofs(bench) == {("found", "find")}
    assert not bench.store.commitment_transactions.is_open(bench.prover.asked[0][0])


def test_what_is_not_found_is_looked_for_again_then_sent_again(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(worker={"commitment_patience_s": 1e-6})
    bench.prover.offers = frozenset({Proof.FIND})
    bench.prover.sought = [FindResult.FOUND, FindResult.ABSENT, FindResult.FOUND]
    bench.close()
    bench.work()
    assert bench.sender.sent == [SEG_UID, SR_UID, SEG_UID]
    assert bench.summary.state == StudyState.DELIVERED


@pytest.mark.parametrize("sought", [FindResult.ABSENT, FindResult.UNKNOWN])
def test_what_is_never_found_ends_as_a_dead_letter_with_its_reason(
    make_bench: Callable[..., Bench], sought: FindResult
) -> None:
    bench = make_bench(worker={"send_give_up_after_s": 1e-6})
    bench.prover.offers, bench.prover.sought = frozenset({Proof.FIND}), [sought]
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.UNDELIVERED
    assert "taken, but not proven" in bench.summary.reason
    assert "C-FIND" in bench.summary.reason


def test_a_destination_that_proved_before_is_not_believed_to_offer_nothing(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(worker={"commitment_wait_s": 0.0, "commitment_patience_s": 1e-6})
    bench.prover.offers = BOTH

    def commit_to_one_and_restart(transaction_uid: str) -> None:
        bench.store.commitment_transactions.record(transaction_uid, [said(SEG_UID)], ask_again_in_s=0.0)
        bench.prover.offers = frozenset()

    bench.prover.on_asked = commit_to_one_and_restart
    bench.close()
    for _ in range(12):
        republish(bench.store, bench.queue)
        while bench.queue.messages:
            run_step(bench.queue.messages.pop(0), bench.dependencies)
    assert {(one.state, one.proof) for one in bench.detail.deliveries} == {
        ("committed", "commitment"),
        ("sent", ""),
    }
    assert bench.summary.state == StudyState.PROCESSING


def test_an_association_that_cannot_be_had_for_proof_costs_time_alone(bench: Bench) -> None:
    bench.prover.problem = "no connection"
    bench.close()
    for _ in range(12):
        republish(bench.store, bench.queue)
        while bench.queue.messages:
            run_step(bench.queue.messages.pop(0), bench.dependencies)
    assert bench.summary.state == StudyState.PROCESSING
    bench.prover.problem = ""
    bench.work()
    assert bench.summary.state == StudyState.SENT
    assert bench.sender.sent == [SEG_UID, SR_UID]


def test_a_destination_that_was_away_when_it_was_to_be_asked_is_still_asked_to_commit(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(worker=PATIENT)
    bench.prover.offers, bench.prover.problem = BOTH, "no connection"
    session = bench.prover.session

    def come_back(destination: Any) -> Any:
        opened = session(destination)
        if bench.prover.sessions:
            bench.prover.problem = ""
        return opened

    bench.prover.session = come_back  # type: ignore[method-assign]
    bench.prover.on_asked = lambda _: report(bench)
    bench.close()
    bench.work()
    assert bench.prover.queries == []
    assert proofs(bench) == {("committed", "commitment")}


def test_an_amended_report_is_not_held_up_by_a_commitment_that_does_not_come(
    make_bench: Callable[..., Bench], make_instance: Callable[..., ReceivedInstance]
) -> None:
    bench = waiting_for_commitment(make_bench)
    bench.store.instances.receive(make_instance(2))
    bench.close()
    assert [job.generation for job in bench.store.jobs.due()] == [2]
    report(bench)  # the first generation's proof still counts
    run_out_of_work(bench)
    assert ("committed", "commitment") in proofs(bench)


@pytest.mark.parametrize(
    ("wish", "offered", "unanswered", "proof", "proved_before", "way"),
    [
        ("auto", BOTH, False, "", False, Proof.COMMITMENT),
        ("auto", BOTH, True, "", False, Proof.FIND),
        ("auto", BOTH, True, "commitment", False, Proof.COMMITMENT),
        ("auto", {Proof.COMMITMENT}, True, "", False, Proof.COMMITMENT),
        ("auto", {Proof.FIND}, False, "", False, Proof.FIND),
        ("auto", {Proof.FIND}, False, "commitment", True, None),
        ("auto", set(), False, "", False, Proof.STATUS),
        ("auto", set(), False, "", True, None),
        ("commitment", {Proof.FIND}, True, "", False, None),
        ("find", BOTH, False, "", False, Proof.FIND),
        ("find", {Proof.COMMITMENT}, False, "", False, None),
    ],
)
def test_the_way_to_prove_follows_wish_and_offer(
    wish: str, offered: set[Proof], unanswered: bool, proof: str, proved_before: bool, way: Proof | None
) -> None:
    chosen = choose_proof(wish, offered, unanswered=unanswered, proof=proof, proved_before=proved_before)
    assert chosen is way
