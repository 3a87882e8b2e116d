"""Delivery of every object to every destination, until each is proven to be stored there or given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from config.sections import Destination, WorkerSettings
from node.dicom.uids import transaction_uid
from node.pipeline.policy import choose_proof, delay_s, in_words
from node.pipeline.ports import Artefacts, FindResult, ProofSession, Prover, Sender, SendOutcome, SendResult
from node.pipeline.report_variants import RejectionNotes, ReportClasses
from node.store.deliveries import DeliveryCount, OpenDelivery
from node.store.jobs import Lease
from node.store.states import DeliveryState, Proof, StudyState
from node.store.store import Store
from node.study_report import EncodedObject

_NOT_WANTED = "its status alone: no more is asked of this destination"
_NOT_OFFERED = "its status alone: the destination offers neither storage commitment nor C-FIND"
_NOT_NOW = "the destination does not offer now what proves that it holds the object"
_MOST_RESENT = 1


class DeliveryProof:
    """Proof that one destination stores what it took, for the job of one lease.

    Storage commitment, else C-FIND, else the status of C-STORE alone.

    Raises
    ------
    LeaseLost
        By every method, if another worker took over.
    """

    def __init__(
        self,
        *,
        store: Store,
        lease: Lease,
        destination: Destination,
        prover: Prover,
        settings: WorkerSettings,
    ) -> None:
        self._store = store
        self._lease = lease
        self._destination = destination
        self._prover = prover
        self._settings = settings

    def prove(self, objects: Sequence[EncodedObject]) -> None:
        """Request proof for each delivery that is due; a commitment may be reported much later.

        Parameters
        ----------
        objects : as the destination gets them.
        """
        due = [
            one
            for one in self._store.deliveries.unproven(self._lease)
            if one.destination == self._destination.name and one.due_in_s <= 0
        ]
        if not due:
            return
        if self._destination.proof == "sent":
            for one in due:
                self._store.deliveries.proven(self._lease, one, Proof.STATUS, _NOT_WANTED)
            return
        contents = {one.sop_instance_uid: one for one in objects}
        with self._prover.session(self._destination) as session:
            if session.problem:
                self._postpone(due, session.problem)
            else:
                self._prove_by(session, session.offered, due, contents)

    def _prove_by(
        self,
        session: ProofSession,
        offered: frozenset[Proof],
        due: Sequence[OpenDelivery],
        contents: Mapping[str, EncodedObject],
    ) -> None:
        proved_before = self._store.deliveries.has_proven(self._destination.name)
        ways: dict[Proof | None, list[OpenDelivery]] = {}
        for one in due:
            way = choose_proof(
                self._destination.proof,
                offered,
                # In turn: a query that finds nothing, or fails, is followed by a request for commitment.
                unanswered=one.unanswered and one.asked % 2 == 1,
                proof=one.proof,
                proved_before=proved_before,
            )
            ways.setdefault(way, []).append(one)
        for one in ways.get(Proof.STATUS, []):
            self._store.deliveries.proven(self._lease, one, Proof.STATUS, _NOT_OFFERED)
        for one in ways.get(Proof.FIND, []):
            self._find(session, one, contents[one.sop_instance_uid])
        self._postpone(ways.get(None, []), _NOT_NOW)
        if asking := ways.get(Proof.COMMITMENT, []):
            self._commit(session, offered, asking, contents)

    def _commit(
        self,
        session: ProofSession,
        offered: frozenset[Proof],
        asking: Sequence[OpenDelivery],
        contents: Mapping[str, EncodedObject],
    ) -> None:
        uid = transaction_uid()
        self._store.commitment_transactions.begin(
            self._lease,
            transaction_uid=uid,
            destination=self._destination.name,
            asked=asking,
            patience_s=self._settings.commitment_patience_s,
        )
        answer = session.request_commitment(uid, [contents[one.sop_instance_uid] for one in asking])
        log.info(
            "commitment_asked",
            destination=self._destination.name,
            transaction_uid=uid,
            objects=len(asking),
            outcome=answer.outcome.value,
        )
        match answer.outcome:
            case SendOutcome.SENT:
                session.wait(
                    lambda: not self._store.commitment_transactions.is_open(uid),
                    self._settings.commitment_wait_s,
                )
                self._give_up_old(asking)
            case SendOutcome.TRANSIENT:  # the peer may have received it: the transaction stays open
                self._postpone(asking, answer.detail)
            case SendOutcome.PERMANENT:
                self._store.commitment_transactions.refuse(self._lease, uid)
                if self._destination.proof == "commitment":
                    self._postpone(asking, answer.detail)
                else:
                    self._prove_by(session, offered - {Proof.COMMITMENT}, asking, contents)

    def _find(self, session: ProofSession, one: OpenDelivery, content: EncodedObject) -> None:
        match session.find(content):
            case FindResult.FOUND:
                self._store.deliveries.proven(self._lease, one, Proof.FIND, "")
            case FindResult.ABSENT if self._is_lost(one):
                self._store.deliveries.send_again(self._lease, one, "not found by C-FIND: sent again")
            case FindResult.ABSENT:
                self._postpone([one], "not found by C-FIND")
            case FindResult.UNKNOWN:
                self._postpone([one], "C-FIND failed")

    def _is_lost(self, one: OpenDelivery) -> bool:
        """Whether an object that is not found has had time to be indexed; it is then sent again, once."""
        return one.resent < _MOST_RESENT and (one.sent_for_s or 0.0) >= self._settings.commitment_patience_s

    def _postpone(self, which: Sequence[OpenDelivery], detail: str) -> None:
        for one in which:
            if self._is_old(one):
                self._store.deliveries.give_up_proof(self._lease, one, f"taken, but not proven: {detail}")
            else:
                pause_s = delay_s(self._settings.send_backoff_s, one.asked + 1)
                self._store.deliveries.ask_later(self._lease, one, detail, pause_s)

    def _give_up_old(self, asking: Sequence[OpenDelivery]) -> None:
        """Give up proofs that were requested for too long; a later report is ignored."""
        for one in asking:
            if self._is_old(one):
                self._store.deliveries.give_up_proof(
                    self._lease, one, "taken, but storage commitment was never answered"
                )

    def _is_old(self, one: OpenDelivery) -> bool:
        return (one.sent_for_s or 0.0) >= self._settings.send_give_up_after_s


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Nothing is left to send or to prove.

    Attributes
    ----------
    state : the study's final state.
    reason : in words, for the operator.
    """

    state: StudyState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPending:
    """Some objects wait for their destination, or for proof that it stores them.

    Attributes
    ----------
    reason : in words, for the operator.
    """

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
) -> Delivered | DeliveryPending:
    """Send what is due, and request proof of what was accepted.

    An object that a destination has taken is sent again only if it turns out to be lost there.

    Parameters
    ----------
    lease : of the deliver step.
    objects : as the report step made them, in sending order.
    destinations : the configured ones; with none, results stay here and the study is reported.
    settings : pauses between attempts, and when to give up.

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
        DeliveryProof(
            store=store, lease=lease, destination=destination, prover=prover, settings=settings
        ).prove(mine)
    return _outcome(store, lease, {destination.name for destination in destinations})


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


def _outcome(store: Store, lease: Lease, destinations: set[str]) -> Delivered | DeliveryPending:
    standing = store.deliveries.counts(lease)
    # A destination that is no longer configured does not keep a study from being finished.
    configured = [one for one in standing if one.destination in destinations]
    if unsent := [one for one in configured if one.state is DeliveryState.PENDING]:
        return DeliveryPending(reason=f"to be sent: {_in_words(unsent)}")
    taken = [one for one in configured if one.state is DeliveryState.SENT]
    if unproven := [one for one in taken if one.proof != Proof.STATUS]:
        return DeliveryPending(reason=f"sent, proof awaited: {_in_words(unproven)}")
    if failed := [one for one in standing if one.state is DeliveryState.FAILED]:
        return Delivered(
            state=StudyState.UNDELIVERED,
            reason=f"not delivered: {_in_words(failed, why=True)}",
        )
    arrived = [one for one in standing if one.state is not DeliveryState.PENDING]
    proven = all(one.state is not DeliveryState.SENT for one in arrived)
    return Delivered(
        state=StudyState.DELIVERED if proven else StudyState.SENT,
        reason=", ".join(
            _in_words([one for one in arrived if one.state is state], how)
            for state, how in _HOW.items()
            if any(one.state is state for one in arrived)
        ),
    )


_HOW = {
    DeliveryState.COMMITTED: "committed by",
    DeliveryState.FOUND: "found by C-FIND at",
    DeliveryState.SENT: "answered by Success alone at",
}


def _in_words(rows: Sequence[DeliveryCount], how: str = "to", *, why: bool = False) -> str:
    """Number of objects for each destination, with the reason where `why` is set."""
    numbers: dict[str, int] = {}
    for row in rows:
        reason = row.reason if row.status is None else in_words(row.status)
        where = f"{row.destination} ({reason})" if why and reason else row.destination
        numbers[where] = numbers.get(where, 0) + row.objects
    return ", ".join(
        f"{number} object{'' if number == 1 else 's'} {how} {where}" for where, number in numbers.items()
    )
