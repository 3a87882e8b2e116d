"""The whole pipeline in the test's own process: no database, no broker, no network."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, load_settings
from node.cli import main
from node.clinical import NoLaboratory
from node.pipeline import step_functions
from node.pipeline.artefacts import (
    REPORT,
    RESULT,
    MemoryArtefacts,
    SelectionArtefact,
    from_json,
    stored_objects,
)
from node.pipeline.engine import resolve_engine
from node.pipeline.ports import ClinicalValues, Issue
from node.pipeline.step_functions import LocalRun, run_locally
from node.pipeline.steps.report import ReportFiles
from node.pipeline.steps.select import select
from node.pipeline.study_run import Arrival, StepResult, StudyImages, StudyRun
from node.study_report import Completeness, EncodedObject, Report
from scoring.calibration.control_charts import ScannerReading
from segmentation.engines import Segmenter

ISSUED_AT = datetime(2026, 1, 16, 9, tzinfo=UTC)


def unchecked(**sections: Any) -> Settings:
    """Settings without the second look at a mask, which takes longer than all the rest."""
    segmentation = {"cross_check": False} | sections.pop("segmentation", {})
    return load_settings(segmentation=segmentation, **sections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    output: str
    errors: str


def osteonode(*words: object) -> Ended:
    """The command line as `osteonode` has it, without the seconds that a process takes to load its libraries.

    Whoever needs a process of its own for what is claimed starts `OSTEONODE` of `tests/e2e/conftest.py`.
    """
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["osteonode", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return Ended(status=int(ended.value.code or 0), output=output.getvalue(), errors=errors.getvalue())


class Remembered:
    """What phantoms read, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, ScannerReading] = {}

    def keep(self, study_instance_uid: str, source_uid: str, reading: ScannerReading) -> None:
        self.kept[source_uid] = reading

    def forget(self, source_uid: str) -> None:
        self.kept.pop(source_uid, None)

    def readings(self, device_serial: str) -> Sequence[ScannerReading]:
        return [one for one in self.kept.values() if one.protocol.device_serial == device_serial]


class RememberedPatients:
    """Earlier studies in memory, by study."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, str, str]] = {}

    def keep(
        self, *, study_instance_uid: str, patient_id: str, issuer: str, taken_on: date, content: str
    ) -> None:
        assert taken_on.year > 2000
        self.kept[study_instance_uid] = (patient_id, issuer, content)

    def forget(self, study_instance_uid: str) -> None:
        self.kept.pop(study_instance_uid, None)

    def of_patient(self, *, patient_id: str, issuer: str) -> Sequence[str]:
        return [one[2] for one in self.kept.values() if one[:2] == (patient_id, issuer)]


class Run:
    """One study, from its folder to what would be sent.

    Parameters
    ----------
    mask : the segmentation that is used; None: that of the settings' engine.
    engine : takes the place of both.
    files : whether SEG, SR and pictures are made: more than half of the time. Not where a test looks at the
        result and its findings alone; `test_report_matrix.py` and `test_withheld_outputs.py` look at files.
    """

    def __init__(
        self,
        folder: Path,
        mask: Path | None = None,
        *,
        settings: Settings | None = None,
        engine: Segmenter | None = None,
        declared_qct: bool = False,
        issue: Issue | None = None,
        clinical: ClinicalValues | None = None,
        completeness: Completeness | None = None,
        files: bool = True,
        **histories: Any,
    ) -> None:
        used = settings or unchecked()
        segmenter = engine or resolve_engine(used.segmentation, mask)
        self.artefacts = MemoryArtefacts()
        self.study = StudyRun(
            settings=used,
            images=StudyImages(sorted(folder.glob("*.dcm")), used),
            artefacts=self.artefacts,
            engine=lambda: segmenter,
            clinical=clinical or NoLaboratory(),
            issue=lambda: issue or Issue(issued_at=ISSUED_AT),
            arrival=Arrival(declared_qct=declared_qct, completeness=completeness),
            **histories,
        )
        with pytest.MonkeyPatch.context() as patch:
            if not files:
                patch.setattr(
                    step_functions, "encode", lambda *_, **__: ReportFiles(objects=(), png_files={})
                )
            self.local: LocalRun = run_locally(self.study)

    @property
    def report(self) -> Report:
        return from_json(Report, self.artefacts.get(REPORT))

    @property
    def result(self) -> dict[str, Any]:
        """What result.json holds."""
        document: dict[str, Any] = json.loads(self.artefacts.get(RESULT))
        return document

    @property
    def codes(self) -> set[str]:
        return {finding.code for finding in self.report.findings}

    @property
    def objects(self) -> tuple[EncodedObject, ...]:
        return stored_objects(self.artefacts)


def select_in(
    folder: Path,
    *,
    settings: Settings | None = None,
    arrival: Arrival | None = None,
    scanners_watched: bool = False,
) -> SelectionArtefact | StepResult:
    """What the select step alone decides; of a study that nobody declared, unless `arrival` says so."""
    used = settings or unchecked()
    images = StudyImages(sorted(folder.glob("*.dcm")), used)
    return select(images, used, arrival=arrival or Arrival(), scanners_watched=scanners_watched)


def selected(folder: Path, **how: Any) -> SelectionArtefact:
    """As `select_in`, of a study that is selected from."""
    found = select_in(folder, **how)
    assert isinstance(found, SelectionArtefact)
    return found
