"""Studies: when one is complete and is closed, when it is reopened, and how an operator retries it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    select,
    tuple_,
    update,
)

from node.store.database import DatabaseRows, Prepared, first, insert_unless_there, now_s
from node.store.errors import ImagesPurged, NoSuchStudy, NothingToRetry
from node.store.jobs import DueJob, reset_failed_deliveries
from node.store.schema import associations, deliveries, generations, instances, jobs, objects, studies
from node.store.states import CT_SOP_CLASSES, UNFINISHED, DeliveryState, JobState, Reopening, StudyState

_AT_ONCE = 500  # studies that one statement names: every database takes so many


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivingStudy:
    """A study that may be closed once it is complete. Times are by the database's clock.

    Attributes
    ----------
    last_received_at : of a CT instance.
    silent_s : seconds since then.
    images : number by Series Instance UID: instances of any class but the node's own.
    ct_series : Series Instance UIDs of series that hold CT images.
    longest_pause_s : between two CT instances of this generation.
    sender_connected : whether an association that brought CT instances of it is still open.
    """

    study_instance_uid: str
    generation: int
    reason: str
    last_received_at: float
    silent_s: float
    images: Mapping[str, int]
    ct_series: frozenset[str]
    longest_pause_s: float
    sender_connected: bool = False
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The evidence that a study is complete.

    Attributes
    ----------
    closed_by : a ClosedBy.
    reason : in words.
    content : all of it, as JSON.
    """

    closed_by: str
    reason: str
    content: str


