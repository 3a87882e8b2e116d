"""A site's rules of calibration without a phantom in view, as the pure rooms take them."""

from __future__ import annotations

from config.calibration_rules import AsynchronousRules
from scoring.asynchronous import LendingRules


def lending_rules(settings: AsynchronousRules) -> LendingRules:
    return LendingRules(**settings.model_dump(exclude={"enabled"}))
