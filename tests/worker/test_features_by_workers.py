"""Features of many studies by real Celery workers on a real redis-server."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from config.settings import ConfigurationError, Settings, load_settings
from node.cli import build
from node.pipeline.ports import FeatureRequest
from node.processes.supervisor import EmbeddedRedis
from node.reference.spec import StudySpec
from node.research.extraction import (
    Extraction,
    Row,
    WorkersSilent,
    answer_request,
    by_workers,
    extract_features,
    settings_sha256,
    study_row,
    write_answer,
)
from node.worker import BrokerAway, CeleryBroker, create_app
from tests.e2e.conftest import OSTEONODE
from tests.made_studies import write_reference_study
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow

MASK = "truth_mask.nii.gz"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "study"
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4")))
    return folder


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(segmentation={"cross_check": False})


def extract(
    studies: list[Path], out: Path, settings: Settings, publish: Callable[[FeatureRequest], None], **how: Any
) -> tuple[Row, ...]:
    rows_of = by_workers(publish, out, silence_s=how.pop("silence_s", 120.0))
    console = Console(file=StringIO())
    return extract_features(studies, out, Extraction(settings=settings, mask=MASK, jobs=1), console, rows_of)


def test_workers_give_the_rows_that_this_process_gives_and_a_bad_study_its_reason(
    tmp_path: Path, study: Path, broker: EmbeddedRedis
) -> None:
    """The two commands of the documentation, under one file of settings."""
    config = tmp_path / "node.toml"
    config.write_text(
        f'[broker]\nurl = "{broker.url}"\n[storage]\nroot = "{tmp_path / "var"}"\n'
        "[segmentation]\ncross_check = false\n",
        "utf-8",
    )
    (tmp_path / "nothing").mkdir()
    studies = [str(study), str(tmp_path / "nothing")]
    out = tmp_path / "features.csv"
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [OSTEONODE, "worker", "--queues", "features", "--config", config], stderr=log, cwd=tmp_path
        )
    try:
        asked = ("features", *studies, "--out", out, "--mask", MASK, "--workers", "--config", config)
        command = subprocess.run([OSTEONODE, *asked], capture_output=True, text=True, check=False)
    finally:
        worker.kill()
        worker.wait(LIMIT_S)
    assert command.returncode == 0, command.stderr
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = load_settings(config)
    sha256 = settings_sha256(Extraction(settings=settings, mask=MASK, jobs=1))
    assert [row["study"] for row in rows] == studies
    assert rows[0] == study_row(str(study), settings, MASK, sha256)
    assert len([name for name in rows[0] if name.startswith(("original_", "wavelet-"))]) == 851
    assert "holds no DICOM file" in rows[1]["reason"]
    assert json.loads(out.with_name("features.csv.json").read_text("utf-8"))["packages"]["pyradiomics"]
    assert not out.with_name("features.csv.rows").exists()


def test_workers_without_a_broker_to_reach_them_by_are_refused(tmp_path: Path, study: Path) -> None:
    asked = ["features", str(study), "--out", str(tmp_path / "features.csv"), "--workers"]
    with pytest.raises(ConfigurationError, match=r"--workers needs broker\.url"):
        CliRunner().invoke(build(["features", "worker"]), asked, catch_exceptions=False)
    assert not (tmp_path / "features.csv").exists()


def test_a_worker_with_other_settings_gives_a_reason_and_no_features(
    tmp_path: Path, study: Path, settings: Settings
) -> None:
    regions = replace(settings.segmentation.regions, erosion_mm=4.0)
    other = settings.model_copy(
        update={"segmentation": settings.segmentation.model_copy(update={"regions": regions})}
    )
    (row,) = extract(
        [study], tmp_path / "features.csv", settings, lambda request: answer_request(request, other)
    )
    assert row["reason"] == "the worker has other settings or versions than the command"


def test_answers_that_came_while_nobody_waited_are_taken_up(
    tmp_path: Path, settings: Settings, study: Path
) -> None:
    """The command was stopped; a worker answered one of its two requests nevertheless."""
    asked: list[FeatureRequest] = []
    out, second = tmp_path / "features.csv", tmp_path / "second"
    with pytest.raises(WorkersSilent, match="2 studies wait"):
        extract([study, second], out, settings, asked.append, silence_s=0.1)
    write_answer(asked[0], {"study": asked[0].study, "reason": "answered meanwhile"})
    again: list[FeatureRequest] = []

    def answer(request: FeatureRequest) -> None:
        again.append(request)
        write_answer(request, {"study": request.study, "reason": "asked again"})

    rows = extract([study, second], out, settings, answer)
    assert [row["reason"] for row in rows] == ["answered meanwhile", "asked again"]
    assert [request.study for request in again] == [str(second)]
    write_answer(asked[1], {"study": "late"})  # and one that comes too late does no harm
    assert not out.with_name("features.csv.rows").exists()


def test_an_answer_goes_into_a_folder_of_answers_alone(tmp_path: Path) -> None:
    request = FeatureRequest(study="", mask=None, settings_sha256="", answer=str(tmp_path / "model.json"))
    with pytest.raises(ValueError, match="folder of answers"):
        write_answer(request, {})
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_is_away_is_told_at_once(
    tmp_path: Path, broker: EmbeddedRedis, study: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(broker={"url": broker.url})
    broker.stop()
    celery = CeleryBroker(create_app(settings, lambda message: None))
    with pytest.raises(BrokerAway):
        extract([study], tmp_path / "features.csv", settings, celery.request_features)
