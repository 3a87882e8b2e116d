"""UIDs and times of the node's objects; no other module makes any.

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
    """A UID that depends on `parts` alone.

    Returns
    -------
    "2.25." and the first 128 bits of a SHA-256 as a decimal integer (PS3.5 B.2).
    """
    digest = sha256("\0".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def transaction_uid() -> str:
    """A new UID for a storage commitment: random, so that nobody who was not sent it can answer for it."""
    return f"2.25.{secrets.randbits(128)}"


def local_time(dataset: Dataset, issued_at: datetime) -> datetime:
    """`issued_at` as the dates of an object must state it.

    Returns
    -------
    The time in the object's TimezoneOffsetFromUTC where it has one, else `issued_at` as it is.
    """
    match = _OFFSET.fullmatch(text_of(dataset, "TimezoneOffsetFromUTC"))
    if match is None:
        return issued_at
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return issued_at.astimezone(timezone(offset if match[1] == "+" else -offset))


def stamp(dataset: Dataset, issued_at: datetime) -> None:
    """Set every date and time that states when the object was made, whatever was set before.

    Parameters
    ----------
    dataset : changed in place. DateOfSecondaryCapture is set only where it is present.
    issued_at : aware.
    """
    when = local_time(dataset, issued_at)
    date, time = f"{when:%Y%m%d}", f"{when:%H%M%S}"
    for prefix in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{prefix}Date", date)
        setattr(dataset, f"{prefix}Time", time)
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture = date
        dataset.TimeOfSecondaryCapture = time


def mint(datasets: Sequence[Dataset], issued_at: datetime, *, variant: str = "") -> None:
    """Set times and UIDs of the objects of one series.

    Parameters
    ----------
    datasets : all objects of the series, complete but for their own UIDs; changed in place.
    issued_at : aware; part of each UID.
    variant : in what form a destination's copy differs (an SR class, say); part of each UID.
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
    """The Series Instance UID of objects that share a series.

    It follows from their own UIDs, so that an amendment can name its predecessor's series, too.

    Parameters
    ----------
    instance_uids : in the order of the series.
    """
    return derived_uid("series", *instance_uids)


def _name(dataset: Dataset, *, instance: str, series: str) -> None:
    dataset.SOPInstanceUID = instance
    dataset.SeriesInstanceUID = series
    if "DimensionOrganizationSequence" not in dataset:
        return
    # highdicom makes a random one for each segmentation.
    organization = _BLANK if instance == _BLANK else derived_uid("dimensions", instance)

    def rename(_: Dataset, element: DataElement) -> None:
        if element.keyword == "DimensionOrganizationUID":
            element.value = organization

    dataset.walk(rename)


def to_bytes(dataset: Dataset) -> bytes:
    """The DICOM file (PS3.10) of a data set: Explicit VR Little Endian, the same bytes each time.

    Parameters
    ----------
    dataset : with its class and UIDs. Its file meta information and preamble are replaced.
    """
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
