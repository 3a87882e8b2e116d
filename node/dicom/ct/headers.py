"""Headers of a study: read from files, grouped into series, and the identity that they state.

Each frame of a multi-frame CT gets a header of its own, as a CT image would have it, so that the rest of the
node treats a frame like a slice. It is made from PS3.3 A.38 (Enhanced CT Image), A.70 (Legacy Converted
Enhanced CT Image), C.7.6.16 (Multi-frame Functional Groups) and C.8.15.3 (CT functional groups). The order of
the frames means nothing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from pydicom import DataElement, Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from node.dicom.header_text import drop_non_sequences, items_of, number_of, protect_identity_text, text_of
from node.study_report import StudyIdentity
from segmentation.ct_volume import known_kvp

_SHARED = "SharedFunctionalGroupsSequence"
_PER_FRAME = "PerFrameFunctionalGroupsSequence"

# Functional group -> its attributes that a CT image calls the same (PS3.3 C.8.2.1).
_SAME_NAMES = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
    "CTImageFrameTypeSequence": ("VolumetricProperties", "VolumeBasedCalculationTechnique"),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt", "TableHeight"),
    "CTReconstructionSequence": ("ConvolutionKernel", "ReconstructionAlgorithm", "ReconstructionDiameter"),
    "CTXRayDetailsSequence": ("KVP", "FilterType", "FilterMaterial"),
}
_CLASSIC_NAMES = (
    *((group, name, name) for group, names in _SAME_NAMES.items() for name in names),
    ("CTImageFrameTypeSequence", "FrameType", "ImageType"),
)
# Attributes that tell passes of a scan apart. Those of all frames stay where a frame states none of its own.
_OF_A_PASS = (
    ("FrameContentSequence", "FrameAcquisitionNumber", "FrameAcquisitionNumber"),
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIndex"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset", "TemporalPositionTimeOffset"),
    ("ContrastBolusUsageSequence", "ContrastBolusAgentAdministered", "ContrastBolusAgentAdministered"),
    ("IrradiationEventIdentificationSequence", "IrradiationEventUID", "IrradiationEventUID"),
    *(
        ("CardiacSynchronizationSequence", name, name)
        for name in (
            "NominalPercentageOfCardiacPhase",
            "NominalCardiacTriggerDelayTime",
            "ActualCardiacTriggerDelayTime",
        )
    ),
)
# Attributes of the source images that a converter could assign to no group (C.7.6.16.2.25 and .26).
_UNASSIGNED = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
_MOMENT = re.compile(r"(\d{8})(\d{6}(?:\.\d{1,6})?)")  # a DT value: date, time and perhaps an offset

_Groups: TypeAlias = Mapping[str, Sequence[Dataset]]  # items of each functional group of a frame


def frame_headers(header: Dataset) -> tuple[Dataset, ...]:
    """One header for each frame of a multi-frame CT, as a CT image would have it.

    A frame's own group takes precedence over the shared one, and this over the instance's attributes. Where
    the items of a group differ (two X-ray sources at two voltages), the attribute is absent.

    Returns
    -------
    One data set per frame, in the order of the file, without pixels. The groups' own sequences stay in it;
    elements are shared between frames. Empty where the frames are not described one by one: no per-frame
    groups, another number of them than of frames, or bytes that cannot be parsed.
    """
    try:
        own = items_of(header, _PER_FRAME)
        if not own or len(own) != int(header.get("NumberOfFrames") or 0):
            return ()
        shared = _groups(items_of(header, _SHARED))
        base = _outside_groups(header)
        return tuple(_frame_header(base, {**shared, **_groups([one])}) for one in own)
    except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
        return ()


def _groups(items: Iterable[Dataset]) -> dict[str, Sequence[Dataset]]:
    """The functional groups of a frame, or of all; parsed to the last element, so that damage shows here."""
    items = list(items)
    for item in items:
        drop_non_sequences(item)
        deque(item.iterall(), maxlen=0)
    return {
        element.keyword: list(element.value or ())
        for item in items
        for element in item
        if element.VR == "SQ" and element.keyword
    }


def _outside_groups(header: Dataset) -> Dataset:
    """The attributes of the instance itself, without a position: that would be the position of no frame."""
    base = _copy(header)
    for keyword in (_SHARED, _PER_FRAME, "ImagePositionPatient"):
        if keyword in base:
            del base[keyword]
    return base


def _copy(header: Dataset) -> Dataset:
    copied = Dataset()
    copied.update(header)
    copied.set_original_encoding(*header.original_encoding, header.original_character_set)
    return copied


def _frame_header(base: Dataset, groups: _Groups) -> Dataset:
    flat = _copy(base)
    for item in chain.from_iterable(groups.get(keyword, ()) for keyword in _UNASSIGNED):
        flat.update({element.tag: element for element in item if element.tag not in base})
    for keyword, items in groups.items():
        _set(flat, keyword, items)
    for group, keyword, classic in _CLASSIC_NAMES:
        stated = [item.get(Tag(keyword)) for item in groups.get(group, ())]
        if stated:
            _set_if_agreed(flat, classic, stated)
    for group, keyword, classic in _OF_A_PASS:
        stated = [item.get(Tag(keyword)) for item in groups.get(group, ())]
        if any(one is not None for one in stated):
            _set_if_agreed(flat, classic, stated)
    own, moment = _moments(base, groups)
    # Date and time must come from one statement.
    if own is None and flat.get("AcquisitionDate") and flat.get("AcquisitionTime"):
        moment = None
    if acquired := own or moment:
        _set(flat, "AcquisitionDate", acquired[1])
        _set(flat, "AcquisitionTime", acquired[2])
    return flat


def _set(flat: Dataset, keyword: str, value: object) -> None:
    """Set an attribute of one frame by a new element: the present one is shared with the other frames."""
    if keyword in flat:
        del flat[keyword]
    setattr(flat, keyword, value)


def _set_if_agreed(flat: Dataset, keyword: str, stated: Sequence[DataElement | None]) -> None:
    """Set the value that all items of a group state; where they differ, the attribute is absent."""
    first = stated[0]
    if first is not None and all(one is not None and one.value == first.value for one in stated):
        flat[Tag(keyword)] = DataElement(Tag(keyword), first.VR, first.value, validation_mode=IGNORE)
    elif keyword in flat:
        del flat[keyword]


def _moments(base: Dataset, groups: _Groups) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    """Date and time of acquisition of the frame, and of the whole instance; None where not stated."""
    own = [item.get("FrameAcquisitionDateTime") for item in groups.get("FrameContentSequence", ())]
    return (
        _MOMENT.match(str(next(filter(None, own), None) or "")),
        _MOMENT.match(str(base.get("AcquisitionDateTime") or "")),
    )


_AGE = re.compile(r"(\d{3})([DWMY])")
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # some archives still send the dots of ACR-NEMA
_GROUPS_READ = frozenset({0x0008, 0x0010, 0x0018, 0x0020, 0x0028})
# How many numbers an attribute must have; the rest of the node computes with these without a check.
_NUMBERS = {
    Tag(keyword): count
    for keyword, count in {
        "ImagePositionPatient": 3,
        "ImageOrientationPatient": 6,
        "PixelSpacing": 2,
        "Rows": 1,
        "Columns": 1,
        "SamplesPerPixel": 1,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 1,
        "PixelRepresentation": 1,
        "NumberOfFrames": 1,
    }.items()
}
_NUMERIC_VRS = frozenset({"DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_LAST_IDENTIFIER = Tag("SeriesInstanceUID")
_DAYS_PER_YEAR = 365.25
_OLDEST_YEARS = 115


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One DICOM file, or one frame of it, with its header.

    Attributes
    ----------
    path : of the file.
    header : without pixels.
    sop_class_uid : of the data set, else of the file meta information.
    transfer_syntax_uid : of the file meta information.
    damaged : whether the header breaks off; then it holds only what identifies the image.
    frame : its number, from 1; None where the file is taken whole.
    unreadable : keywords of identity whose text is invalid in the declared character set.
    malformed : keywords that were removed: text for a sequence, or a sequence for text.
    """

    path: Path
    header: Dataset
    sop_class_uid: str
    transfer_syntax_uid: str
    damaged: bool = False
    frame: int | None = None
    unreadable: tuple[str, ...] = ()
    malformed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeaders:
    """The images of one series.

    Attributes
    ----------
    study_instance_uid, series_instance_uid : "" where the headers state none.
    instances : each a file or a frame of one, in the order they were found; at least one.
    """

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[Instance, ...]

    @property
    def first(self) -> Dataset:
        """The header of the first image."""
        return self.instances[0].header


