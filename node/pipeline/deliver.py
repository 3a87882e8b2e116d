"""Deliver: every object to every destination, each with a state of its own, until it is shown to be there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from config.settings import Destination, WorkerSettings
from node.pipeline.dimse import in_words
from node.pipeline.policy import delay_s
from node.pipeline.ports import Artefacts, Prover, Sender, SendOutcome, SendResult
from node.pipeline.proving import Proving
from node.pipeline.rejecting import RejectionNotes
from node.pipeline.report_classes import ReportClasses
from node.report import EncodedObject
from node.store.deliveries import OpenDelivery, Standing
from node.store.jobs import Lease
from node.store.states import DeliveryState, Proof, StudyState
from node.store.store import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Nothing is left to send or to prove: the study's last state, and why."""

    state: StudyState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Some objects have to wait for their destination, or for what proves that it holds them."""

    reason: str


def deliver(
    *,
    store: Store,
    lease: Lease,
    artefacts: Artefacts,
    objects: Sequence[EncodedObject],
    destinations: Sequence[Destination],
    sender: Sender,
    prover: Prover,
    settings: WorkerSettings,
) -> Delivered | Waiting:
    """Send what is due, and seek proof of what was taken.

    An object that a destination has taken is not sent to it again, unless it turns out to be lost there.

    Raises
    ------
    LeaseLost
        If another worker took over; it is noticed before each C-STORE.
    """
    if not destinations:
        return Delivered(
            state=StudyState.REPORTED, reason="no destination is configured: results are kept here"
        )
    classes = ReportClasses(store=store, lease=lease, artefacts=artefacts, objects=objects)
    notes = RejectionNotes(store=store, lease=lease, artefacts=artefacts)
    for destination in destinations:
        mine = classes.objects_for(destination)
        mine = (*mine, *notes.note_for(destination, mine))  # last: what replaces comes before what rejects
        store.deliveries.schedule(lease, [destination.name], [one.sop_instance_uid for one in mine])
        due = [
            delivery
            for delivery in store.deliveries.pending(lease)
            if delivery.destination == destination.name and delivery.due_in_s <= 0
        ]
        _send(
            store=store,
            lease=lease,
            objects=mine,
            destination=destination,
            due=due,
            classes=classes,
            sender=sender,
            settings=settings,
        )
        Proving(store=store, lease=lease, destination=destination, prover=prover, settings=settings).prove(
            mine
        )
    return _standing(store, lease, {destination.name for destination in destinations})


def _send(
    *,
    store: Store,
    lease: Lease,
    objects: Sequence[EncodedObject],
    destination: Destination,
    due: Sequence[OpenDelivery],
    classes: ReportClasses,
    sender: Sender,
    settings: WorkerSettings,
) -> None:
    deliveries = {delivery.sop_instance_uid: delivery for delivery in due}
    wanted = [one for one in objects if one.sop_instance_uid in deliveries]
    if not wanted:
        return
    results = sender.send(
        destination,
        wanted,
        before_each=lambda: store.jobs.renew(lease, settings.lease_s),
        alternatives=classes.alternatives(destination, objects),
    )
    for result in results:
        delivery = deliveries[result.sop_instance_uid]
        if result.accepted_instead is not None:
            classes.replace(delivery, result.accepted_instead)
        else:
            _record(store, lease, delivery, result, settings)
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
    store: Store, lease: Lease, delivery: OpenDelivery, result: SendResult, settings: WorkerSettings
) -> None:
    too_long = delivery.pending_for_s >= settings.send_give_up_after_s
    if result.outcome is SendOutcome.SENT:
        state = DeliveryState.SENT
    elif result.outcome is SendOutcome.PERMANENT or too_long:
        state = DeliveryState.FAILED
    else:
        state = DeliveryState.PENDING
    store.deliveries.settle(
        lease,
        delivery,
        state,
        status=result.status,
        detail=result.detail,
        retry_in_s=delay_s(settings.send_backoff_s, delivery.attempts + 1),
    )


def _standing(store: Store, lease: Lease, destinations: set[str]) -> Delivered | Waiting:
    standing = store.deliveries.standing(lease)
    # A destination that is no longer configured does not keep a study from being finished.
    configured = [one for one in standing if one.destination in destinations]
    if unsent := [one for one in configured if one.state is DeliveryState.PENDING]:
        return Waiting(reason=f"to be sent: {_told(unsent)}")
    taken = [one for one in configured if one.state is DeliveryState.SENT]
    if unproven := [one for one in taken if one.proof != Proof.STATUS]:
        return Waiting(reason=f"sent, proof awaited: {_told(unproven)}")
    if failed := [one for one in standing if one.state is DeliveryState.FAILED]:
        return Delivered(
            state=StudyState.UNDELIVERED,
            reason=f"not delivered: {_told(failed, why=True)}",
        )
    arrived = [one for one in standing if one.state is not DeliveryState.PENDING]
    proven = all(one.state is not DeliveryState.SENT for one in arrived)
    return Delivered(
        state=StudyState.DELIVERED if proven else StudyState.SENT,
        reason=", ".join(
            _told([one for one in arrived if one.state is state], how)
            for state, how in _HOW.items()
            if any(one.state is state for one in arrived)
        ),
    )


_HOW = {
    DeliveryState.COMMITTED: "committed by",
    DeliveryState.FOUND: "found by C-FIND at",
    DeliveryState.SENT: "answered by Success alone at",
}


def _told(rows: Sequence[Standing], how: str = "to", *, why: bool = False) -> str:
    """How many objects, where, and why where that is asked for."""
    numbers: dict[str, int] = {}
    for row in rows:
        reason = row.reason if row.status is None else in_words(row.status)
        where = f"{row.destination} ({reason})" if why and reason else row.destination
        numbers[where] = numbers.get(where, 0) + row.objects
    return ", ".join(
        f"{number} object{'' if number == 1 else 's'} {how} {where}" for where, number in numbers.items()
    )
