"""What makes this installation itself: the key of its pseudonyms, and what was done once to its files.

The key lies in a file under the storage root, which every host of an installation shares and every backup
holds; the database holds only what recognises it. A copy of the database alone does not lead to a patient.
"""

from __future__ import annotations

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from sqlalchemy import inspect, select

from node.store.database import Database, insert_unless_there, storage_error
from node.store.durable import sync_folder, write_private
from node.store.errors import WrongInstallation
from node.store.schema import installation

KEY_FILE = "installation.key"
_KEY_BYTES = 32
_RECOGNISED = b"the key of an Osteonode installation"
_KEY_CHECK = "key check"
_MODES = "modes"


class Pseudonyms:
    """Names for what must not be kept: the same for the same, and of no use without the installation's key.

    A Patient ID has few digits: whoever has a plain hash of one tries them all in seconds.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, digest: str) -> str:
        """HMAC-SHA-256 of a digest, in hexadecimal."""
        if not self._key:
            raise ValueError("no key")
        return hmac.new(self._key, digest.encode(), sha256).hexdigest()

    @property
    def check(self) -> str:
        """By which the key is recognised; it says nothing else of it."""
        return hmac.new(self._key, _RECOGNISED, sha256).hexdigest()


def key_of(root: Path, database: Database) -> bytes:
    """The key of the installation, made if there is none yet.

    Raises
    ------
    WrongInstallation
        If the database knows a key and the folder holds none: it is not mounted, or the file was lost.
    StoreUnavailable
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
    """See that folder and database belong together; the first to come says what belongs together.

    Raises
    ------
    WrongInstallation
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
    """See that the folder is there now, and is the one that the database was made with. Makes nothing.

    Raises
    ------
    WrongInstallation
        If it is not, or nobody has opened this store yet.
    StoreUnavailable
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
    """Every file under the root is closed to others from now on: new ones are made so."""
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
    """Several processes may do so at once: the first one's key counts."""
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
