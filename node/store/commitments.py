"""Storage commitment: what peers request of this node, and what this node requests of destinations.

A peer's request is judged, and its row written, before it is answered. The report is sent until the peer
takes it, over restarts, or until it is given up.

The row of a transaction with a destination stands before its N-ACTION is sent. So its report finds it
whenever it comes, on any association and in any process. A report changes only deliveries that are not proven
yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from node.store.database import Database, DatabaseRows, insert_unless_there, now_s
from node.store.deliveries import OpenDelivery
from node.store.errors import TransactionInUse
from node.store.files import FileStore
from node.store.jobs import Lease, is_unproven, wake_deliveries, write_as_holder
from node.store.schema import (
    artefacts,
    deliveries,
    instances,
    objects,
    promises,
    transaction_items,
    transactions,
)
from node.store.states import (
    CommitmentRequestState,
    CommitmentVerdict,
    DeliveryState,
    Proof,
    TransactionState,
)

_AT_ONCE = 500  # UIDs in one query
_MAX_DETAIL_CHARACTERS = 500

Reference = tuple[str, str]
"""SOP Class UID, SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """A peer's request for storage commitment, judged: what is to be reported to it.

    Attributes
    ----------
    conflicting : held, under another SOP class.
    attempts : to report.
    """

    request_id: int
    transaction_uid: str
    calling_ae: str
    held: tuple[Reference, ...]
    missing: tuple[Reference, ...]
    conflicting: tuple[Reference, ...]
    attempts: int
    age_s: float


