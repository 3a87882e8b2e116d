"""What can go wrong in the pure room of numbers."""

from __future__ import annotations


class ScoringError(Exception):
    """Base of every error that this room raises."""


class CalibrationImpossible(ScoringError):
    """The rods do not determine a calibration.

    Attributes
    ----------
    code : the finding (config/findings.toml) that says why.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ModelCardInvalid(ScoringError):
    """A model card that cannot be trusted: a missing field, an unknown feature, a broken hash."""


class FeaturesImpossible(ScoringError):
    """A region in which radiomic features have no meaning (too small, too few slices).

    Attributes
    ----------
    code : the finding (config/findings.toml) that says why.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
