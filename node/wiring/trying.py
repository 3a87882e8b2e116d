"""What a worker tries when it starts."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from config.settings import Settings
from node.pipeline.describe import describe
from node.pipeline.golden import installed_drift
from node.store.errors import StoreError
from node.store.feature_standing import FeatureStanding, FeatureStandings

log = structlog.get_logger(__name__)


def try_features(settings: Settings) -> None:
    """Compute the known image, and leave word for readiness and metrics.

    In the process that will score, after its fork: pyradiomics' libraries start threads.
    """
    found = installed_drift()
    standing = FeatureStanding(
        drifted=len(found.drifted),
        checked=found.checked,
        example=found.example,
        tried_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        FeatureStandings(settings.storage.root).keep(standing)
    except StoreError as error:  # each study's findings say it nevertheless
        log.warning("feature_standing_not_kept", error=describe(error))
