"""Errors of segmentation."""

from __future__ import annotations

from segmentation.phrase import Phrase, phrase


class SegmentationError(Exception):
    """Base of all errors of this package."""


class GridMismatch(SegmentationError):
    """Two images that must lie on one grid do not.

    Attributes
    ----------
    what : the property that differs ("shape", "spacing", "origin", "direction" or "extent").
    reason : the difference, translatable.
    """

    def __init__(self, what: str, left: object, right: object) -> None:
        super().__init__(f"grids differ in {what}: {left} against {right}")
        self.what = what
        self.reason = phrase("mask-grid", what=what, left=str(left), right=str(right))


class EngineUnavailable(SegmentationError):
    """A configured engine lacks weights, a mask file or an installed extra.

    Attributes
    ----------
    engine : its name in the configuration.
    reason : what is missing, for operators.
    """

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(f"segmentation engine {engine!r} is not available: {reason}")
        self.engine = engine
        self.reason = reason


class MaskNotUsable(SegmentationError):
    """A mask drawn elsewhere cannot be read as vertebral levels.

    Attributes
    ----------
    reason : translatable.
    """

    def __init__(self, reason: Phrase) -> None:
        super().__init__(str(reason))
        self.reason = reason


class LevelUnknown(MaskNotUsable):
    """A mask of one vertebra does not state its level."""


class LevelNotFound(SegmentationError):
    """A required vertebral level is not in the image.

    Attributes
    ----------
    level : its name, such as "L3".
    """

    def __init__(self, level: str) -> None:
        super().__init__(f"{level} was not found")
        self.level = level
