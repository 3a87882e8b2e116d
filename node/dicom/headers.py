"""Headers of a study: read, grouped into series, and asked who the patient is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from node.dicom.characters import settle_identity_text
from node.dicom.functional_groups import frame_headers
from node.dicom.sequences import drop_non_sequences
from node.report import StudyIdentity
from segmentation.bone import known_kvp

_AGE = re.compile(r"(\d{3})([DWMY])")
_DATE = re.compile(
    r"(\d{4})\.?(\d{2})\.?(\d{2})"
)  # with the dots of ACR-NEMA, which some archives still send
_GROUPS_READ = frozenset({0x0008, 0x0010, 0x0018, 0x0020, 0x0028})
# How many numbers each attribute has that is reckoned with unasked.
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
    """One DICOM file, or one frame of it: where it lies, and all of its header but the pixels."""

    path: Path
    header: Dataset
    sop_class_uid: str  # of the data set, else of the file meta information
    transfer_syntax_uid: str
    damaged: bool = False  # its header breaks off: only what identifies it is there
    frame: int | None = None  # from 1; None where the file is taken whole
    unreadable: tuple[str, ...] = ()  # attributes of identity that are no text in the declared character set
    malformed: frozenset[str] = (
        frozenset()
    )  # attributes left out: text for a sequence, or a sequence for text


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHeaders:
    """The images of one series, each a file or a frame of one, in the order they were found."""

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[Instance, ...]

    @property
    def first(self) -> Dataset:
        return self.instances[0].header


def text_of(header: Dataset, keyword: str) -> str:
    """An attribute as text, "" where it is absent or empty; several values are joined by a blank."""
    value: Any = header.get(keyword)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str)):
        return " ".join(str(part) for part in value).strip()
    return str(value).strip()


def number_of(header: Dataset, keyword: str) -> float | None:
    """An attribute as a number, None where it is absent, empty or no number."""
    try:
        value = float(text_of(header, keyword))
    except ValueError:
        return None
    return value if isfinite(value) else None


def comparable(header: Dataset, keyword: str) -> str:
    """An attribute as text in which equal values are equal: "120" is "120.0", and 0 kV is not known.

    Empty where the attribute is absent or empty.
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
    """KVP; None where it is absent, or is none that a CT scanner has: 0 stands for "not known"."""
    return known_kvp(number_of(header, "KVP"))


def read_headers(paths: Iterable[Path]) -> tuple[Instance, ...]:
    """The headers of every DICOM file among `paths`; other files (truth.json, masks) are passed over."""
    found = []
    for path in sorted(paths):
        readable = _header(path)
        if readable is None:
            continue
        header, damaged = readable
        meta = header.file_meta
        malformed = drop_non_sequences(header)
        unreadable = settle_identity_text(header)
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
    """All but the pixels, and whether the file is damaged: then what stands before the damage, if that tells
    which image it is. None of other files.

    An image that a study holds must not vanish from it.
    """
    try:
        return dcmread(path, stop_before_pixels=True), False
    except InvalidDicomError:
        return None
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
        _raise_if_of_disk(error)
    try:
        with path.open("rb") as file:
            return read_partial(file, stop_when=lambda tag, _vr, _length: tag > _LAST_IDENTIFIER), True
    except Exception as error:  # noqa: BLE001 - as above
        _raise_if_of_disk(error)
        return None


def _raise_if_of_disk(error: Exception) -> None:
    """What the file system says passes, and is tried again; pydicom raises OSError of its own."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _drop_malformed(header: Dataset) -> None:
    """Have what is no value of its attribute count as absent: what needs it then says that it is missing."""
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
    """Whether the instance is a CT image, classic or of several frames."""
    return instance.sop_class_uid == CTImageStorage or is_multi_frame_ct(instance)


def is_multi_frame_ct(instance: Instance) -> bool:
    """Whether the instance holds CT slices as frames."""
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

    Each frame of a multi-frame CT counts as an image; one whose frames are not described stays whole.
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
    """A DA attribute, None where it is absent or no date."""
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
    """Who and what was scanned. What the header lacks stays empty."""
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
