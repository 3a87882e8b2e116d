"""Which worker may take which step: all steps of a job need the same software and configuration.

The first step binds a job. Where no worker is left that it is bound to, as after an upgrade, it begins again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, literal, or_, select, tuple_, update

from node.store.database import Database, DatabaseRows, now_s
from node.store.files import FileStore
from node.store.schema import artefacts, jobs, workers
from node.store.states import JobState
from node.store.workers import ResultBasis, is_present

DECLINED_FOR_S = 5.0  # by a worker that may not take a step: longer than its message takes to come again
_AT_ONCE = 200  # jobs that begin again in one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunAgain:
    """A job that was taken back to its first step.

    Attributes
    ----------
    step : where it stood.
    """

    job_id: int
    step: str
    reason: str


class Bindings(DatabaseRows):
    """Restart of jobs that no present worker may continue."""

    def __init__(self, database: Database, files: FileStore) -> None:
        super().__init__(database)
        self._files = files

    def restart_stranded(self, *, first_step: str, after_s: float) -> Sequence[BegunAgain]:
        """Take jobs that no worker can continue back to their first step, and remove their artefacts.

        Parameters
        ----------
        first_step : the step that such a job starts again with.
        after_s : seconds. A job starts again only if other workers have been present for that long and none
            that the job is bound to was heard of in that time: while a node starts, all workers are absent.

        Returns
        -------
        The jobs that started again, 200 at most; empty where there is none.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used, or a file cannot be removed.
        """
        equal = and_(
            workers.c.software == jobs.c.software,
            workers.c.configuration_sha256 == jobs.c.configuration_sha256,
        )
        heard = func.coalesce(workers.c.ended_at, workers.c.heartbeat_at)
        lived = select(literal(1)).where(equal, heard > now_s() - after_s).exists()
        others = select(literal(1)).where(is_present(), workers.c.started_at < now_s() - after_s).exists()
        stranded = (
            select(
                jobs.c.job_id,
                jobs.c.study_instance_uid,
                jobs.c.generation,
                jobs.c.step,
                jobs.c.software,
                jobs.c.configuration_sha256,
            )
            .where(is_free(), jobs.c.software != "", jobs.c.step != first_step, ~lived, others)
            .limit(_AT_ONCE)
        )
        with self._database.reading() as connection:
            if connection.execute(stranded.limit(1)).first() is None:
                return ()
        begun: list[BegunAgain] = []
        with self._database.writing() as connection:
            found = connection.execute(stranded).all()
            if not found:
                return ()
            of_them = tuple_(artefacts.c.study_instance_uid, artefacts.c.generation).in_(
                [(job.study_instance_uid, job.generation) for job in found]
            )
            paths = connection.execute(delete(artefacts).where(of_them).returning(artefacts.c.path)).scalars()
            made = list(paths)
            for job in found:
                reason = (
                    f"begun again at {first_step}: what came before {job.step} had been done with "
                    f"{_in_words(job.software, job.configuration_sha256)}, which no worker had any more"
                )
                connection.execute(
                    update(jobs)
                    .where(jobs.c.job_id == job.job_id)
                    .values(
                        step=first_step,
                        state=JobState.WAITING,
                        attempts=0,
                        not_before=now_s(),
                        token=jobs.c.token + 1,
                        lease_owner=None,
                        lease_until=None,
                        software="",
                        configuration_sha256="",
                        avoids="",
                        last_error="",
                        begun_again=reason,
                        updated_at=now_s(),
                    )
                )
                begun.append(BegunAgain(job_id=job.job_id, step=job.step, reason=reason))
        for path in made:
            self._files.remove(path)
        return tuple(begun)


def is_free() -> ColumnElement[bool]:
    """SQL condition on `jobs`: waiting, or running under a lease that has run out."""
    return or_(
        jobs.c.state == JobState.WAITING,
        and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now_s()),
    )


def is_bound_to(result_basis: ResultBasis) -> ColumnElement[bool]:
    """SQL condition on `jobs`: the job is unbound, or bound to this software and configuration.

    Parameters
    ----------
    result_basis : of the worker that wants the job.
    """
    return or_(
        jobs.c.software == "",
        and_(
            jobs.c.software == result_basis.software,
            jobs.c.configuration_sha256 == result_basis.configuration_sha256,
        ),
    )


def may_be_tried_on(step: str, host: str) -> ColumnElement[bool]:
    """SQL condition on `jobs`: the last attempt on this host lacked nothing, or no other host can try.

    Parameters
    ----------
    step : name of the step, which is the queue's name too.
    host : name of the worker's machine.
    """
    takes_step = ("," + workers.c.queues + ",").like(f"%,{step},%")
    equal = or_(
        jobs.c.software == "",
        and_(
            workers.c.software == jobs.c.software,
            workers.c.configuration_sha256 == jobs.c.configuration_sha256,
        ),
    )
    another = select(literal(1)).where(is_present(), workers.c.host != host, takes_step, equal).exists()
    return or_(jobs.c.avoids == "", jobs.c.avoids != host, ~another)


def has_matching_worker() -> ColumnElement[bool]:
    """SQL condition on `jobs`: a present worker may continue the job, or no worker is present."""
    equal = and_(
        workers.c.software == jobs.c.software,
        workers.c.configuration_sha256 == jobs.c.configuration_sha256,
    )
    return or_(
        jobs.c.software == "",
        select(literal(1)).where(is_present(), equal).exists(),
        ~select(literal(1)).where(is_present()).exists(),
    )


def reason_to_decline(bound_to: ResultBasis, result_basis: ResultBasis, host: str) -> str:
    """Reason why a worker does not take a step, for the operator.

    Parameters
    ----------
    bound_to : of the job; empty fields where it is unbound.
    result_basis, host : of the worker.

    Returns
    -------
    One sentence without a full stop.
    """
    if bound_to.software in ("", result_basis.software) and bound_to.configuration_sha256 in (
        "",
        result_basis.configuration_sha256,
    ):
        return f"waits for a worker on another machine than {host}, which lacked what the step needs"
    wanted = _in_words(bound_to.software, bound_to.configuration_sha256)
    has = _in_words(result_basis.software, result_basis.configuration_sha256)
    return f"waits for a worker with {wanted}, as its first step had; a worker on {host} has {has}"


def _in_words(software: str, configuration_sha256: str) -> str:
    configuration = (
        f"configuration {configuration_sha256[:8]}" if configuration_sha256 else "no configuration"
    )
    return f"software {software}, {configuration}"
