"""Jobs: one row for each study and generation, held by one worker at a time.

Each claim increases the job's fencing token, and every write names the token of its claim. A worker whose
lease ran out gets `LeaseLost` and cannot overwrite the work of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from node.store.binding import (
    DECLINED_FOR_S,
    has_matching_worker,
    is_bound_to,
    is_free,
    may_be_tried_on,
    reason_to_decline,
)
from node.store.database import DatabaseRows, insert_unless_there, now_s
from node.store.errors import LeaseLost
from node.store.schema import deliveries, jobs, objects, reports, studies
from node.store.states import ARRIVED, DeliveryState, JobState, Proof, StudyState
from node.store.workers import ResultBasis

_MAX_ERROR_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on one step of a job.

    Attributes
    ----------
    attempt : 1 for the first try of this step.
    begun_again : why, where the first steps were done before.
    """

    job_id: int
    study_instance_uid: str
    generation: int
    step: str
    token: int
    owner: str
    attempt: int
    begun_again: str | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """A step that the claiming worker may not take, and another worker may."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DueJob:
    """A step that a worker should take now."""

    job_id: int
    step: str
    generation: int
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeObject:
    """A finished DICOM object, stored as an artefact.

    Attributes
    ----------
    is_report : the structured report, which a later one may name as its predecessor.
    """

    sop_instance_uid: str
    sop_class_uid: str
    kind: str
    artefact: str
    is_report: bool


class Jobs(DatabaseRows):
    """Jobs and their leases."""

    def claim(
        self,
        *,
        job_id: int,
        step: str,
        generation: int,
        owner: str,
        lease_s: float,
        result_basis: ResultBasis,
        begins: bool = False,
        host: str = "",
    ) -> Lease | Declined | None:
        """Take a job, if it is at this very step, is due, and nobody holds it.

        The claim counts as an attempt at once: the attempt of a worker that dies counts too. A worker that
        may not take the step leaves it to others for a few seconds, and the job's row says why it waits.

        Parameters
        ----------
        owner : identifies the worker.
        lease_s : seconds until the lease runs out unless it is renewed.
        result_basis : what this worker's results depend on.
        begins : whether this is the first step, which binds the job to the worker that takes it. Only workers
            with the same software and configuration may take the later steps.
        host : name of the worker's machine.

        Returns
        -------
        `Declined` where another worker may take the step; None where the step cannot be taken now.
        """
        at_this_step = and_(
            jobs.c.job_id == job_id, jobs.c.step == step, jobs.c.generation == generation, is_due()
        )
        may_take = may_be_tried_on(step, host)
        bound: dict[str, object] = {}
        if begins:
            bound = {
                "software": result_basis.software,
                "configuration_sha256": result_basis.configuration_sha256,
            }
        else:
            may_take = and_(is_bound_to(result_basis), may_take)
        taken = (
            update(jobs)
            .where(at_this_step, may_take)
            .values(
                state=JobState.RUNNING,
                attempts=jobs.c.attempts + 1,
                token=jobs.c.token + 1,
                lease_owner=owner,
                lease_until=now_s() + lease_s,
                updated_at=now_s(),
                **bound,
            )
            .returning(
                jobs.c.study_instance_uid,
                jobs.c.token,
                jobs.c.attempts,
                jobs.c.begun_again,
                jobs.c.urgent,
            )
        )
        with self._database.writing() as connection:
            row = connection.execute(taken).first()
            if row is None:
                return _decline(connection, at_this_step, result_basis, host)
        return Lease(
            job_id=job_id,
            study_instance_uid=row.study_instance_uid,
            generation=generation,
            step=step,
            token=row.token,
            owner=owner,
            attempt=row.attempts,
            begun_again=row.begun_again,
            urgent=row.urgent,
        )

    def renew(self, lease: Lease, lease_s: float) -> None:
        """Extend the lease.

        Parameters
        ----------
        lease_s : seconds from now.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(connection, lease, lease_until=now_s() + lease_s)

    def advance(
        self, lease: Lease, following: str, made: Sequence[MadeObject] = (), *, unbind: bool = False
    ) -> DueJob:
        """Record the step and its objects as done and make the next step due, in one transaction.

        Parameters
        ----------
        following : the next step.
        made : objects that this step made; with any, objects of earlier runs that no peer has are removed.
        unbind : whether any worker may take the next step, because it does not change a result.

        Returns
        -------
        The next step, due now.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        unbound = {"software": "", "configuration_sha256": ""} if unbind else {}
        with self._database.writing() as connection:
            write_as_holder(
                connection,
                lease,
                **_released(),
                **unbound,
                step=following,
                state=JobState.WAITING,
                attempts=0,
                not_before=now_s(),
                last_error="",
                avoids="",
            )
            if made:
                _replace_objects(connection, lease, made)
        return DueJob(job_id=lease.job_id, step=following, generation=lease.generation, urgent=lease.urgent)

    def finish(self, lease: Lease, state: StudyState, reason: str) -> None:
        """Finish the job, and set the study's state unless the study was reopened meanwhile.

        Parameters
        ----------
        reason : in words; characters beyond 2000 are cut off.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(
                connection, lease, **_released(), state=JobState.FINISHED, attempts=0, last_error=""
            )
            _set_study(connection, lease, state, reason)

    def retry_in(
        self, lease: Lease, error: str, delay_s: float, *, counted: bool = True, avoids: str = ""
    ) -> None:
        """Record that the attempt failed and when another may begin.

        Parameters
        ----------
        error : in words; characters beyond 2000 are cut off.
        delay_s : seconds until the next attempt.
        counted : whether this attempt counts against the step's limit.
        avoids : a host that takes the next attempt only if no other can; "" for none.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(
                connection,
                lease,
                **_released(),
                state=JobState.WAITING,
                attempts=lease.attempt if counted else lease.attempt - 1,
                not_before=now_s() + delay_s,
                last_error=error[:_MAX_ERROR_CHARACTERS],
                avoids=avoids,
            )

    def await_deliveries(self, lease: Lease, reason: str, destinations: Sequence[str]) -> float:
        """Wait as planned until a delivery to one of these destinations is due; no attempt is counted.

        The time is read under the lock of the job's row. A report of a peer that comes meanwhile is either
        seen here or wakes the job afterwards (`wake_deliveries`).

        Returns
        -------
        Seconds until then, 0 or more.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        earliest = (
            select(func.min(deliveries.c.not_before) - now_s())
            .join(objects, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(
                objects.c.study_instance_uid == lease.study_instance_uid,
                objects.c.generation == lease.generation,
                deliveries.c.destination.in_(destinations),
                or_(deliveries.c.state == DeliveryState.PENDING, is_unproven()),
            )
        )
        with self._database.writing() as connection:
            write_as_holder(connection, lease)
            delay_s = max(0.0, float(connection.execute(earliest).scalar() or 0.0))
            write_as_holder(
                connection,
                lease,
                **_released(),
                state=JobState.WAITING,
                attempts=lease.attempt - 1,
                not_before=now_s() + delay_s,
                last_error=reason[:_MAX_ERROR_CHARACTERS],
            )
        return delay_s

    def set_aside(self, lease: Lease, error: str) -> None:
        """Stop working on the job until an operator retries it.

        Parameters
        ----------
        error : in words; characters beyond 2000 are cut off.

        Raises
        ------
        LeaseLost
            If the caller no longer holds the job.
        """
        with self._database.writing() as connection:
            write_as_holder(
                connection,
                lease,
                **_released(),
                state=JobState.SET_ASIDE,
                last_error=error[:_MAX_ERROR_CHARACTERS],
            )
            _set_study(connection, lease, StudyState.SET_ASIDE, error)

    def release_all(self, owner: str) -> int:
        """Release all jobs of a worker that was stopped on purpose; the attempts do not count.

        Returns
        -------
        How many jobs it held.
        """
        held = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_owner == owner)
        with self._database.writing() as connection:
            return connection.execute(
                update(jobs)
                .where(held)
                .values(
                    **_released(),
                    state=JobState.WAITING,
                    attempts=jobs.c.attempts - 1,
                    token=jobs.c.token + 1,
                    updated_at=now_s(),
                )
            ).rowcount

    def due(self, most: int | None = None) -> Sequence[DueJob]:
        """Steps that wait for a worker now, in the order in which they should be taken.

        Within each step urgent jobs come first. Then the senders take turns, each with its oldest job: a
        sender with thousands of studies delays only its own. A job is left out while workers are present and
        none may take it.

        Parameters
        ----------
        most : at most so many of each step; None for all.
        """
        ranked = (
            select(
                jobs.c.job_id,
                jobs.c.step,
                jobs.c.generation,
                jobs.c.urgent,
                func.row_number()
                .over(
                    partition_by=(jobs.c.step, jobs.c.urgent, jobs.c.calling_ae),
                    order_by=jobs.c.job_id,
                )
                .label("turn"),
            )
            .where(is_due(), has_matching_worker())
            .subquery()
        )
        order = (ranked.c.urgent.desc(), ranked.c.turn, ranked.c.job_id)
        placed = select(
            ranked, func.row_number().over(partition_by=ranked.c.step, order_by=order).label("place")
        ).subquery()
        wanted = select(placed).order_by(placed.c.step, placed.c.place)
        if most is not None:
            wanted = wanted.where(placed.c.place <= most)
        with self._database.reading() as connection:
            return tuple(
                DueJob(job_id=row.job_id, step=row.step, generation=row.generation, urgent=row.urgent)
                for row in connection.execute(wanted)
            )


