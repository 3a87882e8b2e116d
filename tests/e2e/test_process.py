"""`osteonode process` on a digital reference study: every file, every number, and every refusal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread, dcmwrite

from node.dicom.seg.vertebra_masks import read_mask
from node.pipeline.artefacts import segmentation_from_bytes
from node.reference.spec import StudySpec
from segmentation.vertebrae import LABELS
from tests.e2e.conftest import OSTEONODE
from tests.e2e.in_process import osteonode
from tests.made_studies import write_reference_study

ISSUED_AT = "2026-01-16T09:00:00+00:00"
DSRDUMP = Path("/usr/bin/dsrdump")
NUMBERS = ("bmd_mg_cm3", "volume_mm3", "hu_mean", "hu_sd")


@dataclass(frozen=True)
class Outcome:
    """What one run of `process` left behind."""

    status: int
    out: Path
    output: str
    errors: str

    @property
    def printed(self) -> str:
        return self.output + self.errors

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.out / "result.json").read_text("utf-8"))

    @property
    def codes(self) -> set[str]:
        return {finding["code"] for finding in self.result["findings"]}

    @property
    def dicom(self) -> list[Path]:
        return sorted(self.out.glob("*.dcm"))


def process(study: Path, out: Path, *options: str | Path) -> Outcome:
    run = osteonode("process", study, "--out", out, "--issued-at", ISSUED_AT, *options)
    return Outcome(status=run.status, out=out, output=run.output, errors=run.errors)


def process_elsewhere(study: Path, out: Path, *options: str | Path) -> Outcome:
    """The same by the installed command, in a process of its own."""
    run = subprocess.run(
        [OSTEONODE, "process", study, "--out", out, "--issued-at", ISSUED_AT, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=out.parent,
    )
    return Outcome(status=run.returncode, out=out, output=run.stdout, errors=run.stderr)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced())
    return folder


@pytest.fixture(scope="module")
def truth(study) -> dict[str, Any]:
    return json.loads((study / "truth.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("laboratory") / "laboratory.csv"
    path.write_text(
        "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\nREFERENCE-1,OSTEONODE,2026-01-10,92,16.5\n"
    )
    return path


@pytest.fixture(scope="module")
def reported(study, laboratory, tmp_path_factory) -> Outcome:
    outcome = process(study, tmp_path_factory.mktemp("reported") / "out", "--clinical", laboratory)
    assert outcome.status == 0, outcome.printed
    return outcome


def test_every_file_of_the_contract_is_written(reported):
    names = {path.name for path in reported.out.iterdir()}
    assert {
        "result.json",
        "report.dcm",
        "segmentation.dcm",
        "nomogram.png",
        "overlay.png",
        "calibration.png",
    } <= names
    assert sum(name.startswith("nomogram") and name.endswith(".dcm") for name in names) == 4


def test_density_and_volume_are_right_at_every_level(reported, truth):
    assert set(reported.result["levels"]) == set(truth["levels"]) == {"L1", "L2", "L3", "L4", "L5"}
    for name, known in truth["levels"].items():
        level = reported.result["levels"][name]
        assert level["bmd_mg_cm3"] == pytest.approx(known["bmd_mg_cm3"], abs=3.0), name
        assert level["volume_mm3"] == pytest.approx(known["volume_mm3"], rel=0.10), name
        assert level["centroid_mm"] == pytest.approx(known["centroid_mm"], abs=3.0), name


def test_the_calibration_is_that_of_the_rods(reported, truth):
    calibration = reported.result["calibration"]
    assert (calibration["method"], calibration["equivalent"]) == ("two-point", "HA")
    known = {rod["density_mg_cm3"]: rod["hu"] for rod in truth["rods"]}
    slope = 200 / (known[200.0] - known[0.0])
    assert calibration["slope"] == pytest.approx(slope, rel=0.01)
    assert calibration["r2"] is None


def test_the_whole_chain_of_scores_is_there_and_marked(reported):
    result = reported.result
    assert result["t_score"] < -1
    assert result["categories"]["study_class"] in ("osteopenia", "osteoporosis")
    assert result["rad_score"] is not None
    assert len(result["features"]) == 6
    nomogram = result["nomogram"]
    assert nomogram["positive_class"] == "osteoporosis"
    assert sum(one["points"] for one in nomogram["inputs"]) == pytest.approx(nomogram["total_points"])
    assert {"demonstration_model", "demonstration_reference"} <= reported.codes


def test_every_object_and_page_that_uses_a_demonstration_says_so(reported):
    sentence = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE"
    assert sentence in dump(reported.out / "report.dcm")
    assert sentence in reported.printed
    for path in reported.out.glob("nomogram-*.dcm"):
        assert "research use only" in str(dcmread(path).SeriesDescription).lower()


def test_an_ha_phantom_gives_no_density_category(reported):
    """The rule is made for K2HPO4."""
    assert reported.result["categories"]["density"] is None
    assert "density_rule_equivalent" in reported.codes


def test_no_object_breaks_the_standard(reported, dciodvfy):
    assert len(reported.dicom) == 6
    for path in reported.dicom:
        said = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, (path.name, said)


def dump(path: Path) -> str:
    version = subprocess.run([DSRDUMP, "--version"], capture_output=True, text=True, check=True).stdout
    assert "dcmtk: dsrdump v3." in version
    # -Ec -Er: what DCMTK itself does not know of newer templates; +Pl: long texts whole.
    options = ["+Pl", "-Ec", "-Er"]
    return subprocess.run([DSRDUMP, *options, path], capture_output=True, text=True, check=True).stdout


def test_dsrdump_prints_the_numbers_of_the_result(reported):
    printed = [
        float(text) for text in re.findall(r'NUM:\(.*?\)="([-+0-9.eE]+)"', dump(reported.out / "report.dcm"))
    ]
    result = reported.result
    wanted = [level[key] for level in result["levels"].values() for key in NUMBERS]
    wanted += [result["t_score"], result["rad_score"], result["calibration"]["slope"]]
    wanted += [result["nomogram"]["total_points"], result["nomogram"]["probability"]]
    wanted += list(result["features"].values())
    for value in wanted:
        assert any(np.isclose(value, one, rtol=1e-4, atol=1e-6) for one in printed), value


def test_the_segmentation_read_back_is_the_drawn_mask(study, tmp_path, truth):
    """With a mask drawn elsewhere the SEG must hold its voxels, in their place."""
    outcome = process(study, tmp_path / "out", "--mask", study / "truth_mask.nii.gz")
    assert outcome.status == 0, outcome.printed
    assert outcome.result["provenance"]["engine"]["name"] == "mask"
    mask = SimpleITK.ReadImage(str(study / "truth_mask.nii.gz"))
    labels = SimpleITK.GetArrayFromImage(mask)
    drawn = segments(dcmread(outcome.out / "segmentation.dcm"))
    for name, label in (("L1", 31), ("L2", 30), ("L3", 29), ("L4", 28), ("L5", 27)):
        points = drawn[f"{name} vertebral body"]
        assert len(points) == int((labels == label).sum()), name
        k, j, i = np.nonzero(labels == label)
        centre = mask.TransformContinuousIndexToPhysicalPoint(
            (float(i.mean()), float(j.mean()), float(k.mean()))
        )
        assert points.mean(axis=0) == pytest.approx(centre, abs=0.01), name
        level = outcome.result["levels"][name]
        assert level["bmd_mg_cm3"] == pytest.approx(truth["levels"][name]["bmd_mg_cm3"], abs=3.0), name


def segments(seg: Dataset) -> dict[str, np.ndarray]:
    """Patient coordinates of every voxel of every segment, by label; from the standard's attributes alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    row_mm, column_mm = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    cosines = [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    across, down = np.array(cosines[:3]), np.array(cosines[3:])
    names = {item.SegmentNumber: item.SegmentLabel for item in seg.SegmentSequence}
    frames = np.atleast_3d(seg.pixel_array)
    points: dict[str, list[np.ndarray]] = {}
    for frame, about in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        name = names[about.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        origin = np.array([float(v) for v in about.PlanePositionSequence[0].ImagePositionPatient])
        j, i = np.nonzero(frame)
        points.setdefault(name, []).append(
            origin + i[:, None] * column_mm * across + j[:, None] * row_mm * down
        )
    return {name: np.concatenate(parts) for name, parts in points.items()}


def test_the_same_issue_time_gives_the_same_bytes(study, laboratory, reported, tmp_path):
    again = process_elsewhere(study, tmp_path / "out", "--clinical", laboratory)
    assert (again.status, again.output) == (reported.status, reported.output)
    assert [path.name for path in again.dicom] == [path.name for path in reported.dicom]
    for path in [*again.dicom, *again.out.glob("*.png")]:
        assert path.read_bytes() == (reported.out / path.name).read_bytes(), path.name


def test_what_each_step_left_is_kept_to_be_read_and_to_go_on_from(study, tmp_path):
    kept = tmp_path / "kept"
    found = process(study, tmp_path / "out", "--keep-artefacts", kept)
    assert found.status == 0, found.printed
    for name in (
        "README.txt", "settings.json", "versions.json", "run.json", "1-select/selection.json",
        "2-segment/segmentation.npz", "2-segment/vertebrae.nii.gz", "2-segment/regions.nii.gz",
        "3-score/measurements.json", "4-report/report.json", "4-report/report.dcm", "4-report/overlay.png",
    ):  # fmt: skip
        assert (kept / name).stat().st_size, name
    timings_s = json.loads((kept / "4-report" / "timings.json").read_text("utf-8"))
    assert {"select", "segment", "score", "report"} <= timings_s.keys()
    # The regions are those of the densities, where the images are: a viewer shows them so.
    regions = SimpleITK.ReadImage(str(kept / "2-segment" / "regions.nii.gz"))
    voxels = int((SimpleITK.GetArrayFromImage(regions) == LABELS["L3"]).sum())
    level = found.result["levels"]["L3"]
    assert voxels * np.prod(regions.GetSpacing()) == pytest.approx(level["roi_volume_mm3"])
    vertebrae = kept / "2-segment" / "vertebrae.nii.gz"
    labels, grid = read_mask(vertebrae)
    drawn = segmentation_from_bytes((kept / "2-segment" / "segmentation.npz").read_bytes()).vertebrae
    assert np.array_equal(labels, drawn.bodies)
    assert grid.origin_mm == pytest.approx(drawn.grid.origin_mm)
    assert np.array(grid.direction) == pytest.approx(np.array(drawn.grid.direction), abs=1e-6)
    again = process(study, tmp_path / "again", "--mask", vertebrae, "--keep-artefacts", kept)
    assert again.status == 0, again.printed  # in place of what the run before left
    for name, before in found.result["levels"].items():  # volumes differ: a label map has whole voxels alone
        assert again.result["levels"][name]["bmd_mg_cm3"] == pytest.approx(before["bmd_mg_cm3"], abs=3.0)


def test_artefacts_are_kept_among_no_other_files(study, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    for folder, said in ((tmp_path, "name an empty"), (study / "kept", "is inside the input folder")):
        run = process(study, tmp_path / "out", "--keep-artefacts", folder)
        assert run.status == 2
        assert said in " ".join(run.printed.replace("│", " ").split())
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_without_laboratory_values_the_rad_score_stands_alone(study, reported, tmp_path):
    outcome = process(study, tmp_path / "out")
    assert outcome.status == 0
    assert outcome.result["nomogram"] is None
    assert outcome.result["rad_score"] == pytest.approx(reported.result["rad_score"])
    assert "laboratory_missing" in outcome.codes
    missing = next(f for f in outcome.result["findings"] if f["code"] == "laboratory_missing")
    assert missing["text"] in outcome.printed.replace("\n", " ")
    new_uid = dcmread(outcome.out / "report.dcm").SOPInstanceUID
    assert new_uid != dcmread(reported.out / "report.dcm").SOPInstanceUID


def edited(study: Path, folder: Path, edit: Callable[[Dataset], None], *, keep: slice = slice(None)) -> Path:
    """A copy of some of a study's slices, each changed by `edit`."""
    folder.mkdir(parents=True)
    for path in sorted(study.glob("*.dcm"))[keep]:
        dataset = dcmread(path)
        edit(dataset)
        dcmwrite(folder / path.name, dataset)
    return folder


def unchanged(_: Dataset) -> None:
    """Leave a slice as it is."""


def without_patient(dataset: Dataset) -> None:
    dataset.PatientID = ""


def without_study(dataset: Dataset) -> None:
    dataset.StudyInstanceUID = ""


def require_refusal(outcome: Outcome, code: str, *, objects: int) -> None:
    """Exit 3, stated why, in JSON and picture; no density or score anywhere."""
    assert outcome.status == 3, outcome.printed
    assert code in outcome.codes
    result = outcome.result
    assert result["outcome"] == "refused"
    assert [key for key in ("t_score", "z_score", "rad_score", "nomogram") if result[key] is not None] == []
    assert all(level["bmd_mg_cm3"] is None for level in result["levels"].values())
    assert result["categories"] == {"study_class": None, "density": None}
    assert (outcome.out / "nomogram.png").stat().st_size > 10_000
    assert len(outcome.dicom) == objects


def test_a_study_without_phantom_is_refused_with_a_report(tmp_path):
    write_reference_study(tmp_path / "study", StudySpec.reduced(phantom="none"))
    outcome = process(tmp_path / "study", tmp_path / "out")
    require_refusal(outcome, "phantom_not_found", objects=2)
    assert outcome.result["calibration"] is None
    printed = dump(outcome.out / "report.dcm")
    assert "No calibration phantom" in printed
    assert "mg/cm3" not in re.sub(r"<TEXT:.*", "", printed)


def test_a_study_without_l3_gives_no_score_that_rests_on_l3(tmp_path, laboratory):
    """L4 and L5 with sacrum: named, measured, but no T, no rad-score."""
    write_reference_study(tmp_path / "study", StudySpec.reduced(view=("L4", "S1")))
    outcome = process(tmp_path / "study", tmp_path / "out", "--clinical", laboratory)
    assert outcome.status == 0, outcome.printed
    assert "l3_not_found" in outcome.codes
    result = outcome.result
    assert {name for name, level in result["levels"].items() if level["bmd_mg_cm3"]} == {"L4", "L5"}
    assert [key for key in ("t_score", "z_score", "rad_score", "nomogram", "features") if result[key]] == []


def test_one_slice_is_refused_with_a_report(study, tmp_path):
    one = edited(study, tmp_path / "study", unchanged, keep=slice(40, 41))
    require_refusal(process(one, tmp_path / "out"), "slices_too_few", objects=2)


def test_without_patient_id_nothing_is_made_that_could_be_filed(study, tmp_path):
    anonymous = edited(study, tmp_path / "study", without_patient)
    require_refusal(process(anonymous, tmp_path / "out"), "patient_id_missing", objects=0)


def test_without_study_uid_nothing_is_made_that_could_be_filed(study, tmp_path):
    homeless = edited(study, tmp_path / "study", without_study)
    require_refusal(process(homeless, tmp_path / "out"), "study_uid_missing", objects=0)


def test_an_awkward_real_study_is_refused_well(test_data, tmp_path):
    """Empty UIDs and patient, JPEG 2000, 20 slices of T11 and T12, no phantom."""
    source = tmp_path / "study"
    source.mkdir()
    for path in (test_data / "ts_dicom20").glob("CT.*"):
        shutil.copy(path, source / path.name)
    require_refusal(process(source, tmp_path / "out"), "study_uid_missing", objects=0)


@pytest.mark.parametrize(
    "options",
    [["--engine", "magic"], ["--engine", "mask"], ["--issued-at", "yesterday"], ["--config", "none.toml"]],
)
def test_wrong_use_is_told_with_exit_status_2(study, tmp_path, options):
    outcome = process(study, tmp_path / "out", *options)
    assert outcome.status == 2
    assert not outcome.out.exists()


def test_an_empty_folder_is_wrong_use(tmp_path):
    (tmp_path / "study").mkdir()
    assert process(tmp_path / "study", tmp_path / "out").status == 2


def test_a_database_that_does_not_answer_leaves_open_which_model_is_active_and_ends_the_run(study, tmp_path):
    config = tmp_path / "node.toml"
    config.write_text('[storage]\ndatabase_url = "postgresql+psycopg://127.0.0.1:1/nobody"\n', "utf-8")
    outcome = process(study, tmp_path / "out", "--config", config, "--mask", study / "truth_mask.nii.gz")
    assert outcome.status == 1
    assert "database" in outcome.errors
    assert "Traceback" not in outcome.printed
    assert not (tmp_path / "out" / "result.json").exists()
