"""Fields of view without sacrum and last rib: densities by place, names by a person's statement alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from node.result_document import read_result
from tests.e2e.in_process import ISSUED_AT, RememberedPatients, Run, osteonode, unchecked
from tests.made_studies import write_reference_study

VIEWS = {("L2", "L4"): ("L2", "L3", "L4"), ("L4", "L4"): ("L4",), ("L1", "L3"): ("L1", "L2", "L3")}
BMD = {"T12": 110.0, "L1": 104.0, "L2": 101.0, "L3": 92.0, "L4": 86.0, "L5": 90.0}
BY_NAME = ("t_score", "z_score", "rad_score", "features", "nomogram", "follow_up")


@pytest.fixture(scope="module", params=VIEWS, ids="-".join)
def view(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def study(view: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=view, bmd_mg_cm3=BMD))
    return folder


@pytest.fixture(scope="module")
def out(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run = osteonode("process", study, "--out", folder, "--issued-at", ISSUED_AT.isoformat())
    assert run.status == 0, run.output + run.errors
    assert "lumbar body 1 of " in run.output
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "result.json").read_text("utf-8"))
    return values


def test_each_whole_body_is_measured_by_its_place_and_none_has_a_name(
    study: Path, view: tuple[str, str], result: dict[str, Any]
) -> None:
    truth = json.loads((study / "truth.json").read_text("utf-8"))
    whole = VIEWS[view]
    assert result["outcome"] == "reported"
    assert result["levels"] == {}
    assert result["numbering"] == {"confirmed": False, "basis": "none"}
    places = [(one["ordinal"], one["count"]) for one in result["unnamed_bodies"]]
    assert places == [(ordinal, len(whole)) for ordinal in range(1, len(whole) + 1)]
    for one, name in zip(result["unnamed_bodies"], whole, strict=True):
        known = truth["levels"][name]
        assert one["bmd_mg_cm3"] == pytest.approx(known["bmd_mg_cm3"], abs=3.0), name
        assert one["volume_mm3"] == pytest.approx(known["volume_mm3"], rel=0.10), name
        assert one["centroid_mm"] == pytest.approx(known["centroid_mm"], abs=1.5), name
        assert one["equivalent"] == truth["equivalent"]
        assert 0 < one["bmd_uncertainty_mg_cm3"] < 3.0
        assert one["hu_mean"] is not None
        assert one["hu_sd"] is not None


def test_nothing_that_rests_on_a_name_is_reported(result: dict[str, Any]) -> None:
    assert [result[key] for key in BY_NAME] == [None] * len(BY_NAME)
    assert result["categories"] == {"study_class": None, "density": None}
    (unnamed,) = [one for one in result["findings"] if one["code"] == "levels_unnamed"]
    assert set(unnamed["withholds"]) >= {"t_score", "z_score", "features", "rad_score", "nomogram"}
    assert not {"level_unconfirmed", "l3_not_found"} & {one["code"] for one in result["findings"]}


def test_the_result_is_read_back(out: Path, result: dict[str, Any]) -> None:
    document = read_result((out / "result.json").read_bytes())
    assert document.values() == result
    count = len(result["unnamed_bodies"])
    assert list(document.bodies) == [f"lumbar body {n} of {count}" for n in range(1, count + 1)]


def test_segments_and_groups_are_called_by_place_and_no_object_holds_the_code_of_a_level(
    out: Path, result: dict[str, Any]
) -> None:
    for path in sorted(out.glob("*.dcm")):
        run = subprocess.run(["/usr/bin/dciodvfy", path], capture_output=True, check=False)
        assert [line for line in run.stderr.splitlines() if line.startswith(b"Error")] == [], path.name
    count = len(result["unnamed_bodies"])
    places = [f"lumbar body {n} of {count}" for n in range(1, count + 1)]
    segmentation = dcmread(out / "segmentation.dcm")
    labels = [one.SegmentLabel for one in segmentation.SegmentSequence]
    assert labels[: 2 * count] == [
        f"{place} {part}" for place in places for part in ("vertebral body", "cancellous core (BMD region)")
    ]
    dump = subprocess.run(
        ["/usr/bin/dsrdump", "+Pl", "+Pc", out / "report.dcm"], capture_output=True, text=True, check=True
    ).stdout
    for place, one in zip(places, result["unnamed_bodies"], strict=True):
        assert f"{place} cancellous core (BMD region)" in dump
        assert f"{place} (name not determined): BMD {one['bmd_mg_cm3']:.1f}" in dump
    assert "LEVEL-UNKNOWN" in dump
    for code in ("66794005", "14293000", "36470004", "11994002", "49668003"):
        assert code not in dump
        assert code not in str(segmentation)


def test_a_stated_first_level_names_the_bodies_and_the_report_says_so(
    study: Path, view: tuple[str, str], result: dict[str, Any], tmp_path: Path
) -> None:
    whole = VIEWS[view]
    words = ("process", study, "--out", tmp_path, "--issued-at", ISSUED_AT.isoformat())
    run = osteonode(*words, "--first-level", whole[0])
    assert run.status == 0, run.output + run.errors
    named = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert named["unnamed_bodies"] == []
    assert named["numbering"] == {"confirmed": True, "basis": "stated"}
    read = {name: level["bmd_mg_cm3"] for name, level in named["levels"].items() if level["complete"]}
    assert read == dict(zip(whole, [one["bmd_mg_cm3"] for one in result["unnamed_bodies"]], strict=True))
    (stated,) = [one for one in named["findings"] if one["code"] == "levels_stated"]
    assert stated["severity"] == "info"
    assert whole[0] in stated["text"]
    assert named["provenance"]["engine"]["parameters"]["first_level"] == whole[0]
    if "L3" in whole:
        assert named["features"] is not None


@pytest.mark.parametrize(
    "words", [("--first-level", "L6"), ("--first-level", "l1"), ("--first-level", "L1", "--engine", "mask")]
)
def test_a_first_level_that_cannot_be_used_is_wrong_usage(
    study: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert osteonode("process", study, "--out", tmp_path / "out", *words).status == 2


def test_bodies_without_a_name_are_not_kept_for_follow_up(study: Path) -> None:
    patients = RememberedPatients()
    run = Run(study, settings=unchecked(), patients=patients, files=False)
    assert run.report.has_unnamed_bodies
    assert patients.kept == {}
    assert run.report.follow_up is None
