"""What a report says, and withholds, where an archive has images that did not come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from node.study_report import ClosedBy, Completeness, SeriesCount
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

SCORES = ("t_score", "z_score", "features", "rad_score", "nomogram")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("incomplete")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4")))
    return folder


def result_of(study: Path, by: ClosedBy, *missing: SeriesCount) -> dict[str, Any]:
    images = sorted(study.glob("*.dcm"))
    measured = SeriesCount(
        series_instance_uid=dcmread(images[0], stop_before_pixels=True).SeriesInstanceUID,
        arrived=len(images),
        archived=len(images) if by is ClosedBy.COUNTS else len(images) + 2,
    )
    found = Completeness(
        closed_by=by,
        archive="pacs",
        silent_s=900.0,
        series=missing or (measured,),
    )
    return Run(study, study / "truth_mask.nii.gz", completeness=found, files=False).result


def finding(result: dict[str, Any], code: str) -> str:
    (text,) = [one["text"] for one in result["findings"] if one["code"] == code]
    return str(text)


def test_a_whole_study_says_who_counted_it_and_is_scored(study: Path) -> None:
    result = result_of(study, ClosedBy.COUNTS)
    assert (result["completeness"]["closed_by"], result["completeness"]["archive"]) == ("counts", "pacs")
    (series,) = result["completeness"]["series"]
    assert series["series_instance_uid"] == result["series"]["series_instance_uid"]
    assert series["arrived"] == series["archived"] == result["series"]["instances"]
    assert all(result[name] is not None for name in SCORES if name != "nomogram")


def test_a_measured_series_that_lacks_images_gives_density_and_no_score(study: Path) -> None:
    result = result_of(study, ClosedBy.INCOMPLETE)
    arrived = result["series"]["instances"]
    assert f"{arrived} of {arrived + 2} archived images of the measured series arrived" in finding(
        result, "series_incomplete"
    )
    assert result["levels"]["L3"]["bmd_mg_cm3"]
    assert [result[name] for name in SCORES] == [None] * len(SCORES)
    assert result["categories"] == {"study_class": None, "density": None}
    assert result["completeness"]["closed_by"] == "incomplete"


def test_another_series_that_lacks_images_is_told_beside_the_scores(study: Path) -> None:
    other = SeriesCount(series_instance_uid="2.25.4711", arrived=0, archived=300)
    result = result_of(study, ClosedBy.INCOMPLETE, other)
    assert "0 of 300 archived images of 1 other CT series arrived" in finding(result, "study_incomplete")
    assert result["t_score"] is not None
    assert result["rad_score"] is not None
