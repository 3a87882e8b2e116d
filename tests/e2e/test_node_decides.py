"""What a running node does with studies that give no report, told by its peers and its own account."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from node.reference.spec import StudySpec
from node.reference.stand_in_pacs import StandInPacs, send_study
from node.reference.study import uid_of
from tests.e2e.conftest import Node, running_node
from tests.made_studies import write_reference_study
from tests.waiting import wait_until

PLAIN = StudySpec.reduced(phantom="none", seed=21)
NAMELESS = StudySpec.reduced(patient_id="", seed=22)
ONE_SLICE = StudySpec.reduced(seed=23)
CODED = StudySpec.reduced(phantom="none", seed=26)
ENDS = ("delivered", "sent", "reported", "not applicable", "set aside", "undelivered")


def write(folder: Path, spec: StudySpec, *, slices: slice = slice(None)) -> Path:
    write_reference_study(folder, spec)
    kept = set(sorted(folder.glob("*.dcm"))[slices])
    for path in set(folder.glob("*.dcm")) - kept:
        path.unlink()
    return folder


def outcome(node: Node, spec: StudySpec) -> dict:
    uid = uid_of(spec, "study")

    def ended():
        study = node.study(uid)
        return study if study and study["state"] in ENDS else None

    return wait_until(ended, f"the end of {uid}")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with StandInPacs(tmp_path_factory.mktemp("pacs")) as listening:
        yield listening


@pytest.fixture(scope="module")
def node(tmp_path_factory, pacs):
    destination = {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
    with running_node(
        tmp_path_factory.mktemp("node"),
        destinations={"pacs": destination},
        selection={"qct_procedure_codes": ["QCTL^99LOCAL"]},
    ) as running:
        yield running


def send(node: Node, folder: Path) -> tuple[int, ...]:
    return send_study(folder, host="127.0.0.1", port=node.port, called_ae_title=node.ae_title)


@pytest.mark.usefixtures("peers")
def test_a_ct_that_is_no_qct_is_taken_in_and_nothing_goes_back(node, pacs, tmp_path):
    assert set(send(node, write(tmp_path / "study", PLAIN))) == {0}
    assert outcome(node, PLAIN)["state"] == "not applicable"
    assert [one for one in pacs.received() if one.study_instance_uid == uid_of(PLAIN, "study")] == []


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize(
    ("sop_class", "seed"), [(EnhancedCTImageStorage, 24), (LegacyConvertedEnhancedCTImageStorage, 25)]
)
def test_a_multi_frame_ct_that_nobody_could_look_at_is_not_called_not_applicable(
    node, pacs, tmp_path, sop_class, seed
):
    spec = replace(PLAIN, seed=seed)
    folder = write(tmp_path / "study", spec, slices=slice(1))
    (path,) = folder.glob("*.dcm")
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dcmwrite(path, dataset)
    assert set(send(node, folder)) == {0}
    ended = outcome(node, spec)
    assert ended["state"] == "set aside"
    assert "multi-frame" in ended["reason"]


@pytest.mark.usefixtures("peers")
def test_a_qct_without_patient_is_set_aside_and_nothing_goes_back(node, pacs, tmp_path):
    send(node, write(tmp_path / "study", NAMELESS))
    ended = outcome(node, NAMELESS)
    assert ended["state"] == "set aside"
    assert "identity" in ended["reason"]
    assert [one for one in pacs.received() if one.study_instance_uid == uid_of(NAMELESS, "study")] == []


@pytest.mark.usefixtures("peers")
def test_one_slice_that_shows_a_phantom_gets_a_refusal_report(node, pacs, tmp_path):
    """Rods in view say what the study is for: the radiologist is told why there is no number."""
    send(node, write(tmp_path / "study", ONE_SLICE, slices=slice(40, 41)))
    assert outcome(node, ONE_SLICE)["state"] == "sent"
    back = [one for one in pacs.received() if one.study_instance_uid == uid_of(ONE_SLICE, "study")]
    assert sorted(one.kind for one in back) == ["SC", "SR"]
    report = dcmread(next(one.path for one in back if one.kind == "SR"))
    said = str(report)
    assert "slices_too_few" in said
    assert "mg/cm3" not in said


@pytest.mark.usefixtures("peers")
def test_a_procedure_code_gets_a_study_without_a_phantom_its_refusal_report(node, pacs, tmp_path):
    folder = write(tmp_path / "study", CODED, slices=slice(40, 41))
    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "QCTL", "99LOCAL", "QCT lumbar spine"
        dataset.ProcedureCodeSequence = [code]
        dcmwrite(path, dataset)
    send(node, folder)
    assert outcome(node, CODED)["state"] == "sent"
    back = [one for one in pacs.received() if one.study_instance_uid == uid_of(CODED, "study")]
    assert sorted(one.kind for one in back) == ["SC", "SR"]


@pytest.mark.usefixtures("peers")
def test_an_instance_without_study_is_refused_at_the_door(node, tmp_path):
    folder = write(tmp_path / "study", StudySpec.reduced(seed=24), slices=slice(0, 1))
    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.StudyInstanceUID = ""
        dcmwrite(path, dataset)
    assert all(status != 0 for status in send(node, folder))
