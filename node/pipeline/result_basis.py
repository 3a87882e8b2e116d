"""What a result depends on besides the study: software, settings and their files, model and features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

from config.catalog import (
    configuration_sha256,
    load_golden_features,
    load_model_card,
    load_radiomics_settings_text,
)
from config.settings import Settings
from node import __version__
from node.logs import describe
from node.store.activations import Activation, ActivationsUnreadable, active_activation
from node.store.errors import StoreError
from node.store.store import open_store
from node.store.workers import FeatureCheck, ResultBasis
from scoring.calibration import INTERNAL
from scoring.models.card import ModelCard
from segmentation.vertebrae import Observation

if TYPE_CHECKING:
    from scoring.radiomics import FeatureDrift

log = structlog.get_logger(__name__)

_COMPUTING_PACKAGES = ("numpy", "scipy", "SimpleITK", "pyradiomics", "pydicom", "highdicom")


class BasisChanged(Exception):
    """Software, settings or a file that they name changed while a step ran: its results depend on both."""


def result_basis(settings: Settings) -> ResultBasis:
    """Software and configuration on which results of this process depend at this moment.

    Raises
    ------
    CatalogEntryMissing
        If a file that the settings name is gone.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in computing_packages(settings))
    return ResultBasis(
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
    """The model card that is active under these settings.

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


# The features of a known image, computed by this process and compared with their known values.


@cache
def installed_feature_drift() -> FeatureDrift:
    """Compare the known image's features, with the shipped feature settings; once for each process (0.1 s).

    A site's own settings are not compared: a model card names those that it was made with.
    """
    from scoring.radiomics import feature_drift, parse_settings  # noqa: PLC0415 - imports pyradiomics

    shipped, _ = load_radiomics_settings_text()
    found = feature_drift(load_golden_features(), parse_settings(shipped))
    if found.drifted:
        log.error("features_drift", drifted=len(found.drifted), checked=found.checked, example=found.example)
    else:
        log.info("features_as_known", checked=found.checked)
    return found


def feature_drift_observations() -> tuple[Observation, ...]:
    """The observation `features_drift` where this process computes other features; otherwise none."""
    found = installed_feature_drift()
    if not found.drifted:
        return ()
    values: dict[str, str | int | float] = {
        "drifted": len(found.drifted),
        "checked": found.checked,
        "example": found.example,
    }
    return (Observation(code="features_drift", values=values),)


def check_features(settings: Settings) -> None:
    """Check the features, and store the result for readiness and metrics.

    Runs in the process that scores, after its fork: pyradiomics' libraries start threads.
    """
    found = installed_feature_drift()
    standing = FeatureCheck(drifted=len(found.drifted), checked=found.checked, example=found.example)
    try:
        store = open_store(settings.storage)
        try:
            store.feature_checks.keep(standing)
        finally:
            store.close()
    except StoreError as error:  # the findings of each study state it nevertheless
        log.warning("feature_standing_not_kept", error=describe(error))
