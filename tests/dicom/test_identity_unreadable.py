"""Names and numbers that are no text in the declared character set never become other names in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR

from node.dicom.ct.headers import Instance, identity_of, read_headers
from node.dicom.header_text import IDENTITY_TEXT, is_valid_text
from node.dicom.result_headers import IDENTITY_KEYWORDS, copy_identity
from node.dicom.uids import to_bytes
from node.reference.spec import StudySpec
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

pytestmark = pytest.mark.slow

GB = "王^小东".encode("gb18030")
LATIN = "Müller^Jürgen".encode("latin-1")
IR_58 = b"Zhang=\x1b\x24\x29\x41\xd5\xc5"
IR_87 = b"Yamada=\x1b\x24\x42\x3b\x33\x45\x44\x1b\x28\x42"


@pytest.mark.parametrize(
    ("declared", "content"),
    [
        ((), b"Muster^Erika"),
        (("ISO_IR 6",), b"Muster^Erika"),
        (("no such set",), b"Muster^Erika"),  # ASCII is the same in all of them
        (("GB18030",), GB),
        (("GBK",), GB),
        (("ISO_IR 192",), "王^小东".encode()),
        (("ISO_IR 100",), LATIN),
        (("ISO_IR 144",), "Люкceмбypг".encode("iso8859_5")),
        (("", "ISO 2022 IR 58"), IR_58),
        (("", "ISO 2022 IR 87"), IR_87),
        (("ISO 2022 IR 13", "ISO 2022 IR 87"), b"\xd4\xcf\xc0\xde=\x1b\x24\x42\x3b\x33\x45\x44\x1b\x28\x4a"),
        (("ISO 2022 IR 6", "ISO 2022 IR 100"), b"Buc^J\x1b\x2d\x41\xe9r\xf4me"),
        (("", "ISO 2022 IR 149"), b"Hong=\x1b\x24\x29\x43\xfb\xf3"),
    ],
)
def test_text_of_the_declared_set_is_known_as_such(declared: tuple[str, ...], content: bytes) -> None:
    assert is_valid_text(content, declared)


@pytest.mark.parametrize(
    ("declared", "content"),
    [
        ((), GB),
        (("",), LATIN),
        (("ISO_IR 6",), LATIN),
        (("ISO_IR 192",), LATIN),
        (("ISO_IR 192",), GB),
        (("GB18030",), GB[:-1]),  # half a sign
        (("GB 18030",), GB),  # misspelt
        ((), IR_58),
        (("", "ISO 2022 IR 87"), IR_58),
        (("", "ISO 2022 IR 58"), IR_58[:-1]),
        (("", "ISO 2022 IR 58"), b"Zhang=\xd5\xc5"),  # without its escape sequence
        (("", "ISO 2022 IR 58"), b"Zhang=\x1b\x24\x29"),
    ],
)
def test_bytes_of_another_set_are_no_text(declared: tuple[str, ...], content: bytes) -> None:
    assert not is_valid_text(content, declared)


@pytest.fixture
def garbled(tmp_path: Path, make_slice: Any) -> Callable[[str, bytes, bytes], Instance]:
    """A file whose name and number were put in as bytes, without a look at the declared set."""

    def write(charset: str, name: bytes, number: bytes) -> Instance:
        path = tmp_path / "1.dcm"
        assert len(charset) <= 10
        texts = {"PatientName": "P" * len(name), "PatientID": "I" * len(number)}
        make_slice(path, np.zeros((4, 4), dtype=np.int16), (0.0, 0.0, 0.0), **texts)
        content = path.read_bytes().replace(b"P" * len(name), name).replace(b"I" * len(number), number)
        path.write_bytes(content.replace(b"ISO_IR 100", charset.ljust(10).encode()))
        return read_headers([path])[0]

    return write


def _sent(instance: Instance) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.3", "1.2.4"
    copy_identity(instance.header, dataset)
    return to_bytes(dataset)


@pytest.mark.filterwarnings("ignore:Failed to decode byte string")
def test_what_would_be_altered_is_left_empty_and_told(garbled: Any) -> None:
    instance = garbled("ISO_IR 192", b"Muster^Erika", b"M\xfc-4711")
    assert instance.unreadable == ("PatientID",)
    assert identity_of(instance.header).patient_id == ""  # which sets the study aside
    assert "\N{REPLACEMENT CHARACTER}".encode() not in _sent(instance)


@pytest.mark.filterwarnings("ignore:Failed to decode byte string")
def test_a_name_that_cannot_be_read_goes_back_as_it_came_and_is_told(garbled: Any) -> None:
    instance = garbled("ISO_IR 192", LATIN + b" ", b"PID-0815")
    assert instance.unreadable == ("PatientName",)
    assert LATIN in _sent(instance)


def test_what_no_set_is_declared_for_goes_back_as_it_came_and_is_told(garbled: Any) -> None:
    instance = garbled("", GB + b"  ", b"PID-0815")
    assert instance.unreadable == ("PatientName",)
    assert GB in _sent(instance)
    assert identity_of(instance.header).patient_id == "PID-0815"


def test_readable_names_are_passed_over(garbled: Any) -> None:
    instance = garbled("GB18030", GB + b"  ", b"PID-0815")
    assert instance.unreadable == ()
    assert GB in _sent(instance)


def test_every_text_of_the_identity_is_looked_at() -> None:
    texts = {
        keyword
        for keyword in IDENTITY_KEYWORDS
        if dictionary_VR(keyword) in {"LO", "SH", "PN", "ST", "LT", "UT"}
    }
    assert set(IDENTITY_TEXT) == texts


@pytest.mark.filterwarnings("ignore:Failed to decode byte string")
def test_a_study_whose_name_cannot_be_read_says_so(tmp_path: Path) -> None:
    write_reference_study(tmp_path, StudySpec.reduced(view=("L3", "L3")))
    for path in tmp_path.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "P" * 14
        dataset.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"P" * 14, LATIN + b" "))
    result = Run(tmp_path, tmp_path / "truth_mask.nii.gz").result
    (text,) = [one["text"] for one in result["findings"] if one["code"] == "identity_unreadable"]
    assert text.startswith("These attributes are not valid text in the declared character set: PatientName.")
    assert result["levels"]["L3"]["bmd_mg_cm3"]
