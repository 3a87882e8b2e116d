"""What identifies this installation: the key of its pseudonyms, and the lock of the process that serves it.

The key is in a file under the storage root, which every host of an installation shares and every backup
contains. The database holds only a check value of it: a copy of the database alone leads to no patient.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from sqlalchemy import inspect, select

from node.store.database import Database, insert_unless_there
from node.store.errors import StoreError, StoreUnavailable, WrongInstallation, storage_error
from node.store.files import FILE_MODE, make_folder, sync_folder, write_private
from node.store.schema import installation

KEY_FILE = "installation.key"
_KEY_BYTES = 32
_RECOGNISED = b"the key of an Osteonode installation"
_KEY_CHECK = "key check"
_MODES = "modes"


class Pseudonyms:
    """Pseudonyms: equal for equal input, and useless without the installation's key.

    A Patient ID has few digits: a plain hash of one can be inverted in seconds by trying all of them.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, digest: str) -> str:
        """HMAC-SHA-256 of a digest, in hexadecimal.

        Raises
        ------
        ValueError
            If there is no key.
        """
        if not self._key:
            raise ValueError("no key")
        return hmac.new(self._key, digest.encode(), sha256).hexdigest()

    @property
    def check(self) -> str:
        """Check value by which the key is recognised; it reveals nothing else of it."""
        return hmac.new(self._key, _RECOGNISED, sha256).hexdigest()


def load_or_make_key(root: Path, database: Database) -> bytes:
    """Key of the installation: 32 bytes, made if there is none yet.

    Parameters
    ----------
    root : the storage root.
    database : of the installation; it may have no tables yet.

    Raises
    ------
    WrongInstallation
        If the database knows a key and the folder holds none (not mounted, or lost), or the file is damaged.
    StoreUnavailable
        If the database or the folder cannot be used.
    """
    path = root / KEY_FILE
    try:
        key = _read(path)
        if key is None:
            if _known_check(database) is not None:
                raise WrongInstallation(f"{path} is missing: is the folder mounted? Else restore the file")
            key = _make(path)
    except OSError as error:
        raise storage_error(error) from error
    return key


def require_key(database: Database, pseudonyms: Pseudonyms, path: Path) -> None:
    """Check that folder and database belong together; an installation's first call records the key.

    Raises
    ------
    WrongInstallation
        If the database was made with another key.
    """
    known = _value(database, _KEY_CHECK)
    if known is None:
        with database.writing() as connection:
            insert_unless_there(connection, installation, {"name": _KEY_CHECK, "value": pseudonyms.check})
        known = _value(database, _KEY_CHECK)
    if known != pseudonyms.check:
        raise WrongInstallation(
            f"{path} is not the key that the database was made with: folder and database belong to "
            "different installations, or one of them was restored without the other"
        )


def require_root(root: Path, database: Database) -> None:
    """Check that the storage root is present and belongs to the database. Nothing is made.

    Raises
    ------
    WrongInstallation
        If it is absent or another, or this store was never opened.
    StoreUnavailable
        If the database or the folder cannot be used.
    """
    path = root / KEY_FILE
    if _known_check(database) is None:
        raise WrongInstallation("the node has not been started with this database yet")
    try:
        key = _read(path)
    except OSError as error:
        raise storage_error(error) from error
    if key is None:
        raise WrongInstallation(f"{path} is missing: is the folder mounted?")
    require_key(database, Pseudonyms(key), path)


def modes_are_tight(database: Database) -> bool:
    """Whether `note_tight_modes` was called."""
    return _value(database, _MODES) is not None


def note_tight_modes(database: Database) -> None:
    """Record that every file under the root is private to its owner."""
    with database.writing() as connection:
        insert_unless_there(connection, installation, {"name": _MODES, "value": "tight"})


def _known_check(database: Database) -> str | None:
    """As `_value`, of a database that may have no tables yet."""
    with database.reading() as connection:
        if not inspect(connection).has_table(installation.name):
            return None
    return _value(database, _KEY_CHECK)


def _value(database: Database, name: str) -> str | None:
    wanted = select(installation.c.value).where(installation.c.name == name)
    with database.reading() as connection:
        value: str | None = connection.execute(wanted).scalar()
    return value


def _read(path: Path) -> bytes | None:
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise WrongInstallation(f"{path} is damaged: restore it") from error
    if len(key) != _KEY_BYTES:
        raise WrongInstallation(f"{path} is damaged: restore it")
    return key


