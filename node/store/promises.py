"""Storage commitment that others ask of this node: what it holds, and whether they have been told.

A request is judged, and its row written, before it is answered. The report is sent until the peer takes it,
over restarts, or until it is given up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from node.store.database import Database, insert_unless_there, now_s
from node.store.errors import TransactionInUse
from node.store.files import FileStore
from node.store.schema import artefacts, instances, objects, promises
from node.store.states import CommitmentRequestState

_AT_ONCE = 500  # UIDs in one query
_MAX_DETAIL_CHARACTERS = 500

Reference = tuple[str, str]
"""SOP Class UID, SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """A peer's request for storage commitment, judged: what is to be reported to it."""

    request_id: int
    transaction_uid: str
    calling_ae: str
    held: tuple[Reference, ...]
    missing: tuple[Reference, ...]
    conflicting: tuple[Reference, ...]  # held, under another SOP class
    attempts: int  # to report
    age_s: float


class CommitmentRequests:
    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files

    def enter(
        self, *, transaction_uid: str, calling_ae: str, asked: Sequence[Reference], pause_s: float
    ) -> CommitmentRequest:
        """Judge which instances are held durably, and enter what is to be reported.

        A request that a peer repeats is judged and reported anew.

        Parameters
        ----------
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
        """What is to be reported now, the longest due first; no other caller gets it for `hold_s` seconds."""
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
        """The peer has taken the report."""
        self._set(request, state=CommitmentRequestState.TOLD, detail="")

    def put_off(self, request: CommitmentRequest, detail: str, retry_in_s: float) -> None:
        """The peer did not take it; another try may begin after `retry_in_s`."""
        self._set(request, attempts=request.attempts + 1, not_before=now_s() + retry_in_s, detail=detail)

    def give_up(self, request: CommitmentRequest, detail: str) -> None:
        """The peer will not be told, unless it asks again."""
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
        """Before it is judged: what retention removes in between would be committed to and gone."""
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
