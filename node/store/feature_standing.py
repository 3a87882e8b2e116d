"""What the workers of each machine found when they tried the known image: the latest start's answer."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from node.store.database import storage_error
from node.store.durable import make_folder, write_private
from node.store.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStanding:
    """How one machine's features compare with the known ones."""

    drifted: int
    checked: int
    example: str  # the first that drifted; "" where none did
    tried_at: str  # ISO 8601, UTC


class FeatureStandings:
    """One small file for this machine under the storage root."""

    def __init__(self, root: Path) -> None:
        machine = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
        self._path = root.resolve() / "workers" / f"features-{machine}.json"

    def keep(self, standing: FeatureStanding) -> None:
        """Raises StoreUnavailable if it cannot be written."""
        temporary = self._path.with_suffix(".part")
        try:
            make_folder(self._path.parent)
            write_private(temporary, json.dumps(asdict(standing)).encode())
            temporary.replace(self._path)
        except OSError as error:
            raise storage_error(error) from error

    def here(self) -> FeatureStanding | None:
        """Of this machine; None where no worker has tried yet.

        Raises
        ------
        StoreError
            If the file is damaged.
        """
        try:
            return FeatureStanding(**json.loads(self._path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"what the workers found cannot be read ({type(error).__name__})") from error
