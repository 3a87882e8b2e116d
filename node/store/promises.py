"""Storage commitment that others ask of this node: what it holds, and whether they have been told.

A promise is judged and its row stands before the question is answered. It is told until the peer has taken
it, over restarts, or until it is given up.
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
from node.store.states import PromiseState

_AT_ONCE = 500  # UIDs in one query
_MAX_DETAIL_CHARACTERS = 500

Reference = tuple[str, str]
"""SOP Class UID, SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What is to be told to who asked."""

    promise_id: int
    transaction_uid: str
    calling_ae: str
    held: tuple[Reference, ...]
    missing: tuple[Reference, ...]
    conflicting: tuple[Reference, ...]  # held, under another SOP class
    attempts: int  # to tell it
    age_s: float


class Promises:
    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files

    def make(
        self, *, transaction_uid: str, calling_ae: str, asked: Sequence[Reference], pause_s: float
    ) -> Promise:
        """Judge which instances are held durably, and enter what is to be told.

        The same question again, from a peer that missed the answer, is judged and told again.

        Parameters
        ----------
        pause_s : before the promise is due to be told on an association of its own.

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
                    "state": PromiseState.DUE,
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
                    state=PromiseState.DUE,
                    attempts=0,
                    not_before=now_s() + pause_s,
                    detail="",
                    updated_at=now_s(),
                )
                .returning(promises, (now_s() - promises.c.created_at).label("age_s"))
            ).one()
        return _promise(row)

    def claim_due(self, hold_s: float, limit: int = 20) -> Sequence[Promise]:
        """What is to be told now, the longest due first; nobody else is given it for `hold_s`."""
        due = (
            select(promises.c.promise_id)
            .where(promises.c.state == PromiseState.DUE, promises.c.not_before <= now_s())
            .order_by(promises.c.not_before)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(due).scalars().all()
        return tuple(promise for one in found if (promise := self._claim(one, hold_s)) is not None)

    def told(self, promise: Promise) -> None:
        """The peer has taken the report."""
        self._set(promise, state=PromiseState.TOLD, detail="")

    def put_off(self, promise: Promise, detail: str, retry_in_s: float) -> None:
        """The peer did not take it; another try may begin after `retry_in_s`."""
        self._set(promise, attempts=promise.attempts + 1, not_before=now_s() + retry_in_s, detail=detail)

    def give_up(self, promise: Promise, detail: str) -> None:
        """The peer will not be told, unless it asks again."""
        self._set(promise, state=PromiseState.UNTOLD, detail=detail)

    def _claim(self, promise_id: int, hold_s: float) -> Promise | None:
        claimed = (
            update(promises)
            .where(
                promises.c.promise_id == promise_id,
                promises.c.state == PromiseState.DUE,
                promises.c.not_before <= now_s(),
            )
            .values(not_before=now_s() + hold_s, updated_at=now_s())
            .returning(promises, (now_s() - promises.c.created_at).label("age_s"))
        )
        with self._database.writing() as connection:
            row = connection.execute(claimed).first()
        return None if row is None else _promise(row)

    def _set(self, promise: Promise, *, detail: str, **values: object) -> None:
        with self._database.writing() as connection:
            connection.execute(
                update(promises)
                .where(promises.c.promise_id == promise.promise_id)
                .values(detail=detail[:_MAX_DETAIL_CHARACTERS], updated_at=now_s(), **values)
            )

    def _keep_from_retention(self, uids: Sequence[str]) -> None:
        """Before it is judged: what is removed in between would be promised and gone."""
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


def _promise(row: Row[Any]) -> Promise:
    content = json.loads(row.content)
    return Promise(
        promise_id=row.promise_id,
        transaction_uid=row.transaction_uid,
        calling_ae=row.calling_ae,
        held=tuple((one, other) for one, other in content["held"]),
        missing=tuple((one, other) for one, other in content["missing"]),
        conflicting=tuple((one, other) for one, other in content["conflicting"]),
        attempts=row.attempts,
        age_s=row.age_s,
    )