def comparable(header: Dataset, keyword: str) -> str:
    """An attribute as text in which equal values are equal: "120" is "120.0".

    Returns
    -------
    "" where the attribute is absent or empty, and for a KVP of 0, which means that it is unknown. Several
    values are joined by a blank.
    """
    if keyword == "KVP":
        kvp = tube_voltage_kv(header)
        return "" if kvp is None else repr(kvp)
    text = text_of(header, keyword)
    if dictionary_VR(keyword) not in _NUMERIC_VRS:
        return text
    try:
        return " ".join(repr(float(part) + 0.0) for part in text.split())  # + 0.0: of -0, too
    except ValueError:
        return text


def tube_voltage_kv(header: Dataset) -> float | None:
    """KVP in kV.

    Returns
    -------
    None where it is absent, or is none that a CT scanner has: 0 stands for "not known".
    """
    return known_kvp(number_of(header, "KVP"))


def read_headers(paths: Iterable[Path]) -> tuple[Instance, ...]:
    """Read the headers of every DICOM file among `paths`.

    Returns
    -------
    One instance for each file, sorted by path. Other files (truth.json, masks) are left out.

    Raises
    ------
    OSError
        If the file system fails. A damaged file raises nothing: its instance is marked as damaged.
    """
    found = []
    for path in sorted(paths):
        readable = _header(path)
        if readable is None:
            continue
        header, damaged = readable
        meta = header.file_meta
        malformed = drop_non_sequences(header)
        unreadable = protect_identity_text(header)
        _drop_malformed(header)
        found.append(
            Instance(
                path=path,
                header=header,
                sop_class_uid=text_of(header, "SOPClassUID") or text_of(meta, "MediaStorageSOPClassUID"),
                transfer_syntax_uid=text_of(meta, "TransferSyntaxUID"),
                unreadable=unreadable,
                malformed=malformed,
                damaged=damaged,
            )
        )
    return tuple(found)


