"""What can go wrong in the pure image room."""

from __future__ import annotations

from segmentation.phrase import Phrase, phrase


class SegmentationError(Exception):
    """Base of every error that this room raises."""


class GridMismatch(SegmentationError):
    """Two images that must lie on one grid do not.

    Attributes
    ----------
    what : the property that differs ("shape", "spacing", "origin", "direction" or "extent").
    reason : how, to be said in any language.
    """

    def __init__(self, what: str, left: object, right: object) -> None:
        super().__init__(f"grids differ in {what}: {left} against {right}")
        self.what = what
        self.reason = phrase("mask-grid", what=what, left=str(left), right=str(right))


class EngineUnavailable(SegmentationError):
    """A configured engine lacks what it needs (weights, a mask file, an installed extra)."""

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(f"segmentation engine {engine!r} is not available: {reason}")
        self.engine = engine
        self.reason = reason


class MaskNotUsable(SegmentationError):
    """A mask drawn elsewhere cannot be read as vertebral levels.

    Attributes
    ----------
    reason : why not, to be said in any language.
    """

    def __init__(self, reason: Phrase) -> None:
        super().__init__(str(reason))
        self.reason = reason


class LevelUnknown(MaskNotUsable):
    """A mask of one vertebra does not say which one it is."""


class LevelNotFound(SegmentationError):
    """A vertebral level that is asked for was not found in the image."""

    def __init__(self, level: str) -> None:
        super().__init__(f"{level} was not found")
        self.level = level