def write_as_holder(connection: Connection, lease: Lease, **values: object) -> None:
    """Write to the job's row under the lease's token.

    Parameters
    ----------
    values : by column of `jobs`.

    Raises
    ------
    LeaseLost
        If the token is no longer the current one. Nothing was written.
    """
    held = and_(jobs.c.job_id == lease.job_id, jobs.c.token == lease.token, jobs.c.state == JobState.RUNNING)
    if not connection.execute(update(jobs).where(held).values(updated_at=now_s(), **values)).rowcount:
        raise LeaseLost(lease.job_id, lease.token)


def is_unproven() -> ColumnElement[bool]:
    """SQL condition on `deliveries`: the peer took the object, and has not been proven to hold it."""
    return and_(deliveries.c.state == DeliveryState.SENT, deliveries.c.proof != Proof.STATUS)


def wake_deliveries(connection: Connection, sop_instance_uids: Sequence[str]) -> None:
    """Make the jobs due that wait for a report about these objects.

    Parameters
    ----------
    sop_instance_uids : of the objects.
    """
    mine = (
        select(objects.c.sop_instance_uid)
        .where(
            objects.c.sop_instance_uid.in_(sop_instance_uids),
            objects.c.study_instance_uid == jobs.c.study_instance_uid,
            objects.c.generation == jobs.c.generation,
        )
        .exists()
    )
    connection.execute(
        update(jobs)
        .where(jobs.c.state.in_((JobState.WAITING, JobState.RUNNING)), mine)
        .values(not_before=now_s(), updated_at=now_s())
    )


