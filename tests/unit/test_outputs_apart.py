"""No command writes or deletes among what it reads: refused as used wrongly, with every input as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli import build
from node.reference.spec import StudySpec
from tests.made_studies import write_reference_study


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(build([str(words[0])]), [str(word) for word in words])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    write_reference_study(folder, StudySpec.reduced(view=("L3", "L3")))
    return folder


@pytest.fixture
def study(whole, tmp_path) -> Path:
    """One image, under a name that `process` would delete."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "report.dcm").write_bytes(min(whole.glob("*.dcm")).read_bytes())
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["study", "study/out", "link", "link/out", "study/../study"])
def test_process_writes_neither_into_the_study_nor_into_a_folder_of_it(study, tmp_path, place):
    (tmp_path / "link").symlink_to(study)
    before = content(study)
    found = run("process", study, "--out", tmp_path / place)
    assert found.exit_code == 2
    assert "is inside the input folder" in " ".join(found.output.replace("│", " ").split())
    assert content(study) == before


def test_process_deletes_no_image_that_lies_in_out_under_a_result_s_name(study, tmp_path):
    """The folder of the study is OUT's, and its image a link to a file in OUT."""
    out = tmp_path / "out"
    inner = out / "study"
    inner.mkdir(parents=True)
    (study / "report.dcm").rename(out / "report.dcm")
    (inner / "image.dcm").symlink_to(out / "report.dcm")
    before = content(out)
    found = run("process", inner, "--out", out)
    assert found.exit_code == 2
    assert "would be replaced" in " ".join(found.output.replace("│", " ").split())
    assert content(out) == before


@pytest.mark.parametrize(
    ("option", "name"),
    [("--mask", "segmentation.dcm"), ("--config", "result.json"), ("--clinical", "result.json")],
)
def test_process_deletes_nothing_that_an_option_names(study, tmp_path, option, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("", "utf-8")
    found = run("process", study, "--out", out, option, out / name)
    assert found.exit_code == 2
    assert (out / name).exists()


def test_features_are_written_neither_into_a_study_nor_over_another_file(study, tmp_path):
    before = content(study)
    for out in (study / "features.csv", study / "report.dcm"):
        assert run("features", study, "--out", out).exit_code == 2
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("patient,age\np1,61\n", "utf-8")
    found = run("features", study, "--out", cohort)
    assert found.exit_code == 2
    assert cohort.read_text("utf-8") == "patient,age\np1,61\n"
    assert content(study) == before


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_training_computes_features_neither_in_a_study_nor_over_its_cohort(study, tmp_path, command):
    head = "patient,study,t_score,age,sex,alp_u_l,homocysteine_umol_l"
    cohort = tmp_path / "features.csv"
    cohort.write_text(f"{head}\np1,study,-2.7,71,F,88,14.2\n", "utf-8")
    before = content(tmp_path)
    words = ("evaluate", "demonstration", cohort) if command == "evaluate" else ("train", cohort)
    for out in (study, tmp_path):
        assert run(*words, "--out", out).exit_code == 2, out
        assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["truth.json", "truth_mask.nii.gz", "image.dcm"])
def test_a_reference_study_replaces_no_file(tmp_path, name):
    (tmp_path / name).write_text("mine", "utf-8")
    found = run("phantom", tmp_path, "--reduced")
    assert found.exit_code == 2
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {name: "mine"}
