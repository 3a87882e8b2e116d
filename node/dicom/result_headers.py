"""The modules that all results share: patient and study, copied from the source; series and equipment.

Patient and study are copied as the source has them; nothing is corrected, completed or invented. Series and
equipment name this node. Routing rules of archives may match these strings: they stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

from pydicom import Dataset
from pydicom.sr.codedict import codes

from node.dicom.errors import IdentityMissing
from node.dicom.header_text import drop_non_sequences, is_well_formed, items_of, text_of, to_ascii
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

# Type 2 in every result: present even if empty.
_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# Copied where the source has them.
_OPTIONAL = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDsSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
)
IDENTITY_KEYWORDS = frozenset(_REQUIRED) | frozenset(_OPTIONAL)


def require_study(source: Dataset) -> None:
    """Refuse to make an object from a source that belongs to no study.

    Parameters
    ----------
    source : header of a source image. An empty Study Instance UID counts as absent.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.
    """
    if not text_of(source, "StudyInstanceUID"):
        raise IdentityMissing("the source has no Study Instance UID")


def identity_source(headers: Sequence[Dataset]) -> Dataset:
    """The header that patient and study are copied from.

    Archives and routers add or drop the issuer in part of a study's images.

    Parameters
    ----------
    headers : of images of one patient; at least one.

    Returns
    -------
    The first header that names the issuer of the Patient ID, else the first of all.
    """
    return next((one for one in headers if text_of(one, "IssuerOfPatientID")), headers[0])


def copy_identity(source: Dataset, target: Dataset) -> None:
    """Replace patient and study of `target` by those of `source`, character set and bytes of names included.

    Parameters
    ----------
    source : header of a source image. An attribute under a sequence's tag that is no sequence is left out: it
        could not be written as one.
    target : changed in place. Type 2 attributes that the source lacks are empty afterwards.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.
    """
    require_study(source)
    for keyword in (*_REQUIRED, *_OPTIONAL):
        if keyword in target:
            del target[keyword]
        if keyword in source and is_well_formed(source, keyword):
            target.add(deepcopy(source[keyword]))
            for item in items_of(target, keyword):
                drop_non_sequences(item)
        elif keyword in _REQUIRED:
            setattr(target, keyword, "")


def without_identity(header: Dataset) -> Dataset:
    """What highdicom needs of a source image, with the patient left blank.

    highdicom validates and re-encodes what it copies, and would refuse or alter unusual but real values:
    `copy_identity` fills patient and study in afterwards.

    Returns
    -------
    A new data set with the image's own UIDs, geometry and size. Its elements are copies.
    """
    bare = Dataset()
    for keyword in (
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "Modality",
        "ImageType",
        "Rows",
        "Columns",
        "PixelSpacing",
        "SliceThickness",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
    ):
        if keyword in header:
            bare.add(deepcopy(header[keyword]))
    for keyword in _REQUIRED:
        if keyword != "StudyInstanceUID":
            setattr(bare, keyword, None)
    return bare


def device_uid(provenance: Provenance) -> str:
    """The UID of the software as a device.

    Another version, configuration or model is another device.

    Returns
    -------
    A UID under 2.25, the same for the same provenance.
    """
    return derived_uid(
        "device", provenance.software, provenance.version, provenance.configuration_sha256,
        provenance.model_sha256 or "",
    )  # fmt: skip


def apply_equipment(dataset: Dataset, report: Report, *, series_number: int, description: str) -> None:
    """Set the series' number and description, the equipment, and each algorithm that took part.

    Parameters
    ----------
    dataset : changed in place.
    series_number, description : one of the constants above.

    Source: PS3.3 C.7.5.1 (General Equipment) and C.12.1 (Contributing Equipment Sequence).
    """
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = to_ascii(report.provenance.version)[:64]
    dataset.DeviceSerialNumber = report.provenance.configuration_sha256[:16]
    dataset.SeriesNumber = series_number
    dataset.SeriesDescription = description
    dataset.ContributingEquipmentSequence = list(_contributions(report.provenance))


def _contributions(provenance: Provenance) -> Iterator[Dataset]:
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
    item.ManufacturerModelName = to_ascii(model)[:64]
    item.SoftwareVersions = to_ascii(version)[:64]
    item.DeviceUID = uid
    item.ContributionDescription = what
    return item


def made_here(dataset: Dataset) -> bool:
    """Whether this node, in any version, made the object: it names itself as contributing equipment.

    Parameters
    ----------
    dataset : a header, without or with pixels. What is no sequence under the sequence's tag counts as absent.
    """
    items = items_of(dataset, "ContributingEquipmentSequence")
    return any(text_of(item, "Manufacturer") == MANUFACTURER for item in items)
