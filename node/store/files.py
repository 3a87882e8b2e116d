"""Files that survive a power cut: received bytes and artefacts. Hashes name them, never text from outside."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from node.store.database import storage_error
from node.store.durable import make_folder, tighten, write_durably
from node.store.errors import StorageFull
from node.store.states import CT_SOP_CLASSES


class FileStore:
    """A folder of immutable files. Paths are relative to the root, so that the folder may be moved.

    Parameters
    ----------
    root : made if it is missing.
    min_free_bytes : a watermark. What is received must leave so much (`require_space`): studies in hand still
        have to write.

    Raises
    ------
    StoreUnavailable
        If the root cannot be made.
    """

    def __init__(self, root: Path, *, min_free_bytes: int = 0) -> None:
        self.root = root
        self.min_free_bytes = min_free_bytes
        try:
            make_folder(root)
        except OSError as error:
            raise storage_error(error) from error

    def require_space(self, incoming_bytes: int) -> None:
        """Check before anything is written that the disk stays above its watermark.

        Parameters
        ----------
        incoming_bytes : size of what is to be written.

        Raises
        ------
        StorageFull
            If less than `min_free_bytes` would remain.
        StoreUnavailable
            If the file system does not answer.
        """
        free_bytes = self._disk_usage()[2]
        if free_bytes - incoming_bytes < self.min_free_bytes:
            raise StorageFull(
                f"{free_bytes >> 20} MiB are free; "
                f"{self.min_free_bytes >> 20} MiB are kept back for studies in hand"
            )

    def tighten(self, *, thoroughly: bool) -> bool:
        """Close the folder to everybody but its owner.

        Parameters
        ----------
        thoroughly : close all that lies in it, too, which may take a while. The folder alone keeps others
        out.

        Returns
        -------
        False where something belongs to another account.
        """
        tight = tighten(self.root)
        if thoroughly:
            for folder, _, files in os.walk(self.root):
                tight = tighten(Path(folder)) and tight
                for name in files:
                    tight = tighten(Path(folder) / name) and tight
        return tight

    def used_percent(self) -> float:
        """Share of the disk that is in use, 0 to 100, as `df` counts.

        Raises
        ------
        StoreUnavailable
            If the file system does not answer.
        """
        _, used_bytes, free_bytes = self._disk_usage()
        return 100.0 * used_bytes / max(1, used_bytes + free_bytes)

    def write(
        self,
        shelf: str,
        sha256: str,
        chunks: Sequence[bytes | memoryview],
        *,
        suffix: str = "",
        together: str = "",
    ) -> str:
        """Write a new file. When this returns, it survives a power cut.

        Parameters
        ----------
        shelf : "instances" or "artefacts".
        sha256 : names the file, with a random part that keeps two writers of equal bytes apart.
        chunks : the content, in pieces.
        together : files with the same word lie in one folder, which is found and synchronised faster than
            many. The word itself, which may come from outside, is no part of the path.

        Returns
        -------
        The path, relative to the root.

        Raises
        ------
        StoreUnavailable
            If the file system refuses (`StorageFull` where it has no space). Nothing is left behind.
        """
        folder = hashlib.sha256(together.encode()).hexdigest() if together else sha256
        path = Path(shelf) / folder[:2] / f"{sha256}-{secrets.token_hex(4)}{suffix}"
        target = self.root / path
        try:
            make_folder(target.parent)
            write_durably(target, chunks)
        except OSError as error:
            raise storage_error(error) from error
        return path.as_posix()

    def read(self, path: str) -> bytes:
        """Content of a file.

        Parameters
        ----------
        path : relative to the root.

        Raises
        ------
        FileNotFoundError
            If the file is gone.
        """
        return (self.root / path).read_bytes()

    def remove(self, path: str) -> None:
        """Remove a file if it exists.

        Parameters
        ----------
        path : relative to the root; "" of a row without a file, for which nothing is done.

        Raises
        ------
        StoreUnavailable
            If the file system refuses.
        """
        if not path:
            return
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error) from error

    def holds(self, path: str) -> bool:
        return (self.root / path).is_file()

    def _disk_usage(self) -> tuple[int, int, int]:
        """Total, used and free bytes of the disk."""
        try:
            return shutil.disk_usage(self.root)
        except OSError as error:
            raise storage_error(error) from error


def sha256_of(*chunks: bytes) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


# ---- what is received


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One C-STORE.

    Parameters
    ----------
    sha256 : of the data set, without the file header.
    content : a Part 10 file in pieces: header, data set as received.
    is_measured_mask : whether it is a segmentation of another program that the configuration measures from.
    """

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    content: Sequence[bytes | memoryview]
    calling_ae: str
    called_ae: str
    association_id: int | None
    is_measured_mask: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(len(chunk) for chunk in self.content)

    @property
    def is_ct(self) -> bool:
        return self.sop_class_uid in CT_SOP_CLASSES

    def open(self) -> BinaryIO:
        """The file, in memory."""
        return BytesIO(b"".join(self.content))


Source = Path | BinaryIO


class ContentReader(Protocol):
    """Compares the content of data sets, as `node.dicom.content_comparison` does."""

    def identity_difference(self, held: Source, came: Source) -> frozenset[str] | None:
        """Keywords of differing attributes of patient and order; None where anything else differs."""
        ...

    def fingerprint(self, source: Source) -> tuple[str, str] | None:
        """SHA-256 of all content but identity, and of identity. None for what cannot be read."""
        ...


class BytesAlone:
    """Compares bytes alone: other bytes are other content."""

    def identity_difference(self, held: Source, came: Source) -> frozenset[str] | None:  # noqa: ARG002
        return None

    def fingerprint(self, source: Source) -> tuple[str, str] | None:  # noqa: ARG002
        return None
