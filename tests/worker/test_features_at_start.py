"""A worker that scores tries the known image before its first task, and leaves word of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import Settings
from node.processes.supervisor import EmbeddedRedis
from node.store.store import open_store
from node.store.workers import FeatureCheck
from tests.waiting import LIMIT_S, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from config.settings import Settings
from node import logs
from node.pipeline import result_basis
from node.processes.worker import run_celery_worker

settings = Settings.model_validate_json(sys.stdin.buffer.read())
logs.configure(settings.log)
known = result_basis.load_golden_features()
factor = float(sys.argv[1])
moved = {"original_glcm_Idn": factor * known["original_glcm_Idn"]}
result_basis.load_golden_features = lambda: {**known, **moved}
sys.exit(run_celery_worker(settings, ["score"]))
"""


@pytest.mark.parametrize(
    ("factor", "drifted", "event"), [(1.0, 0, "features_as_known"), (1.001, 1, "features_drift")]
)
def test_a_worker_says_whether_features_come_out_as_known(
    tmp_path: Path,
    broker: EmbeddedRedis,
    make_settings: Callable[..., Settings],
    factor: float,
    drifted: int,
    event: str,
) -> None:
    settings = make_settings(broker={"url": broker.url}, log={"format": "json"})
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(factor)],
            stdin=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        assert worker.stdin is not None
        with worker.stdin as stdin:
            stdin.write(settings.model_dump_json().encode())
        store = open_store(settings.storage)

        def standing() -> FeatureCheck | None:
            assert worker.poll() is None, (tmp_path / "log").read_text()
            return store.feature_checks.here()

        found = wait_until(standing, "the worker says how features stand", every_s=0.1)
    finally:
        worker.kill()
        worker.wait(LIMIT_S)
        store.close()
    assert isinstance(found, FeatureCheck)
    assert (found.drifted, found.checked) == (drifted, 851)
    assert found.example.startswith("original_glcm_Idn " if drifted else "")
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert event in events
