"""What IHE AI Results and a PACS ask of a result, each under its own name (docs/conformance.md, 9.5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node.dicom.conformance import check_object
from node.dicom.destination_objects import encode_rejection_note
from node.dicom.encode import EncodedReport, encode_report
from node.dicom.errors import IdentityMissing, ObjectInvalid
from node.dicom.result_headers import IDENTITY_KEYWORDS
from node.dicom.sc.layout import LATIN, Typeface
from node.dicom.sr.document import encode_sr
from node.result_document import ResultDocument
from node.study_report import ObjectKind, Report
from tests.dicom.drawn import pages_of, six_rods, words_of_page

pytestmark = pytest.mark.slow

Encode = Callable[..., EncodedReport]


@pytest.fixture(scope="module")
def encode(study: Any) -> Encode:
    def run(report: Report, *, headers: Any = None, typeface: Typeface = LATIN) -> EncodedReport:
        return encode_report(
            report,
            headers or study.series.headers,
            series=study.series,
            vertebrae=study.vertebrae,
            regions=study.regions,
            typeface=typeface,
        )

    return run


@pytest.fixture(scope="module")
def made(study: Any, encode: Encode) -> list[Dataset]:
    return datasets(encode(study.report))


STATEMENT = Path(__file__).parents[2] / "docs/conformance.md"
KINDS = {"segmentation": "SEG", "report": "SR", "pictures": "OT", "note": "KO"}


def stated_series_numbers() -> dict[str, int]:
    """By modality, of the conformance statement's table of series."""
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| (91\d\d) \|", STATEMENT.read_text("utf-8"), re.MULTILINE)
    return {KINDS[name]: int(number) for name, number in rows}


def rejection(encoded: EncodedReport) -> Dataset:
    """The note that would go with this report if it took the place of itself."""
    (report,) = (one for one in encoded.objects if one.kind is ObjectKind.STRUCTURED_REPORT)
    issued_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    note = encode_rejection_note(report, encoded.objects, issued_at=issued_at, file_name="note.dcm")
    return dcmread(BytesIO(note.content))


def datasets(encoded: EncodedReport) -> list[Dataset]:
    return [dcmread(BytesIO(one.content)) for one in encoded.objects]


def the(kind: str, found: list[Dataset]) -> Dataset:
    return next(one for one in found if one.Modality == kind)


def items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence") or ():
        yield item
        yield from items(item)


def named(dataset: Dataset, code: str) -> list[Dataset]:
    return [
        one
        for one in items(dataset)
        if one.get("ConceptNameCodeSequence") and one.ConceptNameCodeSequence[0].CodeValue == code
    ]


def test_identity_and_order_are_copied_from_the_images(study, made):
    source = study.series.headers[0]
    for one in made:
        for keyword in IDENTITY_KEYWORDS & set(source.dir()):
            assert one[keyword].value == source[keyword].value, keyword


@pytest.mark.parametrize("variant", ["refused", "complete"])
@pytest.mark.parametrize("stated", ["", None], ids=["empty", "absent"])
def test_without_identity_there_is_no_result(study, variants, encode, variant, stated):
    bare = Dataset()
    bare.update(deepcopy(study.series.headers[0]))
    del bare.StudyInstanceUID
    if stated is not None:
        bare.StudyInstanceUID = stated
    with pytest.raises(IdentityMissing):
        encode(variants[variant], headers=[bare])
    with pytest.raises(IdentityMissing):
        encode_sr(variants[variant], [bare])


def test_series_numbers_are_stable_and_apart(study, made, encode):
    numbers = {one.Modality: int(one.SeriesNumber) for one in (*made, rejection(encode(study.report)))}
    assert numbers == {"SEG": 9101, "SR": 9102, "OT": 9103, "KO": 9104}
    assert numbers == stated_series_numbers()
    tomorrow = encode(replace(study.report, issued_at=study.report.issued_at + timedelta(days=1)))
    later = (*datasets(tomorrow), rejection(tomorrow))
    assert {one.Modality: int(one.SeriesNumber) for one in later} == numbers


