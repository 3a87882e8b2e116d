"""Which model card is in force: a file of lines that only grows, the last of which counts.

Each line is a JSON object: who made which card the active one, when, why, in place of which, how both cards
scored the reference patients, and both cards themselves. So an edited or deleted card file changes nothing
until it is activated, and every earlier card can be taken up again. The line's `card_sha256` pins the card: a
card that is not the one pinned is never used.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from node.store.database import storage_error
from node.store.durable import make_folder, write_private
from node.store.errors import StoreError
from scoring.errors import ModelCardInvalid
from scoring.models.card import ModelCard, card_document, parse_model_card
from scoring.models.comparison import Compared, Scored

_FILE = Path("models") / "activations.jsonl"


class ActivationsUnreadable(StoreError):
    """The record of activations is damaged, or a card in it is not the one that was pinned."""


class ActivationOvertaken(StoreError):
    """Another card was activated between the comparison and the switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One card made the active one."""

    card: ModelCard
    activated_at: datetime  # aware
    activated_by: str
    reason: str
    previous_sha256: str | None  # of the card that it takes the place of; None: there was none
    previous: ModelCard | None  # that card; None too in a record that an earlier version wrote
    comparison: tuple[Compared, ...]


class Activations:
    """The record under a storage root. The root is not made until something is recorded."""

    def __init__(self, root: Path) -> None:
        self._path = root.resolve() / _FILE

    def active(self) -> Activation | None:
        """The card in force; None where none was ever activated.

        Raises
        ------
        ActivationsUnreadable
        """
        lines = self._lines()
        return _activation(lines[-1], len(lines)) if lines else None

    def history(self) -> tuple[Activation, ...]:
        """Every activation, the first one first.

        Raises
        ------
        ActivationsUnreadable
        """
        return tuple(_activation(line, number) for number, line in enumerate(self._lines(), start=1))

    def record(self, activation: Activation, *, after_lines: int) -> None:
        """Make a card the active one, durably: when this returns, the next study is scored by it.

        Parameters
        ----------
        after_lines : how long `history` was when the cards were compared.

        Raises
        ------
        ActivationOvertaken
            If another activation was recorded since.
        StoreUnavailable
            If the file system refuses.
        """
        line = json.dumps(_document(activation), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            make_folder(self._path.parent)
            with _locked(self._path) as descriptor:
                content = self._path.read_bytes()
                if content.count(b"\n") != after_lines:
                    raise ActivationOvertaken("another model was activated in the meantime: compare again")
                os.ftruncate(descriptor, content.rfind(b"\n") + 1)  # what a power cut left of a line
                os.lseek(descriptor, 0, os.SEEK_END)
                written = 0
                encoded = line.encode()
                while written < len(encoded):
                    written += os.write(descriptor, encoded[written:])
                os.fsync(descriptor)
        except OSError as error:
            raise storage_error(error) from error

    def _lines(self) -> list[str]:
        """Whole lines: one without its end was never finished, and the line before it still counts."""
        try:
            text = self._path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise ActivationsUnreadable(
                f"the record of activated models cannot be read: {type(error).__name__}"
            ) from error
        return text.split("\n")[:-1]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _document(one: Activation) -> dict[str, Any]:
    return {
        "activated_at": one.activated_at.isoformat(),
        "activated_by": one.activated_by,
        "reason": one.reason,
        "name": one.card.name,
        "version": one.card.version,
        "card_sha256": one.card.sha256,
        "previous_sha256": one.previous_sha256,
        "comparison": [asdict(compared) for compared in one.comparison],
        "card": card_document(one.card),
        "previous_card": card_document(one.previous) if one.previous else None,
    }


def _activation(line: str, number: int) -> Activation:
    try:
        raw = json.loads(line)
        card = parse_model_card(json.dumps(raw["card"]))
        kept = raw.get("previous_card")
        previous = parse_model_card(json.dumps(kept)) if kept is not None else None
        pinned = raw["card_sha256"]
        activation = Activation(
            card=card,
            activated_at=datetime.fromisoformat(raw["activated_at"]),
            activated_by=raw["activated_by"],
            reason=raw["reason"],
            previous_sha256=raw["previous_sha256"],
            previous=previous,
            comparison=tuple(_compared(one) for one in raw["comparison"]),
        )
    except (ValueError, KeyError, TypeError, ModelCardInvalid) as error:
        raise ActivationsUnreadable(f"activation {number} of the record is damaged") from error
    _require_pinned(number, card, pinned)
    if previous is not None:
        _require_pinned(number, previous, activation.previous_sha256)
    return activation


def _require_pinned(number: int, card: ModelCard, pinned: str | None) -> None:
    if card.sha256 != pinned:
        raise ActivationsUnreadable(
            f"activation {number} pins the card {(pinned or 'none')[:12]}, "
            f"and the card kept there is {card.sha256[:12]}"
        )


def _compared(raw: dict[str, Any]) -> Compared:
    before = raw["before"]
    return Compared(
        patient=raw["patient"],
        before=Scored(**before) if before is not None else None,
        after=Scored(**raw["after"]),
    )


# What the workers of each machine found when they tried the known image: the latest start's answer.


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
