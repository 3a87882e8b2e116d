"""The process that listens, closes studies and keeps the broker informed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from pydicom import Dataset

from config.settings import SegmentationSettings, Settings
from node.dicom.seg_read import is_measured_from
from node.dicom.select import made_here
from node.net.commitment_scp import CommitmentService
from node.net.scp import Listener
from node.pipeline.housekeeping import keep_house_forever
from node.pipeline.identities import OperatorAlone
from node.pipeline.ports import StepMessage
from node.pipeline.reconcile import reconcile_forever
from node.store.store import open_store
from node.wiring.confirming import report_recorder
from node.worker.app import CeleryBroker, create_app


def run_listener(settings: Settings, on_ready: Callable[[str], None], stop: threading.Event) -> int:
    """Until `stop` is set: listen, close studies that are whole, tell the broker what is due, keep house.

    All but the first live here because this process is there as long as the node is, whatever its workers do,
    and because it never forks: a thread beside a pool of forked workers would be a hazard.

    Parameters
    ----------
    on_ready : told the port, once instances can be received.

    Raises
    ------
    StoreUnavailable
        If the store cannot be opened.
    OSError
        If the port cannot be bound.
    """
    with closing(open_store(settings.storage)) as store:
        listener = Listener(
            settings.node,
            store,
            made_here,
            measured_from(settings.segmentation),
            commitment=CommitmentService(report_recorder(store, settings)),
        )
        port = listener.start()
        reconciling = threading.Thread(
            target=reconcile_forever,
            args=(store, CeleryBroker(create_app(settings, _refuse)), settings, stop),
            name="reconcile",
            daemon=True,
        )
        reconciling.start()
        keeping_house = threading.Thread(
            target=keep_house_forever,
            args=(store, settings.storage, OperatorAlone(), stop),
            name="housekeeping",
            daemon=True,
        )
        keeping_house.start()
        on_ready(str(port))
        stop.wait()
        listener.stop()
        reconciling.join()
        keeping_house.join()
    return 0


def measured_from(settings: SegmentationSettings) -> Callable[[Dataset], bool]:
    """Tells the segmentations that the configuration measures from."""
    wanted = {str(key): pattern for key, pattern in settings.mask_from.items()}
    return lambda header: settings.engine == "mask" and is_measured_from(header, wanted)


def _refuse(message: StepMessage) -> None:
    raise AssertionError(f"the listener publishes and does not work: {message}")
