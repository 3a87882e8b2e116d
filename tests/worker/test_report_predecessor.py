"""What an amended report names where its predecessor went out in another SR class, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from node.store.files import ReceivedInstance
from node.store.jobs import DueJob, Lease, MadeObject
from node.store.states import DeliveryState, StudyState
from node.store.store import Store
from tests.claiming import claim

FIRST_CLASS, LESSER_CLASS = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"
Make = Callable[..., ReceivedInstance]
Close = Callable[[Store], DueJob]


def made(uid: str, sop_class: str, *, is_report: bool) -> MadeObject:
    return MadeObject(
        sop_instance_uid=uid, sop_class_uid=sop_class, kind="SR", artefact=f"{uid}.dcm", is_report=is_report
    )


@pytest.fixture
def delivering(store: Store, make_instance: Make, close_study: Close) -> Lease:
    """A generation whose report of the first class gave way to a lesser one at "pacs"."""
    store.instances.receive(make_instance())
    held = claim(store, close_study(store))
    store.reports.issue(held)
    job = store.jobs.advance(held, "deliver", [made("2.25.1", FIRST_CLASS, is_report=True)])
    lease = claim(store, job)
    store.deliveries.schedule(lease, ["pacs"])
    store.deliveries.add(lease, made("2.25.2", LESSER_CLASS, is_report=False))
    store.deliveries.replace(lease, "pacs", "2.25.1", "2.25.2")
    return lease


def settle(store: Store, lease: Lease, state: DeliveryState) -> None:
    (delivery,) = store.deliveries.pending(lease)
    assert delivery.sop_instance_uid == "2.25.2"  # one report for a destination
    store.deliveries.settle(lease, delivery, state, status=0, detail="")


def amend(store: Store, lease: Lease, make_instance: Make, close_study: Close) -> Lease:
    store.jobs.finish(lease, StudyState.SENT, "")
    store.instances.receive(make_instance(2))
    return claim(store, close_study(store))


def test_a_predecessor_counts_in_whichever_class_it_arrived(
    store: Store, delivering: Lease, make_instance: Make, close_study: Close
) -> None:
    settle(store, delivering, DeliveryState.SENT)
    later = amend(store, delivering, make_instance, close_study)
    assert store.reports.issue(later).predecessor_uid == "2.25.1"
    assert store.deliveries.predecessor_in(later, LESSER_CLASS) == "2.25.2"
    assert store.deliveries.predecessor_in(later, "1.2.840.10008.5.1.4.1.1.88.22") is None


def test_a_report_that_never_arrived_in_any_class_is_no_predecessor(
    store: Store, delivering: Lease, make_instance: Make, close_study: Close
) -> None:
    settle(store, delivering, DeliveryState.FAILED)
    later = amend(store, delivering, make_instance, close_study)
    assert store.reports.issue(later).predecessor_uid is None
    assert store.deliveries.predecessor_in(later, LESSER_CLASS) is None


def test_a_report_that_was_taken_is_never_replaced(store: Store, delivering: Lease) -> None:
    settle(store, delivering, DeliveryState.SENT)
    store.deliveries.replace(delivering, "pacs", "2.25.2", "2.25.1")
    rows = store.overview.show(delivering.study_instance_uid).deliveries
    assert [(row.sop_instance_uid, row.state) for row in rows] == [("2.25.2", "sent")]
