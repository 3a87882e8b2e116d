"""The installed distribution, without the checkout around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from config.settings import load_settings
from node.commands.check import CheckStatus, examine
from node.reference.spec import StudySpec
from tests.made_studies import write_reference_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel's content, built by the project's own backend."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_study_is_processed_by_the_wheel_alone(unpacked, tmp_path):
    """Data files that a wheel lacks show only outside the checkout."""
    write_reference_study(tmp_path / "study", StudySpec.reduced())
    # -P and the wheel first: neither the current folder nor the editable checkout is imported from.
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-P", "-m", "node.cli", "process", "study", "--out", "out"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert result["levels"]["L3"]["bmd_mg_cm3"] == pytest.approx(96, abs=3)
    where = [sys.executable, "-P", "-c", "import node, config; print(node.__file__, config.__file__)"]
    said = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(path.startswith(str(unpacked)) for path in said.stdout.split())
    Draft202012Validator(json.loads((unpacked / "node" / "result.schema.json").read_text("utf-8"))).validate(
        result
    )


def test_each_package_name_belongs_to_this_distribution_alone(tmp_path):
    """Distributions named config, node and scoring exist publicly and would overwrite these silently."""
    settings = load_settings(storage={"root": str(tmp_path)})
    lines = {line.what: line for line in examine(settings)}
    assert lines["own packages"].standing is CheckStatus.OK, lines["own packages"].detail


# pynetdicom drops the socket of a connection that was refused, and the interpreter says so.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning", "ignore:Exception ignored in. <socket")
def test_check_fails_on_a_pacs_that_does_not_answer(tmp_path):
    destination = {"name": "gone", "ae_title": "GONE", "host": "127.0.0.1", "port": 9}
    settings = load_settings(storage={"root": str(tmp_path)}, destinations=[destination])
    told = {line.what: line.standing for line in examine(settings)}
    assert told["destination"] is CheckStatus.FAILED
    assert told["archive"] is CheckStatus.WARNING  # it is asked how many images there are, too


def test_check_warns_of_what_is_only_a_demonstration(tmp_path):
    lines = {line.what: line for line in examine(load_settings(storage={"root": str(tmp_path)}))}
    for what in ("reference", "model"):
        assert lines[what].standing is CheckStatus.WARNING
        assert "NOT FOR CLINICAL USE" in lines[what].detail


def test_check_warns_of_a_reference_that_fits_no_study_for_what_it_leaves_unstated(tmp_path):
    def line_for(*accepted: str):
        scoring = {
            "reference": "chinese-men-mindways",
            "accept_unstated": {"chinese-men-mindways": accepted},
        }
        found = examine(load_settings(storage={"root": str(tmp_path)}, scoring=scoring))
        return next(line for line in found if line.what == "reference")

    refused = line_for("kvp", "roi")
    assert refused.standing is CheckStatus.WARNING
    assert "vertebral levels (taken as L1, L2)" in refused.detail
    assert line_for("kvp", "roi", "levels").standing is CheckStatus.OK
