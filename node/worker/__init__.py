"""The Celery application: one task for each step, all of them made by one decorator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import kombu.transport.redis  # noqa: F401 - kombu would load it with the first message, after the fork
import structlog
from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready
from kombu.exceptions import OperationalError

from config.settings import Settings
from node.logs import describe
from node.pipeline.ports import FEATURES_QUEUE, FeatureRequest, Step, StepMessage

log = structlog.get_logger(__name__)
T = TypeVar("T")
U = TypeVar("U")

# A soft limit first, so that a step which hangs in Python fails with a reason; the hard one kills it.
_SOFT_PART = 0.9
# The broker must not hand a message to a second worker while the first may still work (celery#5935).
_VISIBILITY_PART = 1.1
_CONNECT_TIMEOUT_S = 5.0
# Redis has no priorities: kombu keeps a list for each, and a worker empties that of the lowest number first.
_URGENT, _ORDINARY = 0, 9
_SEPARATOR = ":"
_PROCESS_START_TIMEOUT_S = 60.0


def create_app(
    settings: Settings,
    run: Callable[[StepMessage], None],
    extract: Callable[[FeatureRequest], None] | None = None,
) -> Celery:
    """The application for a broker at `settings.broker.url`.

    Parameters
    ----------
    run : does what a message asks for. Called in a pool process, never in the parent.
    extract : likewise for features of studies in folders; None where this application does not work on them.
    """
    app = Celery("osteonode", broker=settings.broker.url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        # Celery kills a pool process that does not report in four seconds; on a busy machine trying the known
        # image may take as long.
        worker_proc_alive_timeout=_PROCESS_START_TIMEOUT_S,
        # The lease decides who works, not the broker.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_PART * settings.worker.time_limit_s,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "priority_steps": [_URGENT, _ORDINARY],
            "sep": _SEPARATOR,
            # Of one publication to a broker that is away; kombu would try for six seconds.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
        },
    )
    for step in Step:
        _register(app, step, settings.worker.time_limit_s, run)
    if extract is not None:
        _register_features(app, settings.worker.time_limit_s, extract)
    return app


def task(app: Celery, queue: str, time_limit_s: float) -> Callable[[Callable[..., None]], Any]:
    """The only way to make a task: acknowledged after the work, given back if its process dies, limited."""
    decorate: Callable[[Callable[..., None]], Any] = app.task(
        name=task_name(queue),
        shared=False,  # of this application alone, not of every one in the process
        acks_late=True,
        reject_on_worker_lost=True,
        ignore_result=True,
        time_limit=time_limit_s,
        soft_time_limit=_SOFT_PART * time_limit_s,
    )
    return decorate


def task_name(queue: str) -> str:
    """Of the one task that comes through a queue."""
    return f"osteonode.{queue}"


def _register(app: Celery, step: Step, time_limit_s: float, run: Callable[[StepMessage], None]) -> None:
    @task(app, step.value, time_limit_s)
    def perform(job_id: int, generation: int) -> None:
        run(StepMessage(job_id=job_id, step=step, generation=generation))


def _register_features(app: Celery, time_limit_s: float, extract: Callable[[FeatureRequest], None]) -> None:
    @task(app, FEATURES_QUEUE, time_limit_s)
    def perform(**request: Any) -> None:
        extract(FeatureRequest(**request))


class BrokerAway(Exception):
    """The broker does not accept a request."""


class CeleryBroker:
    """Publishes to the queue named like the step. A broker that is away costs time and nothing else."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def publish(self, message: StepMessage) -> None:
        try:
            self._app.send_task(
                task_name(message.step.value),
                args=(message.job_id, message.generation),
                queue=message.step.value,
                priority=_URGENT if message.urgent else _ORDINARY,
                retry=False,
            )
        except (OperationalError, OSError) as error:
            log.warning(
                "not_published", job_id=message.job_id, step=message.step.value, error=describe(error)
            )

    def request_features(self, request: FeatureRequest) -> None:
        """Ask the workers of the queue `features` for one study.

        Raises
        ------
        BrokerAway
        """
        try:
            self._app.send_task(
                task_name(FEATURES_QUEUE), kwargs=asdict(request), queue=FEATURES_QUEUE, retry=False
            )
        except (OperationalError, OSError) as error:
            raise BrokerAway(f"the broker does not answer ({describe(error)})") from error

    def waiting(self, step: Step) -> int | None:
        """Number of messages for `step` that no worker has taken; None where the broker does not answer."""
        lists = (step.value, f"{step.value}{_SEPARATOR}{_ORDINARY}")
        return self._ask(lambda client: sum(int(client.llen(one)) for one in lists), otherwise=None)

    def answers(self) -> bool:
        """Whether the broker is there."""
        return self._ask(lambda client: bool(client.ping()), otherwise=False)

    def _ask(self, question: Callable[[Any], T], *, otherwise: U) -> T | U:
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_TIMEOUT_S)
                return question(connection.default_channel.client)
        except (OperationalError, OSError):
            return otherwise


def run_worker(
    app: Celery,
    *,
    name: str,
    queues: Sequence[str],
    on_ready: Callable[[], None],
    on_child: Callable[[], None],
) -> int:
    """Work until told to stop (SIGTERM: finish what is running first). Returns the exit status.

    One process per worker: hard time limits exist only in prefork, and a step may use all cores by itself.

    Parameters
    ----------
    on_child : called in each new pool process, before its first task.
    """

    def announce(**_: object) -> None:
        on_ready()

    def prepare(**_: object) -> None:
        on_child()

    setup_logging.connect(_leave_logging_alone, weak=False)
    worker_ready.connect(announce, weak=False)
    worker_process_init.connect(prepare, weak=False)
    # Celery warns a superuser of pickled messages, which run what they hold; JSON alone is accepted here.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    worker = app.Worker(
        hostname=f"{name}@%h",
        pool_cls="prefork",
        concurrency=1,
        queues=list(queues),
        optimization="fair",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _leave_logging_alone(**_: object) -> None:
    """Celery configures logging itself, at its own level, unless somebody answers its signal."""
