"""The node's workers, as one group of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from config.settings import Settings
from node.pipeline.engine import ResolvedEngine, resolve_engine
from node.pipeline.ports import Step
from node.pipeline.result_basis import check_features
from node.pipeline.step_functions import FUNCTIONS
from node.processes.process_group import GroupMember, ProcessGroup
from node.processes.worker import run_celery_worker


class Workers:
    """One worker for each group of queues, forked again when it dies.

    Raises
    ------
    EngineUnavailable
        If the configured engine lacks what it needs.
    """

    def __init__(self, settings: Settings, groups: Sequence[Sequence[str]]) -> None:
        self._settings = settings
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
            functions=FUNCTIONS,
            engine=settled,
            at_start=partial(check_features, self._settings) if Step.SCORE in queues else None,
        )
