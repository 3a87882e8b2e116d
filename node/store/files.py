"""Files that survive a power cut: received bytes and artefacts. Hashes name them, never text from outside."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import queue
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from node.store.errors import StorageFull, storage_error
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


class ContentComparison(Protocol):
    """Compares the content of data sets, as `node.dicom.content_comparison` does."""

    def identity_difference(self, held: Source, came: Source) -> frozenset[str] | None:
        """Keywords of differing attributes of patient and order; None where anything else differs."""
        ...

    def fingerprint(self, source: Source) -> tuple[str, str] | None:
        """SHA-256 of all content but identity, and of identity. None for what cannot be read."""
        ...


class ByteComparison:
    """Compares bytes alone: other bytes are other content."""

    def identity_difference(self, held: Source, came: Source) -> frozenset[str] | None:  # noqa: ARG002
        return None

    def fingerprint(self, source: Source) -> tuple[str, str] | None:  # noqa: ARG002
        return None


# ---- writing that survives a power cut

# Images of the usual sizes go to the disk past the page cache where the file system allows it: they are read
# once, later, and finding a hundred free pages can take the kernel longer than the writing (bench/ingest.py).
_BLOCK_BYTES = 4096
_DIRECT_BYTES = 2 << 20
_BUFFERS = 8  # that a process keeps for it; whoever finds none free writes through the cache


FILE_MODE, FOLDER_MODE = 0o600, 0o700  # of all that lies under the storage root


def write_durably(target: Path, chunks: Sequence[bytes | memoryview]) -> None:
    """Write a new file; its name and content are on the disk when this returns.

    Parameters
    ----------
    target : must be in an existing folder. A hidden ".NAME.part" beside it holds the content until it is
        whole.
    chunks : the content, in pieces.

    Raises
    ------
    OSError
        If the file system refuses. No file remains.
    """
    temporary = target.with_name(f".{target.name}.part")
    try:
        if not _written_directly(temporary, chunks):
            _write_through_cache(temporary, chunks)
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def write_private(path: Path, content: bytes) -> None:
    """Replace a small file durably; only its owner may read it.

    Raises
    ------
    OSError
        If the file system refuses. The file may be incomplete then.
    """
    descriptor = _create(path, os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, for their owner alone; their names survive a power cut.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        return  # another made it
    folder.chmod(FOLDER_MODE)  # whatever the umask says
    sync_folder(folder.parent)


def tighten(path: Path) -> bool:
    """Take all rights to a file or folder from everybody but its owner; links are left alone.

    Returns
    -------
    False where the path belongs to another account, which alone can change it.
    """
    try:
        mode = path.lstat().st_mode
        wanted = FOLDER_MODE if stat.S_ISDIR(mode) else FILE_MODE
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) != wanted:
            path.chmod(wanted)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    return True


def _create(path: Path, flags: int) -> int:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | flags, FILE_MODE)
    os.fchmod(descriptor, FILE_MODE)  # whatever the umask says
    return descriptor


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that they survive a power cut.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_through_cache(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    with os.fdopen(_create(path, os.O_EXCL), "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _written_directly(path: Path, chunks: Sequence[bytes | memoryview]) -> bool:
    """Whether the file could be written past the page cache; if not, it is not there."""
    size = sum(len(chunk) for chunk in chunks)
    if not 0 < size <= _DIRECT_BYTES or not hasattr(os, "O_DIRECT"):
        return False
    blocks = size // _BLOCK_BYTES * _BLOCK_BYTES
    with _buffer() as buffer:
        if buffer is None:
            return False
        try:
            descriptor = _create(path, os.O_EXCL | os.O_DIRECT)
        except OSError:  # a file system without it; another error comes again, through the cache
            path.unlink(missing_ok=True)
            return False
        try:
            _fill(buffer, chunks)
            with memoryview(buffer) as view:
                written = os.write(descriptor, view[:blocks])
                if written == blocks:
                    # The rest is no whole block, which the cache alone can write without reading it first.
                    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_WRONLY)
                    written += os.write(descriptor, view[blocks:size])
            os.fsync(descriptor)
        except OSError:
            written = 0
        finally:
            os.close(descriptor)
    if written < size:
        path.unlink(missing_ok=True)
    return written == size


def _fill(buffer: mmap.mmap, chunks: Sequence[bytes | memoryview]) -> None:
    buffer.seek(0)
    for chunk in chunks:
        buffer.write(chunk)


_free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
_made: list[mmap.mmap] = []


@contextmanager
def _buffer() -> Iterator[mmap.mmap | None]:
    """A buffer that begins at a page, as writing past the cache wants it; None where all are in use."""
    buffer = None
    with suppress(queue.Empty):
        buffer = _free.get_nowait()
    if buffer is None and len(_made) < _BUFFERS:
        buffer = mmap.mmap(-1, _DIRECT_BYTES)
        _made.append(buffer)
    try:
        yield buffer
    finally:
        if buffer is not None:
            _free.put(buffer)
