"""Each row of findings.toml: what it withholds is absent from result.json, the report and every page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from matplotlib.text import Text
from pydicom import Dataset

from config.findings import Output, load_findings
from node.clinical import CsvLaboratory
from node.dicom.sc.answer_page import compose_answer
from node.dicom.sc.nomogram_page import compose_nomogram
from node.dicom.seg import plan_segments
from node.dicom.sr.document import encode_sr, report_document
from node.dicom.sr.items import summary_lines
from node.pipeline.artefacts import (
    MEASUREMENTS,
    SEGMENTATION,
    SegmentationArtefact,
    from_json,
    segmentation_from_bytes,
)
from node.pipeline.step_functions import laboratory_of, load_segmentation, load_selection
from node.pipeline.steps.report import compose
from node.pipeline.steps.score import Measurements
from node.reference.spec import BODIES, StudySpec
from node.result_document import ResultDocument
from node.study_report import EncodedObject, Report
from segmentation.vertebrae import Observation
from tests.e2e.in_process import Run, unchecked
from tests.e2e.sr_reader import read_document, read_report
from tests.made_studies import write_reference_study

ROWS = load_findings().rows
LEVELS = ("L1", "L2", "L3", "L4", "L5")


@dataclass(frozen=True)
class Told:
    """One study's answer in the three forms that leave the node."""

    report: Report
    result: Mapping[str, Any]
    read: Mapping[str, Any]  # from the structured report, by its codes alone
    words: str  # of every page and of the report's summary


