"""DCMTK's storescp and dcmqrscp and Orthanc take every class; Orthanc's viewer shows the pictures."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from config.sections import Destination
from node.dicom.destination_objects import SR_CLASSES, encode_rejection_note, report_as
from node.net.sender import DicomSender, Requestor
from node.pipeline.ports import SendOutcome
from node.study_report import EncodedObject, ObjectKind
from tests.e2e.conftest import free_port, require, running_orthanc
from tests.e2e.in_process import ISSUED_AT
from tests.e2e.report_matrix import Studies
from tests.waiting import LIMIT_S, wait_for_port

STORESCP, DCMQRSCP = Path("/usr/bin/storescp"), Path("/usr/bin/dcmqrscp")
CHROMIUM = Path("/usr/bin/chromium")
WEB_VIEWER = Path("/usr/lib/orthanc/libOrthancWebViewer.so.2.8")
Grey = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedObject]:
    """A study's results, its report in every class, and a rejection note."""
    made = list(Studies(tmp_path_factory.mktemp("studies")).run("plain").objects)
    report = next(one for one in made if one.kind is ObjectKind.STRUCTURED_REPORT)
    lesser = [
        report_as(report, name, issued_at=ISSUED_AT, predecessor_uid=None)
        for name in SR_CLASSES
        if name != "comprehensive3d"
    ]
    note = encode_rejection_note(report, made, issued_at=ISSUED_AT, file_name="note.dcm")
    return [*made, *lesser, note]


def _send(port: int, objects: Sequence[EncodedObject]) -> None:
    destination = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    results = DicomSender(Requestor("OSTEONODE")).send(destination, objects)
    assert [one.outcome for one in results] == [SendOutcome.SENT] * len(objects)


def _require_equal(sent: Sequence[EncodedObject], kept: Sequence[Dataset]) -> None:
    by_uid = {str(one.SOPInstanceUID): one for one in kept}
    assert set(by_uid) == {one.sop_instance_uid for one in sent}
    for one in sent:
        assert by_uid[one.sop_instance_uid] == dcmread(io.BytesIO(one.content)), one.file_name


@contextmanager
def _process(command: Sequence[str | Path], port: int) -> Iterator[None]:
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with subprocess.Popen(
        [*map(str, command)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for_port(port, process)
            yield
        finally:
            process.terminate()


def test_storescp_takes_every_object_bit_by_bit(objects: Sequence[EncodedObject], tmp_path: Path) -> None:
    require(STORESCP, "--version", "dcmtk: storescp v3.")
    port = free_port()
    with _process([STORESCP, "+B", "-od", tmp_path, str(port)], port):
        _send(port, objects)
    _require_equal(objects, [dcmread(path) for path in tmp_path.iterdir()])


def test_dcmqrscp_takes_every_object(objects: Sequence[EncodedObject], tmp_path: Path) -> None:
    require(DCMQRSCP, "--version", "dcmtk: dcmqrscp v3.")
    port, folder = free_port(), tmp_path / "archive"
    folder.mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {folder} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with _process([DCMQRSCP, "-c", config], port):
        _send(port, objects)
    _require_equal(objects, [dcmread(path) for path in folder.iterdir() if path.name != "index.dat"])


@pytest.mark.usefixtures("peers")
def test_orthanc_gives_back_what_it_took_and_its_viewer_shows_the_pictures(
    objects: Sequence[EncodedObject], tmp_path: Path
) -> None:
    assert WEB_VIEWER.exists(), "apt-get install orthanc-webviewer: `make test` does"
    require(CHROMIUM, "--version", "Chromium")
    port = free_port()
    with running_orthanc(
        tmp_path / "pacs", dicom_port=port, node_port=free_port(), forwards=False, plugins=[WEB_VIEWER]
    ) as orthanc:
        _send(port, objects)
        kept = [uid for series in orthanc.series() for uid in series["Instances"]]
        _require_equal(objects, [dcmread(io.BytesIO(orthanc.instance(uid))) for uid in kept])

        assert "web-viewer" in orthanc.get("/plugins")
        (pictures,) = orthanc.series("OT")
        shot = tmp_path / "shot.png"
        page = f"http://127.0.0.1:{orthanc.http_port}/web-viewer/app/viewer.html?series={pictures['ID']}"
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"]
        command += ["--virtual-time-budget=15000", f"--screenshot={shot}", page]
        subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=LIMIT_S)
    shown = _picture_in(shot)
    sent = [
        Image.fromarray(dcmread(io.BytesIO(one.content)).pixel_array)
        for one in objects
        if one.kind is ObjectKind.PICTURE
    ]
    likeness = [_likeness(shown, picture) for picture in sent]
    assert likeness[0] > 0.8  # the answer comes first
    assert max(likeness[1:]) < 0.6


def _picture_in(shot: Path) -> Image.Image:
    """The picture within a screenshot of the viewer: what is not the viewer's own black."""
    image = Image.open(shot).convert("RGB")
    lit = np.asarray(image).max(axis=2) > 8
    rows, columns = (np.flatnonzero(lit.mean(axis=axis) > 0.6) for axis in (1, 0))
    left, top, right = int(columns[0]), int(rows[0]), int(columns[-1]) + 1
    return image.crop((left, top, right, top + (right - left) * 768 // 1024))  # below it is a slider


def _likeness(one: Image.Image, other: Image.Image) -> float:
    """Correlation of both at a size at which lines of text are grey bars."""

    def small(image: Image.Image) -> Grey:
        image = image.crop((0, image.height // 5, image.width, image.height))  # every page has the same head
        return np.asarray(image.convert("L").resize((128, 96), Image.Resampling.BOX), dtype=float)

    return float(np.corrcoef(small(one).ravel(), small(other).ravel())[0, 1])
