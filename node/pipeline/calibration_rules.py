"""A site's rules of calibration without a phantom in view, as the pure rooms take them."""

from __future__ import annotations

from config import calibration_rules
from scoring.calibration.internal import InternalRules, TissueRules
from scoring.calibration.prior_scan import LendingRules
from scoring.phantoms import PatientRules


def lending_rules(settings: calibration_rules.AsynchronousRules) -> LendingRules:
    return LendingRules(**settings.model_dump(exclude={"enabled"}))


def patient_rules(settings: calibration_rules.PatientRules) -> PatientRules:
    return PatientRules(**settings.model_dump())


def internal_rules(settings: calibration_rules.InternalRules) -> InternalRules:
    rules = settings.model_dump()
    return InternalRules(**{**rules, "sampling": TissueRules(**rules["sampling"])})
