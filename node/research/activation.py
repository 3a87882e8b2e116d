"""Changing the model that scores patients: checked, compared on reference patients, recorded, reversible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from config.catalog import load_model_card, load_radiomics_settings_text
from config.settings import Settings
from node.pipeline.model import active_model
from node.store.activations import Activation, Activations
from scoring.comparison import Compared, ReferencePatient, compare_models
from scoring.errors import ModelCardInvalid
from scoring.modelcard import ModelCard, parse_model_card
from scoring.radiomics import feature_names, parse_settings


class NotActivated(Exception):
    """A card that is not made the active one; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A card beside the one in force, and what the change would do to the reference patients."""

    card: ModelCard
    in_force: ModelCard | None  # None where no card is, or it cannot be used
    comparison: tuple[Compared, ...]
    after_lines: int  # activations recorded when this was proposed


def find_card(named: str, settings: Settings) -> ModelCard:
    """A card by its name in the catalogue, by the path of its file, or, of those activated before, by the
    first digits of its sha256 (eight at least).

    Raises
    ------
    NotActivated
        If it cannot be read or is no card.
    CatalogEntryMissing, CatalogEntryInvalid, StoreError
    """
    path = Path(named)
    if path.suffix == ".json":
        try:
            return parse_model_card(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ModelCardInvalid) as error:
            raise NotActivated(f"{named}: {error}") from error
    if len(named) >= 8:
        known = _recorded(Activations(settings.storage.root).history())
        matching = [card for sha256, card in known.items() if sha256.startswith(named.lower())]
        if len(matching) == 1:
            return matching[0]
    return load_model_card(named, settings.node.site_folder)[0]


def previous_card(settings: Settings) -> ModelCard:
    """The card that the one in force took the place of.

    Raises
    ------
    NotActivated
        If there is none that the record holds or `scoring.model` names.
    CatalogEntryMissing, CatalogEntryInvalid, StoreError
    """
    history = Activations(settings.storage.root).history()
    if not history or history[-1].previous_sha256 is None:
        raise NotActivated("the record names no model before the active one")
    wanted = history[-1].previous_sha256
    known = _recorded(history)
    if wanted in known:
        return known[wanted]
    named = load_model_card(settings.scoring.model, settings.node.site_folder)[0]
    if named.sha256 == wanted:
        return named
    raise NotActivated(f"the model {wanted[:12]} before the active one is kept nowhere: name its file")


def _recorded(history: Sequence[Activation]) -> dict[str, ModelCard]:
    """Every card that was in force at an activation, by its sha256."""
    cards = [card for one in history for card in (one.previous, one.card) if card is not None]
    return {card.sha256: card for card in cards}


def require_change(card: ModelCard, settings: Settings) -> None:
    """Make sure that a card is not the activated one already.

    The card that `scoring.model` names may be activated: so it is pinned.

    Raises
    ------
    NotActivated
    StoreError
    """
    standing = Activations(settings.storage.root).active()
    if standing is not None and standing.card.sha256 == card.sha256:
        raise NotActivated(f"{card.name} is the active model already")


def require_usable(card: ModelCard, settings: Settings) -> None:
    """Make sure that this node can use a card at all.

    Raises
    ------
    NotActivated
    """
    if not settings.scoring.model:
        raise NotActivated("scoring.model is empty: this node gives no rad-score, whatever is activated")
    text, radiomics_sha256 = load_radiomics_settings_text(settings.node.site_folder)
    if card.radiomics_settings_sha256 != radiomics_sha256:
        raise NotActivated(f"{card.name}: its features were computed with other settings (radiomics.yaml)")
    unknown = {one.name for one in card.features} - set(feature_names(parse_settings(text)))
    if unknown:
        raise NotActivated(f"{card.name}: no such features: {', '.join(sorted(unknown))}")


def propose(card: ModelCard, settings: Settings, patients: Iterable[ReferencePatient]) -> Proposal:
    """Compare a card with the one in force.

    Parameters
    ----------
    patients : of `node.research.reference_patients`, measured under the same settings.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid, StoreError
    """
    after_lines = len(Activations(settings.storage.root).history())
    in_force = active_model(settings).card
    same_features = in_force is not None and (
        in_force.radiomics_settings_sha256 == card.radiomics_settings_sha256
    )
    return Proposal(
        card=card,
        in_force=in_force,
        comparison=compare_models(in_force if same_features else None, card, tuple(patients)),
        after_lines=after_lines,
    )


def activate(proposal: Proposal, settings: Settings, *, at: datetime, by: str, reason: str) -> None:
    """Make a proposed card the active one.

    Raises
    ------
    StoreError
        If another was activated since the comparison, or the record cannot be written.
    """
    activation = Activation(
        card=proposal.card,
        activated_at=at,
        activated_by=by,
        reason=reason,
        previous_sha256=proposal.in_force.sha256 if proposal.in_force else None,
        previous=proposal.in_force,
        comparison=proposal.comparison,
    )
    Activations(settings.storage.root).record(activation, after_lines=proposal.after_lines)


def class_changes(comparison: Sequence[Compared]) -> int:
    """How many reference patients change their likelier class."""
    return sum(one.class_changes for one in comparison)
