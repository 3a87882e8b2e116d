"""What IHE AI Results and a PACS ask of a result, each under its own name (docs/conformance.md, 9.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from node.dicom.check import check_object
from node.dicom.encode import EncodedReport, encode_report
from node.dicom.errors import IdentityMissing, ObjectInvalid
from node.dicom.identity import IDENTITY_KEYWORDS
from node.report import Report

Encode = Callable[[Report], EncodedReport]


@pytest.fixture(scope="module")
def encode(study: Any) -> Encode:
    def run(report: Report, *, headers: Any = None) -> EncodedReport:
        return encode_report(
            report,
            headers or study.series.headers,
            series=study.series,
            vertebrae=study.vertebrae,
            regions=study.regions,
        )

    return run


@pytest.fixture(scope="module")
def made(study: Any, encode: Encode) -> list[Dataset]:
    return datasets(encode(study.report))


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


def test_without_identity_there_is_no_result(study, variants):
    bare = Dataset()
    bare.update(deepcopy(study.series.headers[0]))
    bare.StudyInstanceUID = ""
    with pytest.raises(IdentityMissing):
        encode_report(variants["refused"], [bare])


def test_series_numbers_are_stable_and_apart(study, made, encode):
    numbers = {one.Modality: int(one.SeriesNumber) for one in made}
    assert numbers == {"SEG": 9101, "SR": 9102, "OT": 9103}
    later = datasets(encode(replace(study.report, issued_at=study.report.issued_at + timedelta(days=1))))
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


def test_research_use_only_stands_in_description_text_and_pixels(study, made, encode):
    assert all("research use only" in one.SeriesDescription for one in made)
    assert [one.ConceptCodeSequence[0].CodeValue for one in named(the("SR", made), "INTENDED-USE")] == [
        "RESEARCH-ONLY"
    ]
    for picture in encode(study.report).pictures:
        badge = picture.pixels[8:38, 800:1004]
        assert badge.mean() > 150  # dark words on a light plate: tests of the pages read them


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


def test_the_pictures_carry_every_number_for_viewers_that_show_no_groups(study, encode):
    assert [one.name for one in encode(study.report).pictures] == [
        "answer", "nomogram", "overlay", "calibration",
    ]  # fmt: skip
