"""A series of more or larger images than the limits allow is not measured, and its report says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from config.phrases import load_phrases
from node.pipeline.study_run import Verdict
from node.reference.spec import StudySpec
from node.study_report import ObjectKind
from tests.e2e.in_process import Run, selected, unchecked
from tests.made_studies import write_reference_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4")))
    return folder


@pytest.mark.parametrize(
    ("limits", "told", "told_in_chinese"),
    [
        ({"slices": 20}, "images exceed limits.slices = 20", "幅图像，超过 limits.slices = 20"),
        ({"matrix": 64}, "pixels exceed limits.matrix = 64", "像素，超过 limits.matrix = 64"),
    ],
)
def test_a_series_above_a_limit_gets_a_refusal_with_that_reason(
    study: Path, limits: Mapping[str, int], told: str, told_in_chinese: str
) -> None:
    run = Run(study, settings=unchecked(limits=limits))
    assert run.local.verdict is Verdict.PROCEED
    (text,) = [one.text for one in run.report.findings if one.code == "no_usable_series"]
    assert "larger than the limits of this node" in text
    assert told in text
    assert run.result["outcome"] == "refused"
    assert ObjectKind.STRUCTURED_REPORT in {one.kind for one in run.objects}
    (reason,) = {one["reason"] for one in run.result["series"]["rejected"]}
    assert told in reason
    (reason,) = {one.reason for one in run.report.rejected}
    assert told_in_chinese in load_phrases("zh").words(reason)


def test_a_series_at_the_limit_is_measured(study: Path) -> None:
    images = len(list(study.glob("*.dcm")))
    assert selected(study, settings=unchecked(limits={"slices": images})).series is not None