class Studies(DatabaseRows):
    def receiving(
        self,
        *,
        stale_s: float,
        most: int | None = None,
        after: ReceivingStudy | None = None,
        sent_to: Sequence[str] = (),
    ) -> Sequence[ReceivingStudy]:
        """Studies that may be closed as soon as they are complete, the oldest first.

        Left out are studies whose earlier generation is not delivered yet, and studies with a CT instance
        that retention removed and that has not come again. A generation that every destination took and that
        only waits for proof counts as delivered: a slow proof does not delay an amended report.

        Parameters
        ----------
        stale_s : an association without a heartbeat for so many seconds counts as closed.
        most : at most so many.
        after : only studies that follow this one in the order.
        sent_to : only studies of which one image, any of them, came to one of these AE titles; () for all.
        """
        wanted = select(
            studies.c.study_instance_uid,
            studies.c.generation,
            studies.c.reason,
            studies.c.last_received_at,
            studies.c.created_at,
            (now_s() - studies.c.last_received_at).label("silent_s"),
        ).where(_may_be_closed())
        if after is not None:
            place = tuple_(studies.c.created_at, studies.c.study_instance_uid)
            wanted = wanted.where(place > (after.created_at, after.study_instance_uid))
        if sent_to:
            any_image = (
                select(instances.c.called_ae)
                .where(instances.c.study_instance_uid == studies.c.study_instance_uid)
                .limit(1)
                .scalar_subquery()
            )
            wanted = wanted.where(any_image.in_(sent_to))
        wanted = wanted.order_by(studies.c.created_at, studies.c.study_instance_uid).limit(most)
        looked_at: list[ReceivingStudy] = []
        with self._database.reading() as connection:
            found = connection.execute(wanted).all()
            for begin in range(0, len(found), _AT_ONCE):
                looked_at += _with_evidence(connection, found[begin : begin + _AT_ONCE], stale_s)
        return tuple(looked_at)

    def close(self, study: ReceivingStudy, closing: Closing, *, first_step: str) -> DueJob | None:
        """Close one study, as `close_all` does.

        Returns
        -------
        None where the study may not be closed any more.
        """
        begun = self.close_all([(study, closing)], first_step=first_step)
        return begun.get(study.study_instance_uid)

    def close_all(
        self,
        whole: Sequence[tuple[ReceivingStudy, Closing]],
        *,
        first_step: str,
        urgent_titles: Sequence[str] = (),
    ) -> Mapping[str, DueJob]:
        """Close complete studies: create their jobs at `first_step`, with the evidence that each is complete.

        One transaction does it, without waiting; pass some hundred studies at most. Studies that were closed
        by another process, grew, or may not be closed any more are left out.

        Parameters
        ----------
        urgent_titles : a study of which an image came to one of these AE titles is urgent.

        Returns
        -------
        The jobs, by the studies that were closed.
        """
        by_uid = {study.study_instance_uid: (study, closing) for study, closing in whole}
        with self._database.writing() as connection:
            closable = [
                row
                for row in connection.execute(_closable(list(by_uid), urgent_titles))
                if (row.generation, row.last_received_at)
                == (by_uid[row.uid][0].generation, by_uid[row.uid][0].last_received_at)
            ]
            if not closable:
                return {}
            connection.execute(
                update(studies)
                .where(studies.c.study_instance_uid == bindparam("uid"))
                .values(state=StudyState.PROCESSING, reason=bindparam("why")),
                [{"uid": row.uid, "why": by_uid[row.uid][1].reason} for row in closable],
            )
            begun = connection.execute(
                jobs.insert()
                .values(
                    step=first_step,
                    state=JobState.WAITING,
                    attempts=0,
                    not_before=now_s(),
                    token=0,
                    last_error="",
                    created_at=now_s(),
                    updated_at=now_s(),
                )
                .returning(jobs.c.job_id, jobs.c.study_instance_uid, jobs.c.generation, jobs.c.urgent),
                [
                    {
                        "study_instance_uid": row.uid,
                        "generation": row.generation,
                        "closed_by": by_uid[row.uid][1].closed_by,
                        "completeness": by_uid[row.uid][1].content,
                        "calling_ae": row.calling_ae or "",
                        "urgent": bool(row.urgent),
                    }
                    for row in closable
                ],
            )
            return {
                row.study_instance_uid: DueJob(
                    job_id=row.job_id, step=first_step, generation=row.generation, urgent=row.urgent
                )
                for row in begun
            }

    def note(self, study: ReceivingStudy, reason: str) -> None:
        """Record why a study is still being received.

        Parameters
        ----------
        reason : in words.
        """
        with self._database.writing() as connection:
            connection.execute(
                update(studies)
                .where(
                    studies.c.study_instance_uid == study.study_instance_uid,
                    studies.c.generation == study.generation,
                    studies.c.state == StudyState.RECEIVING,
                )
                .values(reason=reason)
            )

    def completeness(self, study_instance_uid: str, generation: int) -> str | None:
        """`Closing.content` of a generation; None where it is not known."""
        wanted = select(jobs.c.completeness).where(
            jobs.c.study_instance_uid == study_instance_uid, jobs.c.generation == generation
        )
        with self._database.reading() as connection:
            content: str | None = connection.execute(wanted).scalar()
        return content

    def is_declared_qct(self, study_instance_uid: str) -> bool:
        """Whether an operator declared this study to be QCT."""
        with self._database.reading() as connection:
            wanted = select(studies.c.declared_qct).where(studies.c.study_instance_uid == study_instance_uid)
            return bool(connection.execute(wanted).scalar())

    def retry(self, study_instance_uid: str, *, first_step: str) -> DueJob:
        """Retry what failed: the step that was set aside, or the deliveries that were given up.

        A study that was not applicable starts again from `first_step`, now as QCT by declaration.

        Returns
        -------
        The job, due now.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        NothingToRetry
            If nothing of it failed.
        ImagesPurged
            If it would have to start again without its images.
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
                    reason="retry requested",
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


def _with_evidence(
    connection: Connection, found: Sequence[Row[Any]], stale_s: float
) -> Sequence[ReceivingStudy]:
    uids = [study.study_instance_uid for study in found]
    images, ct_series, connected = _images_by_series(connection, uids, stale_s)
    pauses_s = _longest_pauses_s(connection, uids)
    return [
        ReceivingStudy(
            **study._mapping,
            images=images[study.study_instance_uid],
            ct_series=frozenset(ct_series[study.study_instance_uid]),
            longest_pause_s=pauses_s.get(study.study_instance_uid) or 0.0,
            sender_connected=study.study_instance_uid in connected,
        )
        for study in found
    ]


def _images_by_series(
    connection: Connection, uids: Sequence[str], stale_s: float
) -> tuple[Mapping[str, Mapping[str, int]], Mapping[str, set[str]], frozenset[str]]:
    """Of each study: instances of any class by series, and the series that hold CT images.

    Last, the studies of which CT images came over an association that is open still.
    """
    still_open = select(associations.c.association_id).where(
        associations.c.closed_at.is_(None), associations.c.heartbeat_at > now_s() - stale_s
    )
    over_open = case((instances.c.association_id.in_(still_open), 1), else_=0)
    wanted = (
        select(
            instances.c.study_instance_uid,
            instances.c.series_instance_uid,
            instances.c.sop_class_uid.in_(CT_SOP_CLASSES).label("is_ct"),
            func.count().label("number"),
            func.max(over_open).label("over_open"),
        )
        .where(instances.c.study_instance_uid.in_(uids), instances.c.own.is_(False))
        .group_by(instances.c.study_instance_uid, instances.c.series_instance_uid, "is_ct")
    )
    images: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    ct_series: defaultdict[str, set[str]] = defaultdict(set)
    connected = set()
    for row in connection.execute(wanted):
        images[row.study_instance_uid][row.series_instance_uid] += row.number
        if row.is_ct:
            ct_series[row.study_instance_uid].add(row.series_instance_uid)
            if row.over_open:
                connected.add(row.study_instance_uid)
    return images, ct_series, frozenset(connected)


def _closable(uids: Sequence[str], urgent_titles: Sequence[str]) -> Select[Any]:
    """Those of these studies that may be closed, locked; none that somebody writes to just now.

    Whoever receives locks several studies, in the order in which images came. Here none is waited for, so
    that neither can be waiting for the other.
    """
    its_images = select(instances.c.calling_ae).where(
        instances.c.study_instance_uid == studies.c.study_instance_uid, instances.c.own.is_(False)
    )
    first_sender = its_images.order_by(instances.c.received_at).limit(1).scalar_subquery()
    urgent = its_images.where(instances.c.called_ae.in_(urgent_titles)).exists() if urgent_titles else false()
    return (
        select(
            studies.c.study_instance_uid.label("uid"),
            studies.c.generation,
            studies.c.last_received_at,
            first_sender.label("calling_ae"),
            urgent.label("urgent"),
        )
        .where(studies.c.study_instance_uid.in_(uids), _may_be_closed())
        .order_by(studies.c.created_at, studies.c.study_instance_uid)
        .with_for_update(skip_locked=True, of=studies)
    )


def _longest_pauses_s(connection: Connection, uids: Sequence[str]) -> Mapping[str, float | None]:
    """For each study, the longest pause between CT instances since its last generation was closed."""
    last_closed_at = (
        select(func.coalesce(func.max(jobs.c.created_at), 0.0))
        .where(jobs.c.study_instance_uid == instances.c.study_instance_uid)
        .scalar_subquery()
    )
    before = func.lag(instances.c.received_at).over(
        partition_by=instances.c.study_instance_uid, order_by=instances.c.received_at
    )
    pauses = (
        select(instances.c.study_instance_uid, (instances.c.received_at - before).label("pause_s"))
        .where(
            instances.c.study_instance_uid.in_(uids),
            instances.c.sop_class_uid.in_(CT_SOP_CLASSES),
            instances.c.own.is_(False),
            instances.c.received_at > last_closed_at,
        )
        .subquery()
    )
    longest = select(pauses.c.study_instance_uid, func.max(pauses.c.pause_s).label("pause_s")).group_by(
        pauses.c.study_instance_uid
    )
    return {row.study_instance_uid: row.pause_s for row in connection.execute(longest)}


def _may_be_closed() -> ColumnElement[bool]:
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
        studies.c.last_received_at.is_not(None),
        ~lacks_purged_images(),
        ~going_out,
    )


# A study that is begun again: its next generation, and why.


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
                reason=_with_details(connection, study_instance_uid, reason),
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
    """Reasons for the generations from `after` + 1 to `until`, each once, the oldest first."""
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


def _with_details(connection: Connection, study_instance_uid: str, reason: Reopening) -> str:
    purged = connection.execute(
        select(func.count(instances.c.purged_at)).where(instances.c.study_instance_uid == study_instance_uid)
    ).scalar_one()
    if not purged:
        return reason
    return f"{reason}; retention had removed others ({purged}): processing continues once they are sent again"


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