@dataclass(frozen=True)
class Measured:
    """A study of which everything can be given: two rods of HA, a conversion to K2HPO4, laboratory values."""

    run: Run
    segmentation: SegmentationArtefact
    headers: tuple[Dataset, ...]
    seg: EncodedObject

    def told(self, *noticed: Observation) -> Told:
        """The answer if `noticed` had been noticed besides; of the report, the data set that is written."""
        report = self.report(*noticed)
        pages = [compose_answer(report), *([compose_nomogram(report)] if report.rad_score else [])]
        words = [text.get_text() for page in pages for text in page.figure.findobj(Text)]
        return Told(
            report=report,
            result=ResultDocument.of(report, {}).values(),
            read=read_document(report_document(report, self.headers, **self.measured_in(report))),
            words="\n".join([*words, *summary_lines(report)]),
        )

    def sent(self, report: Report) -> bytes:
        """The file that leaves the node."""
        return encode_sr(report, self.headers, **self.measured_in(report)).content

    def measured_in(self, report: Report) -> dict[str, Any]:
        """The segments that a report names, and the object that holds them."""
        segments = plan_segments(report, self.segmentation.vertebrae, self.segmentation.regions)
        return {"seg": self.seg if segments else None, "segments": segments}

    def report(self, *noticed: Observation) -> Report:
        study, artefacts = self.run.study, self.run.artefacts
        selection = load_selection(artefacts)
        measurements = from_json(Measurements, artefacts.get(MEASUREMENTS))
        return compose(
            selection,
            load_segmentation(artefacts, selection),
            replace(measurements, observations=(*measurements.observations, *noticed)),
            study.settings,
            issue=study.issue(),
            laboratory=laboratory_of(selection.study, study.clinical),
        )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return measured_study(tmp_path_factory.mktemp("study"), StudySpec.reduced())


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A study whose category and class are normal."""
    spec = StudySpec.reduced(bmd_mg_cm3=dict.fromkeys(BODIES, 200.0))
    return measured_study(tmp_path_factory.mktemp("dense"), spec)


def measured_study(folder: Path, spec: StudySpec) -> Measured:
    write_reference_study(folder, spec)
    laboratory = folder / "laboratory.csv"
    laboratory.write_text(
        "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\nREFERENCE-1,OSTEONODE,2026-01-10,92,16.5\n"
    )
    run = Run(
        folder,
        folder / "truth_mask.nii.gz",
        settings=unchecked(scoring={"k2hpo4_from_ha": [1.0, 0.0]}),
        clinical=CsvLaboratory(laboratory, max_age_days=90),
    )
    series = run.study.images.read_chosen(load_selection(run.artefacts)).volume
    assert series is not None
    (seg,) = (one for one in run.objects if one.file_name == "segmentation.dcm")
    return Measured(
        run=run,
        segmentation=segmentation_from_bytes(run.artefacts.get(SEGMENTATION)),
        headers=tuple(
            series.headers[:2]
        ),  # the library of images takes most of the time, and says nothing here
        seg=seg,
    )


@pytest.fixture(scope="module")
def whole(measured: Measured) -> Told:
    return measured.told()


def noticed(code: str, level: str | None) -> Observation:
    fields = {name for _, name, _, _ in Formatter().parse(ROWS[code].text["en"]) if name}
    return Observation(code=code, level=level, values=dict.fromkeys(fields - {"level"}, "some"))


def of_a_level(code: str) -> bool:
    return "{level}" in ROWS[code].text["en"]


def cases() -> Iterator[Any]:
    for code, row in ROWS.items():
        if not row.withholds:
            continue
        for level in ("L1", "L3") if of_a_level(code) else (None,):
            yield pytest.param(code, level, id=f"{code}-{level or 'study'}")


def first_of_each_set() -> frozenset[tuple[str, str | None]]:
    """One case of all that withhold the same at the same level."""
    found: dict[Any, tuple[str, str | None]] = {}
    for case in cases():
        code, level = case.values
        found.setdefault((ROWS[code].withholds, level), (code, level))
    return frozenset(found.values())


WRITTEN = first_of_each_set()


def test_everything_is_given_where_nothing_withholds_it(whole: Told) -> None:
    """Else nothing below would prove anything."""
    report = whole.report
    assert [level.name for level in report.levels] == list(LEVELS)
    for level in report.levels:
        assert level.volume_mm3
        assert level.measured
        assert level.measured.bmd_mg_cm3
    given = [
        report.t_score, report.z_score, report.study_class, report.density, report.features, report.rad_score,
        report.nomogram,
    ]  # fmt: skip
    assert None not in given
    assert whole.read["features"]
    assert whole.read["nomogram"]
    assert whole.read["categories"]["density"]


def test_the_cases_hold_every_row_that_withholds_something() -> None:
    named = {one.values[0] for one in cases()}
    assert named == {code for code, row in ROWS.items() if row.withholds}
    assert {output for code in named for output in ROWS[code].withholds} == set(Output)


@pytest.mark.parametrize(("code", "level"), list(cases()))
def test_what_a_row_withholds_is_nowhere(
    measured: Measured, whole: Told, code: str, level: str | None
) -> None:
    """In the data set of the report; once for each set of outputs also in the file that is sent."""
    told = measured.told(noticed(code, level))
    assert code in {one.code for one in told.report.findings}
    at = (level,) if level else LEVELS
    for output in ROWS[code].withholds:
        for name in at:
            _absent_at_level(output, name, told, whole)
        if _rests_on(output, level, whole.report):
            _absent_from_study(output, told, whole)
    if level == "L3" and ROWS[code].withholds == {Output.BMD}:
        assert told.report.level("L1") == whole.report.level("L1")  # and nowhere else
    if (code, level) in WRITTEN:
        assert read_report(measured.sent(told.report)) == told.read


def _rests_on(output: Output, level: str | None, report: Report) -> bool:
    """Whether an output of the study rests on that level in this study."""
    if level is None:
        return True
    resting: dict[Output, tuple[str, ...]] = defaultdict(lambda: ("L3",))
    assert report.density is not None
    resting[Output.DENSITY_CATEGORY] = report.density.levels
    return level in resting[output]


def _absent_at_level(output: Output, name: str, told: Told, whole: Told) -> None:
    level, in_full = told.result["levels"][name], whole.result["levels"][name]
    read = told.read["levels"].get(name, {})
    keys = {
        Output.VOLUME: ("volume_mm3", "core_volume_mm3"),
        Output.HU: ("hu_mean", "hu_sd", "bmd_mg_cm3"),
        Output.BMD: ("bmd_mg_cm3", "bmd_uncertainty_mg_cm3"),
    }.get(output, ())
    for key in keys:
        assert in_full[key] is not None
        assert level[key] is None
        assert read.get(key) is None
    if output is Output.BMD:
        assert f"{in_full['bmd_mg_cm3']:.1f}" not in told.words.split()
        assert f"BMD {in_full['bmd_mg_cm3']:.1f}" not in told.words
    if output is Output.HU:
        assert f"{in_full['hu_mean']:.1f} ± {in_full['hu_sd']:.1f}" not in told.words
    if output is Output.VOLUME:
        assert f"{in_full['volume_mm3'] / 1000:.1f}" not in told.words.split()


def _absent_from_study(output: Output, told: Told, whole: Told) -> None:
    match output:
        case Output.T_SCORE | Output.Z_SCORE | Output.RAD_SCORE | Output.NOMOGRAM | Output.FEATURES:
            assert told.result[output.value] is None
            assert told.read[output.value] is None
        case Output.STUDY_CLASS:
            assert told.result["categories"]["study_class"] is None
            assert told.read["categories"]["study_class"] is None
        case Output.DENSITY_CATEGORY:
            resting = told.report.density.levels if told.report.density else ()
            before = whole.report.density.levels if whole.report.density else ()
            # Two other bodies may take the places of those that were withheld.
            assert resting != before
            if resting == ():
                assert told.read["categories"]["density"] is None
        case Output.NORMAL:  # osteoporosis by either rule: neither is withheld for its value
            for name, withholding in (
                ("density", Output.DENSITY_CATEGORY),
                ("study_class", Output.STUDY_CLASS),
            ):
                if told.report.withheld_by(withholding) is None:
                    assert told.result["categories"][name] == whole.result["categories"][name]
        case _:
            pass
    words = {
        Output.T_SCORE: f"T-score {whole.result['t_score']:.2f}".replace("-2", "−2"),
        Output.Z_SCORE: f"Z-score {whole.result['z_score']:.2f}",
        Output.STUDY_CLASS: "Study rule, Xie 2022: osteoporosis",
        Output.RAD_SCORE: f"Rad-score {whole.result['rad_score']:.2f}",
        Output.NOMOGRAM: f"{100 * whole.result['nomogram']['probability']:.0f} % for",
    }.get(output)
    if words is not None:
        for spelled in (words, words.replace("−", "-"), words.replace("-0", "−0")):
            assert spelled not in told.words


@pytest.mark.parametrize("code", [code for code, row in ROWS.items() if Output.NORMAL in row.withholds])
def test_where_normal_is_withheld_it_is_nowhere_and_the_reason_stands_in_its_place(
    dense: Measured, code: str
) -> None:
    free = dense.told()
    assert free.result["categories"]["density"]["category"] == "normal"
    assert free.result["categories"]["study_class"] == "normal"
    told = dense.told(noticed(code, None))
    assert told.result["categories"] == {"study_class": None, "density": None}
    assert told.read["categories"] == free.read["categories"] | {"study_class": None, "density": None}
    (finding,) = (one for one in told.report.findings if one.code == code)
    assert "not_available" not in {one.code for one in told.report.findings}
    lines = summary_lines(told.report)
    for name in ("QCT density category", "Class by study rule, Xie 2022"):
        assert f"{name}: not reported. {finding.text}" in lines
    assert read_report(dense.sent(told.report)) == told.read
    without = told.words.replace(finding.text, "")
    assert "normal" not in _without_wrapped(without, finding.text)
    assert told.result["t_score"] == free.result["t_score"]


def _without_wrapped(words: str, text: str) -> str:
    """What pages say without the lines into which they break one text."""
    return "\n".join(line for line in words.splitlines() if line.strip() not in text)
