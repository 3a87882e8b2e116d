"""Storage commitment that this node asks of its destinations: what was asked, and what came of it.

The row of a transaction stands before its N-ACTION leaves, so that a report finds it whenever it comes, on
whichever association and in whichever process. A report changes only deliveries that are still unproven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from node.store.database import Database, insert_unless_there, now_s
from node.store.deliveries import OpenDelivery
from node.store.jobs import Lease, is_unproven, wake_deliveries, write_as_holder
from node.store.schema import deliveries, transaction_items, transactions
from node.store.states import CommitmentVerdict, DeliveryState, Proof, TransactionState

# A verdict that the object is missing has it sent again once; whoever loses it twice needs a person.
_MOST_RESENT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedInstance:
    """What a report of storage commitment says of one instance."""

    sop_class_uid: str
    sop_instance_uid: str
    verdict: CommitmentVerdict
    reason: int | None  # Failure Reason (0008,1197); None of what is committed
    detail: str


class ReportOutcome(StrEnum):
    """What became of a report."""

    RECORDED = "recorded"
    REPEATED = "repeated"  # the transaction was answered before; nothing changed
    UNKNOWN = "unknown"  # no such transaction was begun here


class CommitmentTransactions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self,
        lease: Lease,
        *,
        transaction_uid: str,
        destination: str,
        asked: Sequence[OpenDelivery],
        patience_s: float,
    ) -> None:
        """Enter a transaction before it is asked; earlier ones about the same objects count as unanswered.

        Parameters
        ----------
        patience_s : how long its report is waited for, before proof is sought again.

        Raises
        ------
        LeaseLost
        """
        uids = [one.sop_instance_uid for one in asked]
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            _close_earlier(connection, destination, uids)
            connection.execute(
                transactions.insert().values(
                    transaction_uid=transaction_uid,
                    destination=destination,
                    state=TransactionState.ASKED,
                    requested_at=now_s(),
                    updated_at=now_s(),
                )
            )
            for one in asked:
                insert_unless_there(
                    connection,
                    transaction_items,
                    {
                        "transaction_uid": transaction_uid,
                        "sop_instance_uid": one.sop_instance_uid,
                        "sop_class_uid": one.sop_class_uid,
                    },
                )
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.destination == destination,
                    deliveries.c.sop_instance_uid.in_(uids),
                    is_unproven(),
                )
                .values(
                    asked=deliveries.c.asked + 1,
                    not_before=now_s() + patience_s,
                    detail="storage commitment asked for",
                    updated_at=now_s(),
                )
            )

    def refuse(self, lease: Lease, transaction_uid: str) -> None:
        """The destination did not take the question. Raises LeaseLost."""
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            _close(connection, transaction_uid, TransactionState.REFUSED)

    def is_open(self, transaction_uid: str) -> bool:
        """Whether its report is still to come."""
        wanted = select(transactions.c.state).where(transactions.c.transaction_uid == transaction_uid)
        with self._database.reading() as connection:
            return connection.execute(wanted).scalar() == TransactionState.ASKED

    def record(
        self, transaction_uid: str, reported: Sequence[ReportedInstance], *, ask_again_in_s: float
    ) -> ReportOutcome:
        """Take a destination's report in, and have the jobs that wait for it go on.

        Instances that the transaction did not ask for are ignored, and so is the second report of a
        transaction. A late report, of a transaction that was asked anew or refused meanwhile, can still prove
        what it commits: its failures are out of date. What was sent again after the question is not proven by
        its answer.

        Parameters
        ----------
        ask_again_in_s : how soon, where the destination could not commit for now.
        """
        said = {(one.sop_class_uid, one.sop_instance_uid): one for one in reported}
        with self._database.writing() as connection:
            transaction = connection.execute(
                select(transactions).where(transactions.c.transaction_uid == transaction_uid)
            ).first()
            if transaction is None:
                return ReportOutcome.UNKNOWN
            if transaction.state == TransactionState.ANSWERED:
                return ReportOutcome.REPEATED
            in_time = transaction.state == TransactionState.ASKED
            # Jobs before deliveries, as every writer locks them.
            wake_deliveries(connection, _items_of(connection, transaction_uid))
            for row in _asked_of(connection, transaction):
                answer = said.get((row.sop_class_uid, row.sop_instance_uid))
                if answer is None or not (in_time or answer.verdict is CommitmentVerdict.COMMITTED):
                    continue
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.destination == transaction.destination,
                        deliveries.c.sop_instance_uid == row.sop_instance_uid,
                    )
                    .values(**_outcome(answer, row.resent, ask_again_in_s), updated_at=now_s())
                )
            _close(connection, transaction_uid, TransactionState.ANSWERED)
        return ReportOutcome.RECORDED


def _items_of(connection: Connection, transaction_uid: str) -> Sequence[str]:
    wanted = select(transaction_items.c.sop_instance_uid).where(
        transaction_items.c.transaction_uid == transaction_uid
    )
    return connection.execute(wanted).scalars().all()


def _asked_of(connection: Connection, transaction: Row[Any]) -> Sequence[Any]:
    """What the transaction asked for and is unproven still, as it was sent before the question."""
    wanted = (
        select(transaction_items.c.sop_class_uid, transaction_items.c.sop_instance_uid, deliveries.c.resent)
        .join(
            deliveries,
            and_(
                deliveries.c.sop_instance_uid == transaction_items.c.sop_instance_uid,
                deliveries.c.destination == transaction.destination,
            ),
        )
        .where(
            transaction_items.c.transaction_uid == transaction.transaction_uid,
            is_unproven(),
            deliveries.c.sent_at <= transaction.requested_at,
        )
    )
    return connection.execute(wanted).all()


def _outcome(answer: ReportedInstance, resent: int, ask_again_in_s: float) -> Mapping[str, object]:
    """What a delivery becomes. The proof of one that is refused for now stays the destination's to give."""
    match answer.verdict:
        case CommitmentVerdict.COMMITTED:
            return {
                "state": DeliveryState.COMMITTED,
                "proof": Proof.COMMITMENT,
                "proven_at": now_s(),
                "detail": "",
            }
        case CommitmentVerdict.MISSING if resent < _MOST_RESENT:
            change: dict[str, object] = {
                "state": DeliveryState.PENDING,
                "not_before": now_s(),
                "resent": resent + 1,
            }
        case CommitmentVerdict.TRANSIENT:
            change = {"proof": Proof.COMMITMENT, "not_before": now_s() + ask_again_in_s}
        case _:
            change = {"state": DeliveryState.FAILED}
    return {**change, "status": answer.reason, "detail": answer.detail}


def _close(connection: Connection, transaction_uid: str, state: TransactionState) -> None:
    connection.execute(
        update(transactions)
        .where(transactions.c.transaction_uid == transaction_uid)
        .values(state=state, updated_at=now_s())
    )


def _close_earlier(connection: Connection, destination: str, uids: Sequence[str]) -> None:
    earlier = select(transaction_items.c.transaction_uid).where(
        transaction_items.c.sop_instance_uid.in_(uids)
    )
    connection.execute(
        update(transactions)
        .where(
            transactions.c.destination == destination,
            transactions.c.state == TransactionState.ASKED,
            transactions.c.transaction_uid.in_(earlier),
        )
        .values(state=TransactionState.UNANSWERED, updated_at=now_s())
    )
