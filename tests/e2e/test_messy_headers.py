"""Headers as archives, routers and anonymisers leave them: a good study is measured all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from node.clinical import CsvLaboratory
from node.reference.spec import StudySpec
from node.study_report import Outcome
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

Edit = Callable[[int, Dataset], None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4")))
    return folder


@pytest.fixture
def edited(study: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """A copy of the study in which each slice (number, data set) was changed."""

    def write(edit: Edit) -> Path:
        folder = tmp_path / "edited"
        folder.mkdir()
        for number, path in enumerate(sorted(study.glob("*.dcm"))):
            dataset = dcmread(path)
            edit(number, dataset)
            dataset.save_as(folder / path.name, enforce_file_format=True)
        return folder

    return write


def _run(folder: Path, study: Path) -> Run:
    return Run(folder, study / "truth_mask.nii.gz")


def _texts(run: Run) -> str:
    return " ".join(finding.text for finding in run.report.findings)


def _objects(run: Run) -> Iterator[Dataset]:
    for one in run.objects:
        yield dcmread(BytesIO(one.content))


def _add_localizer(folder: Path) -> None:
    """Another series of one image, which states no issuer."""
    dataset = dcmread(min(folder.glob("*.dcm")))
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    if "IssuerOfPatientID" in dataset:
        del dataset.IssuerOfPatientID
    dataset.save_as(folder / "localizer.dcm")


def test_an_issuer_that_some_images_do_not_state_is_no_other_patient(study, edited):
    """Nor one that a series does not state; every object carries the issuer that the others name."""

    def dropped(number: int, dataset: Dataset) -> None:
        if number % 2 == 0 or number > 60:
            del dataset.IssuerOfPatientID

    folder = edited(dropped)
    _add_localizer(folder)
    found = _run(folder, study)
    assert "patient_conflict" not in found.codes
    assert found.report.outcome is Outcome.REPORTED
    assert found.report.study.issuer_of_patient_id == "OSTEONODE"
    issuers = {(one.PatientID, one.IssuerOfPatientID) for one in _objects(found)}
    assert issuers == {("REFERENCE-1", "OSTEONODE")}


def test_two_stated_issuers_are_two_patients(study, edited):
    def other(number: int, dataset: Dataset) -> None:
        if number == 3:
            dataset.IssuerOfPatientID = "ELSEWHERE"
        elif number % 2:
            del dataset.IssuerOfPatientID

    found = _run(edited(other), study)
    assert "patient_conflict" in found.codes
    assert "2 different patients" in _texts(found)
    assert found.report.outcome is Outcome.REFUSED
    assert found.objects == ()


TEXT_IN = {
    "ProcedureCodeSequence": "CT LSPINE",
    "ContrastBolusAgentSequence": "CT LSPINE",
    "ContributingEquipmentSequence": "CT LSPINE",
    "RequestAttributesSequence": "CT LSPINE",
    "DeidentificationMethodCodeSequence": "Vendor header anonymizer",
    "OtherPatientIDsSequence": "CT LSPINE",
}


@pytest.mark.parametrize("syntax", ["+te", "+ti"], ids=["explicit VR", "implicit VR"])
def test_text_in_place_of_sequences_is_absent_and_told_where_identity_is_lost(study, edited, syntax):
    """In implicit VR the library takes the letters for tags and lengths of items."""

    def text(number: int, dataset: Dataset) -> None:
        for keyword, value in TEXT_IN.items():
            dataset.add(DataElement(Tag(keyword), "LO", value))

    folder = edited(text)
    files = sorted(folder.glob("*.dcm"))
    for path in files:
        subprocess.run(["/usr/bin/dcmconv", syntax, path, path], check=True, capture_output=True)
    found = _run(folder, study)
    assert found.report.outcome is Outcome.REPORTED
    (l3,) = [level for level in found.report.levels if level.name == "L3"]
    assert l3.measured is not None
    assert l3.measured.bmd_mg_cm3 == pytest.approx(96.1, abs=2.0)
    assert not {"contrast_given", "contrast_doubtful"} & found.codes
    (told,) = [one.text for one in found.report.findings if one.code == "identity_malformed"]
    assert "DeidentificationMethodCodeSequence, OtherPatientIDsSequence." in told
    assert "ProcedureCodeSequence" not in told
    for one in _objects(found):
        assert one.PatientID == "REFERENCE-1"
        assert not {"DeidentificationMethodCodeSequence", "OtherPatientIDsSequence"} & set(one.dir())


def test_a_matrix_whose_frames_do_not_fill_bytes_is_measured(study, edited):
    """206 x 205 pixels: the segmentation was refused as not holding what it was made from."""

    def crop(number: int, dataset: Dataset) -> None:
        pixels = dataset.pixel_array[:206, :205]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.astype("<u2").tobytes()

    found = _run(edited(crop), study)
    assert found.report.outcome is Outcome.REPORTED
    (seg,) = [one for one in _objects(found) if one.Modality == "SEG"]
    assert (seg.Rows, seg.Columns) == (206, 205)


def test_a_laboratory_row_with_a_decimal_comma_gives_no_nomogram_and_is_told(study, tmp_path):
    """92,5 U/L and 16.5 umol/L would read as 92 and 5, and the nomogram as another probability."""
    table = tmp_path / "laboratory.csv"
    head = "patient_id,issuer,date,alp_u_l,homocysteine_umol_l"
    table.write_text(f"{head}\nREFERENCE-1,,2026-01-10,92,5,16.5\n", "utf-8")
    laboratory = CsvLaboratory(table, max_age_days=180)
    found = Run(study, study / "truth_mask.nii.gz", clinical=laboratory)
    assert found.result["nomogram"] is None
    (told,) = [one for one in found.report.findings if one.code == "laboratory_unreadable"]
    assert "line 2 has 6 cells for 5 columns; the row is ignored" in told.text


def test_images_that_an_archive_compressed_with_loss_and_marked_derived_are_measured(study, edited):
    """As DICOM wants it; DCMTK writes it so. The loss has its own findings, and density is kept."""
    folder = edited(lambda number, dataset: None)
    for path in folder.glob("*.dcm"):
        subprocess.run(["/usr/bin/dcmcjpls", "+en", "+md", "2", path, path], check=True, capture_output=True)
    assert list(dcmread(path).ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    found = _run(folder, study)
    assert "lossy_source" in found.codes
    assert "no_usable_series" not in found.codes
    assert found.report.outcome is Outcome.REPORTED
    assert found.report.rad_score is None
    (l3,) = [level for level in found.report.levels if level.name == "L3"]
    assert l3.measured is not None
    assert l3.measured.bmd_mg_cm3 == pytest.approx(96.1, abs=2.0)
