"""Real peers for the whole chain: a node of its own, Debian's Orthanc, DCMTK by absolute path."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import LIMIT_S, stop, wait_until

STORESCU = Path("/usr/bin/storescu")
ECHOSCU = Path("/usr/bin/echoscu")
ORTHANC = Path("/usr/sbin/Orthanc")
OSTEONODE = Path(sys.executable).with_name("osteonode")
# DCMTK waits 40 ms for a delayed acknowledgement per instance unless told otherwise.
DCMTK_ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


def require(tool: Path, version_flag: str, marker: str) -> Path:
    """The tool, which must be the one meant: a virtual environment may hold namesakes."""
    if not tool.exists():
        message = f"{tool} is missing; `make test` installs or names it"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    answer = subprocess.run([tool, version_flag], capture_output=True, text=True, check=False)
    assert marker in answer.stdout + answer.stderr
    return tool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Node:
    """A running `osteonode serve` with everything under one folder."""

    root: Path
    port: int
    web_port: int
    config: Path
    process: subprocess.Popen[bytes]
    ae_title: str = "OSTEONODE"

    @property
    def log(self) -> str:
        return (self.root / "node.log").read_text("utf-8", errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log events of one name, in order."""
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def studies(self) -> list[dict[str, Any]]:
        """What the node's page says; it is the last of its parts to be ready."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.web_port}/api/studies", timeout=LIMIT_S)
        except httpx.ConnectError:
            return []
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def study(self, uid: str) -> dict[str, Any] | None:
        return next((one for one in self.studies() if one["study_instance_uid"] == uid), None)


@contextmanager
def running_node(root: Path, **sections: dict[str, Any]) -> Iterator[Node]:
    """Start a node on free ports with the given settings on top of quick ones."""
    root.mkdir(parents=True, exist_ok=True)
    port, web_port = free_port(), free_port()
    settings: dict[str, dict[str, Any]] = {
        "node": {"port": port},
        "storage": {"root": str(root / "var")},
        "completeness": {"quiet_s": 1.5, "poll_s": 0.2},
        "worker": {"reconcile_s": 0.5, "backoff_s": [0.5], "send_backoff_s": [0.5]},
        "web": {"port": web_port},
        "log": {"format": "json"},
    }
    destinations = sections.pop("destinations", {})
    for section, values in sections.items():
        settings.setdefault(section, {}).update(values)
    lines = []
    for section, values in settings.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    for name, values in destinations.items():
        lines += ["[[destinations]]", f'name = "{name}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    config = root / "node.toml"
    config.write_text("\n".join(lines) + "\n", "utf-8")
    with (root / "node.log").open("wb") as log:
        process = subprocess.Popen([OSTEONODE, "serve", "--config", config], stdout=log, stderr=log, cwd=root)
    node = Node(root=root, port=port, web_port=web_port, config=config, process=process)
    try:
        wait_until(lambda: echoes(node), "the node's listener")
        yield node
    finally:
        stop(process)


def echoes(node: Node) -> bool:
    assert node.process.poll() is None, node.log[-3000:]
    return (
        subprocess.run(
            [ECHOSCU, "-aec", node.ae_title, "127.0.0.1", str(node.port)],
            capture_output=True,
            check=False,
            env=DCMTK_ENVIRONMENT,
        ).returncode
        == 0
    )


def storescu(folder: Path, ae_title: str, port: int, *, pattern: str = "*.dcm") -> None:
    """Send a folder's DICOM files with DCMTK."""
    files = sorted(folder.glob(pattern))
    assert files
    subprocess.run(
        [STORESCU, "-aec", ae_title, "127.0.0.1", str(port), *files],
        check=True,
        capture_output=True,
        env=DCMTK_ENVIRONMENT,
    )


@dataclass
class Orthanc:
    """A running Orthanc that forwards every stable study."""

    root: Path
    http_port: int
    dicom_port: int
    process: subprocess.Popen[bytes]
    client: httpx.Client = field(repr=False, default_factory=httpx.Client)

    def get(self, path: str) -> Any:
        answer = self.client.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=LIMIT_S)
        answer.raise_for_status()
        return answer.json()

    def up(self) -> bool:
        assert self.process.poll() is None, self.log[-3000:]
        try:
            return bool(self.get("/system"))
        except httpx.HTTPError:
            return False

    @property
    def log(self) -> str:
        return (self.root / "orthanc.log").read_text("utf-8", errors="replace")

    def series(self, modality: str | None = None) -> list[dict[str, Any]]:
        found = self.get("/series?expand")
        return [one for one in found if modality in (None, one["MainDicomTags"].get("Modality"))]

    def instance(self, orthanc_id: str) -> bytes:
        return self.client.get(f"http://127.0.0.1:{self.http_port}/instances/{orthanc_id}/file").content

    def forwards(self) -> list[dict[str, Any]]:
        """Finished jobs that the rule started."""
        jobs = self.get("/jobs?expand")
        return [job for job in jobs if job["Type"] == "DicomModalityStore" and job["State"] == "Success"]


@contextmanager
def running_orthanc(
    root: Path, *, dicom_port: int, node_port: int, forwards: bool = True, plugins: Sequence[Path] = ()
) -> Iterator[Orthanc]:
    """Orthanc as the PACS; a Lua rule forwards *every* stable study to the node, unless told not to."""
    root.mkdir(parents=True, exist_ok=True)
    http_port = free_port()
    rule = root / "forward.lua"
    rule.write_text(
        "function OnStableStudy(studyId, tags, metadata)\n"
        "   RestApiPost('/modalities/osteonode/store',\n"
        "      DumpJson({Resources = {studyId}, Synchronous = false}))\n"
        "end\n"
    )
    (root / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "PACS",
                "StorageDirectory": str(root / "storage"),
                "IndexDirectory": str(root / "storage"),
                "HttpPort": http_port,
                "DicomPort": dicom_port,
                "DicomAet": "PACS",
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "StableAge": 2,
                "LuaScripts": [str(rule)] if forwards else [],
                "Plugins": [str(plugin) for plugin in plugins],
                "WebViewer": {"CachePath": str(root / "viewer")},
                "DicomModalities": {"osteonode": ["OSTEONODE", "127.0.0.1", node_port]},
                "TcpNoDelay": True,
                "DefaultEncoding": "Utf8",  # of its answers to C-FIND, whatever the question's is
            }
        )
    )
    with (root / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, root / "orthanc.json"], stdout=log, stderr=log, cwd=root)
    orthanc = Orthanc(root=root, http_port=http_port, dicom_port=dicom_port, process=process)
    try:
        wait_until(orthanc.up, "Orthanc")
        yield orthanc
    finally:
        orthanc.client.close()
        stop(process)


@pytest.fixture(scope="session")
def peers() -> None:
    """DCMTK and Orthanc are there, and are what their names say."""
    require(STORESCU, "--version", "dcmtk: storescu v3.")
    require(ECHOSCU, "--version", "dcmtk: echoscu v3.")
    require(ORTHANC, "--version", "Orthanc")
