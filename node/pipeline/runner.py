"""Runs one step of one study: claim, work, record it together with the next step, then publish."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from structlog.contextvars import bound_contextvars

from config.catalog import CatalogEntryMissing
from config.settings import Settings
from node.logs import describe
from node.pipeline.archives import latest_unrecorded_report
from node.pipeline.artefacts import TIMINGS, StoredArtefacts, from_json, stored_objects
from node.pipeline.delivery import DeliveryPending, deliver
from node.pipeline.engine import ResolvedEngine
from node.pipeline.housekeeping import has_room, message_for
from node.pipeline.policy import Action, decide, delay_s, reason_to_give_up
from node.pipeline.ports import (
    ClinicalValues,
    Issue,
    Prover,
    Publisher,
    ReportFinder,
    Sender,
    Step,
    StepMessage,
)
from node.pipeline.result_basis import BasisChanged, result_basis
from node.pipeline.study_run import Arrival, ImagesCache, StepFunction, StepResult, StudyRun, Verdict
from node.store.errors import LeaseLost, StoreError
from node.store.jobs import Declined, DueJob, Lease, MadeObject
from node.store.states import StudyState
from node.store.store import Store
from node.store.workers import ResultBasis
from node.study_report import Completeness, ObjectKind
from node.supervision import SupervisedThread

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What a runner works with; one set per process.

    Attributes
    ----------
    functions : of every step but deliver.
    owner : of leases.
    finder : None: archives are not queried for earlier reports of this node.
    host : the machine.
    images : kept from one step to the next.
    """

    settings: Settings
    store: Store
    publisher: Publisher
    sender: Sender
    prover: Prover
    functions: Mapping[Step, StepFunction]
    engine: Callable[[], ResolvedEngine]
    clinical: ClinicalValues
    owner: str
    finder: ReportFinder | None = None
    host: str = ""
    images: ImagesCache = field(default_factory=ImagesCache)


def run_step(message: StepMessage, dependencies: Dependencies) -> None:
    """Perform the step of a message, if it is still due. Failures are recorded in the database, not raised.

    Nothing is done for a step that is finished, held by another worker, not due or superseded. So messages
    may be lost, repeated and reordered.
    """
    store, settings = dependencies.store, dependencies.settings.worker
    try:
        basis = result_basis(dependencies.settings)
        lease = store.jobs.claim(
            job_id=message.job_id,
            step=message.step,
            generation=message.generation,
            owner=dependencies.owner,
            lease_s=settings.lease_s,
            result_basis=basis,
            begins=message.step is Step.SELECT,
            host=dependencies.host,
        )
    except (StoreError, CatalogEntryMissing) as error:
        log.warning("claim_failed", job_id=message.job_id, error=describe(error))  # reconcile comes again
        return
    if lease is None:
        log.debug("message_stale", job_id=message.job_id, step=message.step.value)
        return
    if isinstance(lease, Declined):
        log.warning("step_declined", job_id=message.job_id, step=message.step.value, reason=lease.reason)
        return
    with bound_contextvars(
        job_id=lease.job_id, step=lease.step, generation=lease.generation, attempt=lease.attempt
    ):
        try:
            following = _attempt(lease, basis, dependencies)
        except Exception as error:  # noqa: BLE001 - the task boundary: policy decides about every error
            _fail(lease, error, dependencies)
            return
        if following is not None:
            _publish(following, dependencies)


def _publish(following: DueJob, dependencies: Dependencies) -> None:
    """Publish the next step at once, unless many messages wait; then `reconcile` publishes it later."""
    message = message_for(following)
    try:
        if following.urgent or has_room(dependencies.store, dependencies.publisher, message.step):
            dependencies.publisher.publish(message)
    except StoreError as error:
        log.warning("not_published", error=describe(error))  # reconcile comes again


def _attempt(lease: Lease, basis: ResultBasis, dependencies: Dependencies) -> DueJob | None:
    """One attempt at a step, recorded. Returns the next step, if there is one.

    Parameters
    ----------
    basis : what the step was claimed with.
    """
    settings = dependencies.settings
    reason = reason_to_give_up(attempt=lease.attempt, max_attempts=settings.worker.max_attempts)
    if reason is not None:
        dependencies.store.jobs.set_aside(lease, reason)
        log.error("study_set_aside", reason=reason)
        return None
    started = time.perf_counter()
    log.info("step_started")
    artefacts = StoredArtefacts(
        dependencies.store,
        lease,
        {"software": basis.software, "configuration_sha256": basis.configuration_sha256},
    )
    step = Step(lease.step)
    if step is Step.DELIVER:
        _deliver(lease, artefacts, dependencies)
        log.info("step_finished", seconds=round(time.perf_counter() - started, 3))
        return None
    with _renewed(dependencies.store, lease, settings.worker.lease_s):
        result = dependencies.functions[step](_study_run(lease, step, artefacts, dependencies))
        if result_basis(settings) != basis:
            raise BasisChanged("software or configuration changed while the step ran")
        seconds = time.perf_counter() - started
        _note_timing(artefacts, step, seconds)
        made = _made_objects(artefacts) if step is Step.REPORT else ()
    log.info("step_finished", seconds=round(seconds, 3), verdict=result.verdict.value, reason=result.reason)
    return _record(lease, result, made, dependencies.store)


def _record(lease: Lease, result: StepResult, made: tuple[MadeObject, ...], store: Store) -> DueJob | None:
    following = Step(lease.step).following
    assert following is not None, "deliver, the last step, records for itself"
    if result.verdict is not Verdict.PROCEED:
        # Measurements of an earlier generation are no longer valid, or belong to another patient.
        store.scans.forget(lease.study_instance_uid)
    match result.verdict:
        case Verdict.PROCEED:
            # The objects are finished: any worker may send them without changing a result.
            return store.jobs.advance(lease, following, made, unbind=following is Step.DELIVER)
        case Verdict.NOT_APPLICABLE:
            store.jobs.finish(lease, StudyState.NOT_APPLICABLE, result.reason)
        case Verdict.SET_ASIDE:
            store.jobs.set_aside(lease, result.reason)
    return None


def _deliver(lease: Lease, artefacts: StoredArtefacts, dependencies: Dependencies) -> None:
    store, settings = dependencies.store, dependencies.settings
    with _renewed(store, lease, settings.worker.lease_s):
        outcome = deliver(
            store=store,
            lease=lease,
            artefacts=artefacts,
            objects=stored_objects(artefacts),
            destinations=settings.destinations,
            sender=dependencies.sender,
            prover=dependencies.prover,
            settings=settings.worker,
        )
    if isinstance(outcome, DeliveryPending):
        names = [destination.name for destination in settings.destinations]
        pause_s = store.jobs.await_deliveries(lease, outcome.reason, names)
        log.info("delivery_waits", reason=outcome.reason, pause_s=round(pause_s, 1))
        return
    store.jobs.finish(lease, outcome.state, outcome.reason)
    log.info("study_finished", state=outcome.state.value, reason=outcome.reason)


def _study_run(lease: Lease, step: Step, artefacts: StoredArtefacts, dependencies: Dependencies) -> StudyRun:
    store, uid = dependencies.store, lease.study_instance_uid
    completeness = store.studies.completeness(uid, lease.generation)

    def issue() -> Issue:
        issued = store.reports.issued(lease)
        if issued is None:
            unrecorded = latest_unrecorded_report(
                uid, store.reports, dependencies.finder, dependencies.settings.destinations
            )
            issued = store.reports.issue(lease, unrecorded)
        return Issue(
            issued_at=issued.issued_at,
            predecessor_uid=issued.predecessor_uid,
            predecessor_issued_at=issued.predecessor_issued_at,
            amendment_reason=issued.amendment_reason,
            predecessor_class_uid=issued.predecessor_class_uid,
        )

    return StudyRun(
        settings=dependencies.settings,
        images=dependencies.images.of(
            store.instances.paths(uid), dependencies.settings, anew=step is Step.SELECT
        ),
        artefacts=artefacts,
        engine=dependencies.engine,
        clinical=dependencies.clinical,
        issue=issue,
        arrival=Arrival(
            called_ae_titles=store.instances.called_ae_titles(uid),
            declared_qct=store.studies.is_declared_qct(uid),
            completeness=None if completeness is None else from_json(Completeness, completeness.encode()),
        ),
        scanners=store.scanners,
        patients=store.scans,
        begun_again=lease.begun_again,
    )


def _made_objects(artefacts: StoredArtefacts) -> tuple[MadeObject, ...]:
    return tuple(
        MadeObject(
            sop_instance_uid=one.sop_instance_uid,
            sop_class_uid=one.sop_class_uid,
            kind=one.kind.value,
            artefact=one.file_name,
            is_report=one.kind is ObjectKind.STRUCTURED_REPORT,
        )
        for one in stored_objects(artefacts)
    )


def _note_timing(artefacts: StoredArtefacts, step: Step, seconds: float) -> None:
    timings_s = json.loads(artefacts.get(TIMINGS)) if TIMINGS in artefacts.names() else {}
    artefacts.put(TIMINGS, json.dumps({**timings_s, step.value: round(seconds, 3)}).encode())


def _fail(lease: Lease, error: Exception, dependencies: Dependencies) -> None:
    settings = dependencies.settings.worker
    action = decide(error, attempt=lease.attempt, max_attempts=settings.max_attempts)
    told = describe(error)
    log.error("step_failed", error=told, action=action.value)
    try:
        match action:
            case Action.RETRY:
                dependencies.store.jobs.retry_in(lease, told, delay_s(settings.backoff_s, lease.attempt))
            case Action.ELSEWHERE:
                dependencies.store.jobs.retry_in(
                    lease, told, delay_s(settings.backoff_s, lease.attempt), avoids=dependencies.host
                )
            case Action.WAIT:
                dependencies.store.jobs.retry_in(lease, told, delay_s(settings.backoff_s, 2), counted=False)
            case Action.SET_ASIDE:
                dependencies.store.jobs.set_aside(lease, told)
            case Action.ABANDON:
                pass
    except StoreError as store_error:
        # The lease runs out and the job is due again; the attempt has been counted by its claim.
        log.error("failure_not_recorded", error=describe(store_error))


@contextmanager
def _renewed(store: Store, lease: Lease, lease_s: float) -> Iterator[None]:
    """Renew the lease from a thread while the block runs.

    If renewing fails unexpectedly, the attempt fails with that error, whatever the result of the block: the
    lease may have expired.
    """
    done = threading.Event()

    def keep() -> None:
        while not done.wait(lease_s / 3):
            try:
                store.jobs.renew(lease, lease_s)
            except LeaseLost:
                return  # the next write of the step says so
            except StoreError as error:
                log.warning("lease_not_renewed", error=describe(error))

    # The failure ends this attempt only; the process continues with other steps.
    keeper = SupervisedThread(keep, name=f"lease-{lease.job_id}", on_failure=lambda: None)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
    if keeper.failure is not None:
        raise keeper.failure
