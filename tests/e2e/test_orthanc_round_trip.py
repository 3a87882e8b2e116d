"""The whole chain against a real PACS whose rule forwards every stable study, our own results included."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from node.reference.spec import StudySpec
from node.reference.study import uid_of
from tests.e2e.conftest import free_port, running_node, running_orthanc, storescu
from tests.made_studies import write_reference_study
from tests.waiting import holds_for, wait_until

SPEC = StudySpec.reduced(seed=5)
STUDY_UID = uid_of(SPEC, "study")


def write_foreign_report(path: Path, study: Path, number: int) -> None:
    """A report of somebody else about the same study: it makes the PACS's study change, and settle again."""
    source = dcmread(next(study.glob("*.dcm")), stop_before_pixels=True)
    dataset = Dataset()
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        dataset[keyword] = source[keyword]
    for keyword in ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
        dataset[keyword] = source[keyword]
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.SOPInstanceUID = f"2.25.77{number}"
    dataset.SeriesInstanceUID = f"2.25.88{number}"
    dataset.Modality = "SR"
    dataset.SeriesNumber, dataset.InstanceNumber = 50 + number, 1
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = BasicTextSRStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dcmwrite(path, dataset, enforce_file_format=True)


@pytest.mark.usefixtures("peers")
def test_results_come_back_into_the_study_once_however_often_the_rule_fires(tmp_path):
    study = tmp_path / "study"
    write_reference_study(study, SPEC)
    dicom_port = free_port()
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": dicom_port}
    with (
        running_node(tmp_path / "node", destinations={"pacs": pacs}) as node,
        running_orthanc(tmp_path / "pacs", dicom_port=dicom_port, node_port=node.port) as orthanc,
    ):
        storescu(study, "PACS", dicom_port)
        wait_until(lambda: (node.study(STUDY_UID) or {}).get("state") == "delivered", "the study's results")

        series = {one["MainDicomTags"]["Modality"]: one for one in orthanc.series()}
        assert set(series) == {"CT", "SEG", "SR", "OT"}
        assert node.study(STUDY_UID)["reason"] == "6 objects committed by pacs"
        (closed,) = node.events("study_closed")
        assert (closed["closed_by"], closed["archive"]) == ("counts", "pacs")
        assert {one["ParentStudy"] for one in series.values()} == {series["CT"]["ParentStudy"]}
        assert len(series["OT"]["Instances"]) == 4
        report = dcmread(io.BytesIO(orthanc.instance(series["SR"]["Instances"][0])))
        assert report.StudyInstanceUID == STUDY_UID

        # Results change the study: the rule sends all of it again, and twice more for foreign objects.
        for number in (1, 2):
            before = len(orthanc.forwards())
            foreign = tmp_path / f"foreign-{number}"
            foreign.mkdir()
            write_foreign_report(foreign / "sr.dcm", study, number)
            storescu(foreign, "PACS", dicom_port)
            wait_until(lambda before=before: len(orthanc.forwards()) > before, "the rule to fire again")

        # What a reopened study would set off shows after the quiet time and a little more.
        holds_for(lambda: is_finished(node.study(STUDY_UID)), 5.0, "the study stays finished")
        assert node.study(STUDY_UID)["others"] == 2
        ours = [
            one for one in orthanc.series("SR") if one["MainDicomTags"].get("Manufacturer") == "Osteonode"
        ]
        assert [len(one["Instances"]) for one in ours] == [1]
        assert len(orthanc.series("SEG")) == 1
        assert [len(one["Instances"]) for one in orthanc.series("OT")] == [4]
        assert len([one for one in node.events("step_finished") if one["step"] == "report"]) == 1
        assert SPEC.patient_id not in node.log
        assert "Reference^Digital" not in node.log


def made_by_us(series):
    return series["MainDicomTags"].get("Manufacturer") == "Osteonode"


def is_finished(study):
    return (study["state"], study["generation"]) == ("delivered", 1)
