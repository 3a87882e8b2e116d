"""docs/conformance.md against the objects that are made and the codes they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from node.dicom import codes
from node.dicom.destination_objects import encode_rejection_note
from node.dicom.encode import encode_report
from node.dicom.result_headers import IDENTITY_KEYWORDS
from node.study_report import ObjectKind

STATEMENT = (Path(__file__).parents[2] / "docs/conformance.md").read_text("utf-8")
OBJECTS = STATEMENT.partition("### 9.1 ")[2].partition("### 9.2 ")[0]


@pytest.fixture(scope="module")
def objects(study, variants) -> list[Dataset]:
    made = [
        encode_report(
            variants[name],
            study.series.headers,
            series=study.series,
            vertebrae=study.vertebrae,
            regions=study.regions,
        )
        for name in ("complete", "refused")
    ]
    objects = [one for report in made for one in report.objects]
    report = next(one for one in objects if one.kind is ObjectKind.STRUCTURED_REPORT)
    issued_at = variants["complete"].issued_at
    objects.append(encode_rejection_note(report, objects, issued_at=issued_at, file_name="note.dcm"))
    return [dcmread(BytesIO(one.content)) for one in objects]


def _private_codes(found: Any) -> Iterator[Code]:
    if isinstance(found, Code):
        if found.scheme_designator == codes.PRIVATE:
            yield found
    elif isinstance(found, Mapping):
        for one in found.values():
            yield from _private_codes(one)
    elif isinstance(found, tuple):
        for one in found:
            yield from _private_codes(one)


def test_private_codes_are_those_of_the_statement_with_their_meanings():
    text = STATEMENT.partition("### 9.3 ")[2].partition("### 9.4 ")[0]
    stated = dict(re.findall(r"^\| (\S+) \| ([^|]+) \|$", text, re.MULTILINE))
    del stated["code"]
    defined = [one for value in vars(codes).values() for one in _private_codes(value)]
    assert stated == {one.value: one.meaning for one in defined}
    assert codes.PRIVATE_SCHEME_UID in text


def test_series_are_numbered_and_described_as_stated(objects):
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| (\d+) \| ([^|]+) \| [^|]+ \|$", OBJECTS, re.MULTILINE)
    stated = {(name.split(",")[0].strip(), int(number), text.strip()) for _, name, number, text in rows}
    made = {(one.SOPClassUID.name, int(one.SeriesNumber), one.SeriesDescription) for one in objects}
    assert made == stated
    assert {(one.Manufacturer, one.ManufacturerModelName) for one in objects} == {("Osteonode", "Osteonode")}


def test_what_is_copied_is_what_is_stated():
    assert set(re.findall(r"`(\w+)`", OBJECTS.partition("Copied from")[2])) == IDENTITY_KEYWORDS


def test_flags_are_those_of_the_statement(objects):
    (report, refusal) = (one for one in objects if one.Modality == "SR")
    for one in (report, refusal):
        assert (one.CompletionFlag, one.VerificationFlag, one.PreliminaryFlag) == (
            "COMPLETE",
            "UNVERIFIED",
            "PRELIMINARY",
        )
