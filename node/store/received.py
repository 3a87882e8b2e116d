"""One C-STORE, as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from node.store.states import CT_SOP_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One C-STORE, as it came."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str  # of the data set, without the file header
    content: Sequence[bytes | memoryview]  # a Part 10 file, in pieces: header, data set as received
    calling_ae: str
    called_ae: str
    association_id: int | None
    is_measured_mask: bool = False  # a segmentation of another program that the configuration measures from

    @property
    def size_bytes(self) -> int:
        return sum(len(chunk) for chunk in self.content)

    @property
    def is_ct(self) -> bool:
        return self.sop_class_uid in CT_SOP_CLASSES

    def open(self) -> BinaryIO:
        """The whole as a file."""
        return BytesIO(b"".join(self.content))
