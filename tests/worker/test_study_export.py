"""`osteonode studies export`: a study of the node in a folder, repeatable, and without identity."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.sequence import Sequence as Items

from config.settings import Settings
from node.clinical import CsvLaboratory
from node.commands.study_export import export_study
from node.pipeline.artefacts import RESULT, SEGMENTATION, segmentation_from_bytes
from node.pipeline.engine import resolve_engine
from node.pipeline.runner import Dependencies
from node.pipeline.step_functions import FUNCTIONS
from node.reference.spec import StudySpec
from node.store.errors import NoSuchStudy
from node.store.files import ReceivedInstance
from node.store.states import StudyState
from node.store.store import Store
from tests.made_studies import write_reference_study
from tests.worker.bench import Bench, Queue, ScriptedProver, ScriptedSender

pytestmark = pytest.mark.slow

OSTEONODE = Path(sys.executable).with_name("osteonode")
# What may not be found in an export, by where it stands in the images.
IDENTITY = {
    "PatientName": "Muster^Erika",
    "PatientID": "PID-0815",
    "IssuerOfPatientID": "HOSPITAL-ISSUER",
    "PatientBirthDate": "19601231",
    "PatientAddress": "Lindenweg 12",
    "OtherPatientIDs": "OLD-4712",
    "AccessionNumber": "ACC-4711",
    "ReferringPhysicianName": "Ward^Ada",
    "PerformingPhysicianName": "Operator^Otto",
    "InstitutionName": "Klinik am Lindenweg",
    "StationName": "CTROOM-3",
    "StudyDescription": "QCT of Erika",
    "ImageComments": "Erika moved",
    "SeriesDescription": "Erika lumbar SN 100",
}
PRIVATE, CONTRAST = "private Erika", "Ultravist for Erika"
REQUEST = "RP-4711"


@dataclass(frozen=True)
class Exported:
    folder: Path
    result: dict[str, Any]  # of the node
    source: list[Dataset]  # headers as they were received

    @property
    def text(self) -> str:
        return (self.folder / "README.txt").read_text("utf-8")


def identify(path: Path) -> Dataset:
    """Give an image of the reference study an identity wherever a scanner writes one."""
    dataset = dcmread(path)
    for keyword, value in IDENTITY.items():
        setattr(dataset, keyword, value)
    dataset.ContrastBolusAgent = CONTRAST
    request = Dataset()
    request.RequestedProcedureID = REQUEST
    dataset.RequestAttributesSequence = Items([request])
    dataset.private_block(0x0009, "SCANNER", create=True).add_new(0x01, "LO", PRIVATE)
    dcmwrite(path, dataset)
    return dcmread(path, stop_before_pixels=True)


def received(path: Path) -> ReceivedInstance:
    header = dcmread(path, stop_before_pixels=True)
    return ReceivedInstance(
        sop_instance_uid=header.SOPInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=header.SOPClassUID,
        transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
        sha256=path.name,
        content=[path.read_bytes()],
        calling_ae="SCANNER-9",
        called_ae="OSTEONODE",
        association_id=None,
    )


@pytest.fixture
def measured(
    tmp_path: Path, sqlite_store: Store, make_settings: Callable[..., Settings]
) -> tuple[Bench, list[Dataset]]:
    """A node that has measured and sent one study, with a laboratory value of its patient."""
    folder = tmp_path / "source"
    write_reference_study(folder, StudySpec.reduced())
    source = [identify(path) for path in sorted(folder.glob("*.dcm"))]
    for path in sorted(folder.glob("*.dcm")):
        sqlite_store.instances.receive(received(path))
    laboratory = tmp_path / "laboratory.csv"
    laboratory.write_text(
        "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\nPID-0815,,2026-01-10,92,16.5\n"
    )
    settings = make_settings(
        destinations=[{"name": "pacs-of-klinik", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}],
        completeness={"quiet_s": 1e-6, "poll_s": 0.05},
        segmentation={"engine": "geometric"},
        selection={"qct_ae_titles": ["OSTEONODE"]},
    )
    engine = resolve_engine(settings.segmentation)
    queue, sender, prover = Queue(), ScriptedSender(), ScriptedProver()
    dependencies = Dependencies(
        settings=settings,
        store=sqlite_store,
        publisher=queue,
        sender=sender,
        prover=prover,
        functions=FUNCTIONS,
        engine=lambda: engine,
        clinical=CsvLaboratory(laboratory, max_age_days=settings.clinical.max_age_days),
        owner="worker-of-klinik",
    )
    bench = Bench(dependencies=dependencies, queue=queue, sender=sender, prover=prover)
    bench.close()
    bench.work()
    assert bench.summary.state == StudyState.SENT
    return bench, source


def exported(measured: tuple[Bench, list[Dataset]], folder: Path, *, with_identity: bool) -> Exported:
    bench, source = measured
    uid = bench.summary.study_instance_uid
    made = export_study(bench.store, bench.dependencies.settings, uid, folder, with_identity=with_identity)
    assert (made.images, made.left_out) == (len(source), 0)
    result = json.loads(bench.store.artefacts.get(uid, 1, RESULT))
    return Exported(folder=folder, result=result, source=source)


def identifying_values(source: list[Dataset]) -> set[str]:
    """Every value of the source that tells whose study it is, in every way in which it may be written."""
    values = {*IDENTITY.values(), PRIVATE, CONTRAST, REQUEST, "1960-12-31"}
    values |= {"Muster", "Erika", "Operator"}  # shorter ones stand in any file by chance
    for header in source:
        values |= {header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID}
        values |= {header.FrameOfReferenceUID}
    return values | {"SCANNER-9", "pacs-of-klinik", "worker-of-klinik"}


def repeat(found: Exported) -> dict[str, Any]:
    """Run the command that the export's README names."""
    lines = [line.split() for line in found.text.splitlines()]
    (words,) = (line for line in lines if line[:2] == ["osteonode", "process"])
    run = subprocess.run(
        [OSTEONODE, *words[1:]], cwd=found.folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result: dict[str, Any] = json.loads((found.folder / "result" / "result.json").read_text("utf-8"))
    return result


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    scores = ("t_score", "z_score", "rad_score", "nomogram")
    measured = ("levels", "calibration", "features", "laboratory", *scores)
    return {name: result[name] for name in measured} | {"age_years": result["study"]["age_years"]}


def test_an_export_without_identity_repeats_the_study_and_names_nobody(measured, tmp_path):
    found = exported(measured, tmp_path / "export", with_identity=False)
    forbidden = identifying_values(found.source)
    for path in found.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for value in forbidden:
            assert value.encode() not in content, (path.name, value)
            assert value not in path.name
    with np.load(found.folder / "2-segment" / SEGMENTATION) as archive:
        assert not any(value.encode() in archive["description"].tobytes() for value in forbidden)

    again = repeat(found)
    assert again["outcome"] == "reported"
    assert numbers(again) == numbers(found.result)
    assert {one["code"] for one in again["findings"]} >= {"contrast_given"}  # said in other words
    assert again["issued_at"] == found.result["issued_at"]
    assert again["study"]["study_date"] == found.result["study"]["study_date"]
    # The same identity everywhere: the artefacts belong to the images beside them.
    kept = json.loads((found.folder / "1-select" / "selection.json").read_text("utf-8"))
    assert kept["study"]["patient_id"] == again["study"]["patient_id"]
    assert kept["series"]["series_instance_uid"] == again["series"]["series_instance_uid"]
    rows = json.loads((found.folder / "database.json").read_text("utf-8"))
    assert rows["studies"][0]["study_instance_uid"] == again["study"]["study_instance_uid"]
    assert str(rows["jobs"][0]["job_id"]) in found.text


def test_an_export_with_identity_holds_the_files_as_they_came(measured, tmp_path):
    found = exported(measured, tmp_path / "export", with_identity=True)
    images = [path.read_bytes() for path in sorted((found.folder / "images").iterdir())]
    assert sorted(images) == sorted(path.read_bytes() for path in (tmp_path / "source").glob("*.dcm"))
    assert (found.folder / "4-report" / "report.dcm").is_file()
    assert (found.folder / "settings.json").is_file()
    assert numbers(repeat(found)) == numbers(found.result)
    label_map = segmentation_from_bytes((found.folder / "2-segment" / SEGMENTATION).read_bytes())
    assert label_map.regions


def test_the_command_says_what_it_wrote_and_how_to_go_on(measured, tmp_path):
    bench, source = measured
    folder, uid = tmp_path / "export", bench.summary.study_instance_uid
    environment = os.environ | {"OSTEONODE_STORAGE__ROOT": str(tmp_path / "var")}

    def export(*words: str) -> subprocess.CompletedProcess[str]:
        command = [OSTEONODE, "studies", "export", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    found = export(uid, str(folder))
    assert found.returncode == 0, found.stderr
    assert f"{len(source)} images" in found.stdout
    assert f"cd {folder} && osteonode process images --out result --config osteonode.toml" in found.stdout
    assert export(uid, str(folder)).returncode == 2  # it holds the first export
    assert export("1.2.404", str(tmp_path / "none")).returncode == 1


def test_nothing_is_written_over_other_files_nor_of_a_study_that_is_not_there(measured, tmp_path):
    bench, _ = measured
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    settings = bench.dependencies.settings
    with pytest.raises(FileExistsError, match="name an empty folder"):
        export_study(
            bench.store, settings, bench.summary.study_instance_uid, tmp_path / "full", with_identity=True
        )
    with pytest.raises(NoSuchStudy):
        export_study(bench.store, settings, "1.2.404", tmp_path / "none", with_identity=False)
    assert not (tmp_path / "none").exists()
