"""The only maker of UIDs and times.

A UID is ``2.25.`` and an integer: the first 128 bits of a SHA-256 over SOP class, destination variant, issue
time and the object's content with its own UIDs blanked (PS3.5 B.2 allows any unique 128-bit integer under
2.25). The same content issued at the same time is the same object, byte for byte; other content never shares
its UID.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from io import BytesIO

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node import __version__
from node.dicom.header_text import text_of

# In files and associations alike (PS3.7 Annex D.3.3.2).
IMPLEMENTATION_CLASS_UID = "2.25.250443633910069463941623059483127848771"
IMPLEMENTATION_VERSION_NAME = f"OSTEO_{__version__}"[:16]
_BLANK = "2.25.0"
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")


def derived_uid(*parts: str) -> str:
    """A UID that depends on `parts` alone."""
    digest = sha256("\0".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def transaction_uid() -> str:
    """A new UID for a storage commitment: random, so that nobody who was not asked can answer for it."""
    return f"2.25.{secrets.randbits(128)}"


def local_time(dataset: Dataset, issued_at: datetime) -> datetime:
    """`issued_at` as the object's dates must state it: in its TimezoneOffsetFromUTC where it has one."""
    match = _OFFSET.fullmatch(text_of(dataset, "TimezoneOffsetFromUTC"))
    if match is None:
        return issued_at
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return issued_at.astimezone(timezone(offset if match[1] == "+" else -offset))


def stamp(dataset: Dataset, issued_at: datetime) -> None:
    """Set every date and time that says when the object was made, whatever was set before."""
    when = local_time(dataset, issued_at)
    date, time = f"{when:%Y%m%d}", f"{when:%H%M%S}"
    prefixes = ["InstanceCreation", "Content", "Series"]
    for prefix in prefixes:
        setattr(dataset, f"{prefix}Date", date)
        setattr(dataset, f"{prefix}Time", time)
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture = date
        dataset.TimeOfSecondaryCapture = time


def mint(datasets: Sequence[Dataset], issued_at: datetime, *, variant: str = "") -> None:
    """Time and name the objects of one series.

    Parameters
    ----------
    datasets : all objects of the series, complete but for their own UIDs.
    variant : what makes a destination's copy differ in form (an SR class, say).
    """
    instances = []
    for dataset in datasets:
        stamp(dataset, issued_at)
        _name(dataset, instance=_BLANK, series=_BLANK)
        digest = sha256(to_bytes(dataset)).hexdigest()
        instances.append(
            derived_uid("instance", str(dataset.SOPClassUID), variant, issued_at.isoformat(), digest)
        )
    series = series_uid_of(instances)
    for dataset, instance in zip(datasets, instances, strict=True):
        _name(dataset, instance=instance, series=series)


def series_uid_of(instance_uids: Sequence[str]) -> str:
    """The Series UID of the objects that share a series: it follows from their own UIDs, so that an
    amendment can name its predecessor's series, too."""
    return derived_uid("series", *instance_uids)


def _name(dataset: Dataset, *, instance: str, series: str) -> None:
    dataset.SOPInstanceUID = instance
    dataset.SeriesInstanceUID = series
    if "DimensionOrganizationSequence" not in dataset:
        return
    # highdicom mints a random one for each segmentation.
    organization = _BLANK if instance == _BLANK else derived_uid("dimensions", instance)

    def rename(_: Dataset, element: DataElement) -> None:
        if element.keyword == "DimensionOrganizationUID":
            element.value = organization

    dataset.walk(rename)


def to_bytes(dataset: Dataset) -> bytes:
    """The Part 10 file of a data set, Explicit VR Little Endian, the same bytes each time."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.preamble = b"\x00" * 128
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
