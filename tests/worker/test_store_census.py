"""Counts for the operator's page and for metrics, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from node.store.errors import StoreUnavailable
from node.store.files import ReceivedInstance
from node.store.jobs import DueJob, Lease, MadeObject
from node.store.states import DeliveryState, JobState, StudyState
from node.store.store import Store
from tests.claiming import claim

Make = Callable[..., ReceivedInstance]
Close = Callable[[Store], DueJob]

SR = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def lease(store: Store, make_instance: Make, close_study: Close) -> Lease:
    """A study in work, with two objects made."""
    store.instances.receive(make_instance())
    job = close_study(store)
    held = claim(store, job)
    made = [
        MadeObject(sop_instance_uid=uid, sop_class_uid=SR, kind="SR", artefact="report.dcm", is_report=True)
        for uid in ("2.25.1", "2.25.2")
    ]
    return claim(store, store.jobs.advance(held, "deliver", made))


def test_an_empty_store_counts_nothing_in_every_state(store: Store) -> None:
    found = store.census.take()
    assert found.studies == dict.fromkeys(StudyState, 0)
    assert (found.jobs, found.deliveries, set(found.quarantined.values()), found.oldest_due_s) == (
        {},
        {},
        {0},
        0.0,
    )
    assert store.census.destinations() == ()


def test_work_that_is_due_has_an_age_and_work_that_must_wait_has_none(
    store: Store, make_instance: Make, close_study: Close
) -> None:
    store.instances.receive(make_instance())
    job = close_study(store)
    found = store.census.take()
    assert found.studies[StudyState.PROCESSING] == 1
    assert found.jobs == {("select", JobState.WAITING): 1}
    assert 0 <= found.oldest_due_s < 60

    held = claim(store, job)
    store.jobs.retry_in(held, "the disk was busy", 3600)
    assert store.census.take().oldest_due_s == 0.0


def test_a_destination_stands_where_its_last_attempt_left_it(store: Store, lease: Lease) -> None:
    store.deliveries.schedule(lease, ["archive", "pacs"])
    by_destination = {(one.destination, one.sop_instance_uid): one for one in store.deliveries.pending(lease)}
    refused, taken = by_destination["pacs", "2.25.1"], by_destination["pacs", "2.25.2"]
    store.deliveries.settle(lease, taken, DeliveryState.SENT, status=0x0000, detail="")
    store.deliveries.settle(lease, refused, DeliveryState.FAILED, status=0xA900, detail="not mine")

    archive, pacs = store.census.destinations()
    assert (archive.name, archive.pending, archive.last_state, archive.last_at) == ("archive", 2, None, None)
    assert (pacs.name, pacs.arrived, pacs.pending, pacs.failed) == ("pacs", 1, 0, 1)
    assert (pacs.last_state, pacs.last_status, pacs.last_detail) == (DeliveryState.FAILED, 0xA900, "not mine")
    assert pacs.last_at is not None
    assert store.census.take().deliveries == {
        ("archive", DeliveryState.PENDING): 2,
        ("pacs", DeliveryState.SENT): 1,
        ("pacs", DeliveryState.FAILED): 1,
    }


def test_an_unlinked_sqlite_file_is_no_database(sqlite_store: Store) -> None:
    sqlite_store.census.answers()
    (sqlite_store.files.root / "osteonode.sqlite3").unlink()
    with pytest.raises(StoreUnavailable, match="gone"):
        sqlite_store.census.answers()


def test_the_latest_studies_come_first_and_no_more_than_wanted(
    sqlite_store: Store, make_instance: Make
) -> None:
    for number in range(3):
        sqlite_store.instances.receive(
            make_instance(number, study_instance_uid=f"2.25.{number}", sop_instance_uid=f"2.25.9.{number}")
        )
    assert [one.study_instance_uid for one in sqlite_store.overview.list(limit=2)] == ["2.25.2", "2.25.1"]
