"""Deliver: every object to every destination, each with a state of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from config.settings import Destination, WorkerSettings
from node.pipeline.policy import delay_s
from node.pipeline.ports import Sender, SendOutcome, SendResult
from node.report import EncodedObject
from node.store.jobs import Lease
from node.store.reports import PendingDelivery
from node.store.states import DeliveryState, StudyState
from node.store.store import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Nothing is left to send: the study's last state, and why."""

    state: StudyState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Some objects have to wait for their destination."""

    reason: str
    delay_s: float


def deliver(
    *,
    store: Store,
    lease: Lease,
    objects: Sequence[EncodedObject],
    destinations: Sequence[Destination],
    sender: Sender,
    settings: WorkerSettings,
) -> Delivered | Waiting:
    """Send what is due. An object that a destination has taken is never sent to it again.

    Raises
    ------
    LeaseLost
        If another worker took over; it is noticed before each C-STORE.
    """
    if not destinations:
        return Delivered(
            state=StudyState.REPORTED, reason="no destination is configured: results are kept here"
        )
    store.reports.schedule(lease, [destination.name for destination in destinations])
    for destination in destinations:
        due = [
            delivery
            for delivery in store.reports.pending(lease)
            if delivery.destination == destination.name and delivery.due_in_s <= 0
        ]
        _send(
            store=store,
            lease=lease,
            objects=objects,
            destination=destination,
            due=due,
            sender=sender,
            settings=settings,
        )
    return _standing(store, lease, {destination.name for destination in destinations})


def _send(
    *,
    store: Store,
    lease: Lease,
    objects: Sequence[EncodedObject],
    destination: Destination,
    due: Sequence[PendingDelivery],
    sender: Sender,
    settings: WorkerSettings,
) -> None:
    deliveries = {delivery.sop_instance_uid: delivery for delivery in due}
    wanted = [one for one in objects if one.sop_instance_uid in deliveries]
    if not wanted:
        return
    results = sender.send(destination, wanted, before_each=lambda: store.jobs.renew(lease, settings.lease_s))
    for result in results:
        _record(store, lease, deliveries[result.sop_instance_uid], result, settings)
        log.info(
            "object_sent" if result.outcome is SendOutcome.SENT else "object_not_sent",
            destination=destination.name,
            sop_instance_uid=result.sop_instance_uid,
            outcome=result.outcome.value,
            status=None if result.status is None else f"0x{result.status:04X}",
            # A peer's own words (its Error Comment) stay in the database: they may name a patient.
            detail=result.detail if result.status is None else "",
        )


def _record(
    store: Store, lease: Lease, delivery: PendingDelivery, result: SendResult, settings: WorkerSettings
) -> None:
    too_long = delivery.pending_for_s >= settings.send_give_up_after_s
    if result.outcome is SendOutcome.SENT:
        state = DeliveryState.SENT
    elif result.outcome is SendOutcome.PERMANENT or too_long:
        state = DeliveryState.FAILED
    else:
        state = DeliveryState.PENDING
    store.reports.settle(
        lease,
        delivery,
        state,
        status=result.status,
        detail=result.detail,
        retry_in_s=delay_s(settings.send_backoff_s, delivery.attempts + 1),
    )


def _standing(store: Store, lease: Lease, destinations: set[str]) -> Delivered | Waiting:
    # A destination that is no longer configured does not keep a study from being finished.
    pending = [one for one in store.reports.pending(lease) if one.destination in destinations]
    if pending:
        return Waiting(
            reason=f"{len(pending)} object(s) wait for their destination",
            delay_s=max(0.0, min(one.due_in_s for one in pending)),
        )
    tally = store.reports.tally(lease)
    if tally.failed:
        return Delivered(
            state=StudyState.UNDELIVERED,
            reason=f"{tally.failed} object(s) could not be delivered; `osteonode studies retry` tries again",
        )
    return Delivered(state=StudyState.SENT, reason=f"{tally.arrived} object(s) sent")
