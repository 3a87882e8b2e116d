"""The lines that open the report: one answer, in the order in which a reader needs it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from html import unescape
from io import BytesIO, StringIO

import pytest
from pydicom import dcmread
from rich.console import Console

from node.commands.process import print_result
from node.dicom.encode import encode_report
from node.dicom.sr.items import summary_lines
from node.result_document import ResultDocument

pytestmark = pytest.mark.slow


def _starts(lines: tuple[str, ...]) -> list[str]:
    return [line.split(":")[0].split(" =")[0] for line in lines]


def test_category_densities_scores_and_class_follow_each_other(variants):
    report = variants["density category"]
    lines = summary_lines(report)
    assert lines[0] == ("QCT density category = low bone mass: mean of L1 and L2 85.1 mg/cm3 K2HPO4.")
    assert _starts(lines)[1 : 1 + len(report.levels)] == [level.name for level in report.levels]
    after = lines[1 + len(report.levels) :]
    assert [line.split()[0] for line in after] == [
        "T-score",
        "Z-score",
        "Study",
        "DEMONSTRATION",
        "DEMONSTRATION",
    ]
    assert "not equivalent to DXA" in after[0]
    assert report.reference.name in after[0]
    assert "not a diagnosis" in after[2]


def test_each_density_states_its_95_percent_interval_and_its_mineral(study):
    (line,) = [one for one in summary_lines(study.report) if one.startswith("L3:")]
    measured = study.report.level("L3").measured
    lower, upper = measured.bmd_interval95_mg_cm3
    assert line == (f"L3: BMD {measured.bmd_mg_cm3:.1f} mg/cm3 HA, 95 % interval {lower:.1f} to {upper:.1f}.")
    assert lower < measured.bmd_mg_cm3 < upper


def test_a_suspected_fracture_leads(variants, describe_finding):
    report = variants["density category"]
    spine = describe_finding("fracture_in_spine", levels="L2")
    level = describe_finding("fracture", level="L2", percent="31", shape="wedge", grade="2")
    lines = summary_lines(replace(report, findings=(*report.findings, level, spine)))
    assert lines[:2] == (spine.text, level.text)
    assert lines[2].startswith("QCT density category")


def test_a_probability_says_of_what_against_what_wherever_it_is_read(variants):
    report = variants["complete"]
    console = Console(file=StringIO(), width=200)
    print_result(console, ResultDocument.of(report, {}))
    for words in ("\n".join(summary_lines(report)), console.file.getvalue()):
        (line,) = [one for one in words.splitlines() if "osteopenia (T rule)" in one]
        assert "osteoporosis versus osteopenia (T rule)" in line
        assert "T-score" in words  # the measured one stands beside it


def test_what_is_withheld_is_told_with_its_reason(variants):
    lines = summary_lines(variants["complete"])
    assert lines[0].startswith("QCT density category: not reported. The density rule")
    lines = summary_lines(variants["laboratory missing"])
    assert lines[-1].startswith("Nomogram: not reported. Not available: ALP, homocysteine")
    assert lines[-2].startswith("DEMONSTRATION MODEL, NOT FOR CLINICAL USE: Rad-score")


def test_a_withheld_category_is_explained_by_what_concerns_the_study(variants, describe_finding):
    report = variants["complete"]
    cut_off = describe_finding("body_truncated", level="L5")
    lines = summary_lines(replace(report, findings=(cut_off, *report.findings)))
    assert lines[0].startswith("QCT density category: not reported. The density rule")


def test_a_normal_that_is_withheld_is_explained_by_the_finding_that_withholds_it(variants, describe_finding):
    """Not by one about a level that neither rests on, nor where another finding withholds the category."""
    cut_off = describe_finding("body_truncated", level="L5")
    unassessed = describe_finding("fracture_not_assessed", step_mm=5.0, percent=40)
    given = variants["density category"]
    report = replace(given, density=None, study_class=None, findings=(cut_off, unassessed))
    lines = summary_lines(report)
    for name in ("QCT density category", "Class by study rule, Xie 2022"):
        assert f"{name}: not reported. {unassessed.text}" in lines
    another = variants["complete"]
    lines = summary_lines(replace(another, findings=(cut_off, unassessed, *another.findings)))
    assert lines[0].startswith("QCT density category: not reported. The density rule")


def test_a_refusal_says_so_and_why_and_nothing_else(variants):
    (line,) = summary_lines(variants["refused"])
    assert line.startswith("Not measured: ")
    assert "BMD" not in line


def test_a_level_that_is_not_confirmed_is_named_as_such(study):
    lines = summary_lines(replace(study.report, numbering_confirmed=False))
    assert [line.partition(":")[0] for line in lines if "BMD" in line] == [
        f"{level.name} (level not confirmed)" for level in study.report.levels
    ]


@pytest.fixture(scope="module")
def encode(study):
    def run(report) -> bytes:
        measured = {"vertebrae": study.vertebrae, "regions": study.regions}
        made = encode_report(report, study.series.headers, series=study.series, **measured)
        return next(one.content for one in made.objects if one.file_name == "report.dcm")

    return run


@pytest.mark.parametrize("name", ["density category", "refused"])
def test_the_lines_stand_before_everything_else_that_the_report_contains(variants, encode, name):
    root = dcmread(BytesIO(encode(variants[name]))).ContentSequence
    contained = [item for item in root if item.RelationshipType == "CONTAINS"]
    lines = summary_lines(variants[name])
    opening = contained[: len(lines)]
    assert [item.ConceptNameCodeSequence[0].CodeValue for item in opening] == ["121111"] * len(lines)
    assert tuple(item.TextValue for item in opening) == lines


def test_dsr2html_shows_them_in_full_and_first(variants, encode, dsr2html, tmp_path):
    report = variants["density category"]
    path = tmp_path / "report.dcm"
    path.write_bytes(encode(report))
    printed = subprocess.run([dsr2html, path], capture_output=True, text=True, check=True).stdout
    body = unescape(printed.partition("<body>")[2])
    assert body.count("<b>Summary:</b>") == len(summary_lines(report))  # a paragraph each
    places = [body.index(line) for line in summary_lines(report)]
    assert places == sorted(places)
    assert places[-1] < body.index("Image Library") < body.index("Imaging Measurements")
