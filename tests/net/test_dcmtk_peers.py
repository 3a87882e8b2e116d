"""DCMTK's other tools as peers: dcmsend, which chooses what it proposes, and findscu, whom nobody answers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage

from node.store.store import Store
from tests.net.conftest import STUDY_UID

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


def test_dcmsend_delivers_a_folder_of_mixed_syntaxes_and_classes_and_again_without_a_second_copy(
    listener: Any,
    store: Store,
    dcmtk: Dcmtk,
    make_dataset: Callable[..., Dataset],
    as_file: Callable[[Dataset], Path],
    tmp_path: Path,
) -> None:
    for number in range(1, 7):
        image = make_dataset(number, Rows=64, Columns=64, PixelData=bytes([number, 0]) * 64**2)
        if number % 3:
            image.compress((RLELossless, JPEG2000Lossless)[number % 2], generate_instance_uid=False)
        as_file(image)
    as_file(make_dataset(7, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT"))
    for _ in range(2):
        report = tmp_path / "report.txt"
        sent = dcmtk(
            "dcmsend", "-aec", "OSTEONODE", "+crf", report, "--scan-directories",
            "--scan-pattern", "*.dcm", "127.0.0.1", listener.port, tmp_path,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        said = report.read_text("latin-1")
        assert re.search(r"with status SUCCESS\s*: 7", said), said
    paths = store.instances.paths(STUDY_UID)
    assert len(paths) == 7
    assert store.overview.show(STUDY_UID).quarantined == 0


def test_findscu_is_told_that_queries_are_not_answered_and_the_listener_lives_on(
    listener: Any, dcmtk: Dcmtk
) -> None:
    asked = dcmtk(
        "findscu", "-S", "-aec", "OSTEONODE", "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={STUDY_UID}", "127.0.0.1", listener.port,
    )  # fmt: skip
    assert asked.returncode != 0
    assert "No Acceptable Presentation Contexts" in asked.stderr + asked.stdout
    assert dcmtk("echoscu", "-aec", "OSTEONODE", "127.0.0.1", listener.port).returncode == 0
