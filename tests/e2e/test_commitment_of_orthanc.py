"""Orthanc asks this node for storage commitment, and is told on an association of the node's own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from config.settings import load_settings
from node.dicom.result_headers import made_here
from node.net.commitment import CommitmentService, make_reporter, report_recorder
from node.net.scp import Listener
from node.reference.spec import StudySpec
from node.store.store import open_store
from tests.e2e.conftest import Orthanc, free_port, running_orthanc, storescu
from tests.made_studies import write_reference_study
from tests.waiting import LIMIT_S, wait_until

SPEC = StudySpec(matrix=64, pixel_spacing_mm=(5.5, 5.5), slice_spacing_mm=10, view=("L3", "L3"))


def commitment(orthanc: Orthanc, instances: list[tuple[str, str]]) -> dict:
    """Orthanc's own account of a commitment, once it has one."""
    base = f"http://127.0.0.1:{orthanc.http_port}"
    answer = orthanc.client.post(
        f"{base}/modalities/osteonode/storage-commitment", json={"DicomInstances": instances}, timeout=LIMIT_S
    )
    answer.raise_for_status()
    path = answer.json()["Path"]

    def reported() -> dict | None:
        account = orthanc.get(path)
        return None if account["Status"] == "Pending" else account

    return wait_until(reported, "the report")


@pytest.mark.usefixtures("peers")
def test_orthanc_is_told_what_the_node_holds_and_what_not(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_reference_study(study, SPEC)
    held = [(CTImageStorage, str(dcmread(path).SOPInstanceUID)) for path in sorted(study.glob("*.dcm"))]
    port = free_port()
    settings = load_settings(
        node={"port": 0},
        storage={"root": str(tmp_path / "var")},
        peers=[{"ae_title": "PACS", "host": "127.0.0.1", "port": port}],
    )
    store, stop = open_store(settings.storage), threading.Event()
    reporter = make_reporter(store, settings)
    service = CommitmentService(report_recorder(store, settings), store.commitment_requests, reporter)
    listener = Listener(settings.node, store, made_here, commitment=service)
    reporting = threading.Thread(target=reporter.report_forever, args=(stop, 0.1))
    node_port = listener.start()
    reporting.start()
    try:
        with running_orthanc(tmp_path / "pacs", dicom_port=port, node_port=node_port) as orthanc:
            storescu(study, "OSTEONODE", node_port)
            whole = commitment(orthanc, held)
            assert whole["Status"] == "Success"
            assert sorted(one["SOPInstanceUID"] for one in whole["Success"]) == sorted(u for _, u in held)

            partly = commitment(orthanc, [held[0], (CTImageStorage, "2.25.404")])
            assert partly["Status"] == "Failure"
            assert [one["SOPInstanceUID"] for one in partly["Success"]] == [held[0][1]]
            (lost,) = partly["Failures"]
            assert (lost["SOPInstanceUID"], lost["FailureReason"]) == ("2.25.404", 0x0112)
    finally:
        stop.set()
        listener.stop()
        reporting.join()
        store.close()
