"""The active model card: rows are only added to the table, and the last one is in force.

Each row is a JSON object: who made which card the active one, when, why, in place of which, how both cards
scored the reference patients, and both cards themselves. So an edited or deleted card file changes nothing
until it is activated, and every earlier card can be taken up again. The row's `card_sha256` pins the card: a
card that is not the one pinned is never used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import func, inspect, make_url, select

from config.sections import StorageSettings
from node.store.database import Database, DatabaseRows, insert_unless_there
from node.store.errors import StoreError, storage_error
from node.store.files import sync_folder, write_private
from node.store.schema import activations
from scoring.errors import ModelCardInvalid
from scoring.models.applicability import ModelComparison, ModelScore
from scoring.models.card import ModelCard, card_document, parse_model_card

_FILE = Path("models") / "activations.jsonl"  # of earlier versions
_TAKEN_OVER = Path("models") / "activations.jsonl.taken-over"  # holds its size then

log = structlog.get_logger(__name__)


class ActivationsUnreadable(StoreError):
    """The record of activations is damaged, or a card in it is not the one that was pinned."""


class ActivationConflict(StoreError):
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
    comparison: tuple[ModelComparison, ...]


class Activations(DatabaseRows):
    """Activations that the database records."""

    def contents(self) -> tuple[str, ...] | None:
        """Each activation as it was recorded; None where the database is older than their table."""
        with self._database.reading() as connection:
            if not inspect(connection).has_table(activations.name):
                return None
            rows = connection.execute(select(activations.c.content).order_by(activations.c.number))
            return tuple(rows.scalars())

    def record(self, activation: Activation, *, after: int) -> None:
        """Activate a card: when this returns, the next study is scored with it.

        Parameters
        ----------
        after : how many activations there were when the cards were compared.

        Raises
        ------
        ActivationConflict
            If another activation was recorded since.
        StoreUnavailable
        """
        content = json.dumps(_document(activation), ensure_ascii=False, allow_nan=False)
        with self._database.writing() as connection:
            known = connection.execute(select(func.count()).select_from(activations)).scalar_one()
            row = {"number": after + 1, "content": content}
            if known != after or not insert_unless_there(connection, activations, row):
                raise ActivationConflict("another model was activated in the meantime: compare again")


def activation_history(storage: StorageSettings) -> tuple[Activation, ...]:
    """Every activation, the first one first. Nothing is made: neither folder nor database.

    Raises
    ------
    ActivationsUnreadable
    StoreUnavailable
        If the database does not answer.
    """
    return tuple(_activation(one, number) for number, one in enumerate(_contents(storage), start=1))


def active_activation(storage: StorageSettings) -> Activation | None:
    """The activation in force; None where there was none. Raises as `activation_history`."""
    contents = _contents(storage)
    return _activation(contents[-1], len(contents)) if contents else None


def activation_count(storage: StorageSettings) -> int:
    """How many activations there are, damaged ones among them. Raises StoreUnavailable."""
    return len(_contents(storage))


def _contents(storage: StorageSettings) -> tuple[str, ...]:
    known = None
    if _is_there(storage.resolved_database_url):
        database = Database(storage.resolved_database_url)
        try:
            known = Activations(database).contents()
        finally:
            database.close()
    return lines_of_earlier_versions(storage.root) if known is None else known


def _is_there(database_url: str) -> bool:
    """Whether the database exists, so that reading it creates nothing."""
    url = make_url(database_url)
    try:
        return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()
    except OSError as error:
        raise storage_error(error) from error


def lines_of_earlier_versions(root: Path) -> tuple[str, ...]:
    """The record of earlier versions, kept in a file until migration 0018 imported it.

    Whole lines only: one without its end was never finished, and the line before it counts.

    Raises
    ------
    StoreUnavailable
        If the file is there and cannot be read.
    """
    try:
        if (root / _TAKEN_OVER).exists():
            return ()
        text = (root / _FILE).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise storage_error(error) from error
    kept = text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL takes no NUL
    return tuple(kept.split("\n")[:-1])


def mark_taken_over(root: Path) -> None:
    """Mark the file of earlier versions as imported, so that it is imported once.

    The file stays: a worker of an earlier version may still run. Raises StoreUnavailable.
    """
    try:
        size = str((root / _FILE).stat().st_size)
        if not (root / _TAKEN_OVER).exists():
            write_private(root / _TAKEN_OVER, size.encode())
            sync_folder(root / _TAKEN_OVER.parent)
        elif (root / _TAKEN_OVER).read_text("ascii") not in ("", size):
            log.error("activation_by_an_earlier_version_is_not_in_force", file=str(root / _FILE))
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error) from error


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


def _compared(raw: dict[str, Any]) -> ModelComparison:
    before = raw["before"]
    return ModelComparison(
        patient=raw["patient"],
        before=ModelScore(**before) if before is not None else None,
        after=ModelScore(**raw["after"]),
    )
