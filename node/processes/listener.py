"""The listening processes, and the process that closes studies, publishes due steps and keeps house."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial

from pydicom import Dataset

from config.sections import SegmentationSettings
from config.settings import Settings
from node.dicom.result_headers import made_here
from node.dicom.seg.vertebra_masks import is_measured_from
from node.net.access import association_policy, listener_context
from node.net.commitment import CommitmentService, make_reporter, report_recorder
from node.net.query import make_archives, make_watch
from node.net.scp import Listener
from node.net.server import listening_socket
from node.pipeline.housekeeping import run_housekeeping, run_reconciliation
from node.pipeline.ports import StepMessage
from node.processes.heartbeat import listed
from node.processes.process_group import GroupMember, ProcessGroup, run_before
from node.store.store import await_store, open_store
from node.store.workers import PUBLISHING
from node.supervision import SupervisedThread
from node.worker import CeleryBroker, create_app

_MOST_BY_ITSELF = 4  # listeners; more of them only wait for the same disk and database


def run_listeners(
    settings: Settings, on_ready: Callable[[str], None], on_trouble: Callable[[str], None] = lambda _: None
) -> int:
    """Until SIGTERM: listen, close studies that are whole, tell the broker what is due, keep house, and tell
    peers what is committed.

    Python runs one thread at a time, so several processes accept from one listening socket: what one peer
    sends is not held up by what another sends. All but listening has a process of its own beside them, which
    is there as long as the node is, whatever its workers do. While the database is away nothing listens: a
    PACS that cannot connect tries again later.

    Parameters
    ----------
    on_ready : told the port, once instances can be received.
    on_trouble : told "waiting" now and then while the database is awaited, and "failed NAME" of a process
        that ended before it was ready.

    Raises
    ------
    OSError
        If the port cannot be bound.
    """
    awaited = run_before(GroupMember(name="database", work=partial(_await_store, settings)), on_trouble)
    if awaited is None or awaited != 0:  # told to stop, or it said why the store cannot be used
        return awaited or 0
    listening = listening_socket(settings.node.host, settings.node.port)
    port = int(listening.getsockname()[1])
    count = settings.node.listeners or min(_MOST_BY_ITSELF, os.cpu_count() or 1)
    family = ProcessGroup(
        [
            GroupMember(name="reconcile", work=partial(_reconcile, settings)),
            *(
                GroupMember(name=f"listener {number}", work=partial(_listen, settings, listening, number))
                for number in range(1, count + 1)
            ),
        ]
    )
    return family.run(lambda: on_ready(str(port)), on_trouble)


def _await_store(settings: Settings, _ready: Callable[[], None]) -> int:
    await_store(settings.storage)
    return 0


def _listen(settings: Settings, listening: socket.socket, number: int, ready: Callable[[], None]) -> int:
    stop = _stop_on_signal()
    with closing(open_store(settings.storage)) as store, listed(store, f"listener {number}"):
        reporter = make_reporter(store, settings)
        listener = Listener(
            settings.node,
            store,
            made_here,
            measured_from(settings.segmentation),
            commitment=CommitmentService(
                report_recorder(store, settings), store.commitment_requests, reporter
            ),
            policy=association_policy(settings),
            tls=listener_context(settings.tls),
        )
        listener.start(listening)
        ready()
        stop.wait()
        listener.stop()
    return 0


def _reconcile(settings: Settings, ready: Callable[[], None]) -> int:
    stop = _stop_on_signal()
    with (
        closing(open_store(settings.storage)) as store,
        listed(store, PUBLISHING, beats=True) as published,
        listed(store, "housekeeping", beats=True, is_thread=True) as kept,
        listed(store, "commitment reports", beats=True, is_thread=True) as reported,
    ):
        keeping_house = SupervisedThread(
            partial(run_housekeeping, store, settings, make_archives(settings), stop, kept),
            name="housekeeping",
        )
        keeping_house.start()
        reporting = SupervisedThread(
            partial(
                make_reporter(store, settings).report_forever, stop, settings.worker.reconcile_s, reported
            ),
            name="commitment-reports",
        )
        reporting.start()
        watch = make_watch(store, settings)
        ready()
        broker = CeleryBroker(create_app(settings, _refuse))
        run_reconciliation(store, broker, watch, settings, stop, on_round=published)
        watch.shut()
        keeping_house.join()
        reporting.join()
    return 0


def measured_from(settings: SegmentationSettings) -> Callable[[Dataset], bool]:
    """Predicate on headers: whether a segmentation is one that the configuration measures from."""
    wanted = {str(key): pattern for key, pattern in settings.mask_from.items()}
    return lambda header: settings.engine == "mask" and is_measured_from(header, wanted)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _refuse(message: StepMessage) -> None:
    raise AssertionError(f"the listener publishes and does not work: {message}")
