"""What the gates on images and headers notice reaches result.json, with what each finding withholds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite

from node.reference.spec import BODIES, Faults, Fracture, FractureShape, Jerk, Starved, StudySpec
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

WITHHELD_TEXTURE = ("features", "rad_score", "nomogram")

Result = dict[str, Any]


def text_of(result: Result, code: str, level: str | None = None) -> str:
    (found,) = [one for one in result["findings"] if (one["code"], one["level"]) == (code, level)]
    return str(found["text"])


def codes(result: Result) -> set[str]:
    return {one["code"] for one in result["findings"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4")))
    return folder


@pytest.fixture
def edited(study: Path, tmp_path: Path) -> Callable[[Callable[[int, Dataset], str | None]], Result]:
    """The result of the study with each image changed: by its number; "drop" and "double" as they say."""

    def run(edit: Callable[[int, Dataset], str | None]) -> Result:
        for number, path in enumerate(sorted(study.glob("*.dcm"))):
            dataset = dcmread(path)
            wish = edit(number, dataset)
            if wish != "drop":
                dcmwrite(tmp_path / path.name, dataset)
            if wish == "double":
                dataset.SOPInstanceUID += ".1"
                dcmwrite(tmp_path / f"again-{path.name}", dataset)
        return Run(tmp_path, study / "truth_mask.nii.gz", files=False).result

    return run


def of_reference(folder: Path, **changes: object) -> Result:
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4"), **changes))
    return Run(folder, folder / "truth_mask.nii.gz", files=False).result


def test_the_unchanged_study_has_none_of_these_findings(edited) -> None:
    result = edited(lambda number, dataset: None)
    assert result["features"]
    assert result["levels"]["L3"]["bmd_mg_cm3"]
    assert not codes(result) & {
        "contrast_suspected", "motion_suspected", "noise_excessive", "photon_starvation",
        "thick_slices", "sharp_kernel", "kernel_unknown", "duplicate_images",
    }  # fmt: skip


def test_contrast_that_no_header_tells_of_gives_density_and_no_score(tmp_path: Path) -> None:
    result = of_reference(tmp_path, faults=Faults(contrast=True))
    assert "Intravenous contrast medium is suspected" in text_of(result, "contrast_suspected")
    assert result["levels"]["L3"]["bmd_mg_cm3"]
    assert (result["t_score"], result["z_score"], result["rad_score"]) == (None, None, None)


def test_a_patient_who_moved_has_no_density_where_he_moved(tmp_path: Path) -> None:
    result = of_reference(tmp_path, faults=Faults(jerk=Jerk(level="L3")))
    assert "displaced by" in text_of(result, "motion_suspected", "L3")
    assert result["levels"]["L3"]["bmd_mg_cm3"] is None
    assert result["levels"]["L1"]["bmd_mg_cm3"]
    assert [result[name] for name in WITHHELD_TEXTURE] == [None] * 3


def test_a_body_of_another_density_than_the_rest_has_none_in_the_report(tmp_path: Path) -> None:
    density = {**dict.fromkeys(BODIES, 60.0), "L3": 300.0}
    result = of_reference(tmp_path, bmd_mg_cm3=density)
    assert "the other bodies" in text_of(result, "body_unlike_others", "L3")
    assert result["levels"]["L3"]["bmd_mg_cm3"] is None
    assert result["levels"]["L1"]["bmd_mg_cm3"]
    assert (result["t_score"], *(result[name] for name in WITHHELD_TEXTURE)) == (None,) * 4


def test_fractures_side_by_side_leave_no_category(tmp_path: Path) -> None:
    crushed = tuple(
        Fracture(level=name, shape=FractureShape.CRUSH, height_loss=0.35) for name in ("L2", "L3", "L4")
    )
    result = of_reference(tmp_path, faults=Faults(fractures=crushed))
    assert "(L2, L3, L4)" in text_of(result, "fracture_in_spine")
    assert [result["levels"][name]["bmd_mg_cm3"] for name in ("L2", "L3", "L4")] == [None] * 3
    assert result["categories"] == {"study_class": None, "density": None}


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"faults": Faults(starved=(Starved(level="L3"),))}, "photon_starvation", "L3"),
        ({"noise_hu": 58.0}, "noise_excessive", None),
        ({"slice_spacing_mm": 6.0, "slice_thickness_mm": 6.0}, "thick_slices", None),
    ],
    ids=["starved", "noisy", "thick"],
)
def test_an_image_that_spoils_texture_still_gives_density(
    tmp_path: Path, changes: dict[str, object], code: str, level: str | None
) -> None:
    result = of_reference(tmp_path, **changes)
    assert text_of(result, code, level)
    assert result["levels"]["L3"]["bmd_mg_cm3"]
    assert [result[name] for name in WITHHELD_TEXTURE] == [None] * 3


def test_a_sharp_kernel_gives_density_and_no_texture(edited) -> None:
    def sharpen(number: int, dataset: Dataset) -> None:
        dataset.ConvolutionKernel = "B70s"

    result = edited(sharpen)
    assert "kernel B70s is sharp" in text_of(result, "sharp_kernel")
    assert result["levels"]["L3"]["bmd_mg_cm3"]
    assert [result[name] for name in WITHHELD_TEXTURE] == [None] * 3


def test_an_unknown_kernel_is_said_and_withholds_nothing(edited) -> None:
    def forget(number: int, dataset: Dataset) -> None:
        del dataset.ConvolutionKernel

    result = edited(forget)
    assert "(not stated)" in text_of(result, "kernel_unknown")
    assert result["features"]


def test_images_sent_twice_are_measured_once(edited) -> None:
    result = edited(lambda number, dataset: "double" if number in (3, 20) else None)
    assert "Duplicates excluded: 2." in text_of(result, "duplicate_images")
    assert result["levels"]["L3"]["bmd_mg_cm3"]


def _tilt(number: int, dataset: Dataset) -> None:
    dataset.GantryDetectorTilt = "12"


def _overlay(number: int, dataset: Dataset) -> None:
    """Image 20 is put where image 19 lies."""
    if number == 20:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, f"{float(z) - 3.0:.10g}"]


def _scout(number: int, dataset: Dataset) -> None:
    if number == 40:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def _drop(number: int, dataset: Dataset) -> str | None:
    return "drop" if number == 20 else None


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (_tilt, "gantry tilt: 12.0 degrees"),
        (_overlay, "duplicate slice positions: different images at"),
        (_drop, "missing slices: image spacing 3.00 mm, images missing after"),
        (_scout, "localizer (1 of"),
    ],
    ids=["tilt", "two images in one place", "missing image", "scout among them"],
)
def test_a_refusal_names_its_own_reason(edited, edit, told: str) -> None:
    result = edited(edit)
    assert result["outcome"] == "refused"
    assert told in text_of(result, "no_usable_series")
    assert result["levels"] == {}
