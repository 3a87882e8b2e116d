"""Where density is read is a site's choice, and everything that leaves the node says which it was."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from config.settings import Settings
from node.reference.spec import StudySpec
from node.study_report import ObjectKind
from tests.e2e.in_process import Run, unchecked
from tests.made_studies import write_reference_study


def _reading(choice: str) -> Settings:
    return unchecked(segmentation={"regions": {"bmd": choice}}, scoring={"model": ""})


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L3", "L3")))
    return folder


@pytest.fixture(scope="module")
def runs(study) -> dict[str, Run]:
    mask = study / "truth_mask.nii.gz"
    return {choice: Run(study, mask, settings=_reading(choice)) for choice in ("core", "ellipse", "both")}


def _labels(run: Run) -> set[str]:
    (seg,) = [one for one in run.objects if one.kind is ObjectKind.SEGMENTATION]
    return {str(item.SegmentLabel) for item in dcmread(BytesIO(seg.content)).SegmentSequence}


def test_both_are_the_core_with_the_ellipse_beside_it(runs):
    core, ellipse, both = (runs[choice].result["levels"]["L3"] for choice in ("core", "ellipse", "both"))
    assert (core["region"], ellipse["region"], both["region"]) == ("core", "ellipse", "core")
    assert core["ellipse"] is None
    assert both["bmd_mg_cm3"] == core["bmd_mg_cm3"]
    assert both["ellipse"]["bmd_mg_cm3"] == ellipse["bmd_mg_cm3"]
    apart = both["ellipse"]["bmd_mg_cm3"] - both["bmd_mg_cm3"]
    assert abs(apart) <= 4 * both["ellipse"]["bmd_uncertainty_mg_cm3"]


def test_the_segmentation_shows_what_was_measured_and_nothing_else(runs):
    core, ellipse = "L3 cancellous core (BMD region)", "L3 mid-body ellipse (BMD region)"
    marked = {
        choice: {label.replace(" (level presumed)", "") for label in _labels(runs[choice])} for choice in runs
    }
    assert (core in marked["core"], ellipse in marked["core"]) == (True, False)
    assert (core in marked["ellipse"], ellipse in marked["ellipse"]) == (False, True)
    assert {core, ellipse} <= marked["both"]


def test_follow_up_compares_equal_regions_alone():
    """Of both the core leads, so that it may be compared with a study of the core."""
    rules = {choice: _reading(choice).measurement_sha256 for choice in ("core", "ellipse", "both")}
    assert rules["core"] == rules["both"]
    assert rules["core"] != rules["ellipse"]
    taller = unchecked(segmentation={"regions": {"bmd": "ellipse", "ellipse": {"height_mm": 10.0}}})
    assert taller.measurement_sha256 != rules["ellipse"]
