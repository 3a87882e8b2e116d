"""What can go wrong in the pure room of numbers."""

from __future__ import annotations

from pydantic import ValidationError

from segmentation.phrase import Value


class ScoringError(Exception):
    """Base of every error that this room raises."""


class CalibrationImpossible(ScoringError):
    """The rods do not determine a calibration.

    Attributes
    ----------
    code : the finding (config/findings.toml) that says why.
    reason : particulars, which the finding may fill in.
    """

    def __init__(self, code: str, reason: Value) -> None:
        super().__init__(str(reason))
        self.code = code
        self.reason = reason


class ModelCardInvalid(ScoringError):
    """A model card that cannot be trusted: a missing field, an unknown feature, a broken hash."""


class FeaturesImpossible(ScoringError):
    """A region in which radiomic features have no meaning (too small, too few slices).

    Attributes
    ----------
    code : the finding (config/findings.toml) that says why.
    reason : particulars, which the finding may fill in.
    """

    def __init__(self, code: str, reason: Value) -> None:
        super().__init__(str(reason))
        self.code = code
        self.reason = reason


class RegionEmpty(ScoringError):
    """A region without a voxel: it has no mean.

    Attributes
    ----------
    level : the vertebra whose region it is.
    """

    def __init__(self, level: str) -> None:
        super().__init__(f"the region of {level} holds no voxel")
        self.level = level


class LaboratoryMissing(ScoringError):
    """A nomogram cannot be read without one of its inputs: none is ever filled in.

    Attributes
    ----------
    names : the inputs that are missing, as the model card names them.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"nomogram inputs missing: {', '.join(names)}")
        self.names = names


class RadiomicsSettingsInvalid(ScoringError):
    """Feature settings that pyradiomics would not accept, or that ask for what this node does not do."""


class UnknownFeature(ScoringError):
    """A feature name that the settings do not provide.

    Attributes
    ----------
    names : the names in question.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"features not provided by the settings: {', '.join(names)}")
        self.names = names


def reasons(error: ValueError, whole: str) -> str:
    """What a document's schema has against it, in one line that names each key.

    Parameters
    ----------
    error : pydantic's, or another, which stands as it is.
    whole : what a document of its kind is called.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    told = []
    for one in error.errors(include_url=False):
        *inside, key = one["loc"] or ("",)
        where = ".".join(str(part) for part in one["loc"]) or whole
        if one["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            told.append(f"{'.'.join(str(part) for part in inside) or whole} has no {key}")
        elif one["type"] == "missing":
            told.append(f"{where} is missing")
        elif one["type"] == "value_error":
            told.append(f"{where}: {one['ctx']['error']}")
        else:
            given = one["input"]
            not_this = f", not {given!r}" if isinstance(given, str | int | float) else ""
            told.append(f"{where}: {one['msg']}{not_this}")
    return "; ".join(told)


# What makes patients' data unfit for training or validation.


class CohortUnusable(ScoringError):
    """Data from which a model cannot be fitted or judged; the message names the column or class."""


class FitImpossible(ScoringError):
    """A regression without a finite answer: the classes are separated, or columns depend on one another."""
