"""Errors of scoring, and validation errors of pydantic in one line."""

from __future__ import annotations

from pydantic import ValidationError

from segmentation.phrase import Value


class ScoringError(Exception):
    """Base of all errors of this package."""


class _WithFinding(ScoringError):
    """An error that a finding reports.

    Attributes
    ----------
    code : of the finding (config/findings.toml).
    reason : its argument, translatable.
    """

    def __init__(self, code: str, reason: Value) -> None:
        super().__init__(str(reason))
        self.code = code
        self.reason = reason


class CalibrationImpossible(_WithFinding):
    """The rods or tissues do not determine a calibration."""


class ModelCardInvalid(ScoringError):
    """A model card with a missing or unknown key, a wrong value, an unknown feature or a wrong hash."""


class FeaturesImpossible(_WithFinding):
    """A region in which radiomic features have no meaning (too small, too few slices)."""


class RegionEmpty(ScoringError):
    """A region without voxels has no mean.

    Attributes
    ----------
    level : the region's vertebra.
    """

    def __init__(self, level: str) -> None:
        super().__init__(f"the region of {level} holds no voxel")
        self.level = level


class LaboratoryMissing(ScoringError):
    """A nomogram lacks inputs; missing values are never replaced.

    Attributes
    ----------
    names : of the missing inputs, as in the model card.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"nomogram inputs missing: {', '.join(names)}")
        self.names = names


class RadiomicsSettingsInvalid(ScoringError):
    """Feature settings that pyradiomics does not accept, or that this project does not support."""


class UnknownFeature(ScoringError):
    """Names of features that the settings do not provide.

    Attributes
    ----------
    names : of the features.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"features not provided by the settings: {', '.join(names)}")
        self.names = names


def reasons(error: ValueError, whole: str) -> str:
    """A document's validation errors in one line that names each key.

    Parameters
    ----------
    error : pydantic's `ValidationError`; of another the message.
    whole : name of the kind of document.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    found = []
    for one in error.errors(include_url=False):
        *inside, key = one["loc"] or ("",)
        where = ".".join(str(part) for part in one["loc"]) or whole
        if one["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            found.append(f"{'.'.join(str(part) for part in inside) or whole} has no {key}")
        elif one["type"] == "missing":
            found.append(f"{where} is missing")
        elif one["type"] == "value_error":
            found.append(f"{where}: {one['ctx']['error']}")
        else:
            given = one["input"]
            not_this = f", not {given!r}" if isinstance(given, str | int | float) else ""
            found.append(f"{where}: {one['msg']}{not_this}")
    return "; ".join(found)


class CohortUnusable(ScoringError):
    """Data to which no model can be fitted or validated; the message names the column or class."""


class FitImpossible(ScoringError):
    """A regression without a finite answer: the classes are separated, or columns depend on one another."""
