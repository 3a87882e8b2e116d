"""Patient and study, copied faithfully from the source; never corrected, completed or invented."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from pydicom import Dataset

from node.dicom.errors import IdentityMissing
from node.dicom.header_text import drop_non_sequences, is_well_formed, items_of, text_of

# Type 2 in every object that is made here: present even if empty.
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
    """Refuse to make an object of a source that is part of no study: absent and empty alike.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.
    """
    if not text_of(source, "StudyInstanceUID"):
        raise IdentityMissing("the source has no Study Instance UID")


def identity_source(headers: Sequence[Dataset]) -> Dataset:
    """Of images of one patient, the first whose header names the issuer of the Patient ID, else the first.

    Archives and routers add or drop the issuer in part of a study's images.
    """
    return next((one for one in headers if text_of(one, "IssuerOfPatientID")), headers[0])


def copy_identity(source: Dataset, target: Dataset) -> None:
    """Replace the identity of `target` by that of `source`, character set and bytes of names included.

    What is no sequence where one belongs is left out: it could not be written as one.

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
    """What highdicom needs of a source image, patient left blank: `copy_identity` fills it in afterwards.

    highdicom validates and re-encodes what it copies, and would refuse or alter unusual but real values.
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
