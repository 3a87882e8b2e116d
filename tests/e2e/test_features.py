"""`osteonode features` on studies with known answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import build
from node.reference.spec import StudySpec
from tests.e2e.in_process import Ended, Run, osteonode
from tests.made_studies import write_reference_study

NAMES = 851


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cohort")
    for seed in (1, 2):
        write_reference_study(folder / f"study{seed}", StudySpec.reduced(view=("L2", "L4"), seed=seed))
    (folder / "nothing").mkdir()
    return [folder / "study1", folder / "nothing", folder / "study2"]


def features(studies: list[Path], out: Path) -> Ended:
    return osteonode("features", *studies, "--out", out, "--mask", "truth_mask.nii.gz", "--jobs", "2")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(studies, tmp_path_factory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("out") / "features.csv"
    return out, features(studies, out)


def test_each_study_has_a_row_with_all_features_or_the_reason(made, studies):
    out, run = made
    assert run.status == 0, run.errors
    assert " 3/3 " in run.errors  # the bar, at its end
    rows = table(out)
    assert [row["study"] for row in rows] == [str(study) for study in studies]
    assert [bool(row["reason"]) for row in rows] == [False, True, False]
    assert "holds no DICOM file" in rows[1]["reason"]
    about = [name for name in rows[0] if not name.startswith(("original_", "wavelet-"))]
    assert len(rows[0]) - len(about) == NAMES
    for row in (rows[0], rows[2]):
        assert all(float(row[name]) == float(row[name]) for name in row if name not in about)
        assert (row["level"], row["kvp"], row["equivalent"]) == ("L3", "120.0", "HA")
    assert rows[0]["original_firstorder_Mean"] != rows[2]["original_firstorder_Mean"]


def test_the_features_are_those_of_the_report(made, studies):
    out, _ = made
    reported = Run(studies[0], studies[0] / "truth_mask.nii.gz", files=False).result["features"]
    row = table(out)[0]
    assert reported
    assert {name: float(row[name]) for name in reported} == reported


def test_settings_and_versions_stand_beside_the_table(made):
    out, _ = made
    told = json.loads(out.with_name("features.csv.json").read_text("utf-8"))
    assert told["packages"]["pyradiomics"] == "3.0.1"
    assert "coif1" in told["radiomics_settings"]
    assert len(told["radiomics_settings_sha256"]) == 64


def test_a_run_that_was_killed_is_gone_on_with(made, studies, tmp_path):
    """The torn last row is computed again, the whole one before it is not."""
    out, _ = made
    whole = out.read_text("utf-8").splitlines(keepends=True)
    marked = whole[1].replace(",120.0,", ",120.5,", 1)
    resumed, partial = tmp_path / "features.csv", tmp_path / "features.csv.partial"
    partial.write_text("".join([whole[0], marked, whole[3][:4000]]), "utf-8")
    run = features([studies[0], studies[2]], resumed)
    assert run.status == 0, run.errors
    assert "1 of 2 studies were done before" in run.errors
    rows = table(resumed)
    assert [row["kvp"] for row in rows] == ["120.5", "120.0"]
    assert rows[1] == table(out)[2]
    assert not partial.exists()


def test_no_features_at_all_are_a_refusal(studies, tmp_path):
    asked = [
        "features",
        str(studies[1]),
        "--out",
        str(tmp_path / "features.csv"),
        "--mask",
        "truth_mask.nii.gz",
    ]
    run = CliRunner().invoke(build(["features", "train"]), asked)
    assert run.exit_code == 3
    assert "no features" in run.output