def _make(path: Path) -> bytes:
    """Make the key. Of several processes that do so at once, the first one's key is used."""
    temporary = path.with_name(f".{KEY_FILE}.{secrets.token_hex(4)}.part")
    write_private(temporary, secrets.token_bytes(_KEY_BYTES).hex().encode() + b"\n")
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    key = _read(path)
    assert key is not None, "a file that was just made"
    return key


# One `serve` for each storage root, on however many hosts it is mounted; workers are not locked out.
#
# The kernel frees the lock when the process ends, however it ends. Network file systems share it with other
# hosts (NFS since Linux 2.6.12). Where one does not, the holder's heartbeat shows that the root is served.

LOCK_FILE = "serve.lock"
BEAT_S = 2.0
SILENT_S = 4 * BEAT_S  # a holder on another host that gives no sign for so long has ended
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that serves a storage root.

    Attributes
    ----------
    since : ISO 8601, UTC.
    """

    host: str
    pid: int
    since: str


class AlreadyServed(StoreError):
    """Another process serves this root."""

    def __init__(self, root: Path, holder: Holder | None) -> None:
        who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "another process"
        super().__init__(
            f"{root} is served already, by {who}: stop that, or give this node a root of its own"
        )
        self.holder = holder


class ServingLock:
    """Lock that gives a storage root to one `serve`.

    Parameters
    ----------
    host : this machine's name; the real one if None.
    """

    def __init__(self, root: Path, host: str | None = None) -> None:
        self._root = root.resolve()
        self._path = self._root / LOCK_FILE
        self._me = Holder(
            host=host or socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._descriptor: int | None = None
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None
        self.lost: AlreadyServed | None = None  # why the right is gone, once it is

    def take(self, stop: threading.Event, on_lost: Callable[[], None]) -> bool:
        """Take the lock; False where `stop` was set while waiting for another host's heartbeat to expire.

        Parameters
        ----------
        on_lost : called from a thread if another took over, because this machine stood still for too long.

        Raises
        ------
        AlreadyServed
        StoreUnavailable
            If the root cannot be used.
        """
        try:
            make_folder(self._root)
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise StoreUnavailable(f"{self._root} cannot be used ({error.strerror})") from error
        try:
            free = self._lock(descriptor, stop)
        except BaseException:
            os.close(descriptor)
            raise
        if not free:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self._write(json.dumps(asdict(self._me)))
        self._beating = threading.Thread(
            target=self._beat_forever, args=(on_lost,), name="serving-lock", daemon=True
        )
        self._beating.start()
        return True

    def release(self) -> None:
        """Release the lock."""
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        if self._descriptor is not None:
            if self.lost is None:
                self._write("")
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, descriptor: int, stop: threading.Event) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(self._root, self._holder()) from None
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be locked ({error.strerror})") from error
        before = self._holder()
        if before is None or before.host == self._me.host:
            return True
        return self._is_silent(before, stop)

    def _is_silent(self, before: Holder, stop: threading.Event) -> bool:
        """Whether a holder on another host has ended: its heartbeat stands still. No clocks are compared."""
        sign = self._sign()
        for _ in range(int(SILENT_S / _LOOK_S)):
            if stop.wait(_LOOK_S):
                return False
            if self._sign() != sign:
                raise AlreadyServed(self._root, before)
        return True

    def _beat_forever(self, on_lost: Callable[[], None]) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                holder = self._holder()
                if holder is not None and holder != self._me:
                    self.lost = AlreadyServed(self._root, holder)
                    on_lost()
                    return
                os.utime(self._path)
            except OSError:
                continue  # the disk is away: everything else of the node says so

    def _sign(self) -> tuple[int, str]:
        """Read through a new descriptor: a network file system may cache the content of an open one."""
        try:
            with self._path.open("r", encoding="utf-8", errors="replace") as file:
                return os.fstat(file.fileno()).st_mtime_ns, file.read()
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be read ({error.strerror})") from error

    def _holder(self) -> Holder | None:
        """The holder that the file names; None where it names none or cannot be read."""
        try:
            return Holder(**json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, content: str) -> None:
        assert self._descriptor is not None, "taken first"
        # On a full disk nobody is named; a node must start nevertheless, to deliver what it has.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content.encode(), 0)
            os.fsync(self._descriptor)
