"""Several processes that accept from one port, as `serve` starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from config.settings import Settings, load_settings
from node.store.store import open_store
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

CODE = (
    "import sys; from config.settings import Settings; from node import logs;"
    "from node.processes.listener import run_listeners;"
    "settings = Settings.model_validate_json(sys.argv[1]); logs.configure(settings.log);"
    "sys.exit(run_listeners(settings, lambda port: print(port, flush=True)))"
)

LOG = "listeners.log"
_MOST_PEERS = 20  # far more than it takes until each process was faster once


class Node:
    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self.folder = folder
        self.port = int(process.stdout.readline())

    def members(self) -> set[int]:
        return {one.pid for one in psutil.Process(self.process.pid).children()}


@contextmanager
def _running(folder: Path) -> Iterator[Node]:
    settings = _settings(folder)
    with (
        (folder / LOG).open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", CODE, settings.model_dump_json()],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Node(process, folder)
        finally:
            process.kill()


def _settings(folder: Path) -> Settings:
    return load_settings(
        node={"port": 0, "listeners": 2},
        storage={"root": folder / "var"},
        broker={"url": f"redis+socket://{folder}/no-broker.sock"},
        completeness={"quiet_s": 3600.0},
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One that every test leaves as it was."""
    with _running(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture
def mortal_node(tmp_path: Path) -> Iterator[Node]:
    with _running(tmp_path) as running:
        yield running


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


def test_peers_are_served_by_both_processes(node: Node) -> None:
    peers: list[Any] = []
    while len(_serving(node)) < 2:  # whichever process is faster accepts
        assert len(peers) < _MOST_PEERS
        peers.append(_associate(node.port))
        _store(peers[-1], len(peers))
    for peer in peers:
        peer.release()
    wait_until(lambda: not _serving(node))


def _serving(node: Node) -> Counter[int | None]:
    """The processes that have connections of the port, and how many."""
    return Counter(
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == node.port and one.pid in node.members()
    )


def test_every_event_names_its_process_whatever_thread_it_comes_from(node: Node) -> None:
    peer = _associate(node.port)
    _store(peer, 1)
    peer.release()
    log = node.folder / LOG
    wait_until(lambda: '"association_closed"' in log.read_text("utf-8"))
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert {one["event"] for one in events} >= {"listening", "association_closed"}
    assert all(one["process"].startswith(("listener ", "reconcile")) for one in events)


def test_a_listener_that_is_killed_is_replaced_and_nothing_is_lost(mortal_node: Node) -> None:
    before = mortal_node.members()
    os.kill(max(before), signal.SIGKILL)
    for number in range(6):
        association = _associate(mortal_node.port)
        _store(association, number)
        association.release()
    wait_until(lambda: len(mortal_node.members()) == 3)
    assert mortal_node.members() != before
    store = open_store(_settings(mortal_node.folder).storage)
    assert len(store.instances.paths("2.25.7")) == 6
    store.close()


def test_no_listener_outlives_its_family(mortal_node: Node) -> None:
    members = mortal_node.members()
    assert len(members) == 3  # two that listen, and one that closes studies and publishes
    mortal_node.process.kill()
    mortal_node.process.wait()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in members))
