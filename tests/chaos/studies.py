"""Many small studies, and a sender that sends an instance again until it is answered with Success."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom import dcmread, dcmwrite
from pydicom.uid import generate_uid

from node.reference.spec import StudySpec
from tests.chaos.node_under_fire import AE_TITLE
from tests.made_studies import write_reference_study

STORESCU = Path("/usr/bin/storescu")
SPEC = StudySpec.one_slice_each("L1", "L2", "L3", pixel_spacing_mm=(1.7, 1.7), matrix=208)
_ANSWER = re.compile(r"Sending file: (?P<path>\S+)|Received Store Response \((?P<status>\w+)\)")
_AGAIN_AFTER_S = 0.5


def write_studies(folder: Path, count: int) -> Mapping[str, Sequence[Path]]:
    """One rendered study under many identities. Returns each study's files by its Study Instance UID."""
    write_reference_study(folder / "model", SPEC)
    images = [dcmread(path) for path in sorted((folder / "model").glob("*.dcm"))]
    studies: dict[str, list[Path]] = {}
    for number in range(count):
        (folder / str(number)).mkdir()
        for index, image in enumerate(images):
            changed = image.copy()
            changed.file_meta = image.file_meta.copy()
            for keyword in (
                "StudyInstanceUID",
                "SeriesInstanceUID",
                "SOPInstanceUID",
                "FrameOfReferenceUID",
            ):
                if keyword in changed:
                    uid = generate_uid(entropy_srcs=[str(image[keyword].value), str(number)])
                    setattr(changed, keyword, uid)
            changed.file_meta.MediaStorageSOPInstanceUID = changed.SOPInstanceUID
            changed.PatientID = f"REFERENCE-{number + 1}"
            path = folder / str(number) / f"{index}.dcm"
            dcmwrite(path, changed)
            studies.setdefault(str(changed.StudyInstanceUID), []).append(path)
    return studies


class Sender(threading.Thread):
    """Sends one study by DCMTK, what was not answered with Success again, over a new association."""

    def __init__(self, files: Sequence[Path], *, port: int, begin_after_s: float, give_up: float) -> None:
        super().__init__(daemon=True)
        self.left = list(files)
        self.resends = 0  # of instances
        self._port = port
        self._begin_after_s = begin_after_s
        self._give_up = give_up  # by the monotonic clock

    def run(self) -> None:
        time.sleep(self._begin_after_s)
        while self.left and time.monotonic() < self._give_up:
            stored = send(self.left, self._port)
            self.left = [path for path in self.left if path not in stored]
            if self.left:
                self.resends += len(self.left)
                time.sleep(_AGAIN_AFTER_S)


def send(files: Sequence[Path], port: int) -> frozenset[Path]:
    """Send files over one association with DCMTK. Returns those answered with Success."""
    limits = ["-to", "5", "-ta", "30", "-td", "30"]
    asked = [STORESCU, "-v", "--no-halt", *limits, "-aec", AE_TITLE, "127.0.0.1", str(port), *files]
    environment = os.environ | {"TCP_NODELAY": "1"}  # else DCMTK waits 40 ms for each acknowledgement
    said = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    stored, current = set(), None
    for line in (said.stdout + said.stderr).splitlines():
        if match := _ANSWER.search(line):
            if match["path"]:
                current = Path(match["path"])
            elif match["status"] == "Success" and current is not None:
                stored.add(current)
    return frozenset(stored)
