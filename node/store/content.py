"""What the store asks about data sets that it does not read itself."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol

Source = Path | BinaryIO


class ContentReader(Protocol):
    """Tells equal content from different bytes; `node.dicom.likeness` is one."""

    def identity_difference(self, held: Source, came: Source) -> frozenset[str] | None:
        """Keywords of the attributes of patient and order that differ; None where anything else does."""
        ...

    def fingerprint(self, source: Source) -> tuple[str, str] | None:
        """Two SHA-256: of all content but identity, and of identity. None where it cannot be read."""
        ...


class BytesAlone:
    """Takes other bytes for other content."""

    def identity_difference(self, held: Source, came: Source) -> frozenset[str] | None:  # noqa: ARG002
        return None

    def fingerprint(self, source: Source) -> tuple[str, str] | None:  # noqa: ARG002
        return None
