"""CT images without identity: what goes, what stays, and that the measurement goes by the same."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import SecondaryCaptureImageStorage

from node.dicom.ct.contrast_agent import contrast_in_plain_words, contrast_in_text, contrast_of
from node.dicom.ct.headers import identity_of
from node.dicom.ct.technique import beam_filter_of, energy_of
from node.dicom.deidentification import Deidentification, IdentityLeft

TEXTS = (
    "", "-", "?", "none", "Ultravist 370 for Erika", "W/O", "oral", "no oral contrast", "Omnipaque, no IV",
    "see notes of Dr. Ward", "平扫", "APPLIED",
)  # fmt: skip


@pytest.fixture
def image(tmp_path: Path, make_slice) -> Path:
    path = tmp_path / "0.dcm"
    pixels = np.arange(64).reshape(8, 8)
    make_slice(path, pixels, (0.0, 0.0, 0.0), PatientWeight="70", SoftwareVersions="VA1")
    return path


def edited(path: Path, **changes: object) -> Path:
    dataset = dcmread(path)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dcmwrite(path, dataset)
    return path


def read(content: bytes | None) -> Dataset:
    assert content is not None
    return dcmread(BytesIO(content))


def item(**values: object) -> Dataset:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def test_what_the_measurement_goes_by_stays(image):
    before, after = dcmread(image), read(Deidentification().image(image))
    for keyword in (
        "PixelSpacing", "ImagePositionPatient", "KVP", "ConvolutionKernel", "Manufacturer", "PatientSex",
        "PatientWeight", "StudyDate", "SoftwareVersions", "InstanceNumber", "PixelData",
    ):  # fmt: skip
        assert after[keyword] == before[keyword], keyword
    assert identity_of(after).age_years == identity_of(before).age_years == 68
    assert after.PatientBirthDate == ""


def test_identifiers_in_sequences_go_with_them_and_codes_stay(image):
    edited(
        image,
        RequestAttributesSequence=Items(
            [
                item(
                    RequestedProcedureID="RP-4711",
                    RequestedProcedureCodeSequence=Items(
                        [item(CodeValue="QCT", CodingSchemeDesignator="99SITE", CodeMeaning="QCT lumbar")]
                    ),
                )
            ]
        ),
        ReferringPhysicianIdentificationSequence=Items([item(InstitutionName="Klinik am Lindenweg")]),
    )
    after = read(Deidentification().image(image))
    (request,) = after.RequestAttributesSequence
    assert "RequestedProcedureID" not in request
    assert request.RequestedProcedureCodeSequence[0].CodeValue == "QCT"
    assert "ReferringPhysicianIdentificationSequence" not in after


def test_the_same_uid_becomes_the_same_uid_everywhere_and_another_in_another_export(image):
    hiding, uid = Deidentification(), dcmread(image).SeriesInstanceUID
    after = read(hiding.image(image))
    assert after.SeriesInstanceUID == hiding.uid(uid) != uid
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert hiding.text(f"series {uid}: rejected") == f"series {after.SeriesInstanceUID}: rejected"
    assert hiding.uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"
    assert Deidentification().uid(uid) != after.SeriesInstanceUID


def test_a_missing_patient_id_stays_missing_and_two_patients_stay_two(image):
    hiding = Deidentification()
    assert read(hiding.image(edited(image, PatientID=""))).PatientID == ""
    one, other = hiding.patient_id("A"), hiding.patient_id("B")
    assert one != other == hiding.patient_id("B")


@pytest.mark.parametrize("text", TEXTS)
def test_contrast_medium_is_said_in_plain_words(image, text):
    after = read(
        Deidentification().image(edited(image, SpecificCharacterSet="ISO_IR 192", ContrastBolusAgent=text))
    )
    before, now = contrast_of([dcmread(image)]), contrast_of([after])
    assert (bool(now.words), now.doubtful) == (bool(before.words), before.doubtful)
    assert "Erika" not in str(after)
    assert "Ward" not in str(after)


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(TEXTS), max_size=3).map(", ".join)))
def test_plain_words_say_the_same_of_contrast_medium(text):
    assert contrast_in_text(contrast_in_plain_words(text)) is contrast_in_text(text)


@pytest.mark.parametrize(
    "described", ["Erika VMI 70 keV", "Erika SN 100 kVp", "MonoE 55keV of Erika", "Erika"]
)
def test_a_spectrum_that_a_description_names_is_kept(image, described):
    after = read(Deidentification().image(edited(image, SeriesDescription=described)))
    before = dcmread(image)
    assert (energy_of(after), beam_filter_of(after)) == (energy_of(before), beam_filter_of(before))
    assert "Erika" not in str(after)


def test_other_objects_and_damaged_files_are_left_out(image, tmp_path):
    hiding = Deidentification()
    content = image.read_bytes()
    assert hiding.image(edited(image, SOPClassUID=SecondaryCaptureImageStorage)) is None
    (tmp_path / "text.dcm").write_text("no DICOM")
    assert hiding.image(tmp_path / "text.dcm") is None
    assert content


def test_an_image_in_which_the_identity_would_stay_is_not_given_away(image):
    """Here a scanner's serial number, which is kept, is the Patient ID, too."""
    with pytest.raises(IdentityLeft, match="would be left"):
        Deidentification().image(edited(image, DeviceSerialNumber="PID-0815"))


def test_a_text_loses_a_value_only_where_it_stands_by_itself(image):
    hiding = Deidentification()
    hiding.image(edited(image, PatientID="4711"))
    instead, uid = hiding.patient_id("4711"), "2.25.47110000000"
    assert hiding.text(f"of 4711, {uid} and 14711") == f"of {instead}, {hiding.uid(uid)} and 14711"
    assert hiding.values({"a": ["born 1955-07-01", 1.5, None]}) == {"a": ["born ", 1.5, None]}
