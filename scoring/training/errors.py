"""What makes patients' data unfit for training or validation."""

from __future__ import annotations

from scoring.errors import ScoringError


class CohortUnusable(ScoringError):
    """Data from which a model cannot be fitted or judged; the message names the column or class."""


class FitImpossible(ScoringError):
    """A regression without a finite answer: the classes are separated, or columns depend on one another."""
