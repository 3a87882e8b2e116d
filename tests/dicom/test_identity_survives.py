"""Patient and study come back as they were sent, in whatever character set."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from node.dicom.encode import encode_report
from node.dicom.header_text import protect_identity_text
from node.dicom.seg import encode_segmentation, plan_segments

pytestmark = pytest.mark.slow

# Names from PS3.5 Annexes H to K and of common use, with the bytes that a modality writes.
NAMES = {
    "default": ("", b"Muster^Erika"),
    "Latin-1": ("ISO_IR 100", "Müller^Jürgen".encode("latin-1")),
    "UTF-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东".encode()),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    "GBK": ("GBK", "Wang^XiaoDong=王^小东".encode("gbk")),
    "GB18030 beyond GBK": ("GB18030", "Wang^XiaoDong=王^𠀀".encode("gb18030")),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5")),
    "Latin-1 by escape": ("ISO 2022 IR 6\\ISO 2022 IR 100", b"Buc^J\x1b\x2d\x41\xe9r\xf4me"),
    "Chinese by escape": (
        "\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b\x24\x29\x41\xd5\xc5^\x1b\x24\x29\x41\xd0\xa1\xb6\xab",
    ),
    "katakana and kanji": (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b\x24\x42\x3b\x33\x45\x44\x1b\x28\x4a^\x1b\x24\x42\x42\x40\x4f\x3a\x1b\x28\x4a",
    ),
    "Korean": (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b\x24\x29\x43\xfb\xf3^\x1b\x24\x29\x43\xd1\xce\xd4\xd7",
    ),
    "Japanese": (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b\x24\x42\x3b\x33\x45\x44\x1b\x28\x42^\x1b\x24\x42\x42\x40\x4f\x3a\x1b\x28\x42",
    ),
}
COPIED = (
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
)


def _source(study, charset: str, name: bytes) -> Dataset:
    """A header as it comes off the wire: the name's bytes have never been decoded."""
    buffer = BytesIO()
    header = Dataset()
    header.update(deepcopy(study.series.headers[0]))
    header.TimezoneOffsetFromUTC = "-0330"
    header.SpecificCharacterSet = charset.split("\\") if charset else None
    header.PatientName = "P" * len(name)
    header.save_as(buffer, implicit_vr=False, little_endian=True)
    raw = buffer.getvalue().replace(b"P" * len(name), name)
    dataset = dcmread(BytesIO(raw), force=True)
    protect_identity_text(dataset)
    return dataset


def _written_name(content: bytes) -> bytes:
    """The bytes of PatientName (0010,0010) PN in an Explicit VR Little Endian file."""
    at = content.index(b"\x10\x00\x10\x00PN") + 6
    length = int.from_bytes(content[at : at + 2], "little")
    return content[at + 2 : at + 2 + length].rstrip(b" ")


@pytest.mark.parametrize("case", NAMES)
def test_the_bytes_of_the_name_survive(study, variants, case):
    charset, name = NAMES[case]
    for item in encode_report(variants["refused"], [_source(study, charset, name)]).objects:
        assert _written_name(item.content) == name
        dataset = dcmread(BytesIO(item.content))
        stated = dataset.get("SpecificCharacterSet")
        shown = stated if isinstance(stated, str) or stated is None else "\\".join(stated)
        assert (shown or "") == charset


@pytest.mark.parametrize("case", NAMES)
def test_the_bytes_of_the_name_survive_in_the_segmentation(study, case):
    charset, name = NAMES[case]
    headers = (_source(study, charset, name), *study.series.headers[1:])
    segments = plan_segments(study.report, study.vertebrae, study.regions)
    encoded = encode_segmentation(study.report, replace(study.series, headers=headers), segments[:1])
    assert _written_name(encoded.content) == name


def test_identity_is_copied_value_for_value(study, variants):
    source = _source(study, "ISO_IR 100", b"Muster^Erika")
    for item in encode_report(variants["refused"], [source]).objects:
        dataset = dcmread(BytesIO(item.content))
        for keyword in COPIED:
            assert dataset[keyword].value == source[keyword].value, keyword


def test_what_the_source_lacks_stays_empty(study, variants):
    source = _source(study, "ISO_IR 100", b"Muster^Erika")
    del (
        source.AccessionNumber,
        source.IssuerOfPatientID,
        source.PatientBirthDate,
        source.ReferringPhysicianName,
    )
    for item in encode_report(variants["refused"], [source]).objects:
        dataset = dcmread(BytesIO(item.content))
        assert not dataset.AccessionNumber
        assert not dataset.PatientBirthDate
        assert not dataset.ReferringPhysicianName
        assert "IssuerOfPatientID" not in dataset


def test_the_source_header_is_left_as_it_was(study, variants):
    source = _source(study, "ISO_IR 100", b"Muster^Erika")
    before = source.to_json()
    encode_report(variants["refused"], [source])
    assert source.to_json() == before
