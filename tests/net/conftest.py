"""A listener on an ephemeral port, DCMTK's tools, and small CT instances of a patient with a name."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from config.settings import Settings, load_settings
from node import logs
from node.dicom.result_headers import made_here
from node.net.scp import Listener
from node.store.store import Store, open_store
from tests import waiting
from tests.net.pynetdicom_shortcomings import shortcoming_of
from tests.net.raw_peer import RawPeer
from tests.waiting import LIMIT_S

PYNETDICOM_LOOPS = "pynetdicom"
STUDY_UID = "2.25.100"
IDENTITY = {"PatientName": "Doe^Jane", "PatientID": "MRN-4711", "PatientBirthDate": "19510203"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect pynetdicom's loops to fail where they fall short; a test that passes there is red."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or callspec.params.get("loops") != PYNETDICOM_LOOPS:
            continue
        # A thread of pynetdicom's may die of what a test sends, in this test or after it.
        item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"))
        case = callspec.id.removeprefix(PYNETDICOM_LOOPS).removeprefix("-")
        found = shortcoming_of(getattr(item, "originalname", item.name), case)
        if found is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=found.why))


@pytest.fixture(autouse=True)
def soon_given_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is expected not to come is waited for two seconds."""
    if request.node.get_closest_marker("xfail"):
        monkeypatch.setattr(RawPeer, "timeout_s", 2.0)
        monkeypatch.setattr(waiting, "LIMIT_S", 2.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(node={"port": 0}, storage={"root": str(tmp_path / "var")})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.storage)
    yield opened
    opened.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    listener: Listener
    port: int


@pytest.fixture(scope="module", params=["event-driven", PYNETDICOM_LOOPS])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whose loops serve the listener's associations, as a site says it by `access.event_driven`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTEONODE_ACCESS__EVENT_DRIVEN", str(request.param == "event-driven").lower())
        yield request.param


@pytest.fixture
def listener(loops: str, settings: Settings, store: Store) -> Iterator[Running]:
    running = Listener(settings.node, store, made_here)
    yield Running(listener=running, port=running.start())
    running.stop()


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """A small CT instance; keywords replace attributes, None removes one."""

    def make(number: int = 1, syntax: UID = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
        dataset = Dataset()
        values: dict[str, Any] = {
            **IDENTITY,
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": f"{STUDY_UID}.1.{number}",
            "StudyInstanceUID": STUDY_UID,
            "SeriesInstanceUID": f"{STUDY_UID}.1",
            "Modality": "CT",
            "Rows": 16,
            "Columns": 16,
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "PixelData": bytes([number % 256, 0]) * 256,
            **attributes,
        }
        for keyword, value in values.items():
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
        return dataset

    return make


@pytest.fixture
def as_file(tmp_path: Path) -> Callable[[Dataset], Path]:
    """Write a data set as a Part 10 file."""

    def write(dataset: Dataset) -> Path:
        path = tmp_path / f"{dataset.SOPInstanceUID}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def as_bytes() -> Callable[[Dataset], bytes]:
    def encode(dataset: Dataset) -> bytes:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of DCMTK's tools by absolute path: pynetdicom installs tools of the same names."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = f"/usr/bin/{tool}"
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        assert version.stdout.startswith(f"$dcmtk: {tool} "), version.stdout
        return subprocess.run(
            [path, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env={**os.environ, "TCP_NODELAY": "1"},
        )

    return run


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _StandardError(io.TextIOBase):
    """Whatever standard error is when something is written."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)


@pytest.fixture
def logged(settings: Settings, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything the node logs in this test, at the most talkative level, as text."""
    logs.configure(settings.log.model_copy(update={"level": "DEBUG", "format": "json"}))
    (handler,) = (one for one in logging.getLogger().handlers if type(one) is logging.StreamHandler)
    handler.setStream(_StandardError())  # pytest puts another in its place between set-up and test
    return lambda: capfd.readouterr().err
