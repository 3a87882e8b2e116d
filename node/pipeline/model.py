"""Which model scores a study: the activated card, else the one that the settings name."""

from __future__ import annotations

from dataclasses import dataclass

from config.catalog import load_model_card
from config.settings import Settings
from node.store.activations import Activation, Activations
from node.store.errors import StoreError
from scoring.modelcard import ModelCard
from segmentation.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveModel:
    """A card that may be used, or why there is none."""

    card: ModelCard | None
    refusal: Observation | None = None  # where a card is in force and cannot be used
    activation: Activation | None = None  # None where the settings alone name the card


def active_model(settings: Settings) -> ActiveModel:
    """The card in force under these settings.

    With `scoring.model` empty there is none. An activated card counts whatever file `scoring.model` names,
    and only as the very card that was activated.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid
        If nothing was activated and the file that `scoring.model` names cannot be used.
    """
    if not settings.scoring.model:
        return ActiveModel(card=None)
    try:
        activation = Activations(settings.storage.root).active()
    except StoreError as error:
        return ActiveModel(
            card=None, refusal=Observation(code="model_not_pinned", values={"reason": str(error)})
        )
    if activation is not None:
        return ActiveModel(card=activation.card, activation=activation)
    return ActiveModel(card=load_model_card(settings.scoring.model, settings.node.site_folder)[0])
