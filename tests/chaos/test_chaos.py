"""The chaos run in its short form; `make chaos` has the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.chaos_run import run
from tests.chaos.fire import small_disk
from tests.waiting import LIMIT_S


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of the PACS that was taken away
def test_a_node_under_fire_reports_every_study_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", studies=4) as disk:
        assert disk is not None or os.environ.get("CI") != "true", "a small disk cannot be mounted"
        outcome = run(tmp_path, studies=4, seed=20261123, seconds=5.0, patience_s=LIMIT_S, disk=disk)
    assert outcome.problems == [], outcome.table()
    assert all(outcome.faults.values()), outcome.table()  # each came
    assert outcome.reports >= outcome.studies == 4
