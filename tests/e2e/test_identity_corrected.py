"""A PACS corrects the patient after the report went out: a running node, its commands and a stand-in PACS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread, dcmwrite

from node.reference.spec import StudySpec
from node.reference.stand_in_pacs import StandInPacs, send_study
from node.reference.study import uid_of
from tests.e2e.conftest import OSTEONODE, Node, running_node
from tests.made_studies import write_reference_study
from tests.waiting import LIMIT_S, wait_until

SPEC = StudySpec.reduced(seed=31)
UID = uid_of(SPEC, "study")


def _write(folder: Path) -> None:
    """Two slices, whose refusal is a report like any other and takes a moment to make."""
    write_reference_study(folder, SPEC)
    for path in sorted(folder.glob("*.dcm"))[2:]:
        path.unlink()


def _correct(folder: Path) -> None:
    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.PatientID, dataset.PatientName = "CORRECTED-1", "Corrected^Name"
        dcmwrite(path, dataset)


def _sent(node: Node, generation: int) -> bool:
    study = node.study(UID)
    return bool(study and study["generation"] == generation and study["state"] in ("sent", "delivered"))


@pytest.mark.usefixtures("peers")
def test_a_confirmed_correction_sends_an_amended_report_under_the_new_identity(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    _write(folder)
    with StandInPacs(tmp_path / "pacs") as pacs:
        destination = {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
        declared = {"qct_ae_titles": ["OSTEONODE"]}
        with running_node(tmp_path / "node", destinations={"pacs": destination}, selection=declared) as node:
            send_study(folder, host="127.0.0.1", port=node.port, called_ae_title=node.ae_title)
            wait_until(lambda: _sent(node, 1), "the first report")
            _correct(folder)
            again = send_study(folder, host="127.0.0.1", port=node.port, called_ae_title=node.ae_title)
            assert set(again) == {0}
            shown = httpx.get(f"http://127.0.0.1:{node.web_port}/api/studies/{UID}", timeout=LIMIT_S).json()
            (line,) = shown["quarantine"]
            assert (line["kind"], line["files"]) == ("identity waits", len(again))
            assert line["reason"] == "PatientID, PatientName"
            command = [OSTEONODE, "studies", "reconcile", UID, "--accept", "--config", node.config]
            subprocess.run(command, check=True, capture_output=True)
            wait_until(lambda: _sent(node, 2), "the amended report")
            reports = [dcmread(one.path) for one in pacs.received() if one.kind == "SR"]
            log = node.log
    first, amended = sorted(reports, key=lambda report: "PredecessorDocumentsSequence" in report)
    assert "PredecessorDocumentsSequence" not in first
    assert first.PatientID != "CORRECTED-1"
    assert (amended.PatientID, amended.PatientName) == ("CORRECTED-1", "Corrected^Name")
    (series,) = amended.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    words = [element.value for element in amended.iterall() if element.keyword == "TextValue"]
    assert "the identification of the patient or the order was corrected" in words
    for secret in ("CORRECTED-1", "Corrected", str(first.PatientID), str(first.PatientName)):
        assert secret not in log
