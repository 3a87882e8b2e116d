"""When two data sets say the same, when they differ in identity alone, and when they are something else."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from node.dicom.content_comparison import fingerprint, identity_difference, identity_values

NAME = "Wang^XiaoDong=王^小东="


def _drawn() -> np.ndarray[Any, Any]:
    return np.arange(64 * 72, dtype="<i2").reshape(64, 72) - 200


def _image(**changes: Any) -> Dataset:
    """A CT image with what tends to be encoded in several ways."""
    code, request = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113961", "DCM", "Reconstruction"
    request.AccessionNumber = "A1"
    dataset = Dataset()
    values: dict[str, Any] = {
        "SpecificCharacterSet": "GB18030",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "2.25.1.1.1",
        "StudyInstanceUID": "2.25.1",
        "PatientName": NAME,
        "PatientID": "MRN-1",
        "PatientBirthDate": "19510203",
        "PatientSex": "F",
        "AccessionNumber": "A1",
        "StudyDescription": "腰椎 QCT",
        "ImagePositionPatient": [-100.5, -120.25, 40],
        "ReconstructionDiameter": 400.5,
        "Rows": 64,
        "Columns": 72,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "ProcedureCodeSequence": Sequence([code]),
        "RequestAttributesSequence": Sequence([request]),
        **changes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" not in values:
        drawn = _drawn()
        dataset.PixelData = drawn.tobytes()
        dataset["PixelData"].VR = "OW"
    block = dataset.private_block(0x0019, "OSTEONODE TEST", create=True)
    block.add_new(0x01, "LO", "odd")
    block.add_new(0x02, "US", 300)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _fingerprint(file: BytesIO) -> tuple[str, str]:
    file.seek(0)
    found = fingerprint(file)
    assert found is not None
    return found


def _written(dataset: Dataset, syntax: Any = ExplicitVRLittleEndian) -> BytesIO:
    """A Part 10 file as a PACS would store the data set in `syntax`."""
    if syntax.is_compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax is ExplicitVRBigEndian:
        pixels = np.frombuffer(dataset.PixelData, "<i2").byteswap().tobytes()
        dataset.PixelData = pixels
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    implicit = syntax is ImplicitVRLittleEndian
    little = syntax is not ExplicitVRBigEndian
    dataset.save_as(buffer, enforce_file_format=True, implicit_vr=implicit, little_endian=little)
    buffer.seek(0)
    return buffer


SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_lossless_transcoding_says_the_same(syntax: Any) -> None:
    assert identity_difference(_written(_image()), _written(_image(), syntax)) == frozenset()
    assert _fingerprint(_written(_image())) == _fingerprint(_written(_image(), syntax))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_one_pixel_is_a_difference_in_every_syntax(syntax: Any) -> None:
    drawn = _drawn()
    drawn[3, 7] += 1
    other = _image(PixelData=drawn.tobytes())
    other["PixelData"].VR = "OW"
    assert identity_difference(_written(_image()), _written(other, syntax)) is None


def test_equal_pixels_of_one_syntax_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Dataset) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Dataset, "pixel_array", property(refuse))
    held, came = _written(_image(), JPEGLSLossless), _written(_image(PatientID="MRN-2"), JPEGLSLossless)
    assert identity_difference(held, came) == {"PatientID"}
    assert identity_difference(_written(_image()), _written(_image(), ImplicitVRLittleEndian)) == frozenset()


def _with_group_length(dataset: Dataset) -> None:
    dataset.add_new(0x00080000, "UL", 300)


def _with_trailing_padding(dataset: Dataset) -> None:
    dataset.DataSetTrailingPadding = bytes(64)


def _with_private_padding(dataset: Dataset) -> None:
    dataset.private_block(0x0019, "OSTEONODE TEST").add_new(0x03, "OB", bytes(128))


def _with_an_empty_element(dataset: Dataset) -> None:
    dataset.OtherPatientNames = ""


def _with_another_character_set(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"


def _with_empty_name_components(dataset: Dataset) -> None:
    dataset.PatientName = "Wang^XiaoDong=王^小东^^=^^"


@pytest.mark.parametrize(
    "alter",
    [
        _with_group_length,
        _with_trailing_padding,
        _with_private_padding,
        _with_an_empty_element,
        _with_another_character_set,
        _with_empty_name_components,
    ],
)
def test_what_storing_may_change_is_no_difference(alter: Callable[[Dataset], None]) -> None:
    came = _image()
    alter(came)
    assert identity_difference(_written(_image()), _written(came)) == frozenset()
    assert _fingerprint(_written(_image())) == _fingerprint(_written(came))


@pytest.mark.parametrize(
    "changes",
    [
        {"ImagePositionPatient": ["-100.500", "-1.2025e2", "+40.0"]},
        {"ReconstructionDiameter": "400.50"},
        {"ImagePositionPatient": ["-100.5", "-120.25 ", " 40"]},
    ],
)
def test_numbers_written_with_other_digits_say_the_same(changes: dict[str, Any]) -> None:
    assert identity_difference(_written(_image()), _written(_image(**changes))) == frozenset()
    came = _image(**changes, PatientID="MRN-2")
    assert identity_difference(_written(_image()), _written(came)) == {"PatientID"}


def test_a_text_of_digits_is_no_number() -> None:
    held, came = _image(DeviceSerialNumber="120"), _image(DeviceSerialNumber="120.0")
    assert identity_difference(_written(held), _written(came)) is None


@pytest.mark.parametrize(
    ("changes", "keywords"),
    [
        ({"PatientName": "Wang^XiaoDong=汪^小东="}, {"PatientName"}),
        ({"PatientID": "MRN-2", "IssuerOfPatientID": "B"}, {"PatientID", "IssuerOfPatientID"}),
        ({"PatientBirthDate": "19520203", "PatientSex": "M"}, {"PatientBirthDate", "PatientSex"}),
        ({"AccessionNumber": None}, {"AccessionNumber"}),
    ],
)
def test_a_corrected_identity_is_told_by_its_attributes(changes: dict[str, Any], keywords: set[str]) -> None:
    held, came = _written(_image()), _written(_image(**changes), RLELossless)
    assert identity_difference(held, came) == keywords
    assert keywords <= identity_values(_written(_image(**{**changes, "AccessionNumber": "B"}))).keys()
    ours, theirs = _fingerprint(held), _fingerprint(came)
    assert ours[0] == theirs[0]
    assert ours[1] != theirs[1]


def test_an_accession_number_inside_the_request_is_identity_too() -> None:
    other = Dataset()
    other.AccessionNumber = "A2"
    came = _image(RequestAttributesSequence=Sequence([other]))
    assert identity_difference(_written(_image()), _written(came)) == {"AccessionNumber"}


@pytest.mark.parametrize(
    "changes",
    [
        {"ImagePositionPatient": [-100.5, -120.25, 41]},
        {"StudyDescription": "腰椎 CT"},
        {"ReconstructionDiameter": 400.25},
        {"ProcedureCodeSequence": None},
        {"PatientID": "MRN-2", "KVP": 80},
    ],
)
def test_anything_else_is_another_content_whatever_the_identity(changes: dict[str, Any]) -> None:
    held, came = _written(_image()), _written(_image(**changes))
    assert identity_difference(held, came) is None
    ours, theirs = _fingerprint(held), _fingerprint(came)
    assert ours[0] != theirs[0]


def test_leading_zeros_of_binary_values_count() -> None:
    held, came = _image(), _image()
    held.add_new("EncapsulatedDocument", "OB", b"\0\1")
    came.add_new("EncapsulatedDocument", "OB", b"\1\0")
    assert identity_difference(_written(held), _written(came)) is None


@pytest.mark.parametrize("broken", [b"", b"no DICOM", b"\0" * 128 + b"DICM"])
def test_what_cannot_be_read_is_different(broken: bytes) -> None:
    assert identity_difference(_written(_image()), BytesIO(broken)) is None


def test_pixels_that_cannot_be_decoded_are_different() -> None:
    came = _written(_image(), JPEGLSLossless)
    dataset = dcmread(came)
    start = dataset.PixelData.index(b"\xff\xd8")  # of the code stream
    dataset.PixelData = dataset.PixelData[:start] + b"\0\0" + dataset.PixelData[start + 2 :]
    again = BytesIO()
    dataset.save_as(again)
    again.seek(0)
    assert identity_difference(_written(_image()), again) is None
    again.seek(0)
    assert fingerprint(again) is None


def test_a_character_whose_last_byte_is_a_caret_is_no_empty_component() -> None:
    """GB18030 uses 0x5E as a second byte: cut off as padding, two names would be one."""
    name = "Li=乛"
    assert name.encode("gb18030")[-1] == ord("^")
    held, came = _written(_image(PatientName=name)), _written(_image(PatientName="Li=乗"))
    assert identity_difference(held, came) == {"PatientName"}
    assert identity_values(_written(_image(PatientName=name)))["PatientName"] == name
