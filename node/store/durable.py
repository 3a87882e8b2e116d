"""Writes files that survive a power cut."""

from __future__ import annotations

import fcntl
import mmap
import os
import queue
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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
