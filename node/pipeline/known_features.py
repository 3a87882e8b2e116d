"""Check that this process computes the known image's features as they were first computed."""

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
    """Compare the known image's features, with the shipped feature settings; once for each process (0.1 s).

    A site's own settings are not compared: a model card names those that it was made with.
    """
    shipped, _ = load_radiomics_settings_text()
    found = feature_drift(load_golden_features(), parse_settings(shipped))
    if found.drifted:
        log.error("features_drift", drifted=len(found.drifted), checked=found.checked, example=found.example)
    else:
        log.info("features_as_known", checked=found.checked)
    return found


def drift_observations() -> tuple[Observation, ...]:
    """The observation `features_drift` where this process computes other features; otherwise none."""
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
    """Check the features, and store the result for readiness and metrics.

    Runs in the process that scores, after its fork: pyradiomics' libraries start threads.
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
