"""Single-slice QCT: one tilted slice of 10 mm at 80 kV for each vertebra. Densities, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from config.phrases import in_english, load_phrases
from node.dicom.ct.slice_reading import DrawnSlice
from node.dicom.sc.images import compose_slices, legend
from node.dicom.sc.layout import FOOTER_RULE, HEIGHT, WIDTH, Typeface
from node.pipeline.artefacts import OVERLAY_PNG, RESULT, SLICES, slices_from_bytes
from node.pipeline.step_functions import load_selection
from node.pipeline.study_run import Verdict
from node.reference.spec import StudySpec
from node.study_report import ObjectKind, Outcome
from tests.e2e.in_process import ISSUED_AT, Remembered, Run, osteonode, unchecked
from tests.made_studies import write_reference_study

DSRDUMP = Path("/usr/bin/dsrdump")
LEVELS = ("L2", "L3", "L4")
BMD = {"T12": 128.0, "L1": 121.0, "L2": 114.0, "L3": 88.0, "L4": 61.0, "L5": 70.0}
OF_A_LEVEL = ("t_score", "z_score", "rad_score", "features", "nomogram", "calibration")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.one_slice_each(*LEVELS, bmd_mg_cm3=BMD))
    return folder


def structured_report(run: Run) -> bytes:
    return next(one.content for one in run.objects if one.kind is ObjectKind.STRUCTURED_REPORT)


@pytest.fixture(scope="module")
def measured(study) -> Run:
    return Run(study)


def edited(study: Path, folder: Path, edit: Callable[[int, Dataset], None]) -> Path:
    """A copy of the study with each slice (number, data set) changed."""
    folder.mkdir()
    for number, path in enumerate(sorted(study.glob("*.dcm"))):
        dataset = dcmread(path)
        edit(number, dataset)
        dcmwrite(folder / path.name, dataset)
    return folder


def test_process_ends_in_a_report_of_densities_without_levels(study, tmp_path):
    run = osteonode("process", study, "--out", tmp_path / "out", "--issued-at", ISSUED_AT.isoformat())
    assert run.status == 0, run.output + run.errors
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    truth = json.loads((study / "truth.json").read_text("utf-8"))
    assert result["outcome"] == "reported"
    assert result["levels"] == {}
    assert [one["name"] for one in result["unnamed"]] == ["slice 1", "slice 2", "slice 3"]
    for one, known in zip(result["unnamed"], truth["slices"], strict=True):
        assert one["bmd_mg_cm3"] == pytest.approx(known["bmd_mg_cm3"], abs=3.0), known["level"]
        assert one["equivalent"] == truth["equivalent"]
        assert one["tilt_degrees"] == pytest.approx(abs(known["tilt_degrees"]), abs=0.1)
        assert 0 < one["bmd_uncertainty_mg_cm3"] < 3.0
        assert one["region_mm2"] > 400
    assert [result[key] for key in OF_A_LEVEL] == [None] * len(OF_A_LEVEL)
    assert result["categories"] == {"study_class": None, "density": None}
    assert {"overlay.png", "nomogram.png", "report.dcm"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert not (tmp_path / "out" / "segmentation.dcm").exists()
    for one in result["unnamed"]:
        assert f"{one['bmd_mg_cm3']:.1f}" in run.output


def test_a_finding_withholds_everything_that_rests_on_a_level(measured):
    single = next(finding for finding in measured.report.findings if finding.code == "single_slice")
    assert {"t_score", "z_score", "density_category", "study_class", "features", "rad_score", "nomogram"} <= (
        single.withholds
    )
    assert measured.codes == {"single_slice", "marrow_fat"}


def parsed(content: bytes) -> Dataset:
    return dcmread(BytesIO(content))


def items_of(item: Dataset) -> list[Dataset]:
    return [one for child in item.get("ContentSequence") or () for one in (child, *items_of(child))]


def test_the_numbers_beside_the_rods_have_their_unit_and_mineral_in_the_legend(measured):
    assert legend(measured.report, load_phrases()).endswith("circles: rods as read, mg/cm³ HA")
    bare = tuple(replace(one, calibration=None) for one in measured.report.unnamed)
    assert legend(replace(measured.report, unnamed=bare), load_phrases()).endswith("no rods")


@pytest.fixture(scope="module")
def in_chinese(study, chinese_font) -> Run:
    return Run(study, settings=unchecked(node={"language": "zh", "wide_font": str(chinese_font)}))


def test_a_node_that_draws_in_chinese_is_english_in_all_but_pictures(measured, in_chinese):
    numbers_apart = ("issued_at", "provenance", "timings_s")
    ours, theirs = (
        {k: v for k, v in run.result.items() if k not in numbers_apart} for run in (measured, in_chinese)
    )
    assert theirs == ours
    assert not re.search(r"[\u2e80-\uffef]", in_chinese.artefacts.get(RESULT).decode())
    texts = {one.code: one.shown for one in in_chinese.report.findings}
    assert texts["single_slice"].startswith("单层 QCT（3 层）。椎体节段未知。")
    assert in_chinese.artefacts.get(OVERLAY_PNG) != measured.artefacts.get(OVERLAY_PNG)


def test_the_slices_are_drawn_without_clipping_or_overlap_in_either_language(
    measured, in_chinese, chinese_font
):
    for run in (measured, in_chinese):
        page = compose_slices(run.report, drawn_slices(run), Typeface(wide=chinese_font))
        boxes = page.text_boxes()
        for place, (text, box) in enumerate(boxes):
            assert 0 <= box.left < box.right <= WIDTH, text
            assert box.bottom <= FOOTER_RULE or FOOTER_RULE <= box.top <= HEIGHT, text
            assert not any(box.overlaps(other, slack=1.0) for _, other in boxes[place + 1 :]), text
        titles = {text for text, _ in boxes}
        assert {"en": "slice 3: level not known", "zh": "切片 3：节段未知"}[run.report.language] in titles


def drawn_slices(run: Run) -> list[DrawnSlice]:
    loaded = run.study.images.read_chosen(load_selection(run.artefacts)).slices
    found = slices_from_bytes(run.artefacts.get(SLICES))
    return [
        DrawnSlice(name=one.name, series=series, body=one.shown.body, region=one.shown.region)
        for one, series in zip(found, loaded, strict=True)
    ]


def test_the_structured_report_names_the_image_and_no_level(measured, study):
    document = parsed(structured_report(measured))
    items = items_of(document)
    sources = {dcmread(path).SOPInstanceUID for path in study.glob("*.dcm")}
    outlines = [one for one in items if one.ValueType == "SCOORD"]
    assert {one.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in outlines} == (
        sources
    )
    values = [one.ConceptCodeSequence[0].CodeValue for one in items if one.ValueType == "CODE"]
    assert values.count("122496007") == 3  # lumbar spine
    assert not {"66794005", "14293000", "36470004", "11994002", "49668003"} & set(values)  # L1 to L5
    densities = [
        float(one.MeasuredValueSequence[0].NumericValue)
        for one in items
        if one.ValueType == "NUM" and one.ConceptNameCodeSequence[0].CodeValue == "BMD-HA"
    ]
    assert densities == pytest.approx([BMD[level] for level in LEVELS], abs=3.0)


def test_the_outline_in_the_report_is_that_of_the_region(measured, study):
    """The enclosed area, by the shoelace formula, is the region's; pixels are 0.74 mm wide."""
    outlines = [
        np.asarray(one.GraphicData, dtype=float).reshape(-1, 2)
        for one in items_of(parsed(structured_report(measured)))
        if one.ValueType == "SCOORD"
    ]
    for outline, one in zip(outlines, measured.report.unnamed, strict=True):
        assert np.array_equal(outline[0], outline[-1])
        x, y = outline[:-1].T
        area_mm2 = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) * 0.74**2
        assert area_mm2 == pytest.approx(one.region_mm2, rel=0.03)


