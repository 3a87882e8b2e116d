"""How this node names itself in the objects it makes. Routing rules may match these strings: they stay."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.sr.codedict import codes

from node.dicom.header_text import plain
from node.dicom.uids import derived_uid
from node.study_report import Provenance, Report

MANUFACTURER = "Osteonode"
MODEL_NAME = "Osteonode"

# Series of one study's result. High numbers keep them behind the acquisition in every viewer.
SEGMENTATION_SERIES = 9101
REPORT_SERIES = 9102
PICTURE_SERIES = 9103
NOTE_SERIES = 9104

SEGMENTATION_DESCRIPTION = "Osteonode QCT segmentation - research use only"
REPORT_DESCRIPTION = "Osteonode QCT report - research use only"
PICTURE_DESCRIPTION = "Osteonode QCT pictures - research use only"
NOTE_DESCRIPTION = "Osteonode QCT rejection note - research use only"


def device_uid(provenance: Provenance) -> str:
    """The software as a device: another version, configuration or model is another device."""
    return derived_uid(
        "device", provenance.software, provenance.version, provenance.configuration_sha256,
        provenance.model_sha256 or "",
    )  # fmt: skip


def apply_equipment(dataset: Dataset, report: Report, *, series_number: int, description: str) -> None:
    """Set equipment, series number and description, and name each algorithm that took part."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = plain(report.provenance.version)[:64]
    dataset.DeviceSerialNumber = report.provenance.configuration_sha256[:16]
    dataset.SeriesNumber = series_number
    dataset.SeriesDescription = description
    dataset.ContributingEquipmentSequence = list(_contributions(report.provenance))


def _contributions(provenance: Provenance) -> Iterable[Dataset]:
    yield _contribution(
        MODEL_NAME,
        provenance.version,
        device_uid(provenance),
        "QCT measurement and report, research use only",
    )
    if engine := provenance.engine:
        uid = derived_uid("engine", engine.name, engine.version, engine.weights_sha256 or "")
        yield _contribution(engine.name, engine.version, uid, "Segmentation of vertebral bodies")
    if provenance.model:
        digest = provenance.model_sha256 or ""
        uid = derived_uid("model", provenance.model, digest)
        yield _contribution(provenance.model, digest[:16] or "unknown", uid, "Rad-score and nomogram model")


def _contribution(model: str, version: str, uid: str, what: str) -> Dataset:
    purpose = Dataset()
    code = codes.DCM.ProcessingEquipment
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = plain(model)[:64]
    item.SoftwareVersions = plain(version)[:64]
    item.DeviceUID = uid
    item.ContributionDescription = what
    return item
