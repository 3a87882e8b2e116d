"""A worker with small steps, run as a program by the tests: ``small_worker.py FOLDER``, settings on stdin.

The first attempt at `segment` says in FOLDER that it began, and then hangs.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from config.settings import Settings
from node import logs
from node.pipeline.artefacts import store_objects
from node.pipeline.ports import Step
from node.pipeline.study_run import PROCEED, StepResult, StudyRun
from node.processes.worker import run_celery_worker
from node.study_report import EncodedObject, ObjectKind

FOLDER = Path(sys.argv[1])


def _note(step: str) -> int:
    """Write down who began a step; returns how often it has begun."""
    (FOLDER / f"{step}-{os.getpid()}").touch()
    return len(list(FOLDER.glob(f"{step}-*")))


def select(study: StudyRun) -> StepResult:
    _note("select")
    return PROCEED


def segment(study: StudyRun) -> StepResult:
    if _note("segment") == 1:
        signal.pause()
    return PROCEED


def score(study: StudyRun) -> StepResult:
    _note("score")
    return PROCEED


def report(study: StudyRun) -> StepResult:
    _note("report")
    content = (FOLDER / "report.dcm").read_bytes()
    one = EncodedObject(
        kind=ObjectKind.STRUCTURED_REPORT,
        file_name="report.dcm",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.11",
        content=content,
    )
    store_objects(study.artefacts, (one,))
    return PROCEED


if __name__ == "__main__":
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    logs.configure(settings.log)
    sys.exit(
        run_celery_worker(
            settings,
            [step.value for step in Step],
            lambda _: (FOLDER / f"ready-{os.getpid()}").touch(),
            functions={Step.SELECT: select, Step.SEGMENT: segment, Step.SCORE: score, Step.REPORT: report},
        )
    )
