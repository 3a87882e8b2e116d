"""The errors of reading, segmenting and writing DICOM."""

from __future__ import annotations

from enum import Enum

from config.phrases import in_english
from segmentation.phrase import Phrase, Value, phrase


class DicomError(Exception):
    """Base of the errors of `node.dicom`."""


class Unusable(Enum):
    """Why a series cannot become a volume."""

    NO_SLICES = phrase("no-slices")
    SINGLE_SLICE = phrase("single-slice")
    DUPLICATE_POSITIONS = phrase("duplicate-positions")
    SEVERAL_PASSES = phrase("several-passes")
    SLICE_GAP = phrase("slice-gap")
    SPACING_VARIES = phrase("spacing-varies")
    ORIENTATION_VARIES = phrase("orientation-varies")
    SIZE_VARIES = phrase("size-varies")
    GANTRY_TILT = phrase("gantry-tilt")
    OFF_LINE = phrase("off-line")
    GEOMETRY_MISSING = phrase("geometry-missing")
    RESCALE_MISSING = phrase("rescale-missing")
    TECHNIQUE_VARIES = phrase("technique-varies")
    ENERGY_UNSUITED = phrase("energy-unsuited")
    MATERIAL_IMAGE = phrase("material-image")
    NOT_GREYSCALE = phrase("not-greyscale")
    UNDECODABLE = phrase("undecodable")
    DAMAGED = phrase("damaged")
    TOO_LARGE = phrase("too-large")


class _Unusable(DicomError):
    """Pixels or geometry that cannot be used, with a reason and particulars."""

    def __init__(self, reason: Phrase, detail: Value) -> None:
        self.said = phrase("reason-with-detail", reason=reason, detail=detail) if detail else reason
        super().__init__(in_english(self.said))
        self.detail = detail


class SeriesUnusable(_Unusable):
    """A CT series whose geometry or pixels cannot be trusted.

    Attributes
    ----------
    reason : the kind of problem.
    detail : particulars, free of patient data.
    said : both, to be said in any language.
    slices : how many slices the series has.
    """

    def __init__(self, reason: Unusable, detail: Value, *, slices: int) -> None:
        super().__init__(reason.value, detail)
        self.reason = reason
        self.slices = slices


class MaskUnreadable(DicomError):
    """A mask file is no three-dimensional label image."""


class SegProblem(Enum):
    """Why a Segmentation object cannot serve as the mask of a series."""

    SEVERAL = phrase("seg-several")
    OTHER_SERIES = phrase("seg-other-series")
    FRAME_OF_REFERENCE = phrase("seg-frame-of-reference")
    OWN = phrase("seg-own")
    NOT_A_SEGMENTATION = phrase("seg-no-segmentation")
    NO_LEVEL = phrase("seg-no-level")
    OVERLAP = phrase("seg-overlap")
    GEOMETRY = phrase("seg-geometry")
    DAMAGED = phrase("seg-damaged")


class SegUnusable(_Unusable):
    """A Segmentation object that cannot serve as the mask of the chosen series.

    Attributes
    ----------
    reason : the kind of problem.
    detail : particulars, free of patient data.
    said : both, to be said in any language.
    """

    def __init__(self, reason: SegProblem, detail: Value = "") -> None:
        super().__init__(reason.value, detail)
        self.reason = reason


class IdentityMissing(DicomError):
    """No DICOM object can be made, since the source has no Study Instance UID."""


class SegmentationMismatch(DicomError):
    """A SEG that, decoded again, does not hold the mask it was made from."""


class ObjectInvalid(DicomError):
    """A finished object breaks a rule; it must not leave the node.

    Attributes
    ----------
    violations : one line for each broken rule.
    """

    def __init__(self, violations: tuple[str, ...]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations
