"""The node's workers, one group of processes: Celery workers whose pool processes run the steps."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path

import structlog

from config.settings import Settings
from node.clinical import CsvLaboratory, NoLaboratory
from node.logs import describe
from node.net.commitment import report_recorder
from node.net.query import DicomProver, make_archive
from node.net.sender import DicomSender, Requestor
from node.pipeline.engine import ResolvedEngine, resolve_engine
from node.pipeline.ports import FEATURES_QUEUE, ClinicalValues, FeatureRequest, Publisher, Step, StepMessage
from node.pipeline.result_basis import check_features
from node.pipeline.runner import Dependencies, run_step
from node.pipeline.study_run import StepFunction
from node.processes.heartbeat import Heartbeat, root_problem
from node.processes.process_group import GroupMember, ProcessGroup
from node.store.database import Database
from node.store.errors import StoreError
from node.store.jobs import Jobs
from node.store.store import open_store
from node.store.workers import Worker, WorkerRows
from node.supervision import end_with_parent
from node.worker import CeleryBroker, create_app, run_worker

log = structlog.get_logger(__name__)

_LOOKS_BEFORE_LETTING_GO = 5  # at a store that is not there


def make_clinical(settings: Settings) -> ClinicalValues:
    """The configured source of laboratory values.

    Returns
    -------
    A source without values where `clinical.csv` is empty.
    """
    if not settings.clinical.csv:
        return NoLaboratory()
    return CsvLaboratory(Path(settings.clinical.csv), max_age_days=settings.clinical.max_age_days)


class Workers:
    """One worker for each group of queues, forked again when it dies.

    Raises
    ------
    EngineUnavailable
        If the configured engine lacks what it needs.
    """

    def __init__(self, settings: Settings, groups: Sequence[Sequence[str]]) -> None:
        from node.pipeline.step_functions import FUNCTIONS  # noqa: PLC0415 - loaded once, before the fork

        self._settings = settings
        self._functions = FUNCTIONS
        self._engine = resolve_engine(settings.segmentation)
        self._family = ProcessGroup(
            [
                GroupMember(name=f"worker:{','.join(queues)}", work=partial(self._work, queues))
                for queues in groups
            ]
        )

    def run(self, on_ready: Callable[[str], None], on_trouble: Callable[[str], None] = lambda _: None) -> int:
        """Work until SIGTERM or SIGQUIT, which the workers get too. Returns the exit status.

        SIGTERM lets workers finish what is running; SIGQUIT ends them at once, and they give leases back.

        Parameters
        ----------
        on_ready : told the engine, in words, once every worker is ready.
        on_trouble : told "failed NAME" of a worker that ended before.
        """
        info = self._engine.info
        return self._family.run(lambda: on_ready(f"{info.name} {info.version}"), on_trouble)

    def _work(self, queues: Sequence[str], ready: Callable[[], None]) -> int:
        def settled() -> ResolvedEngine:
            return self._engine

        return run_celery_worker(
            self._settings,
            queues,
            lambda _: ready(),
            functions=self._functions,
            engine=settled,
            at_start=partial(check_features, self._settings) if Step.SCORE in queues else None,
        )


def run_celery_worker(
    settings: Settings,
    queues: Sequence[str],
    on_ready: Callable[[str], None] = lambda _: None,
    *,
    functions: Mapping[Step, StepFunction] | None = None,
    engine: Callable[[], ResolvedEngine] | None = None,
    at_start: Callable[[], None] | None = None,
) -> int:
    """Work for `queues` (names of steps, or "features") until told to stop. Returns the exit status.

    Parameters
    ----------
    functions : of the steps before deliver; the real ones if None.
    engine : settled already by the caller; by this function if None.
    at_start : called in each pool process before its first task. With neither this nor `functions`, a worker
        that scores tries the known image.

    Raises
    ------
    EngineUnavailable
        If this worker segments and the configured engine lacks what it needs.
    """
    if functions is None:
        from node.pipeline.step_functions import FUNCTIONS  # noqa: PLC0415 - seconds of imports that a test can spare

        functions = FUNCTIONS
        if at_start is None and {Step.SCORE, FEATURES_QUEUE} & set(queues):
            at_start = partial(check_features, settings)

    if engine is None:
        engine = cache(lambda: resolve_engine(settings.segmentation))
        if Step.SEGMENT in queues:
            log.info("engine_settled", engine=engine().info.name)
    worker = _this_worker(queues, engine if Step.SEGMENT in queues else None)
    runner = _StepRunner(settings, functions=functions, engine=engine, owner=worker.worker_id)
    heartbeat = Heartbeat(settings, worker)
    extract = _extractor(settings) if FEATURES_QUEUE in queues else None
    app = create_app(settings, runner, extract)
    runner.publisher = CeleryBroker(app)
    parent_pid = os.getpid()

    def begin() -> None:
        end_with_parent(parent_pid, signal.SIGKILL)
        heartbeat.begin()
        if at_start is not None:
            at_start()

    try:
        return run_worker(
            app,
            name="-".join(queues),
            queues=queues,
            on_ready=lambda: on_ready(""),
            on_child=begin,
        )
    finally:
        _give_back(settings, worker.worker_id)


def _this_worker(queues: Sequence[str], engine: Callable[[], ResolvedEngine] | None) -> Worker:
    host, pid = socket.gethostname(), os.getpid()
    info = engine().info if engine is not None else None
    return Worker(
        worker_id=f"{host}:{pid}:{secrets.token_hex(4)}",
        host=host,
        pid=pid,
        queues=tuple(queues),
        engine=f"{info.name} {info.version}" if info is not None else "",
    )


def _extractor(settings: Settings) -> Callable[[FeatureRequest], None]:
    """Answers requests for all features of a study. Whatever happens is an answer: somebody waits for it."""
    from node.research.extraction import (  # noqa: PLC0415 - imports pyradiomics
        answer_request,
        reason_row,
        write_answer,
    )

    def extract(request: FeatureRequest) -> None:
        try:
            answer_request(request, settings)
        except Exception as error:  # noqa: BLE001 - the task boundary
            log.error("features_failed", error=describe(error))
            write_answer(request, reason_row(request.study, request.settings_sha256, describe(error)))

    return extract


class _StepRunner:
    """Does what a message asks for. Opens the store on first use: in the pool process, after the fork."""

    publisher: Publisher

    def __init__(
        self,
        settings: Settings,
        *,
        functions: Mapping[Step, StepFunction],
        engine: Callable[[], ResolvedEngine],
        owner: str,
    ) -> None:
        self._settings = settings
        self._functions = functions
        self._engine = engine
        self._owner = owner
        self._database: Database | None = None
        self._dependencies: Dependencies | None = None

    def __call__(self, message: StepMessage) -> None:
        """Work, if the store is all there. Otherwise hold the message for a while, and then let it go.

        The job stays due, and reconcile publishes it again, for whichever worker can take it. One that cannot
        holds what it was given meanwhile, or it would consume all messages faster than others take them.
        """
        pause_s = self._settings.worker.reconcile_s
        for _ in range(_LOOKS_BEFORE_LETTING_GO):
            problem = self._problem()
            if not problem:
                break
            log.error("takes_no_work", job_id=message.job_id, step=message.step.value, reason=problem)
            time.sleep(pause_s)
        else:
            return
        if self._dependencies is None:
            try:
                self._dependencies = self._bind()
            except StoreError as error:
                log.error("store_not_opened", error=describe(error))
                return
        run_step(message, self._dependencies)

    def _problem(self) -> str:
        """Why nothing can be done now: a worker makes no store, it finds one."""
        if self._database is None:
            self._database = Database(self._settings.storage.resolved_database_url)
        return root_problem(self._settings.storage, self._database)

    def _bind(self) -> Dependencies:
        store = open_store(self._settings.storage)
        requestor = Requestor(self._settings.node.ae_title, tls=self._settings.tls)
        return Dependencies(
            settings=self._settings,
            store=store,
            publisher=self.publisher,
            sender=DicomSender(requestor),
            prover=DicomProver(requestor, report_recorder(store, self._settings)),
            functions=self._functions,
            engine=self._engine,
            clinical=make_clinical(self._settings),
            finder=make_archive(self._settings),
            owner=self._owner,
            host=socket.gethostname(),
        )


def _give_back(settings: Settings, owner: str) -> None:
    """What the pool process held when it was stopped on purpose goes back at once, uncounted; it is listed as
    ended."""
    try:
        with closing(Database(settings.storage.resolved_database_url)) as database:
            held = Jobs(database).release_all(owner)
            WorkerRows(database).end(owner)
    except StoreError as error:  # the leases run out by themselves
        log.warning("leases_not_released", error=describe(error))
        return
    if held:
        log.info("leases_released", jobs=held)
