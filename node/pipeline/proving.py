"""Proof that a destination holds what it took: storage commitment, else C-FIND, else its status alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from config.settings import Destination, WorkerSettings
from node.dicom.uids import transaction_uid
from node.pipeline.policy import delay_s, way_to_prove
from node.pipeline.ports import FindResult, ProofSession, Prover, SendOutcome
from node.report import EncodedObject
from node.store.deliveries import OpenDelivery
from node.store.jobs import Lease
from node.store.states import Proof
from node.store.store import Store

log = structlog.get_logger(__name__)

_NOT_WANTED = "its status alone: no more is asked of this destination"
_NOT_OFFERED = "its status alone: the destination offers neither storage commitment nor C-FIND"
_NOT_NOW = "the destination does not offer now what proves that it holds the object"
_MOST_RESENT = 1


class Proving:
    """Seeks proof of what one destination took, for the job of one lease.

    Raises
    ------
    LeaseLost
        Of every method, if another worker took over.
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
        """Seek proof of whatever is due. A commitment that is begun here may be answered much later."""
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
                self._put_off(due, session.problem)
            else:
                self._by(session, session.offered, due, contents)

    def _by(
        self,
        session: ProofSession,
        offered: frozenset[Proof],
        due: Sequence[OpenDelivery],
        contents: Mapping[str, EncodedObject],
    ) -> None:
        proved_before = self._store.deliveries.has_proven(self._destination.name)
        ways: dict[Proof | None, list[OpenDelivery]] = {}
        for one in due:
            way = way_to_prove(
                self._destination.proof,
                offered,
                # By turns: a query that finds nothing, or fails, is followed by another question.
                unanswered=one.unanswered and one.asked % 2 == 1,
                proof=one.proof,
                proved_before=proved_before,
            )
            ways.setdefault(way, []).append(one)
        for one in ways.get(Proof.STATUS, []):
            self._store.deliveries.proven(self._lease, one, Proof.STATUS, _NOT_OFFERED)
        for one in ways.get(Proof.FIND, []):
            self._find(session, one, contents[one.sop_instance_uid])
        self._put_off(ways.get(None, []), _NOT_NOW)
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
        answer = session.ask(uid, [contents[one.sop_instance_uid] for one in asking])
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
            case SendOutcome.TRANSIENT:  # it may have been heard nevertheless: the transaction stays open
                self._put_off(asking, answer.detail)
            case SendOutcome.PERMANENT:
                self._store.commitment_transactions.refuse(self._lease, uid)
                if self._destination.proof == "commitment":
                    self._put_off(asking, answer.detail)
                else:
                    self._by(session, offered - {Proof.COMMITMENT}, asking, contents)

    def _find(self, session: ProofSession, one: OpenDelivery, content: EncodedObject) -> None:
        match session.find(content):
            case FindResult.FOUND:
                self._store.deliveries.proven(self._lease, one, Proof.FIND, "")
            case FindResult.ABSENT if self._is_lost(one):
                self._store.deliveries.send_again(self._lease, one, "not found by C-FIND: sent again")
            case FindResult.ABSENT:
                self._put_off([one], "not found by C-FIND")
            case FindResult.UNKNOWN:
                self._put_off([one], "C-FIND failed")

    def _is_lost(self, one: OpenDelivery) -> bool:
        """Whether an object that is not found has had its time to be indexed, and is sent again for once."""
        return one.resent < _MOST_RESENT and (one.sent_for_s or 0.0) >= self._settings.commitment_patience_s

    def _put_off(self, which: Sequence[OpenDelivery], detail: str) -> None:
        for one in which:
            if self._is_old(one):
                self._store.deliveries.give_up_proof(self._lease, one, f"taken, but not proven: {detail}")
            else:
                pause_s = delay_s(self._settings.send_backoff_s, one.asked + 1)
                self._store.deliveries.ask_later(self._lease, one, detail, pause_s)

    def _give_up_old(self, asking: Sequence[OpenDelivery]) -> None:
        """What was asked for once more in vain. The report may still come, and then it counts no more."""
        for one in asking:
            if self._is_old(one):
                self._store.deliveries.give_up_proof(
                    self._lease, one, "taken, but storage commitment was never answered"
                )

    def _is_old(self, one: OpenDelivery) -> bool:
        return (one.sent_for_s or 0.0) >= self._settings.send_give_up_after_s
