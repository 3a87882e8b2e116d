"""Everything that goes back is valid, complete, reproducible, and says whose it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, config, dcmread
from pydicom.uid import ComprehensiveSRStorage

from node.dicom.conformance import check_object
from node.dicom.encode import encode_report
from node.dicom.errors import IdentityMissing, ObjectInvalid
from node.dicom.result_headers import made_here
from node.dicom.sr.document import encode_sr
from node.dicom.uids import derived_uid, series_uid_of
from node.study_report import ObjectKind

pytestmark = pytest.mark.slow

VARIANTS = ["complete", "laboratory missing", "density category", "refused", "amended"]


@pytest.fixture(scope="module")
def encoded(study, variants):
    return {
        name: encode_report(
            report,
            study.series.headers,
            series=study.series,
            vertebrae=study.vertebrae,
            regions=study.regions,
        )
        for name, report in variants.items()
    }


def _dataset(encoded_object):
    return dcmread(BytesIO(encoded_object.content))


@pytest.mark.parametrize("variant", VARIANTS)
def test_dciodvfy_reports_no_error(encoded, dciodvfy, variant, tmp_path):
    for item in encoded[variant].objects:
        path = tmp_path / item.file_name
        path.write_bytes(item.content)
        run = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
        errors = [line for line in run.stderr.splitlines() if line.startswith("Error")]
        assert errors == []


def test_a_report_is_a_segmentation_a_structured_report_and_four_pictures(encoded):
    names = [item.file_name for item in encoded["complete"].objects]
    assert names == [
        "segmentation.dcm",
        "report.dcm",
        "nomogram-1-answer.dcm",
        "nomogram-2-nomogram.dcm",
        "nomogram-3-overlay.dcm",
        "nomogram-4-calibration.dcm",
    ]


def test_a_refusal_is_a_structured_report_and_one_picture(encoded):
    names = [item.file_name for item in encoded["refused"].objects]
    assert names == ["report.dcm", "nomogram-1-refusal.dcm"]


def test_a_refusal_needs_nothing_but_a_header(study, variants):
    bare = replace(variants["refused"], series=None, levels=())
    kinds = [item.kind for item in encode_report(bare, study.series.headers[:1]).objects]
    assert kinds == [ObjectKind.STRUCTURED_REPORT, ObjectKind.PICTURE]


def test_the_same_report_is_the_same_bytes(study, encoded):
    again = encode_report(
        study.report,
        study.series.headers,
        series=study.series,
        vertebrae=study.vertebrae,
        regions=study.regions,
    )
    assert again.objects == encoded["complete"].objects


@pytest.mark.parametrize("change", ["time", "finding", "identity"])
def test_other_content_is_another_instance(study, variants, encoded, change):
    report, header = variants["refused"], study.series.headers[0]
    if change == "time":
        report = replace(report, issued_at=report.issued_at + timedelta(seconds=1))
    elif change == "finding":
        report = replace(report, findings=report.findings[:-1])
    else:
        header = _changed(header, PatientName="Muster^Eva")
    headers = [header, *study.series.headers[1:]]
    before = {item.sop_instance_uid for item in encoded["refused"].objects}
    after = {item.sop_instance_uid for item in encode_report(report, headers).objects}
    assert not before & after


def test_a_change_in_the_last_decimal_is_another_report(study):
    report = study.report
    nudged = replace(report, t_score=replace(report.t_score, value=report.t_score.value + 1e-9))
    uids = {encode_sr(r, study.series.headers).sop_instance_uid for r in (report, nudged)}
    assert len(uids) == 2


def _changed(header, **values):
    """A copy of a header with some attributes set."""
    copied = dcmread(BytesIO(_bytes_of(header)), force=True)
    for keyword, value in values.items():
        setattr(copied, keyword, value)
    return copied


def _bytes_of(header) -> bytes:
    buffer = BytesIO()
    header.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def test_uids_are_minted_under_2_25_and_never_repeat(encoded):
    uids = [item.sop_instance_uid for report in encoded.values() for item in report.objects]
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    for report in encoded.values():
        own = [item.sop_instance_uid for item in report.objects]
        assert len(set(own)) == len(own)


def test_a_derived_uid_is_a_128_bit_integer():
    assert derived_uid("a", "b") != derived_uid("ab")
    assert int(derived_uid("a").removeprefix("2.25.")) < 2**128


def test_every_time_is_the_issue_time(encoded):
    for item in encoded["complete"].objects:
        dataset = _dataset(item)
        for keyword in ("InstanceCreation", "Content", "Series"):
            assert dataset[f"{keyword}Date"].value == "20240517"
            assert str(dataset[f"{keyword}Time"].value) == "093005"


def test_times_follow_the_offset_that_the_study_states(study, variants):
    headers = [_changed(study.series.headers[0], TimezoneOffsetFromUTC="+0800")]
    dataset = _dataset(encode_report(variants["refused"], headers).objects[0])
    assert dataset.TimezoneOffsetFromUTC == "+0800"
    assert (dataset.ContentDate, str(dataset.ContentTime)) == ("20240517", "173005")


def test_pictures_share_one_series_and_each_kind_has_its_own(encoded):
    datasets = [_dataset(item) for item in encoded["complete"].objects]
    numbers = [(d.Modality, d.SeriesNumber) for d in datasets]
    assert numbers == [("SEG", 9101), ("SR", 9102), *[("OT", 9103)] * 4]
    assert len({d.SeriesInstanceUID for d in datasets}) == 3
    assert [d.InstanceNumber for d in datasets[2:]] == [1, 2, 3, 4]


def test_every_object_says_who_made_it_and_what_it_is_for(encoded):
    for item in encoded["complete"].objects:
        dataset = _dataset(item)
        assert made_here(dataset)
        assert dataset.Manufacturer == "Osteonode"
        assert "research use only" in dataset.SeriesDescription
        models = [entry.ManufacturerModelName for entry in dataset.ContributingEquipmentSequence]
        assert models == ["Osteonode", "geometric", "demonstration-2024"]
        assert all(entry.DeviceUID.startswith("2.25.") for entry in dataset.ContributingEquipmentSequence)


def test_a_retrained_model_is_another_device(study, encoded):
    provenance = replace(study.report.provenance, model_sha256="12" * 32)
    other = encode_sr(replace(study.report, provenance=provenance), study.series.headers)
    before = _dataset(encoded["complete"].objects[1]).ContributingEquipmentSequence[2].DeviceUID
    assert _dataset(other).ContributingEquipmentSequence[2].DeviceUID != before


def test_pictures_claim_no_geometry(encoded):
    for item in encoded["complete"].objects[2:]:
        dataset = _dataset(item)
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
        assert (dataset.ConversionType, dataset.BurnedInAnnotation) == ("WSD", "YES")
        assert (dataset.Rows, dataset.Columns) == (768, 1024)
        for keyword in (
            "PixelSpacing",
            "ImagePositionPatient",
            "FrameOfReferenceUID",
            "NominalScannedPixelSpacing",
        ):
            assert keyword not in dataset


def test_the_pictures_sent_are_the_pictures_drawn(encoded):
    report = encoded["complete"]
    for item, picture in zip(report.objects[2:], report.pictures, strict=True):
        assert np.array_equal(_dataset(item).pixel_array, picture.pixels)


def test_an_amendment_names_what_it_replaces(encoded):
    dataset = _dataset(encoded["amended"].objects[1])
    (study_item,) = dataset.PredecessorDocumentsSequence
    (series_item,) = study_item.ReferencedSeriesSequence
    assert series_item.SeriesInstanceUID == series_uid_of(["2.25.1234567890"])
    assert series_item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.1234567890"


def test_a_predecessor_that_only_an_archive_knew_is_named_in_the_class_that_it_has_there(study, variants):
    amended = replace(
        variants["refused"], predecessor_uid="2.25.7", predecessor_class_uid=ComprehensiveSRStorage
    )
    (report,) = [
        _dataset(one)
        for one in encode_report(amended, study.series.headers).objects
        if one.kind is ObjectKind.STRUCTURED_REPORT
    ]
    (named,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (ComprehensiveSRStorage, "2.25.7")


def test_a_predecessors_series_follows_from_its_own_uid(encoded):
    """What an amendment computes is what the report it amends really carries."""
    first = encoded["complete"].objects[1]
    assert _dataset(first).SeriesInstanceUID == series_uid_of([first.sop_instance_uid])


def test_no_study_uid_no_object(study, variants):
    header = _changed(study.series.headers[0], StudyInstanceUID="")
    with pytest.raises(IdentityMissing):
        encode_report(variants["refused"], [header])


def test_without_a_patient_id_a_refusal_can_be_written_but_no_measurement(study, variants):
    header = _changed(study.series.headers[0], PatientID="")
    refusal = encode_report(variants["refused"], [header])
    assert {_dataset(item).PatientID for item in refusal.objects} == {""}
    series = replace(study.series, headers=(header, *study.series.headers[1:]))
    with pytest.raises(ObjectInvalid, match="measured without a Patient ID"):
        encode_report(
            study.report, series.headers, series=series, vertebrae=study.vertebrae, regions=study.regions
        )


def test_the_gate_stops_what_is_no_dicom():
    with pytest.raises(ObjectInvalid, match="not a DICOM file"):
        check_object(b"\0" * 200)


def test_site_names_beyond_ascii_fit_any_character_set(study):
    engine = replace(study.report.provenance.engine, name="Größe 骨", parameters={"σ": "µ"})
    provenance = replace(study.report.provenance, engine=engine, model="Modèle 骨折")
    encoded = encode_report(
        replace(study.report, provenance=provenance),
        study.series.headers,
        series=study.series,
        vertebrae=study.vertebrae,
        regions=study.regions,
    )
    models = [e.ManufacturerModelName for e in _dataset(encoded.objects[0]).ContributingEquipmentSequence]
    assert models == ["Osteonode", "Gro?e ?", "Modele ??"]


def test_the_gate_stops_an_object_without_evidence(encoded):
    dataset = _dataset(encoded["complete"].objects[1])
    del dataset.CurrentRequestedProcedureEvidenceSequence
    buffer = BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(ObjectInvalid, match="report without evidence"):
        check_object(buffer.getvalue())


def _without(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


def _with(keyword: str, value: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        with config.disable_value_validation():
            setattr(dataset, keyword, value)

    return change


def _item_without(keyword: str, wanted: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset[keyword][0], wanted)


SEG, REPORT, PICTURE = 0, 1, 2


@pytest.mark.parametrize(
    ("place", "damage", "told"),
    [
        (PICTURE, _without("SeriesNumber"), "SeriesNumber is missing"),
        (PICTURE, _without("PhotometricInterpretation"), "PhotometricInterpretation is missing"),
        (
            PICTURE,
            _with("DateOfSecondaryCapture", "2026-SECRET"),
            "DateOfSecondaryCapture holds what is no DA",
        ),
        (
            PICTURE,
            _with("SeriesDescription", "SECRET research use only " * 5),
            "SeriesDescription holds what is no LO",
        ),
        (REPORT, _without("InstanceNumber"), "InstanceNumber is missing"),
        (REPORT, _without("CompletionFlag"), "CompletionFlag is missing"),
        (REPORT, _with("ContentDate", ""), "ContentDate is empty"),
        (REPORT, _without("ReferencedPerformedProcedureStepSequence"), "ProcedureStepSequence is missing"),
        (REPORT, _with("CompletionFlag", "SECRET"), "CompletionFlag has a value that"),
        (
            REPORT,
            _item_without("CurrentRequestedProcedureEvidenceSequence", "StudyInstanceUID"),
            "is missing",
        ),
        (REPORT, _item_without("ContentSequence", "RelationshipType"), "RelationshipType is missing"),
        (SEG, _without("ContentLabel"), "ContentLabel is missing"),
        (SEG, _without("SeriesNumber"), "SeriesNumber is missing"),
        (SEG, _item_without("SegmentSequence", "SegmentLabel"), "SegmentLabel is missing"),
        (SEG, _with("SegmentationType", "SECRET"), "SegmentationType has a value that"),
    ],
)
def test_the_gate_itself_stops_what_dciodvfy_rejects_and_quotes_no_value(
    encoded, dciodvfy, tmp_path, place, damage, told
):
    """The same on every machine: the validator has a say in tests alone."""
    dataset = _dataset(encoded["complete"].objects[place])
    damage(dataset)
    path = tmp_path / "damaged.dcm"
    dataset.save_as(path)
    said = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False).stderr
    assert "Error" in said
    with pytest.raises(ObjectInvalid) as stopped:
        check_object(path.read_bytes())
    lines = " ".join(stopped.value.violations)
    assert told in lines
    assert "SECRET" not in lines


def test_a_text_in_no_character_set_is_stopped_and_not_quoted(encoded):
    """Beside a name that is none either, which is the source's and stops nothing."""
    content = encoded["complete"].objects[3].content
    name = content.replace(b"Muster^Erika", b"Muster^Erik\xe4").replace(b"ISO_IR 100", b"GBK       ")
    assert name != content
    check_object(name)
    with pytest.raises(ObjectInvalid) as stopped:
        check_object(name.replace(b"Nomogram", b"SECRET\xff\xff"))
    assert any("ImageComments is not text" in line for line in stopped.value.violations)
    assert "SECRET" not in " ".join(stopped.value.violations)


def test_the_gate_asks_no_tool_of_the_machine(encoded, monkeypatch):
    def used(*_: object, **__: object) -> None:
        pytest.fail("a program was started")

    monkeypatch.setattr(subprocess, "Popen", used)
    for one in encoded["complete"].objects:
        check_object(one.content)


def test_an_odd_sex_in_the_source_is_kept_and_does_not_hold_back_the_result(study, variants, dciodvfy):
    header = _changed(study.series.headers[0], PatientSex="W")
    report = encode_report(variants["refused"], [header])
    assert {_dataset(item).PatientSex for item in report.objects} == {"W"}
