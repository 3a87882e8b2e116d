"""Storage commitment that this node asks for: what a report changes, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from node.store.commitments import ReportedInstance, ReportOutcome
from node.store.deliveries import OpenDelivery
from node.store.files import ReceivedInstance
from node.store.jobs import DueJob, Lease, MadeObject
from node.store.states import CommitmentVerdict, DeliveryState, Proof
from node.store.store import Store
from tests.claiming import claim

pytestmark = pytest.mark.slow

SC = "1.2.840.10008.5.1.4.1.1.7"
UIDS = ("2.25.1", "2.25.2")


@pytest.fixture
def lease(
    store: Store,
    make_instance: Callable[..., ReceivedInstance],
    close_study: Callable[[Store], DueJob],
) -> Lease:
    """The right to deliver two objects that the destination "pacs" has taken."""
    store.instances.receive(make_instance())
    job = close_study(store)
    made = [
        MadeObject(sop_instance_uid=uid, sop_class_uid=SC, kind="SC", artefact=f"{uid}.dcm", is_report=False)
        for uid in UIDS
    ]
    job = store.jobs.advance(claim(store, job), "deliver", made)
    held = claim(store, job)
    store.deliveries.schedule(held, ["pacs"])
    for delivery in store.deliveries.pending(held):
        store.deliveries.settle(held, delivery, DeliveryState.SENT, status=0, detail="")
    return held


def begin(store: Store, lease: Lease, uid: str = "2.25.900") -> str:
    store.commitment_transactions.begin(
        lease,
        transaction_uid=uid,
        destination="pacs",
        asked=store.deliveries.unproven(lease),
        patience_s=600,
    )
    return uid


def said(
    uid: str,
    verdict: CommitmentVerdict = CommitmentVerdict.COMMITTED,
    reason: int | None = None,
    sop_class: str = SC,
) -> ReportedInstance:
    return ReportedInstance(
        sop_class_uid=sop_class, sop_instance_uid=uid, verdict=verdict, reason=reason, detail="told"
    )


def record(store: Store, uid: str, *reported: ReportedInstance) -> ReportOutcome:
    return store.commitment_transactions.record(uid, reported, ask_again_in_s=600)


def states(store: Store, lease: Lease) -> list[str]:
    rows = store.overview.show(lease.study_instance_uid).deliveries
    return [row.state for row in sorted(rows, key=lambda row: row.sop_instance_uid)]


def first(store: Store, lease: Lease) -> OpenDelivery:
    return store.deliveries.unproven(lease)[0]


def test_what_is_committed_is_proven_with_its_time(store: Store, lease: Lease) -> None:
    uid = begin(store, lease)
    assert store.commitment_transactions.is_open(uid)
    assert record(store, uid, *map(said, UIDS)) is ReportOutcome.RECORDED
    assert not store.commitment_transactions.is_open(uid)
    for row in store.overview.show(lease.study_instance_uid).deliveries:
        assert (row.state, row.proof) == (DeliveryState.COMMITTED, Proof.COMMITMENT)
        assert row.sent_at is not None
        assert row.proven_at is not None
        assert row.proven_at >= row.sent_at
    assert store.deliveries.has_proven("pacs")
    assert not store.deliveries.has_proven("archive")


def test_a_report_of_what_was_never_asked_is_unknown_and_changes_nothing(store: Store, lease: Lease) -> None:
    assert record(store, "2.25.404", *map(said, UIDS)) is ReportOutcome.UNKNOWN
    assert states(store, lease) == ["sent", "sent"]


def test_the_second_report_of_a_transaction_changes_nothing(store: Store, lease: Lease) -> None:
    uid = begin(store, lease)
    record(store, uid, said(UIDS[0]))
    assert record(store, uid, said(UIDS[1])) is ReportOutcome.REPEATED
    assert states(store, lease) == ["committed", "sent"]


def test_an_instance_that_was_not_asked_is_ignored(store: Store, lease: Lease) -> None:
    first_one = first(store, lease)
    store.commitment_transactions.begin(
        lease, transaction_uid="2.25.900", destination="pacs", asked=[first_one], patience_s=600
    )
    record(store, "2.25.900", *map(said, UIDS), said("2.25.777"))
    assert states(store, lease) == ["committed", "sent"]


def test_an_instance_of_another_class_is_not_the_one_that_was_asked(store: Store, lease: Lease) -> None:
    uid = begin(store, lease)
    record(store, uid, said(UIDS[0], sop_class="1.2.840.10008.5.1.4.1.1.2"))
    assert states(store, lease) == ["sent", "sent"]


def test_what_the_peer_lost_is_sent_again_once_and_then_needs_a_person(store: Store, lease: Lease) -> None:
    missing = said(UIDS[0], CommitmentVerdict.MISSING, 0x0112)
    record(store, begin(store, lease), missing, said(UIDS[1]))
    assert states(store, lease) == ["pending", "committed"]
    (again,) = store.deliveries.pending(lease)
    assert again.resent == 1
    store.deliveries.settle(lease, again, DeliveryState.SENT, status=0, detail="")
    record(store, begin(store, lease, "2.25.901"), missing)
    assert states(store, lease) == ["failed", "committed"]


def test_what_cannot_be_committed_for_now_is_asked_again(store: Store, lease: Lease) -> None:
    record(store, begin(store, lease), said(UIDS[0], CommitmentVerdict.TRANSIENT, 0x0213), said(UIDS[1]))
    waiting = first(store, lease)
    assert waiting.proof == Proof.COMMITMENT
    assert 0 < waiting.due_in_s <= 600


def test_a_refusal_is_a_dead_letter(store: Store, lease: Lease) -> None:
    record(store, begin(store, lease), said(UIDS[0], CommitmentVerdict.REFUSED, 0x0119), said(UIDS[1]))
    (row,) = [r for r in store.overview.show(lease.study_instance_uid).deliveries if r.state == "failed"]
    assert (row.status, row.detail) == (0x0119, "told")


def test_a_late_report_proves_what_it_commits_and_fails_nothing(store: Store, lease: Lease) -> None:
    late = begin(store, lease)
    begin(store, lease, "2.25.901")
    assert not store.commitment_transactions.is_open(late)
    refused = said(UIDS[1], CommitmentVerdict.REFUSED, 0x0119)
    assert record(store, late, said(UIDS[0]), refused) is ReportOutcome.RECORDED
    assert states(store, lease) == ["committed", "sent"]


def test_an_answer_from_before_an_object_was_sent_again_proves_nothing(store: Store, lease: Lease) -> None:
    early = begin(store, lease)
    lost = first(store, lease)
    store.deliveries.send_again(lease, lost, "lost")
    (again,) = store.deliveries.pending(lease)
    store.deliveries.settle(lease, again, DeliveryState.SENT, status=0, detail="")
    record(store, early, *map(said, UIDS))
    assert states(store, lease) == ["sent", "committed"]


def test_a_report_wakes_the_job_that_waits_for_it(store: Store, lease: Lease) -> None:
    uid = begin(store, lease)
    assert store.jobs.await_deliveries(lease, "proof awaited", ["pacs"]) > 500
    assert store.jobs.due() == ()
    record(store, uid, *map(said, UIDS))
    assert [job.job_id for job in store.jobs.due()] == [lease.job_id]


def test_a_report_that_comes_before_the_job_waits_is_not_slept_through(store: Store, lease: Lease) -> None:
    record(store, begin(store, lease), *map(said, UIDS))
    assert store.jobs.await_deliveries(lease, "proof awaited", ["pacs"]) == 0.0
    assert [job.job_id for job in store.jobs.due()] == [lease.job_id]


def test_what_is_committed_meanwhile_is_not_put_off(store: Store, lease: Lease) -> None:
    stale = first(store, lease)
    record(store, begin(store, lease), *map(said, UIDS))
    store.deliveries.ask_later(lease, stale, "no connection", 600)
    store.deliveries.give_up_proof(lease, stale, "too long")
    assert states(store, lease) == ["committed", "committed"]
