"""A study that cannot be stacked, and that nobody declared: rods in view get it a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from config.findings import Output, load_findings
from config.phrases import in_english
from node.pipeline.study_run import StepResult, Verdict
from node.reference.spec import StudySpec
from node.study_report import ObjectKind
from tests.e2e.in_process import Run, select_in, selected
from tests.made_studies import write_reference_study

Edit = Callable[[int, Dataset], bool | None]  # False: the image is left out


@pytest.fixture(scope="module")
def with_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("with")
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4")))
    return folder


@pytest.fixture(scope="module")
def without_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without")
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4"), phantom="none"))
    return folder


def edited(study: Path, out: Path, edit: Edit) -> Path:
    out.mkdir()
    for number, path in enumerate(sorted(study.glob("*.dcm"))):
        dataset = dcmread(path)
        if edit(number, dataset) is not False:
            dcmwrite(out / path.name, dataset)
    return out


def localizer_among_them(number: int, dataset: Dataset) -> None:
    if number == 20:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def series_per_slice(number: int, dataset: Dataset) -> None:
    dataset.SeriesInstanceUID += f".{number + 1}"


def no_frame_of_reference(number: int, dataset: Dataset) -> None:
    del dataset.FrameOfReferenceUID


def tilted(number: int, dataset: Dataset) -> None:
    x, y, z = map(float, dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, round(y + 0.2 * z, 4), z]


def mixed_steps(number: int, dataset: Dataset) -> bool:
    return number < 20 or number % 2 == 0


def uneven_steps(number: int, dataset: Dataset) -> None:
    x, y, z = map(float, dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, y, round(z + 0.3 * max(0, number - 20), 4)]


def two_in_each_place(number: int, dataset: Dataset) -> None:
    x, y, z = map(float, dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, y, z - 3.0 * (number % 2)]


def axial_reformat(number: int, dataset: Dataset) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", "MPR"]


def no_rescale(number: int, dataset: Dataset) -> None:
    del dataset.RescaleSlope, dataset.RescaleIntercept


def no_orientation(number: int, dataset: Dataset) -> None:
    del dataset.ImageOrientationPatient


def no_position(number: int, dataset: Dataset) -> None:
    del dataset.ImagePositionPatient


def two_voltages(number: int, dataset: Dataset) -> None:
    dataset.KVP = 100 if number < 20 else 120


def some_broken(number: int, dataset: Dataset) -> None:
    if number % 7 == 0:
        dataset.PixelData = dataset.PixelData[:100]


CASES: dict[str, tuple[Edit, str]] = {
    "localizer among them": (localizer_among_them, "localizer (1 of"),
    "a series for each slice": (series_per_slice, "slices of one stack, distributed over"),
    "no frame of reference": (no_frame_of_reference, "geometry missing: FrameOfReferenceUID"),
    "tilt": (tilted, "gantry tilt: slices are sheared by"),
    "mixed steps": (mixed_steps, "missing slices"),
    "uneven steps": (uneven_steps, "slice spacing varies"),
    "two in each place": (two_in_each_place, "duplicate slice positions"),
    "axial reformat": (axial_reformat, "not an original acquisition"),
    "no rescale": (no_rescale, "rescale to Hounsfield units missing"),
    "no orientation": (no_orientation, "no orientation"),
    "no position": (no_position, "covers only 0 mm"),
    "two voltages": (two_voltages, "technique varies between slices: KVP"),
    "some images broken": (some_broken, "pixels cannot be decoded"),
}
# Ways by which what is looked at differs.
LOOKED_AT = (
    "a series for each slice",
    "two in each place",
    "no rescale",
    "no orientation",
    "some images broken",
)


@pytest.mark.parametrize(("edit", "told"), CASES.values(), ids=CASES.keys())
def test_a_phantom_in_view_makes_a_candidate_that_is_refused_with_the_true_reason(
    with_phantom: Path, tmp_path: Path, edit: Edit, told: str
) -> None:
    chosen = selected(edited(with_phantom, tmp_path / "study", edit))
    assert chosen.series is None
    (why,) = [one.values["reasons"] for one in chosen.observations if one.code == "no_usable_series"]
    assert in_english(why).startswith(told)
    assert {one.reason for one in chosen.rejected} == {why}


@pytest.mark.parametrize("case", ["localizer among them", "a series for each slice"])
def test_the_refusal_is_a_report_that_names_the_reason(with_phantom: Path, tmp_path: Path, case: str) -> None:
    edit, told = CASES[case]
    run = Run(edited(with_phantom, tmp_path / "study", edit))
    assert run.local.verdict is Verdict.PROCEED
    assert run.result["outcome"] == "refused"
    (text,) = [one["text"] for one in run.result["findings"] if one["code"] == "no_usable_series"]
    assert told in text
    assert all(one["reason"].startswith(told) for one in run.result["series"]["rejected"])
    assert ObjectKind.STRUCTURED_REPORT in {one.kind for one in run.objects}


@pytest.mark.parametrize("case", LOOKED_AT)
def test_the_same_without_a_phantom_is_nobodys_business(
    without_phantom: Path, tmp_path: Path, case: str
) -> None:
    ended = select_in(edited(without_phantom, tmp_path / "study", CASES[case][0]))
    assert isinstance(ended, StepResult)
    assert ended.verdict is Verdict.NOT_APPLICABLE


def test_one_slice_that_shows_rods_makes_a_candidate(with_phantom: Path, tmp_path: Path) -> None:
    chosen = selected(edited(with_phantom, tmp_path / "study", lambda number, dataset: number == 20))
    assert [one.code for one in chosen.observations] == ["slices_too_few"]


def test_a_localizer_beside_the_slices_is_left_out_and_they_are_measured(
    with_phantom: Path, tmp_path: Path
) -> None:
    """A coronal scout that a scanner put into the series, with a matrix of its own."""
    folder = tmp_path / "study"
    folder.mkdir()
    for path in with_phantom.glob("*.dcm"):
        (folder / path.name).symlink_to(path)
    scout = dcmread(next(iter(sorted(with_phantom.glob("*.dcm")))))
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = f"{scout.SOPInstanceUID}.1"
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.Rows, scout.Columns = 64, 64
    scout.PixelData = np.zeros((64, 64), np.uint16).tobytes()
    dcmwrite(folder / "0000-scout.dcm", scout)
    chosen = selected(folder)
    assert chosen.series is not None
    assert chosen.series.instances == len(list(with_phantom.glob("*.dcm")))
    assert chosen.phantom is not None
    assert chosen.phantom.usable
    assert [(one.code, one.values) for one in chosen.observations] == [("localizers_left_out", {"images": 1})]


def test_images_that_nobody_can_look_at_are_set_aside(with_phantom: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for path in sorted(with_phantom.glob("*.dcm")):
        dataset = dcmread(path)
        dataset.PixelData = dataset.PixelData[:100]
        dcmwrite(folder / path.name, dataset)
    result = select_in(folder)
    assert isinstance(result, StepResult)
    assert result.verdict is Verdict.SET_ASIDE
    assert "pixels cannot be decoded" in result.reason


def test_a_phantom_that_only_an_unstackable_series_shows_is_told_of(
    with_phantom: Path, without_phantom: Path, tmp_path: Path
) -> None:
    """What can be measured shows no phantom: neither silence, nor "no phantom in view"."""
    folder = tmp_path / "study"
    folder.mkdir()
    for path in without_phantom.glob("*.dcm"):
        (folder / path.name).symlink_to(path)
    study_uid = dcmread(next(iter(without_phantom.glob("*.dcm")))).StudyInstanceUID
    for number, path in enumerate(sorted(with_phantom.glob("*.dcm"))):
        dataset = dcmread(path)
        dataset.StudyInstanceUID = study_uid
        if number != 20:
            dcmwrite(folder / f"gap-{path.name}", dataset)
    chosen = selected(folder)
    assert chosen.series is not None
    (told,) = [one for one in chosen.observations if one.code == "phantom_in_other_series"]
    assert in_english(told.values["reasons"]).startswith("missing slices")
    assert Output.BMD in load_findings().rows[told.code].withholds
