"""Contrast as headers tell it, from folder to report: the vessels decide where words do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from node.reference.spec import Faults, StudySpec
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

VIEW = ("L1", "L4")
CODES = {"contrast_given", "contrast_doubtful", "contrast_not_seen", "contrast_suspected"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A reference study, unenhanced or in the portal venous phase."""
    made: dict[bool, Path] = {}

    def study(enhanced: bool) -> Path:
        if enhanced not in made:
            made[enhanced] = tmp_path_factory.mktemp("study")
            faults = Faults(contrast=enhanced)
            write_reference_study(made[enhanced], StudySpec.reduced(view=VIEW, faults=faults))
        return made[enhanced]

    return study


@pytest.fixture
def measure(studies: Callable[[bool], Path], tmp_path: Path) -> Callable[..., Run]:
    def run(*, enhanced: bool = False, **header: object) -> Run:
        study = studies(enhanced)
        for path in study.glob("*.dcm"):
            dataset = dcmread(path)
            for keyword, value in header.items():
                setattr(dataset, keyword, value)
            dcmwrite(tmp_path / path.name, dataset)
        return Run(tmp_path, study / "truth_mask.nii.gz", files=False)

    return run


def test_no_contrast_in_words_is_no_contrast(measure: Callable[..., Run]) -> None:
    found = measure(ContrastBolusAgent="NO CONTRAST")
    assert not found.codes & CODES
    assert found.report.t_score is not None
    assert found.report.t_score.value == pytest.approx(-2.5, abs=0.2)
    assert found.report.rad_score is not None


def test_words_that_leave_it_open_are_settled_by_unenhanced_vessels(measure: Callable[..., Run]) -> None:
    found = measure(ContrastBolusAgent="see protocol")
    assert found.codes & CODES == {"contrast_not_seen"}
    (told,) = (one.text for one in found.report.findings if one.code == "contrast_not_seen")
    assert 'ContrastBolusAgent "see protocol"' in told
    assert found.report.t_score is not None


def test_words_that_leave_it_open_count_where_the_vessels_are_bright(measure: Callable[..., Run]) -> None:
    found = measure(enhanced=True, ContrastBolusAgent="NONE", ContrastBolusVolume="90")
    assert found.codes & CODES == {"contrast_doubtful", "contrast_suspected"}
    (told,) = (one.text for one in found.report.findings if one.code == "contrast_doubtful")
    assert 'ContrastBolusAgent "NONE", ContrastBolusVolume 90' in told
    assert "the great vessels measure 16" in told
    assert found.report.t_score is None
    assert found.report.rad_score is None
    assert any(level.measured is not None for level in found.report.levels)
