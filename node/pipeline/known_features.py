"""Whether this process computes features as they were computed when they were first known."""

from __future__ import annotations

from functools import cache

import structlog

from config.catalog import (
    load_golden_features,
    load_radiomics_settings_text,
)
from config.settings import Settings
from node.logs import describe
from node.store.errors import StoreError
from node.store.store import open_store
from node.store.workers import FeatureStanding
from scoring.radiomics import FeatureDrift, feature_drift, parse_settings
from segmentation.vertebrae import Observation

log = structlog.get_logger(__name__)


@cache
def installed_drift() -> FeatureDrift:
    """Tried once for each process (a tenth of a second), with the shipped feature settings.

    A site's own settings are not what this is about: a model card names those that it was made with.
    """
    shipped, _ = load_radiomics_settings_text()
    found = feature_drift(load_golden_features(), parse_settings(shipped))
    if found.drifted:
        log.error("features_drift", drifted=len(found.drifted), checked=found.checked, example=found.example)
    else:
        log.info("features_as_known", checked=found.checked)
    return found


def drift_observations() -> tuple[Observation, ...]:
    """`features_drift` where features cannot be trusted here; nothing else."""
    found = installed_drift()
    if not found.drifted:
        return ()
    values: dict[str, str | int | float] = {
        "drifted": len(found.drifted),
        "checked": found.checked,
        "example": found.example,
    }
    return (Observation(code="features_drift", values=values),)


def try_features(settings: Settings) -> None:
    """Compute the known image, and leave word for readiness and metrics.

    In the process that will score, after its fork: pyradiomics' libraries start threads.
    """
    found = installed_drift()
    standing = FeatureStanding(drifted=len(found.drifted), checked=found.checked, example=found.example)
    try:
        store = open_store(settings.storage)
        try:
            store.feature_standings.keep(standing)
        finally:
            store.close()
    except StoreError as error:  # each study's findings say it nevertheless
        log.warning("feature_standing_not_kept", error=describe(error))