class CommitmentRequests(DatabaseRows):
    """Requests for storage commitment from peers (table `promises`)."""

    def __init__(self, database: Database, files: FileStore) -> None:
        super().__init__(database)
        self._files = files

    def enter(
        self, *, transaction_uid: str, calling_ae: str, asked: Sequence[Reference], pause_s: float
    ) -> CommitmentRequest:
        """Judge which instances are held durably, and enter what is to be reported.

        A request that a peer repeats is judged and reported anew.

        Parameters
        ----------
        transaction_uid : the peer's.
        calling_ae : the peer.
        asked : the instances.
        pause_s : before the report is due on an association of this node's own.

        Raises
        ------
        TransactionInUse
            If this peer asked about other instances under this Transaction UID.
        """
        wanted = sorted(set(asked))
        self._keep_from_retention([uid for _, uid in wanted])
        judged = self._judge(wanted)
        sha256 = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
        key = and_(promises.c.transaction_uid == transaction_uid, promises.c.calling_ae == calling_ae)
        with self._database.writing() as connection:
            insert_unless_there(
                connection,
                promises,
                {
                    "transaction_uid": transaction_uid,
                    "calling_ae": calling_ae,
                    "asked_sha256": sha256,
                    "content": "",
                    "state": CommitmentRequestState.DUE,
                    "attempts": 0,
                    "not_before": now_s(),
                    "detail": "",
                    "created_at": now_s(),
                    "updated_at": now_s(),
                },
            )
            known = connection.execute(select(promises.c.asked_sha256).where(key)).scalar_one()
            if known != sha256:
                raise TransactionInUse(transaction_uid)
            row = connection.execute(
                update(promises)
                .where(key)
                .values(
                    content=json.dumps(judged),
                    state=CommitmentRequestState.DUE,
                    attempts=0,
                    not_before=now_s() + pause_s,
                    detail="",
                    updated_at=now_s(),
                )
                .returning(promises, (now_s() - promises.c.created_at).label("age_s"))
            ).one()
        return _request_of(row)

    def claim_due(self, hold_s: float, limit: int = 20) -> Sequence[CommitmentRequest]:
        """Requests whose report is due now, the longest due first.

        Parameters
        ----------
        hold_s : for so many seconds no other caller gets the same requests.
        limit : at most so many.
        """
        due = (
            select(promises.c.promise_id)
            .where(promises.c.state == CommitmentRequestState.DUE, promises.c.not_before <= now_s())
            .order_by(promises.c.not_before)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(due).scalars().all()
        return tuple(request for one in found if (request := self._claim(one, hold_s)) is not None)

    def mark_reported(self, request: CommitmentRequest) -> None:
        """Note that the peer took the report."""
        self._set(request, state=CommitmentRequestState.TOLD, detail="")

    def postpone(self, request: CommitmentRequest, detail: str, retry_in_s: float) -> None:
        """Note that the peer did not take the report; it is due again after `retry_in_s`."""
        self._set(request, attempts=request.attempts + 1, not_before=now_s() + retry_in_s, detail=detail)

    def give_up(self, request: CommitmentRequest, detail: str) -> None:
        """Stop reporting this request until the peer repeats it.

        Parameters
        ----------
        detail : the reason; characters beyond 500 are cut off.
        """
        self._set(request, state=CommitmentRequestState.UNTOLD, detail=detail)

    def _claim(self, request_id: int, hold_s: float) -> CommitmentRequest | None:
        claimed = (
            update(promises)
            .where(
                promises.c.promise_id == request_id,
                promises.c.state == CommitmentRequestState.DUE,
                promises.c.not_before <= now_s(),
            )
            .values(not_before=now_s() + hold_s, updated_at=now_s())
            .returning(promises, (now_s() - promises.c.created_at).label("age_s"))
        )
        with self._database.writing() as connection:
            row = connection.execute(claimed).first()
        return None if row is None else _request_of(row)

    def _set(self, request: CommitmentRequest, *, detail: str, **values: object) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(promises)
                .where(promises.c.promise_id == request.request_id)
                .values(detail=detail[:_MAX_DETAIL_CHARACTERS], updated_at=now_s(), **values)
            )

    def _keep_from_retention(self, uids: Sequence[str]) -> None:
        """Protect the instances from retention, before they are judged."""
        with self._database.writing() as connection:
            for start in range(0, len(uids), _AT_ONCE):
                part = uids[start : start + _AT_ONCE]
                connection.execute(
                    update(instances)
                    .where(instances.c.sop_instance_uid.in_(part), instances.c.purged_at.is_(None))
                    .values(promised_at=now_s())
                )
                connection.execute(
                    update(objects).where(objects.c.sop_instance_uid.in_(part)).values(promised_at=now_s())
                )

    def _judge(self, asked: Sequence[Reference]) -> Mapping[str, list[Reference]]:
        judged: dict[str, list[Reference]] = {"held": [], "missing": [], "conflicting": []}
        with self._database.reading() as connection:
            for start in range(0, len(asked), _AT_ONCE):
                part = asked[start : start + _AT_ONCE]
                kept = dict(self._kept(connection, [uid for _, uid in part]))
                for sop_class_uid, sop_instance_uid in part:
                    found = kept.get(sop_instance_uid)
                    fate = "missing" if found is None else "held" if found == sop_class_uid else "conflicting"
                    judged[fate].append((sop_class_uid, sop_instance_uid))
        return judged

    def _kept(self, connection: Connection, uids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """SOP Instance UID and SOP Class UID of instances whose bytes are on the disk."""
        received = select(instances.c.sop_instance_uid, instances.c.sop_class_uid, instances.c.path).where(
            instances.c.sop_instance_uid.in_(uids),
            instances.c.own.is_(False),
            instances.c.purged_at.is_(None),
        )
        made = (
            select(objects.c.sop_instance_uid, objects.c.sop_class_uid, artefacts.c.path)
            .join(
                artefacts,
                and_(
                    artefacts.c.study_instance_uid == objects.c.study_instance_uid,
                    artefacts.c.generation == objects.c.generation,
                    artefacts.c.name == objects.c.artefact,
                ),
            )
            .where(objects.c.sop_instance_uid.in_(uids))
        )
        for wanted in (received, made):
            for row in connection.execute(wanted):
                if row.path and self._files.holds(row.path):
                    yield row.sop_instance_uid, row.sop_class_uid


def _request_of(row: Row[Any]) -> CommitmentRequest:
    content = json.loads(row.content)
    return CommitmentRequest(
        request_id=row.promise_id,
        transaction_uid=row.transaction_uid,
        calling_ae=row.calling_ae,
        held=tuple((one, other) for one, other in content["held"]),
        missing=tuple((one, other) for one, other in content["missing"]),
        conflicting=tuple((one, other) for one, other in content["conflicting"]),
        attempts=row.attempts,
        age_s=row.age_s,
    )


# ---- what this node requests of destinations

# An object that the destination reports as missing is sent again once. After that a person must look.
_MOST_RESENT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedInstance:
    """One instance in a report of storage commitment.

    Attributes
    ----------
    reason : Failure Reason (0008,1197); None of what is committed.
    """

    sop_class_uid: str
    sop_instance_uid: str
    verdict: CommitmentVerdict
    reason: int | None
    detail: str


class ReportOutcome(StrEnum):
    """Result of recording a report."""

    RECORDED = "recorded"
    REPEATED = "repeated"  # the transaction was answered before; nothing changed
    UNKNOWN = "unknown"  # no such transaction was begun here


class CommitmentTransactions(DatabaseRows):
    """Requests for storage commitment to destinations (table `transactions`)."""

    def begin(
        self,
        lease: Lease,
        *,
        transaction_uid: str,
        destination: str,
        asked: Sequence[OpenDelivery],
        patience_s: float,
    ) -> None:
        """Enter a transaction before its request is sent. Earlier ones about its objects become unanswered.

        Parameters
        ----------
        lease : of the objects' job.
        asked : the objects' deliveries to this destination.
        patience_s : how long to wait for its report before proof is sought again.

        Raises
        ------
        LeaseLost
            If another worker took the job over.
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
        """Note that the destination refused the request.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            _close(connection, transaction_uid, TransactionState.REFUSED)

    def is_open(self, transaction_uid: str) -> bool:
        """Whether the report on a transaction is still to come."""
        wanted = select(transactions.c.state).where(transactions.c.transaction_uid == transaction_uid)
        with self._database.reading() as connection:
            return connection.execute(wanted).scalar() == TransactionState.ASKED

    def record(
        self, transaction_uid: str, reported: Sequence[ReportedInstance], *, ask_again_in_s: float
    ) -> ReportOutcome:
        """Record a destination's report, and make the jobs due that wait for it.

        Instances that the transaction did not ask for are ignored; so is the second report of a transaction.
        A late report, of a transaction that was repeated or refused meanwhile, still proves what it commits,
        but its failures no longer count. A report proves nothing of what was sent again after the request.

        Parameters
        ----------
        ask_again_in_s : before the next request, where the destination could not commit for now.

        Returns
        -------
        How the report was taken.
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
    """Unproven deliveries of the transaction that were sent before its request."""
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
    """New column values of a delivery. One that is refused for now still requires commitment."""
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
