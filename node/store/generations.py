"""A study that is begun again: its next generation, and why."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select, update

from node.store.database import first, insert_unless_there, now_s
from node.store.prepared import Prepared
from node.store.schema import generations, instances, jobs, objects, studies
from node.store.states import UNFINISHED, JobState, Reopening, StudyState

_GREW = Prepared(
    lambda _dialect: (
        update(studies)
        .where(studies.c.study_instance_uid == bindparam("uid"))
        .values(last_received_at=now_s())
        .returning(studies.c.state, studies.c.generation)
    )
)


def note_growth(connection: Connection, study_instance_uid: str, reason: Reopening) -> None:
    """Restart the quiet time; reopen a closed study as its next generation.

    A job that has no answer yet is superseded. One whose objects are made keeps going until its delivery has
    settled, for the PACS may hold half of them; the next generation waits for it (see `Studies.close`).
    """
    study = first(connection, _GREW, {"uid": study_instance_uid})
    assert study is not None, "rows of studies are never deleted"
    state, generation = study
    if state != StudyState.RECEIVING:
        generation += 1
        connection.execute(
            update(studies)
            .where(studies.c.study_instance_uid == study_instance_uid)
            .values(
                state=StudyState.RECEIVING,
                generation=generation,
                reason=_told(connection, study_instance_uid, reason),
            )
        )
        _supersede(connection, study_instance_uid)
    if generation > 1:  # of the first there is nothing to say: it follows nothing
        insert_unless_there(
            connection,
            generations,
            {
                "study_instance_uid": study_instance_uid,
                "generation": generation,
                "reason": reason,
                "began_at": now_s(),
            },
        )


def reasons_since(connection: Connection, study_instance_uid: str, after: int, until: int) -> tuple[str, ...]:
    """Why the generations after one and up to another began, each reason once, the oldest first."""
    found = (
        select(generations.c.reason)
        .where(
            generations.c.study_instance_uid == study_instance_uid,
            generations.c.generation > after,
            generations.c.generation <= until,
        )
        .group_by(generations.c.reason)
        .order_by(func.min(generations.c.began_at))
    )
    return tuple(connection.execute(found).scalars())


def _told(connection: Connection, study_instance_uid: str, reason: Reopening) -> str:
    purged = connection.execute(
        select(func.count(instances.c.purged_at)).where(instances.c.study_instance_uid == study_instance_uid)
    ).scalar_one()
    if not purged:
        return reason
    return f"{reason}; retention had removed others ({purged}): it goes on once they have come again"


def _supersede(connection: Connection, study_instance_uid: str) -> None:
    answered = (
        select(objects.c.sop_instance_uid)
        .where(
            objects.c.study_instance_uid == jobs.c.study_instance_uid,
            objects.c.generation == jobs.c.generation,
        )
        .exists()
    )
    connection.execute(
        update(jobs)
        .where(jobs.c.study_instance_uid == study_instance_uid, jobs.c.state.in_(UNFINISHED), ~answered)
        .values(
            state=JobState.SUPERSEDED,
            token=jobs.c.token + 1,
            lease_owner=None,
            lease_until=None,
            updated_at=now_s(),
        )
    )
