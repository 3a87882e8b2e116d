"""Reference studies, each rendered once in a test run: both workers take theirs from one folder."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

import pytest

from node.reference import study
from node.reference.spec import StudySpec

_folders: list[Path] = []  # of this run; none outside pytest


def keep_studies(factory: pytest.TempPathFactory, worker_id: str) -> None:
    """Keep what is rendered from now on in a folder that all workers of this run share."""
    base = factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "made-studies"
    folder.mkdir(mode=0o700, exist_ok=True)
    _folders[:] = [folder]


def write_reference_study(directory: Path, spec: StudySpec) -> None:
    """What `node.reference.study.write_reference_study` writes, as a copy of what it wrote before for `spec`.

    Tests of the writer itself do not use this.
    """
    if not _folders:
        study.write_reference_study(directory, spec)
        return
    kept = _folders[0] / hashlib.sha256(repr(spec).encode()).hexdigest()[:24]
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            made = kept.with_suffix(".part")
            shutil.rmtree(made, ignore_errors=True)  # of a worker that was killed
            study.write_reference_study(made, spec)
            made.rename(kept)
    shutil.copytree(kept, directory, dirs_exist_ok=True)
