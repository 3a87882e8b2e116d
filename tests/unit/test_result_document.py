"""`result.json`: earlier ones are read, the same report gives the same text, and the schema fits both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from node.pipeline.artefacts import from_json
from node.result_document import SCHEMA_VERSION, ResultDocument, read_result
from node.study_report import Report
from tools.write_result_schema import FILES, schema_text

KEPT = Path(__file__).parents[1] / "data" / "results"
STUDIES = sorted(folder.name for folder in KEPT.iterdir())
# Keys that came after the first 1.0: files of trials lack them.
LATER = {
    "": ("unnamed_bodies", "unnamed", "follow_up", "completeness"),
    "series": ("measured_pass",),
    "levels.*": ("core_volume_mm3", "region", "equivalent", "ellipse"),
    "calibration": ("grade", "phantom_serial", "phantom_sha256", "scanned_on", "tissues", "effective_kev"),
    "calibration.rods.*": ("standard_error_hu", "fitted"),
    "categories.density": ("uncertainty_mg_cm3", "converted_from"),
    "follow_up": ("equivalent", "accepted_unstated"),
    "provenance": ("begun_again", "predecessor_issued_at"),
}


def written(study: str) -> str:
    return (KEPT / study / "result.json").read_text("utf-8")


def report_of(study: str) -> Report:
    return from_json(Report, (KEPT / study / "report.json").read_bytes())


def values_of(study: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(written(study))
    return values


def parts(value: Any, path: list[str]) -> list[dict[str, Any]]:
    """The objects of a document that a path names; `*` is each of several."""
    if not path:
        return [value] if value else []
    if path[0] == "*":
        each = value.values() if isinstance(value, dict) else value
        return [part for one in each for part in parts(one, path[1:])]
    return parts(value.get(path[0]), path[1:]) if value else []


def test_what_is_kept_is_varied():
    documents = {name: read_result(written(name)) for name in STUDIES}
    assert {one.outcome.value for one in documents.values()} == {"reported", "refused"}
    assert documents["no-series"].series.series_instance_uid is None
    assert documents["single-slices"].unnamed
    assert documents["masked"].levels["L2"].ellipse
    assert documents["masked"].categories.density
    assert documents["reported"].nomogram
    assert documents["follow-up"].follow_up
    assert documents["follow-up"].completeness
    assert documents["internal"].calibration.tissues


@pytest.mark.parametrize("study", STUDIES)
def test_a_document_that_was_read_is_written_as_it_stood(study):
    assert read_result(written(study)).to_text() == written(study)


@pytest.mark.parametrize("study", STUDIES)
def test_the_same_report_gives_the_same_text_as_before(study):
    timings_s = values_of(study)["timings_s"]
    assert ResultDocument.of(report_of(study), timings_s).to_text() == written(study)


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_and_what_is_read_of_it_are_equal(study):
    document = ResultDocument.of(report_of(study), {"total": 1.23456})
    assert read_result(document.to_text()) == document
    assert document.timings_s == {"total": 1.235}


@pytest.mark.parametrize("study", STUDIES)
def test_a_document_of_a_trial_is_read_without_the_keys_that_came_later(study):
    values = values_of(study)
    for path, keys in LATER.items():
        for part in parts(values, path.split(".") if path else []):
            for key in keys:
                part.pop(key, None)
    values["schema_version"] = "1.0"
    for name, value in read_result(json.dumps(values)).values().items():
        if name not in ("series", "levels", "calibration", "categories", "follow_up", "provenance"):
            assert value == values.get(name, [] if name.startswith("unnamed") else None)


def test_whole_numbers_are_read_where_a_number_may_have_decimals():
    values = values_of("reported")
    values["nomogram"]["inputs"][1]["value"] = 67
    assert read_result(json.dumps(values)) == read_result(written("reported"))


def test_a_newer_minor_version_is_read_and_another_major_is_not():
    values = values_of("reported")
    assert values["schema_version"] == SCHEMA_VERSION
    newer = values | {"schema_version": "1.7", "added_later": {"of": "no matter"}}
    assert read_result(json.dumps(newer)).levels == read_result(written("reported")).levels
    for version in ("2.0", "1", 1.0, None):
        with pytest.raises(ValidationError, match="schema_version"):
            read_result(json.dumps(values | {"schema_version": version}))


@pytest.mark.parametrize(
    ("key", "value"), [("t_score", "-2.5"), ("outcome", "well"), ("levels", []), ("rad_score", True)]
)
def test_a_value_of_another_kind_is_refused(key, value):
    with pytest.raises(ValidationError, match=key):
        read_result(json.dumps(values_of("reported") | {key: value}))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_never_written(number):
    report = report_of("reported")
    broken = replace(report, t_score=replace(report.t_score, value=number))
    with pytest.raises(ValidationError, match="finite"):
        ResultDocument.of(broken, {})
    with pytest.raises(ValidationError, match="finite"):
        ResultDocument.of(report, {"total": number})


def test_a_document_cannot_be_changed():
    document = read_result(written("reported"))
    with pytest.raises(ValidationError, match="frozen"):
        document.t_score = 0.0
    with pytest.raises(ValidationError, match="frozen"):
        document.levels["L1"].bmd_mg_cm3 = 0.0


@pytest.mark.parametrize("study", STUDIES)
def test_without_identity_nothing_of_the_patient_is_left(study):
    document = read_result(written(study))
    identity = document.study.model_dump(exclude={"study_instance_uid", "sex", "age_years"})
    told = document.without_identity()
    assert told.study.study_instance_uid == document.study.study_instance_uid
    assert set(told.study.model_dump(exclude={"study_instance_uid"}).values()) == {None}
    for value in (identity["patient_id"], identity["accession_number"], identity["issuer_of_patient_id"]):
        assert not value or f'"{value}"' not in told.to_text()
    assert told.levels == document.levels


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parent.name))
def test_the_published_and_the_shipped_schema_are_up_to_date(file):
    """Else: tools/write_result_schema.py."""
    assert file.read_text("utf-8") == schema_text()


def test_the_schema_fits_what_is_written_and_nothing_less():
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for study in STUDIES:
        values = values_of(study)
        assert [error.message for error in validator.iter_errors(values)] == []
        assert set(schema["properties"]) == set(schema["required"]) == set(values)
        for key in values:
            lacking = {name: value for name, value in values.items() if name != key}
            assert not validator.is_valid(lacking), key
