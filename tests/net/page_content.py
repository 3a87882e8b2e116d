"""A store as the operator's page finds it: a study that was sent, one set aside, one being received."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from node.store.files import ReceivedInstance, sha256_of
from node.store.jobs import DueJob, Lease, MadeObject
from node.store.states import DeliveryState, StudyState
from node.store.store import Store
from tests.claiming import claim
from tests.closing import close_due

CT = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
STUDY = "2.25.1001"
SET_ASIDE = "2.25.1002"
RECEIVING = "2.25.1003"
IDENTITY = ("MRN-4711-SECRET", "ISSUER-SECRET", "ACCESSION-SECRET", "1951-02-03")
PNG = b"\x89PNG\r\n\x1a\n"

RESULTS = Path(__file__).parents[1] / "data" / "results"  # as they are written
_WRITTEN: dict[str, Any] = json.loads((RESULTS / "reported" / "result.json").read_bytes())
READ = {"hu_mean": 158.2, "hu_sd": 28.9, "bmd_mg_cm3": 102.32, "bmd_uncertainty_mg_cm3": 0.66}
_LEVEL = {"complete": True, "centroid_mm": [0.0, 0.0, 0.0], "volume_mm3": None}
RESULT: dict[str, Any] = _WRITTEN | {
    "study": {
        "study_instance_uid": STUDY,
        "patient_id": IDENTITY[0],
        "issuer_of_patient_id": IDENTITY[1],
        "accession_number": IDENTITY[2],
        "study_date": IDENTITY[3],
    },
    "levels": {
        "L1": _LEVEL | READ | {"region": "core", "ellipse": READ | {"bmd_mg_cm3": 98.71}},
        "L2": _LEVEL | dict.fromkeys(READ) | {"complete": False},
    },
    "calibration": _WRITTEN["calibration"] | {"slope": 0.6483, "intercept": -0.2667},
    "findings": [
        {
            "code": "marrow_fat",
            "severity": "info",
            "text": "Marrow fat is excluded.",
            "level": None,
            "withholds": [],
        },
        {
            "code": "truncated",
            "severity": "refusal",
            "text": "Cut by <the> edge.",
            "level": "L2",
            "withholds": ["bmd"],
        },
    ],
}
ARTEFACTS = {
    "result.json": json.dumps(RESULT).encode(),
    "nomogram.png": PNG + b"nomogram",
    "overlay.png": PNG + b"overlay",
    "selection.json": json.dumps(RESULT["study"]).encode(),
}


def fill(store: Store) -> None:
    """A study that was sent, one that was set aside, one that is being received."""
    receive(store, STUDY)
    lease = hold(store, close(store), "report")
    report(store, lease)
    deliver(store, lease)
    receive(store, SET_ASIDE)
    store.jobs.set_aside(hold(store, close(store)), "NoMemory: <b>too large</b>")
    receive(store, RECEIVING)


def receive(store: Store, study: str, number: int = 1) -> None:
    content = (b"header", f"pixels {study} {number}".encode())
    store.instances.receive(
        ReceivedInstance(
            sop_instance_uid=f"{study}.1.{number}",
            series_instance_uid=f"{study}.1",
            study_instance_uid=study,
            sop_class_uid=CT,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=sha256_of(content[-1]),
            content=content,
            calling_ae="PACS",
            called_ae="OSTEONODE",
            association_id=None,
        )
    )


def close(store: Store) -> DueJob:
    (job,) = close_due(store, first_step="select", quiet_s=0, stale_s=20)
    return job


def hold(store: Store, job: DueJob, step: str = "select") -> Lease:
    """The job's lease at `step`."""
    lease = claim(store, job)
    return lease if step == job.step else hold(store, store.jobs.advance(lease, step), step)


def report(store: Store, lease: Lease) -> None:
    for name, content in ARTEFACTS.items():
        store.artefacts.put(lease, name, content, {})
    store.reports.issue(lease)


def deliver(store: Store, lease: Lease) -> None:
    made = MadeObject(
        sop_instance_uid="2.25.77", sop_class_uid=SR, kind="SR", artefact="report.dcm", is_report=True
    )
    sending = hold(store, store.jobs.advance(lease, "deliver", [made]), "deliver")
    store.deliveries.schedule(sending, ["pacs"])
    (delivery,) = store.deliveries.pending(sending)
    store.deliveries.settle(sending, delivery, DeliveryState.SENT, status=0, detail="")
    store.jobs.finish(sending, StudyState.SENT, "1 object arrived")