def test_new_content_has_new_instance_and_series_uids(study, made, encode):
    other = replace(study.report.t_score, value=study.report.t_score.value + 0.01)
    changed = datasets(encode(replace(study.report, t_score=other)))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert the("SR", made)[keyword].value != the("SR", changed)[keyword].value


def test_a_resend_is_the_same_bytes(study, encode):
    assert encode(study.report).objects == encode(study.report).objects


def test_an_amendment_names_its_predecessor_and_why(variants, encode):
    report = the("SR", datasets(encode(variants["amended"])))
    (study,) = report.PredecessorDocumentsSequence
    (named_there,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named_there.ReferencedSOPInstanceUID == "2.25.1234567890"
    assert [one.TextValue for one in named(report, "AMENDMENT")] == ["Homocysteine arrived"]


def test_every_algorithm_contributes_with_manufacturer_model_version_and_device_uid(made):
    for one in made:
        assert len(one.ContributingEquipmentSequence) == 3  # the node, the segmentation, the model
        for equipment in one.ContributingEquipmentSequence:
            for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
                assert equipment[keyword].value, keyword


def test_a_retrained_model_is_another_device(study, made, encode):
    provenance = replace(study.report.provenance, model_sha256="12" * 32)
    retrained = the("SR", datasets(encode(replace(study.report, provenance=provenance))))
    before = [one.DeviceUID for one in the("SR", made).ContributingEquipmentSequence]
    after = [one.DeviceUID for one in retrained.ContributingEquipmentSequence]
    assert before[1] == after[1]  # the segmentation's
    assert before[2] != after[2]


def test_the_segments_tracking_uid_is_that_of_the_report(made):
    tracked = {item.TrackingUID: item.TrackingID for item in the("SEG", made).SegmentSequence}
    groups = [one for one in named(the("SR", made), "125007") if named(one, "121191")]
    assert len(groups) >= 10
    for group in groups:
        (uid,), (identifier,) = named(group, "112040"), named(group, "112039")
        assert tracked[uid.UID] == identifier.TextValue


def test_procedure_reported_is_the_imaging_procedure_and_not_the_algorithm(made):
    (procedure,) = named(the("SR", made), "121058")
    code = procedure.ConceptCodeSequence[0]
    assert (code.CodingSchemeDesignator, code.CodeMeaning) == ("LN", "CT unspecified body region")


def test_research_use_only_stands_in_description_and_text(made):
    assert all("research use only" in one.SeriesDescription for one in made)
    assert [one.ConceptCodeSequence[0].CodeValue for one in named(the("SR", made), "INTENDED-USE")] == [
        "RESEARCH-ONLY"
    ]


@pytest.mark.parametrize("variant", ["complete", "refused"])
@pytest.mark.parametrize("badge", ["RESEARCH USE ONLY", "仅供研究使用"], ids=["en", "zh"])
def test_research_use_only_is_drawn_in_words_on_every_picture(
    study, variants, to_chinese, chinese_typeface, encode, variant, badge
):
    """The words of the page whose pixels are sent, and ink of both colours where they stand."""
    english = badge.isascii()
    report = variants[variant] if english else to_chinese(variants[variant])
    typeface = LATIN if english else chinese_typeface
    pictures = encode(report, typeface=typeface).pictures
    pages = pages_of(study, report, typeface)
    assert [one.name for one in pictures] == list(pages)
    for picture in pictures:
        page = pages[picture.name]
        assert np.array_equal(picture.pixels, page.pixels()), picture.name
        (box,) = (box for text, box in page.text_boxes() if text == badge)
        plate = picture.pixels[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]
        assert (plate < 60).mean() > 0.1, picture.name  # dark words
        assert (plate > 200).mean() > 0.4, picture.name  # on a light plate


def test_the_report_is_tid_1500_comprehensive_3d_unverified_and_preliminary(made):
    report = the("SR", made)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_every_object_is_checked_before_it_is_sent(made):
    report = the("SR", made)
    del report.CurrentRequestedProcedureEvidenceSequence
    buffer = BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    with pytest.raises(ObjectInvalid, match="without evidence"):
        check_object(buffer.getvalue())


@pytest.mark.parametrize("variant", ["complete", "refused"])
def test_evidence_names_every_image_that_the_report_rests_on(study, variants, encode, variant):
    report = the("SR", datasets(encode(variants[variant])))
    evident = {
        one.ReferencedSOPInstanceUID
        for of_study in report.CurrentRequestedProcedureEvidenceSequence
        for series in of_study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert {str(header.SOPInstanceUID) for header in study.series.headers} <= evident


def drawn(encode: Encode, study: Any, report: Report) -> dict[str, str]:
    """The words of each page of `report`, and the certainty that it is their pixels that are sent."""
    pictures, pages = encode(report).pictures, pages_of(study, report)
    assert [one.name for one in pictures] == list(pages)
    for picture in pictures:
        assert np.array_equal(picture.pixels, pages[picture.name].pixels())
    return {name: words_of_page(page).replace("−", "-") for name, page in pages.items()}


def shown(pattern: str, words: str) -> list[tuple[float, float]]:
    """The numbers that `pattern` finds, each with half a unit of its last digit; everywhere the same."""
    (found,) = {one.groups() for one in re.finditer(pattern, words)}
    return [(float(one), 0.501 * 10.0 ** -len(one.partition(".")[2])) for one in found]


def agree(pattern: str, words: str, *values: float) -> bool:
    """Whether the words show each of `values`, rounded to as many digits as they show."""
    found = shown(pattern, words)
    return len(found) == len(values) and all(
        abs(number - value) <= slack for (number, slack), value in zip(found, values, strict=True)
    )


def test_the_pictures_carry_every_number_for_viewers_that_show_no_groups(study, encode):
    """Each number of the answer in result.json, recovered from the words of the pages."""
    report = replace(study.report, calibration=six_rods(study.report.calibration))
    words, result = drawn(encode, study, report), ResultDocument.of(report, {}).values()
    answer, nomogram, fit = (words[name] for name in ("answer", "nomogram", "calibration"))
    number = r"(-?\d+(?:\.\d+)?)"

    assert len(result["levels"]) == 5
    for name, level in result["levels"].items():
        bmd, half = level["bmd_mg_cm3"], 1.96 * level["bmd_uncertainty_mg_cm3"]
        row = rf"\b{name} {number} {number} to {number} {number} ± {number} {number}"
        read = (level["hu_mean"], level["hu_sd"], level["volume_mm3"] / 1000)
        assert agree(row, answer, bmd, bmd - half, bmd + half, *read), name
    assert agree(rf"T-score {number}", answer + nomogram, result["t_score"])
    assert agree(rf"Z-score {number}", answer, result["z_score"])
    assert agree(rf"Rad-score {number}", answer, result["rad_score"])

    found = result["nomogram"]
    total, percent = found["total_points"], 100 * found["probability"]
    assert agree(rf"{number} points: {number} % for", answer, total, percent)
    assert agree(rf"Total {number} points: {number} % for", nomogram, total, percent)
    assert [one["name"] for one in found["inputs"]] == ["rad_score", "age", "alp", "homocysteine"]
    units = ("", " years", " U/L on [-0-9]+", " µmol/L on [-0-9]+")
    below = ("Age", "Alkaline", "Homocysteine", "Total")
    for one, unit, head in zip(found["inputs"], units, below, strict=True):
        # The mark's value and its points are the last words of a row.
        assert agree(rf" {number}{unit} {number} {head}", nomogram, one["value"], one["points"]), one

    line = result["calibration"]
    assert agree(rf"BMD = {number} × HU", answer + fit, line["slope"])
    (sign,) = set(re.findall(r"× HU ([-+]) ", answer + fit))
    assert agree(rf"× HU [-+] {number} mg", answer + fit, abs(line["intercept"]))
    assert (sign == "-") == (line["intercept"] < 0)
    assert agree(rf"R² {number}", fit, line["r2"])
    assert agree(rf"largest distance {number} HU", fit, line["max_residual_hu"])
    for rod in line["rods"]:
        row = rf"\b{rod['name']} {number} {number} ± {number}"
        assert agree(row, fit, rod["density_mg_cm3"], rod["hu_mean"], rod["standard_error_hu"]), rod
