"""Studies: when one is whole, where it stands, and a person's wish to try again."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, select, update

from node.store.database import Database, now_s
from node.store.errors import ImagesPurged, NoSuchStudy, NothingToRetry
from node.store.jobs import DueJob, reset_failed_deliveries
from node.store.schema import associations, deliveries, instances, jobs, objects, studies
from node.store.states import CT_SOP_CLASSES, UNFINISHED, DeliveryState, JobState, StudyState


class Studies:
    def __init__(self, database: Database) -> None:
        self._database = database

    def close_due(self, *, first_step: str, quiet_s: float, stale_s: float) -> Sequence[DueJob]:
        """Close every study that is whole, and create its job at `first_step`.

        Whole means: no association that brought CT instances of the study is open (one without a heartbeat
        for `stale_s` counts as closed), no CT instance came for `quiet_s`, no earlier generation is still
        on its way out, and none of its CT instances was removed by retention and has not come again.
        A generation that every destination has taken, and that waits for proof alone, is out: an amended
        report is not held up by a destination that is slow to prove what it holds.
        """
        created = []
        with self._database.writing() as connection:
            due = connection.execute(select(studies).where(_is_whole(quiet_s, stale_s))).all()
            for study in due:
                closed = connection.execute(
                    update(studies)
                    .where(
                        studies.c.study_instance_uid == study.study_instance_uid,
                        studies.c.state == StudyState.RECEIVING,
                        studies.c.last_received_at == study.last_received_at,
                    )
                    .values(state=StudyState.PROCESSING, reason=f"closed after {quiet_s:g} s without images")
                ).rowcount
                if closed:
                    job_id = connection.execute(
                        jobs.insert()
                        .values(
                            study_instance_uid=study.study_instance_uid,
                            generation=study.generation,
                            step=first_step,
                            state=JobState.WAITING,
                            attempts=0,
                            not_before=now_s(),
                            token=0,
                            last_error="",
                            created_at=now_s(),
                            updated_at=now_s(),
                        )
                        .returning(jobs.c.job_id)
                    ).scalar_one()
                    created.append(DueJob(job_id=job_id, step=first_step, generation=study.generation))
        return tuple(created)

    def is_declared_qct(self, study_instance_uid: str) -> bool:
        """Whether a person asked for this study by name."""
        with self._database.reading() as connection:
            wanted = select(studies.c.declared_qct).where(studies.c.study_instance_uid == study_instance_uid)
            return bool(connection.execute(wanted).scalar())

    def retry(self, study_instance_uid: str, *, first_step: str) -> DueJob:
        """Try again what failed: the step that was set aside, the deliveries that were given up.

        A study that was not applicable is begun anew, now as a QCT study by declaration.

        Raises
        ------
        NoSuchStudy, NothingToRetry
        ImagesPurged
            If it would have to be begun anew without its images.
        """
        with self._database.writing() as connection:
            study = connection.execute(
                select(studies).where(studies.c.study_instance_uid == study_instance_uid)
            ).first()
            if study is None:
                raise NoSuchStudy(study_instance_uid)
            job = connection.execute(
                select(jobs).where(
                    jobs.c.study_instance_uid == study_instance_uid, jobs.c.generation == study.generation
                )
            ).first()
            again = (
                StudyState.SET_ASIDE,
                StudyState.UNDELIVERED,
                StudyState.REPORTED,
                StudyState.NOT_APPLICABLE,
            )
            if job is None or study.state not in again:
                raise NothingToRetry(study.state)
            declare = study.state == StudyState.NOT_APPLICABLE
            if (
                declare
                and connection.execute(
                    select(studies.c.state).where(
                        studies.c.study_instance_uid == study_instance_uid, lacks_purged_images()
                    )
                ).first()
            ):
                raise ImagesPurged(study_instance_uid)
            step = first_step if declare else job.step
            reset_failed_deliveries(connection, study_instance_uid, study.generation)
            connection.execute(
                update(jobs)
                .where(jobs.c.job_id == job.job_id)
                .values(
                    state=JobState.WAITING,
                    step=step,
                    attempts=0,
                    not_before=now_s(),
                    token=jobs.c.token + 1,
                    updated_at=now_s(),
                )
            )
            connection.execute(
                update(studies)
                .where(studies.c.study_instance_uid == study_instance_uid)
                .values(
                    state=StudyState.PROCESSING,
                    reason="a retry was asked for",
                    declared_qct=study.declared_qct or declare,
                )
            )
        return DueJob(job_id=job.job_id, step=step, generation=study.generation)


def lacks_purged_images() -> ColumnElement[bool]:
    """Of a row of `studies`: retention removed CT instances of it that have not come again."""
    return (
        select(instances.c.sop_instance_uid)
        .where(
            instances.c.study_instance_uid == studies.c.study_instance_uid,
            instances.c.sop_class_uid.in_(CT_SOP_CLASSES),
            instances.c.purged_at.is_not(None),
        )
        .exists()
    )


def _is_whole(quiet_s: float, stale_s: float) -> ColumnElement[bool]:
    sending = (
        select(associations.c.association_id)
        .join(instances, instances.c.association_id == associations.c.association_id)
        .where(
            instances.c.study_instance_uid == studies.c.study_instance_uid,
            instances.c.sop_class_uid.in_(CT_SOP_CLASSES),
            associations.c.closed_at.is_(None),
            associations.c.heartbeat_at > now_s() - stale_s,
        )
        .exists()
    )
    of_the_job = (
        select(deliveries.c.state)
        .join(objects, objects.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .where(
            objects.c.study_instance_uid == jobs.c.study_instance_uid,
            objects.c.generation == jobs.c.generation,
        )
    )
    is_out = and_(
        jobs.c.state == JobState.WAITING,
        of_the_job.exists(),
        ~of_the_job.where(deliveries.c.state == DeliveryState.PENDING).exists(),
    )
    going_out = (
        select(jobs.c.job_id)
        .where(
            jobs.c.study_instance_uid == studies.c.study_instance_uid, jobs.c.state.in_(UNFINISHED), ~is_out
        )
        .exists()
    )
    return and_(
        studies.c.state == StudyState.RECEIVING,
        studies.c.last_received_at <= now_s() - quiet_s,
        ~sending,
        ~lacks_purged_images(),
        ~going_out,
    )
