"""What a result depends on besides the study: software, settings and their files, and the model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from config.catalog import (
    configuration_sha256,
    load_model_card,
)
from config.settings import Settings
from node import __version__
from node.store.activations import Activation, ActivationsUnreadable, active_activation
from node.store.workers import MeasuredWith
from scoring.calibration import INTERNAL
from scoring.models.card import ModelCard
from segmentation.vertebrae import Observation

_COMPUTING_PACKAGES = ("numpy", "scipy", "SimpleITK", "pyradiomics", "pydicom", "highdicom")


class BasisChanged(Exception):
    """Software, settings or a file that they name changed while a step ran: what it made rests on both."""


def measured_with(settings: Settings) -> MeasuredWith:
    """Software and configuration on which results of this process depend at this moment.

    Raises
    ------
    CatalogEntryMissing
        If a file that the settings name is gone.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in computing_packages(settings))
    return MeasuredWith(
        software=f"{__version__} ({packages})", configuration_sha256=configuration_sha256(settings)
    )


def computing_packages(settings: Settings) -> tuple[str, ...]:
    """Packages on which numbers depend; xraylib (attenuation tables) only with internal calibration."""
    return (*_COMPUTING_PACKAGES, *(("xraylib",) if settings.calibration.method == INTERNAL else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveModel:
    """The active model card, or why it cannot be used; neither where no model is active.

    Attributes
    ----------
    refusal : where the active card cannot be used.
    activation : None where the settings alone name the card.
    """

    card: ModelCard | None
    refusal: Observation | None = None
    activation: Activation | None = None


def active_model(settings: Settings) -> ActiveModel:
    """The card in force under these settings.

    With `scoring.model` empty there is none. An activated card counts whatever file `scoring.model` names,
    and only as the very card that was activated.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid
        If nothing was activated and the file that `scoring.model` names cannot be used.
    StoreUnavailable
        If the database does not answer: which model is in force cannot be told.
    """
    if not settings.scoring.model:
        return ActiveModel(card=None)
    try:
        activation = active_activation(settings.storage)
    except ActivationsUnreadable as error:
        return ActiveModel(
            card=None, refusal=Observation(code="model_not_pinned", values={"reason": str(error)})
        )
    if activation is not None:
        return ActiveModel(card=activation.card, activation=activation)
    return ActiveModel(card=load_model_card(settings.scoring.model, settings.node.site_folder)[0])


# Whether this process computes features as they were computed when they were first known.
