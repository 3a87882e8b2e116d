"""Leases, fencing, completeness and generations."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from node.store.errors import LeaseLost, NothingToRetry
from node.store.files import ReceivedInstance
from node.store.instances import Receipt
from node.store.jobs import Declined, DueJob, Lease, MadeObject
from node.store.states import DeliveryState, StudyState
from node.store.store import Store
from tests.claiming import MEASURED_WITH
from tests.closing import close_due

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
Close = Callable[[Store], DueJob]

SR = "1.2.840.10008.5.1.4.1.1.88.34"


def _claim(store: Store, job: DueJob, owner: str = "worker", lease_s: float = 60.0) -> Lease | None:
    lease = store.jobs.claim(
        job_id=job.job_id,
        step=job.step,
        generation=job.generation,
        owner=owner,
        lease_s=lease_s,
        result_basis=MEASURED_WITH,
        begins=job.step == "select",
    )
    assert not isinstance(lease, Declined)
    return lease


def _held(store: Store, job: DueJob) -> Lease:
    lease = _claim(store, job)
    assert lease is not None
    return lease


def _made(uid: str = "2.25.1") -> MadeObject:
    return MadeObject(
        sop_instance_uid=uid, sop_class_uid=SR, kind="SR", artefact="report.dcm", is_report=True
    )


@pytest.fixture
def job(store: Store, make_instance: Make, close_study: Close) -> DueJob:
    store.instances.receive(make_instance())
    return close_study(store)


def test_of_many_claimants_one_wins(store: Store, job: DueJob) -> None:
    leases: list[Lease | None] = []
    start = threading.Barrier(6)

    def claim(owner: str) -> None:
        start.wait()
        leases.append(_claim(store, job, owner))

    threads = [threading.Thread(target=claim, args=(f"worker-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 6
    assert sum(lease is not None for lease in leases) == 1


def test_an_expired_lease_is_taken_over_and_the_old_holder_is_fenced_out(store: Store, job: DueJob) -> None:
    old = _claim(store, job, "first", lease_s=-1.0)
    new = _claim(store, job, "second")
    assert old is not None
    assert new is not None
    assert new.attempt == 2
    for write in (
        lambda: store.jobs.renew(old, 60.0),
        lambda: store.jobs.advance(old, "segment"),
        lambda: store.jobs.finish(old, StudyState.SENT, ""),
        lambda: store.jobs.retry_in(old, "late", 0.0),
        lambda: store.artefacts.put(old, "a.json", b"stale", {}),
        lambda: store.reports.issue(old),
    ):
        with pytest.raises(LeaseLost):
            write()
    store.artefacts.put(new, "a.json", b"fresh", {})
    assert store.artefacts.get(new.study_instance_uid, 1, "a.json") == b"fresh"


def test_a_lease_that_is_renewed_is_not_due(store: Store, job: DueJob) -> None:
    lease = _claim(store, job, lease_s=-1.0)
    assert lease is not None
    store.jobs.renew(lease, 60.0)
    assert store.jobs.due() == ()
    assert _claim(store, job) is None


def test_the_next_step_is_created_with_the_record_of_this_one(store: Store, job: DueJob) -> None:
    following = store.jobs.advance(_held(store, job), "segment")
    assert store.jobs.due() == (following,)
    assert following.step == "segment"
    assert _claim(store, job) is None  # the message for select is stale now
    assert _held(store, following).attempt == 1


def test_a_failed_attempt_waits_for_its_time_and_counts(store: Store, job: DueJob) -> None:
    store.jobs.retry_in(_held(store, job), "broken", 60.0)
    assert _claim(store, job) is None
    assert store.jobs.due() == ()
    shown = store.overview.list()[0]
    assert (shown.attempts, shown.last_error) == (1, "broken")


def test_a_planned_stop_does_not_count_as_an_attempt(store: Store, job: DueJob) -> None:
    stopped = _held(store, job)
    assert store.jobs.release_all("worker") == 1
    assert _held(store, job).attempt == 1
    with pytest.raises(LeaseLost):
        store.jobs.renew(stopped, 60.0)


def test_waiting_for_a_peer_does_not_count_as_an_attempt(store: Store, job: DueJob) -> None:
    assert store.jobs.await_deliveries(_held(store, job), "the PACS is away", ["pacs"]) == 0.0
    assert _held(store, job).attempt == 1


def test_a_study_is_not_whole_while_its_association_is_open(store: Store, make_instance: Make) -> None:
    association = store.associations.open(peer="127.0.0.1", calling_ae="PACS", called_ae="OSTEONODE")
    store.instances.receive(make_instance(association_id=association))
    whole = {"first_step": "select", "quiet_s": 0.0}
    assert close_due(store, **whole, stale_s=60.0) == ()
    store.associations.close(association)
    assert len(close_due(store, **whole, stale_s=60.0)) == 1


def test_an_association_without_a_heartbeat_does_not_hold_a_study_up(
    store: Store, make_instance: Make
) -> None:
    association = store.associations.open(peer="127.0.0.1", calling_ae="PACS", called_ae="OSTEONODE")
    store.instances.receive(make_instance(association_id=association))
    assert len(close_due(store, first_step="select", quiet_s=0.0, stale_s=0.0)) == 1


def test_an_open_association_of_another_study_does_not_hold_this_one_up(
    store: Store, make_instance: Make
) -> None:
    association = store.associations.open(peer="127.0.0.1", calling_ae="PACS", called_ae="OSTEONODE")
    store.instances.receive(make_instance(1))
    store.instances.receive(make_instance(2, study_instance_uid="1.2.3", association_id=association))
    assert len(close_due(store, first_step="select", quiet_s=0.0, stale_s=60.0)) == 1


def test_a_study_is_not_whole_before_the_quiet_time(store: Store, make_instance: Make) -> None:
    store.instances.receive(make_instance())
    assert close_due(store, first_step="select", quiet_s=60.0, stale_s=60.0) == ()


def test_objects_that_are_no_ct_never_close_or_reopen_a_study(
    store: Store, make_instance: Make, close_study: Close
) -> None:
    store.instances.receive(make_instance(1, sop_class_uid=SR))
    assert close_due(store, first_step="select", quiet_s=0.0, stale_s=60.0) == ()
    store.instances.receive(make_instance(2))
    close_study(store)
    store.instances.receive(make_instance(3, sop_class_uid=SR))
    store.instances.note_own(make_instance(4, sop_class_uid=SR))
    summary = store.overview.list()[0]
    assert (summary.state, summary.generation) == (StudyState.PROCESSING, 1)


def test_a_late_image_begins_the_next_generation_and_fences_the_running_step_out(
    store: Store, job: DueJob, make_instance: Make, close_study: Close
) -> None:
    lease = _held(store, job)
    store.instances.receive(make_instance(2))
    summary = store.overview.list()[0]
    assert (summary.state, summary.generation) == (StudyState.RECEIVING, 2)
    with pytest.raises(LeaseLost):
        store.jobs.advance(lease, "segment")
    again = close_study(store)
    assert (again.generation, again.step) == (2, "select")


def test_an_identical_image_sent_again_does_not_reopen(
    store: Store, job: DueJob, make_instance: Make
) -> None:
    assert store.instances.receive(make_instance()) is Receipt.ALREADY_HELD
    summary = store.overview.list()[0]
    assert (summary.state, summary.generation) == (StudyState.PROCESSING, 1)


def test_the_next_generation_waits_until_the_last_answer_is_out_and_names_it(
    store: Store, job: DueJob, make_instance: Make, close_study: Close
) -> None:
    lease = _held(store, job)
    first = store.reports.issue(lease)
    assert store.reports.issue(lease) == first
    assert first.predecessor_uid is None
    lease = _held(store, store.jobs.advance(lease, "deliver", (_made("2.25.1"),)))
    store.instances.receive(make_instance(2))
    assert close_due(store, first_step="select", quiet_s=0.0, stale_s=60.0) == ()

    store.deliveries.schedule(lease, ["pacs"])
    (delivery,) = store.deliveries.pending(lease)
    store.deliveries.settle(lease, delivery, DeliveryState.SENT, status=0, detail="")
    store.jobs.finish(lease, StudyState.SENT, "1 object sent")
    assert store.overview.list()[0].state == StudyState.RECEIVING  # the older end does not overwrite it

    second = store.reports.issue(_held(store, close_study(store)))
    assert second.predecessor_uid == "2.25.1"
    assert second.amendment_reason is not None


def test_an_answer_that_no_peer_took_is_no_predecessor(
    store: Store, job: DueJob, make_instance: Make, close_study: Close
) -> None:
    lease = _held(store, job)
    store.reports.issue(lease)
    lease = _held(store, store.jobs.advance(lease, "deliver", (_made(),)))
    store.deliveries.schedule(lease, ["pacs"])
    (delivery,) = store.deliveries.pending(lease)
    store.deliveries.settle(lease, delivery, DeliveryState.FAILED, status=0xA900, detail="")
    store.jobs.finish(lease, StudyState.UNDELIVERED, "")
    store.instances.receive(make_instance(2))
    assert store.reports.issue(_held(store, close_study(store))).predecessor_uid is None


def test_objects_that_were_made_are_known_as_own(store: Store, job: DueJob) -> None:
    assert not store.instances.is_own("2.25.1")
    store.jobs.advance(_held(store, job), "deliver", (_made("2.25.1"),))
    assert store.instances.is_own("2.25.1")


def test_a_repeated_report_step_forgets_objects_that_nobody_has_seen(store: Store, job: DueJob) -> None:
    following = store.jobs.advance(_held(store, job), "report")
    following = store.jobs.advance(_held(store, following), "report", (_made("2.25.1"),))
    store.jobs.advance(_held(store, following), "deliver", (_made("2.25.2"),))
    assert not store.instances.is_own("2.25.1")
    assert store.instances.is_own("2.25.2")


def test_a_retry_begins_the_step_that_was_set_aside_anew(store: Store, job: DueJob) -> None:
    following = store.jobs.advance(_held(store, job), "segment")
    store.jobs.set_aside(_held(store, following), "three failures")
    assert store.overview.list()[0].state == StudyState.SET_ASIDE
    assert store.jobs.due() == ()
    store.studies.retry(_held_study(store), first_step="select")
    assert store.jobs.due() == (following,)
    assert _held(store, following).attempt == 1


def test_a_retry_of_a_study_that_was_not_applicable_declares_it(store: Store, job: DueJob) -> None:
    store.jobs.finish(_held(store, job), StudyState.NOT_APPLICABLE, "no phantom")
    again = store.studies.retry(_held_study(store), first_step="select")
    assert again.step == "select"
    assert store.studies.is_declared_qct(_held_study(store))


def test_a_study_on_its_way_has_nothing_to_retry(store: Store, job: DueJob) -> None:
    with pytest.raises(NothingToRetry):
        store.studies.retry(_held_study(store), first_step="select")


def _held_study(store: Store) -> str:
    return store.overview.list()[0].study_instance_uid