def is_due() -> ColumnElement[bool]:
    """SQL condition on `jobs`: a worker may take the job now, also one whose holder's lease has run out."""
    return and_(is_free(), jobs.c.not_before <= now_s())


def _decline(
    connection: Connection, at_this_step: ColumnElement[bool], result_basis: ResultBasis, host: str
) -> Declined | None:
    """Record why the claiming worker does not take the job; None where the job is no longer at this step."""
    job = connection.execute(
        select(jobs.c.job_id, jobs.c.software, jobs.c.configuration_sha256, jobs.c.avoids).where(at_this_step)
    ).first()
    if job is None:
        return None
    reason = reason_to_decline(
        ResultBasis(software=job.software, configuration_sha256=job.configuration_sha256),
        result_basis,
        host,
    )
    connection.execute(
        update(jobs)
        .where(at_this_step)
        .values(not_before=now_s() + DECLINED_FOR_S, last_error=reason, updated_at=now_s())
    )
    return Declined(reason=reason)


def _released() -> dict[str, object]:
    return {"lease_owner": None, "lease_until": None}


def _set_study(connection: Connection, lease: Lease, state: StudyState, reason: str) -> None:
    connection.execute(
        update(studies)
        .where(
            studies.c.study_instance_uid == lease.study_instance_uid,
            studies.c.generation == lease.generation,
        )
        .values(state=state, reason=reason[:_MAX_ERROR_CHARACTERS])
    )


def _replace_objects(connection: Connection, lease: Lease, made: Sequence[MadeObject]) -> None:
    """Add the objects of this generation; delete those of an earlier run of it that no peer received."""
    uids = [one.sop_instance_uid for one in made]
    arrived = (
        select(deliveries.c.sop_instance_uid)
        .where(deliveries.c.sop_instance_uid == objects.c.sop_instance_uid, deliveries.c.state.in_(ARRIVED))
        .exists()
    )
    obsolete = list(
        connection.execute(
            select(objects.c.sop_instance_uid).where(
                objects.c.study_instance_uid == lease.study_instance_uid,
                objects.c.generation == lease.generation,
                objects.c.sop_instance_uid.not_in(uids),
                ~arrived,
            )
        ).scalars()
    )
    connection.execute(delete(deliveries).where(deliveries.c.sop_instance_uid.in_(obsolete)))
    connection.execute(delete(objects).where(objects.c.sop_instance_uid.in_(obsolete)))
    for one in made:
        enter_object(connection, lease, one)
        if one.is_report:
            connection.execute(
                update(reports)
                .where(
                    reports.c.study_instance_uid == lease.study_instance_uid,
                    reports.c.generation == lease.generation,
                )
                .values(sop_instance_uid=one.sop_instance_uid)
            )


def enter_object(connection: Connection, lease: Lease, made: MadeObject) -> None:
    """Enter an object of the lease's generation, unless it is there."""
    insert_unless_there(
        connection,
        objects,
        {
            "sop_instance_uid": made.sop_instance_uid,
            "sop_class_uid": made.sop_class_uid,
            "kind": made.kind,
            "study_instance_uid": lease.study_instance_uid,
            "generation": lease.generation,
            "artefact": made.artefact,
        },
    )


def reset_failed_deliveries(connection: Connection, study_instance_uid: str, generation: int) -> None:
    """Make the dead letters of a study pending again, with a new time limit."""
    mine = select(objects.c.sop_instance_uid).where(
        objects.c.study_instance_uid == study_instance_uid, objects.c.generation == generation
    )
    connection.execute(
        update(deliveries)
        .where(deliveries.c.sop_instance_uid.in_(mine), deliveries.c.state == DeliveryState.FAILED)
        .values(**unsent_values())
    )


def unsent_values() -> dict[str, object]:
    """Column values that reset a row of `deliveries` so that its object is sent again."""
    return {
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "pending_since": now_s(),
        "not_before": now_s(),
        "updated_at": now_s(),
        "proof": "",
        "proven_at": None,
        "asked": 0,
        "resent": 0,
    }