def _header(path: Path) -> tuple[Dataset, bool] | None:
    """The header of a DICOM file, and whether the file is damaged; None for other files.

    Of a damaged file the header holds what precedes the damage, if that identifies the image: an image of a
    study must not vanish from it.
    """
    try:
        return dcmread(path, stop_before_pixels=True), False
    except InvalidDicomError:
        return None
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
        _raise_if_from_disk(error)
    try:
        with path.open("rb") as file:
            return read_partial(file, stop_when=lambda tag, _vr, _length: tag > _LAST_IDENTIFIER), True
    except Exception as error:  # noqa: BLE001 - as above
        _raise_if_from_disk(error)
        return None


def _raise_if_from_disk(error: Exception) -> None:
    """Raise an error of the file system, so that the step is tried again; pydicom's OSError has no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _drop_malformed(header: Dataset) -> None:
    """Delete what is no value of its attribute: what needs it then reports it as missing."""
    for tag in [tag for tag in header.keys() if tag.group in _GROUPS_READ]:  # noqa: SIM118 - items would be parsed
        try:
            value = header[tag].value
        except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
            del header[tag]
            continue
        count = _NUMBERS.get(tag)
        if count is not None and value is not None and not _are_numbers(value, count):
            del header[tag]


def _are_numbers(value: Any, count: int) -> bool:
    values = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)
    try:
        return len(values) == count and all(isfinite(float(one)) for one in values)
    except (TypeError, ValueError):
        return False


def is_ct_image(instance: Instance) -> bool:
    """Whether the instance is a CT image, of one slice or several frames."""
    return instance.sop_class_uid == CTImageStorage or is_multi_frame_ct(instance)


def is_multi_frame_ct(instance: Instance) -> bool:
    """Whether the instance is an Enhanced or Legacy Converted Enhanced CT Image, whose frames are slices."""
    return instance.sop_class_uid in (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


def _images_of(instance: Instance) -> tuple[Instance, ...]:
    """The frames of a multi-frame CT as images of their own; else the instance itself."""
    if instance.damaged or not is_multi_frame_ct(instance):
        return (instance,)
    headers = frame_headers(instance.header)
    for header in headers:
        _drop_malformed(header)
    frames = (replace(instance, header=header, frame=n) for n, header in enumerate(headers, start=1))
    return tuple(frames) or (instance,)


def group_series(instances: Iterable[Instance]) -> tuple[SeriesHeaders, ...]:
    """CT images by study and series, in order of appearance. Other objects are left out.

    Returns
    -------
    Each frame of a multi-frame CT counts as an image. A multi-frame CT whose frames are not described
    counts as one image.
    """
    groups: dict[tuple[str, str], list[Instance]] = {}
    for instance in chain.from_iterable(map(_images_of, filter(is_ct_image, instances))):
        key = (text_of(instance.header, "StudyInstanceUID"), text_of(instance.header, "SeriesInstanceUID"))
        groups.setdefault(key, []).append(instance)
    return tuple(
        SeriesHeaders(study_instance_uid=study, series_instance_uid=series, instances=tuple(members))
        for (study, series), members in groups.items()
    )


def date_of(header: Dataset, keyword: str) -> date | None:
    """A DA attribute, with or without the dots of ACR-NEMA.

    Returns
    -------
    None where it is absent or no date.
    """
    match = _DATE.fullmatch(text_of(header, keyword))
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def _age_years(birth: date | None, study: date | None, stated: str) -> int | None:
    """Completed years at the study date; where a date is missing, what PatientAge states.

    None where the two disagree by more than a year, or no human is that old: a placeholder for a birth date
    that is not known must not make a young patient old.
    """
    by_dates = None
    if birth is not None and study is not None and birth <= study:
        by_dates = study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day))
    match = _AGE.fullmatch(stated)
    if match is not None:
        days = {"D": 1.0, "W": 7.0, "M": _DAYS_PER_YEAR / 12, "Y": _DAYS_PER_YEAR}[match[2]]
        by_statement = int(int(match[1]) * days / _DAYS_PER_YEAR + 1e-6)
        if by_dates is None:
            by_dates = by_statement
        elif abs(by_dates - by_statement) > 1:
            return None
    return by_dates if by_dates is not None and by_dates <= _OLDEST_YEARS else None


def identity_of(header: Dataset) -> StudyIdentity:
    """Patient and study as a header states them. What the header lacks stays empty.

    Returns
    -------
    Its age is in completed years at the study date; None where birth date and PatientAge disagree by more
    than a year, where neither is known, or beyond 115 years (a placeholder for an unknown birth date).
    """
    birth, study = date_of(header, "PatientBirthDate"), date_of(header, "StudyDate")
    return StudyIdentity(
        study_instance_uid=text_of(header, "StudyInstanceUID"),
        patient_id=text_of(header, "PatientID"),
        issuer_of_patient_id=text_of(header, "IssuerOfPatientID"),
        accession_number=text_of(header, "AccessionNumber"),
        study_date=study,
        birth_date=birth,
        age_years=_age_years(birth, study, text_of(header, "PatientAge")),
        sex=text_of(header, "PatientSex"),
    )