def test_other_programs_accept_the_structured_report(measured, dciodvfy, tmp_path):
    path = tmp_path / "report.dcm"
    path.write_bytes(structured_report(measured))
    checked = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
    errors = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]
    assert errors == []
    if DSRDUMP.exists():
        printed = subprocess.run([DSRDUMP, path], capture_output=True, text=True, check=True).stdout
        assert "One lumbar vertebra, its level not known" in printed


def test_each_vertebra_may_be_a_series_of_its_own(study, measured, tmp_path):
    def own_series(number: int, dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"

    found = Run(edited(study, tmp_path / "study", own_series)).report
    assert [one.measured for one in found.unnamed] == [one.measured for one in measured.report.unnamed]
    assert found.rejected == ()


def test_a_second_reconstruction_is_not_a_second_vertebra(study, measured, tmp_path):
    folder = edited(study, tmp_path / "study", lambda number, dataset: None)
    for path in sorted(folder.glob("*.dcm")):
        dataset = dcmread(path)
        dataset.SeriesInstanceUID += ".9"
        dataset.SOPInstanceUID += ".9"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ConvolutionKernel = "BONE"
        dcmwrite(path.with_name(f"sharp-{path.name}"), dataset)
    found = Run(folder).report
    assert len(found.unnamed) == 3
    assert found.series.kernel == "STANDARD"
    assert [in_english(one.reason) for one in found.rejected] == ["sharper kernel than the chosen series"]


def test_slices_through_discs_are_refused(tmp_path):
    write_reference_study(tmp_path, StudySpec.one_slice_each("L2", "L3", slice_offset_mm=18.0))
    found = Run(tmp_path)
    assert found.report.outcome is Outcome.REFUSED
    assert "no_lumbar_level" in found.codes
    assert all(one.measured is None and one.region_mm2 is None for one in found.report.unnamed)
    assert "BMD" not in {one.ConceptNameCodeSequence[0].CodeValue[:3] for one in numbers(found)}


def test_a_slice_that_reads_far_denser_than_the_others_is_not_given(tmp_path):
    """Gates on one slice cannot tell dense bone from an endplate that fills its slice."""
    write_reference_study(
        tmp_path, StudySpec.one_slice_each(*LEVELS, bmd_mg_cm3={**BMD, "L2": 40.0, "L3": 95.0, "L4": 42.0})
    )
    found = Run(tmp_path)
    (barred,) = [one for one in found.report.findings if one.code == "slice_denser_than_others"]
    assert barred.level == "slice 2"
    assert "density is 2.3 times that of the other slices" in barred.text
    given = [one["bmd_mg_cm3"] is not None for one in found.result["unnamed"]]
    assert given == [True, False, True]


def test_faint_bone_off_the_middle_ends_in_a_refusal_that_says_so(tmp_path):
    """Bone of 30 mg/cm3, 9 mm off: it would read 68."""
    faint = dict.fromkeys(BMD, 30.0)
    write_reference_study(tmp_path, StudySpec.one_slice_each("L2", bmd_mg_cm3=faint, slice_offset_mm=9.0))
    found = Run(tmp_path)
    assert found.report.outcome is Outcome.REFUSED
    assert {"slice_ring_open", "no_lumbar_level"} <= found.codes
    assert found.result["unnamed"][0]["hu_mean"] is None


def test_documented_contrast_and_the_limits_in_use_reach_the_report(study, tmp_path):
    def enhanced(number: int, dataset: Dataset) -> None:
        dataset.ContrastBolusAgent = "Iodine"

    found = Run(edited(study, tmp_path / "study", enhanced))
    assert "contrast_given" in found.codes
    used = found.result["provenance"]["engine"]
    assert used["name"] == "single-slice"
    assert used["parameters"]["ring_hu"] == 220.0


def numbers(run: Run) -> list[Dataset]:
    return [one for one in items_of(parsed(structured_report(run))) if one.ValueType == "NUM"]


def test_a_slice_through_a_disc_withholds_itself_alone(study, tmp_path):
    write_reference_study(tmp_path / "disc", StudySpec.one_slice_each("L5", slice_offset_mm=-18.0))
    off = dcmread(next((tmp_path / "disc").glob("*.dcm")))

    def last_off(number: int, dataset: Dataset) -> None:
        if number == 2:
            dataset.PixelData = off.PixelData
            dataset.ImagePositionPatient = off.ImagePositionPatient
            dataset.ImageOrientationPatient = off.ImageOrientationPatient

    found = Run(edited(study, tmp_path / "study", last_off))
    assert found.report.outcome is Outcome.REPORTED
    given = [one.measured is not None for one in found.report.unnamed]
    assert given == [True, True, False]
    (barred,) = [finding for finding in found.report.findings if finding.level == "slice 3"]
    assert "bmd" in barred.withholds
    assert json.loads(found.artefacts.get(RESULT))["unnamed"][2]["bmd_mg_cm3"] is None


def test_without_a_phantom_no_slice_has_a_density(tmp_path):
    write_reference_study(tmp_path, StudySpec.one_slice_each(*LEVELS, phantom="none"))
    found = Run(tmp_path, declared_qct=True)
    assert found.report.outcome is Outcome.REFUSED
    barred = [finding for finding in found.report.findings if finding.code == "phantom_not_found"]
    assert [finding.level for finding in barred] == ["slice 1", "slice 2", "slice 3"]
    assert all(finding.text.startswith(f"{finding.level}: ") for finding in barred)
    assert all(one.measured.bmd_mg_cm3 is None for one in found.report.unnamed)


def test_single_slices_without_phantom_are_nobodys_business_unless_declared(tmp_path):
    write_reference_study(tmp_path, StudySpec.one_slice_each(*LEVELS, phantom="none"))
    assert Run(tmp_path).local.verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("keyword", "value"), [("SliceThickness", "3"), ("ImageType", ["DERIVED", "SECONDARY"])]
)
def test_thin_or_derived_slices_are_no_single_slice_qct(study, tmp_path, keyword, value):
    found = Run(edited(study, tmp_path / "study", lambda _, dataset: setattr(dataset, keyword, value)))
    assert found.report.outcome is Outcome.REFUSED
    assert "single_slice" not in found.codes
    assert found.report.unnamed == ()


def test_slices_closer_than_vertebrae_are_no_single_slice_qct(study, tmp_path):
    def moved_up(number: int, dataset: Dataset) -> None:
        if number == 1:
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, float(z) + 24]

    found = Run(edited(study, tmp_path / "study", moved_up))
    assert found.report.outcome is Outcome.REFUSED
    assert "slices_too_few" in found.codes


def test_what_the_rods_of_each_slice_read_is_kept_for_the_scanner_and_never_lent(study):
    history = Remembered()
    run = Run(study, scanners=history)
    assert run.local.verdict is Verdict.PROCEED
    images = {str(dcmread(path).SOPInstanceUID) for path in study.glob("*.dcm")}
    assert set(history.kept) == images
    for reading in history.kept.values():
        assert (reading.findings, reading.charted, reading.calibration) == ((), True, None)
        assert reading.technique.single_slice
        assert reading.water_hu == pytest.approx(0.0, abs=6.0)  # one slice: noise of 10 HU, correlated
