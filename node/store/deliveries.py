"""The state of each object at each destination: sent, proven to be stored, or given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, select, update

from node.store.database import DatabaseRows, insert_unless_there, now_s
from node.store.errors import NoSuchStudy, NothingToResend
from node.store.jobs import (
    DueJob,
    Lease,
    MadeObject,
    enter_object,
    is_unproven,
    unsent_values,
    write_as_holder,
)
from node.store.schema import deliveries, jobs, objects, reports, studies, transaction_items, transactions
from node.store.states import (
    ARRIVED,
    NOTE_KIND,
    PROVEN,
    REPORT_KIND,
    DeliveryState,
    JobState,
    Proof,
    StudyState,
    TransactionState,
)

_SENT_BEFORE = (StudyState.DELIVERED, StudyState.SENT, StudyState.UNDELIVERED, StudyState.REPORTED)
_MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDelivery:
    """An object that a destination has not taken yet, or has not been shown to hold.

    Attributes
    ----------
    attempts : to send it.
    pending_for_s : since it was scheduled, or retried by a person.
    due_in_s : <= 0: now.
    sent_for_s : since the peer last answered that it stored the object.
    proof : how it will be proven, as far as that is known: a Proof, or "".
    asked : times that proof was asked for, since it was last sent.
    resent : times that it was sent again because the peer had lost it.
    unanswered : whether a storage commitment was asked for since it was last sent, and never answered.
    """

    sop_instance_uid: str
    sop_class_uid: str
    kind: str
    artefact: str
    destination: str
    attempts: int
    pending_for_s: float
    due_in_s: float
    sent_for_s: float | None
    proof: str
    asked: int
    resent: int
    unanswered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCount:
    """Number of objects of a generation with equal state, proof and status at one destination.

    Attributes
    ----------
    status : of the last answer.
    """

    destination: str
    state: DeliveryState
    proof: str
    status: int | None
    reason: (
        str  # this node's own words; "" where a peer's words stand beside its status: they may name a patient
    )
    objects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledReport:
    """A structured report that a destination gets."""

    sop_instance_uid: str
    sop_class_uid: str
    artefact: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededObject:
    """An object of an earlier generation."""

    generation: int
    sop_instance_uid: str
    sop_class_uid: str
    kind: str
    artefact: str


class Deliveries(DatabaseRows):
    """Deliveries of objects to destinations.

    Every write needs the lease of the objects' job. `CommitmentTransactions` records what peers report.
    """

    def schedule(
        self, lease: Lease, destinations: Sequence[str], sop_instance_uids: Sequence[str] | None = None
    ) -> None:
        """Add a delivery of each object to every destination, where there is none yet.

        Parameters
        ----------
        destinations : their names.
        sop_instance_uids : None for all objects of the generation.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            uids = sop_instance_uids
            if uids is None:
                uids = (
                    connection.execute(select(objects.c.sop_instance_uid).where(_of(lease))).scalars().all()
                )
            for uid in uids:
                for destination in destinations:
                    _schedule(connection, destination, uid)

    def add(self, lease: Lease, made: MadeObject) -> None:
        """Add an object that was made after the report step.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            enter_object(connection, lease, made)

    def replace(self, lease: Lease, destination: str, old_uid: str, new_uid: str) -> None:
        """Schedule one object in place of another, unless the destination has taken the other.

        Parameters
        ----------
        destination : its name.
        old_uid, new_uid : SOP Instance UIDs.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        not_taken = and_(
            deliveries.c.destination == destination,
            deliveries.c.sop_instance_uid == old_uid,
            deliveries.c.state.not_in(ARRIVED),
        )
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            if connection.execute(delete(deliveries).where(not_taken)).rowcount:
                _schedule(connection, destination, new_uid)

    def resend(self, study_instance_uid: str, *, last_step: str) -> DueJob:
        """Send the results of the latest generation to every destination again: the same bytes.

        Parameters
        ----------
        last_step : the delivery step, in which the job continues.

        Returns
        -------
        The job, due now.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        NothingToResend
            If its job has not finished, or its results were never sent.
        """
        of_study = studies.c.study_instance_uid == study_instance_uid
        with self._database.writing() as connection:
            study = connection.execute(select(studies.c.state, studies.c.generation).where(of_study)).first()
            if study is None:
                raise NoSuchStudy(study_instance_uid)
            mine = and_(
                jobs.c.study_instance_uid == study_instance_uid,
                jobs.c.generation == study.generation,
                jobs.c.step == last_step,
                jobs.c.state == JobState.FINISHED,
            )
            again = update(jobs).where(mine).values(
                state=JobState.WAITING,
                attempts=0,
                not_before=now_s(),
                token=jobs.c.token + 1,
                updated_at=now_s(),
            )  # fmt: skip
            job_id = connection.execute(again.returning(jobs.c.job_id)).scalar()
            if job_id is None or study.state not in _SENT_BEFORE:
                raise NothingToResend(study.state)
            uids = select(objects.c.sop_instance_uid).where(
                objects.c.study_instance_uid == study_instance_uid, objects.c.generation == study.generation
            )
            connection.execute(
                update(deliveries).where(deliveries.c.sop_instance_uid.in_(uids)).values(**unsent_values())
            )
            connection.execute(
                update(studies).where(of_study).values(state=StudyState.PROCESSING, reason="resend requested")
            )
        return DueJob(job_id=job_id, step=last_step, generation=study.generation)

    def report_at(self, lease: Lease, destination: str) -> ScheduledReport | None:
        """The generation's structured report as this destination gets it; None before it is scheduled."""
        wanted = (
            select(
                objects.c.sop_instance_uid,
                objects.c.sop_class_uid,
                objects.c.artefact,
                deliveries.c.state,
            )
            .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(_of(lease), objects.c.kind == REPORT_KIND, deliveries.c.destination == destination)
        )
        with self._database.reading() as connection:
            row = connection.execute(wanted).mappings().first()
        return None if row is None else ScheduledReport(**row)

    def predecessor_in(self, lease: Lease, sop_class_uid: str) -> str | None:
        """SOP Instance UID of the amended report in another SOP class.

        Parameters
        ----------
        sop_class_uid : that class.

        Returns
        -------
        None where no destination took the predecessor in that class.
        """
        predecessor = reports.alias()
        wanted = (
            select(objects.c.sop_instance_uid)
            .join(
                predecessor,
                and_(
                    predecessor.c.study_instance_uid == objects.c.study_instance_uid,
                    predecessor.c.generation == objects.c.generation,
                ),
            )
            .join(reports, reports.c.predecessor_uid == predecessor.c.sop_instance_uid)
            .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(
                reports.c.study_instance_uid == lease.study_instance_uid,
                reports.c.generation == lease.generation,
                objects.c.kind == REPORT_KIND,
                objects.c.sop_class_uid == sop_class_uid,
                deliveries.c.state.in_(ARRIVED),
            )
        )
        with self._database.reading() as connection:
            return connection.execute(wanted.limit(1)).scalar()

    def superseded_at(self, lease: Lease, destination: str) -> Sequence[SupersededObject]:
        """Objects of earlier generations that the destination took and no rejection note names yet.

        Parameters
        ----------
        destination : its name.

        Returns
        -------
        By generation, then by artefact; rejection notes are not among them.
        """
        here = (
            select(
                objects.c.generation,
                objects.c.sop_instance_uid,
                objects.c.sop_class_uid,
                objects.c.kind,
                objects.c.artefact,
            )
            .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(
                objects.c.study_instance_uid == lease.study_instance_uid,
                objects.c.generation < lease.generation,
                deliveries.c.destination == destination,
                deliveries.c.state.in_(ARRIVED),
            )
            .order_by(objects.c.generation, objects.c.artefact)
        )
        with self._database.reading() as connection:
            found = [SupersededObject(**row) for row in connection.execute(here).mappings()]
        # The note of a generation names what came before it.
        noted = max((one.generation for one in found if one.kind == NOTE_KIND), default=0)
        return tuple(one for one in found if one.kind != NOTE_KIND and one.generation >= noted)

    def pending(self, lease: Lease) -> Sequence[OpenDelivery]:
        """Objects of this generation that destinations have not taken yet, by destination and artefact."""
        return self._open(lease, deliveries.c.state == DeliveryState.PENDING)

    def unproven(self, lease: Lease) -> Sequence[OpenDelivery]:
        """Objects that destinations took but have not been proven to hold, by destination and artefact."""
        return self._open(lease, is_unproven())

    def settle(
        self,
        lease: Lease,
        delivery: OpenDelivery,
        state: DeliveryState,
        *,
        status: int | None,
        detail: str,
        retry_in_s: float = 0.0,
    ) -> None:
        """Record the result of one C-STORE.

        Parameters
        ----------
        state : SENT: taken, and unproven from now on; PENDING: to be tried again; FAILED: given up.
        status : of the C-STORE response; None where none came.
        detail : the reason; characters beyond 500 are cut off.
        retry_in_s : seconds until the next attempt, for PENDING.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        taken = state is DeliveryState.SENT
        values = {"sent_at": now_s(), "proof": "", "proven_at": None, "asked": 0} if taken else {}
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            connection.execute(
                update(deliveries)
                .where(_is(delivery))
                .values(
                    state=state,
                    attempts=delivery.attempts + 1,
                    not_before=now_s() + (0.0 if taken else retry_in_s),
                    status=status,
                    detail=detail[:_MAX_DETAIL_CHARACTERS],
                    updated_at=now_s(),
                    **values,
                )
            )

    def proven(self, lease: Lease, delivery: OpenDelivery, proof: Proof, detail: str) -> None:
        """Record that C-FIND found the object, or that no better proof than the C-STORE status is available.

        Parameters
        ----------
        proof : FIND makes the delivery FOUND; any other leaves it SENT.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        found = proof is Proof.FIND
        self._settle(
            lease,
            delivery,
            state=DeliveryState.FOUND if found else DeliveryState.SENT,
            proof=proof,
            proven_at=now_s() if found else None,
            detail=detail,
        )

    def ask_later(self, lease: Lease, delivery: OpenDelivery, detail: str, retry_in_s: float) -> None:
        """Record that this request for proof brought none.

        Parameters
        ----------
        retry_in_s : seconds until the next request.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        self._settle(
            lease,
            delivery,
            asked=delivery.asked + 1,
            not_before=now_s() + retry_in_s,
            detail=detail,
        )

    def send_again(self, lease: Lease, delivery: OpenDelivery, detail: str) -> None:
        """Make the delivery pending again: the destination does not hold the object that it took.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        self._settle(
            lease,
            delivery,
            state=DeliveryState.PENDING,
            resent=delivery.resent + 1,
            not_before=now_s(),
            detail=detail,
        )

    def give_up_proof(self, lease: Lease, delivery: OpenDelivery, detail: str) -> None:
        """Make the delivery a dead letter: the object was taken, and never proven to be stored.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        self._settle(lease, delivery, state=DeliveryState.FAILED, status=None, detail=detail)

    def has_proven(self, destination: str) -> bool:
        """Whether this destination ever proved that it holds an object."""
        wanted = select(deliveries.c.sop_instance_uid).where(
            deliveries.c.destination == destination, deliveries.c.state.in_(PROVEN)
        )
        with self._database.reading() as connection:
            return connection.execute(wanted.limit(1)).first() is not None

    def counts(self, lease: Lease) -> Sequence[DeliveryCount]:
        """Number of objects of the generation by destination, state, proof, status and reason."""
        reason = case((deliveries.c.status.is_(None), deliveries.c.detail), else_="").label("reason")
        alike = (
            deliveries.c.destination,
            deliveries.c.state,
            deliveries.c.proof,
            deliveries.c.status,
            reason,
        )
        counted = (
            select(*alike, func.count().label("objects"))
            .join(objects, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(_of(lease))
            .group_by(*alike)
            .order_by(*alike)
        )
        with self._database.reading() as connection:
            return tuple(
                DeliveryCount(
                    destination=row.destination,
                    state=DeliveryState(row.state),
                    proof=row.proof,
                    status=row.status,
                    reason=row.reason,
                    objects=row.objects,
                )
                for row in connection.execute(counted)
            )

    def _open(self, lease: Lease, condition: ColumnElement[bool]) -> Sequence[OpenDelivery]:
        wanted = (
            select(
                objects.c.sop_instance_uid,
                objects.c.sop_class_uid,
                objects.c.kind,
                objects.c.artefact,
                deliveries.c.destination,
                deliveries.c.attempts,
                (now_s() - deliveries.c.pending_since).label("pending_for_s"),
                (deliveries.c.not_before - now_s()).label("due_in_s"),
                (now_s() - deliveries.c.sent_at).label("sent_for_s"),
                deliveries.c.proof,
                deliveries.c.asked,
                deliveries.c.resent,
                _unanswered().label("unanswered"),
            )
            .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(_of(lease), condition)
            .order_by(deliveries.c.destination, objects.c.artefact)
        )
        with self._database.reading() as connection:
            return tuple(OpenDelivery(**row) for row in connection.execute(wanted).mappings())

    def _settle(self, lease: Lease, delivery: OpenDelivery, *, detail: str, **values: object) -> None:
        """Write to a delivery that is still unproven: what a peer reported meanwhile stays."""
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            connection.execute(
                update(deliveries)
                .where(_is(delivery), is_unproven())
                .values(detail=detail[:_MAX_DETAIL_CHARACTERS], updated_at=now_s(), **values)
            )


def _schedule(connection: Connection, destination: str, uid: str) -> None:
    insert_unless_there(
        connection,
        deliveries,
        {
            "sop_instance_uid": uid,
            "destination": destination,
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "pending_since": now_s(),
            "not_before": now_s(),
            "detail": "",
            "updated_at": now_s(),
        },
    )


def _of(lease: Lease) -> ColumnElement[bool]:
    return and_(
        objects.c.study_instance_uid == lease.study_instance_uid, objects.c.generation == lease.generation
    )


def _unanswered() -> ColumnElement[bool]:
    return (
        select(transactions.c.transaction_uid)
        .join(transaction_items, transaction_items.c.transaction_uid == transactions.c.transaction_uid)
        .where(
            transaction_items.c.sop_instance_uid == deliveries.c.sop_instance_uid,
            transactions.c.destination == deliveries.c.destination,
            transactions.c.requested_at >= deliveries.c.sent_at,
            transactions.c.state.in_((TransactionState.ASKED, TransactionState.UNANSWERED)),
        )
        .exists()
    )


def _is(delivery: OpenDelivery) -> ColumnElement[bool]:
    return and_(
        deliveries.c.sop_instance_uid == delivery.sop_instance_uid,
        deliveries.c.destination == delivery.destination,
    )
