"""Several processes that accept from one port, as `serve` starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from config.settings import Settings
from node.store.store import open_store

CODE = (
    "import sys; from config.settings import Settings; from node import logs;"
    "from node.wiring import family; from node.wiring.listening import run_listeners;"
    "family._YOUNG_S = 0.0;"  # else who dies young ends them all, and the supervisor begins anew
    "settings = Settings.model_validate_json(sys.argv[1]); logs.configure(settings.log);"
    "sys.exit(run_listeners(settings, lambda port: print(port, flush=True)))"
)

LOG = "listeners.log"


class Node:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())

    def members(self) -> set[int]:
        return {one.pid for one in psutil.Process(self.process.pid).children()}


@pytest.fixture
def node_settings(make_settings: Callable[..., Settings], tmp_path: Path) -> Settings:
    return make_settings(
        node={"port": 0, "listeners": 2},
        broker={"url": f"redis+socket://{tmp_path}/no-broker.sock"},
        completeness={"quiet_s": 3600.0},
    )


@pytest.fixture
def node(node_settings: Settings, tmp_path: Path) -> Iterator[Node]:
    command = [sys.executable, "-c", CODE, node_settings.model_dump_json()]
    with (
        (tmp_path / LOG).open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield Node(process)
        finally:
            process.kill()


def _associate(port: int) -> Any:
    ae = AE("PEER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="OSTEONODE")
    assert association.is_established
    return association


def _store(association: Any, number: int) -> None:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"2.25.7.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.7", "2.25.7.0"
    image.Modality, image.PatientID = "CT", "1"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert association.send_c_store(image).Status == 0x0000


def test_two_peers_are_served_by_two_processes(node: Node) -> None:
    first, second = _associate(node.port), _associate(node.port)
    _store(first, 1)
    _store(second, 2)
    assert len(_serving(node)) == 2
    first.release()
    second.release()


def test_peers_that_come_at_once_are_shared_out_evenly(node: Node) -> None:
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            peers = list(pool.map(lambda _: _associate(node.port), range(4)))
        assert sorted(_serving(node).values()) == [2, 2]
        for peer in peers:
            peer.release()
        assert _until(lambda: not _serving(node))


def _serving(node: Node) -> Counter[int | None]:
    """The processes that have connections of the port, and how many."""
    return Counter(
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == node.port and one.pid in node.members()
    )


def test_every_event_names_its_process_whatever_thread_it_comes_from(node: Node, tmp_path: Path) -> None:
    peer = _associate(node.port)
    _store(peer, 1)
    peer.release()
    log = tmp_path / LOG
    assert _until(lambda: '"association_closed"' in log.read_text("utf-8"))
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert {one["event"] for one in events} >= {"listening", "association_closed"}
    assert all(one["process"].startswith(("listener ", "reconcile")) for one in events)


def test_a_listener_that_is_killed_is_replaced_and_nothing_is_lost(
    node: Node, node_settings: Settings
) -> None:
    before = node.members()
    os.kill(max(before), signal.SIGKILL)
    for number in range(6):
        association = _associate(node.port)
        _store(association, number)
        association.release()
    assert _until(lambda: len(node.members()) == 3)
    assert node.members() != before
    store = open_store(node_settings.storage)
    assert len(store.instances.paths("2.25.7")) == 6
    store.close()


def test_no_listener_outlives_its_family(node: Node) -> None:
    members = node.members()
    assert len(members) == 3  # two that listen, and one that closes studies and publishes
    node.process.kill()
    node.process.wait()
    assert _until(lambda: not any(psutil.pid_exists(pid) for pid in members))


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()
