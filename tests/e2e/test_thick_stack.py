"""A stack of slices too thick to find vertebrae in ends in a refusal that says so, unless others drew it."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.reference.spec import StudySpec
from node.study_report import Outcome
from tests.e2e.in_process import Run, unchecked
from tests.made_studies import write_reference_study


def run(folder: Path, step_mm: float, *, mask: bool = False, **segmentation: object) -> Run:
    """A study of contiguous slices, 80 kV, as old protocols have it."""
    write_reference_study(
        folder,
        StudySpec.reduced(kvp=80, slice_spacing_mm=step_mm, slice_thickness_mm=step_mm, view=("L1", "L4")),
    )
    return Run(
        folder,
        folder / "truth_mask.nii.gz" if mask else None,
        settings=unchecked(segmentation=segmentation or {"engine": "auto" if mask else "geometric"}),
        files=False,
    )


@pytest.mark.parametrize("step_mm", [8.0, 10.0])
def test_a_thick_stack_is_refused_for_its_slices_and_not_for_want_of_vertebrae(tmp_path, step_mm):
    found = run(tmp_path, step_mm)
    assert found.report.outcome is Outcome.REFUSED
    assert found.result["levels"] == {}
    assert "slices_too_thick" in found.codes
    assert "no_lumbar_level" not in found.codes
    (said,) = [one.text for one in found.report.findings if one.code == "slices_too_thick"]
    assert f"Slice thickness or spacing is {step_mm:g} mm" in said
    assert "above 6 mm" in said


def test_a_thick_stack_that_others_drew_is_measured(tmp_path):
    """Even where names are to be cross-checked: the geometric engine is no witness on such slices."""
    found = run(tmp_path, 10.0, mask=True, cross_check=True)
    assert found.report.outcome is Outcome.REPORTED
    assert {"slices_too_thick", "numbering_conflict", "level_implausible"}.isdisjoint(found.codes)
    assert found.result["levels"]["L3"]["hu_mean"] is not None


def test_the_limit_is_the_site_s(tmp_path):
    found = run(tmp_path, 5.0, engine="geometric", geometric_max_step_mm=4.0)
    assert "slices_too_thick" in found.codes
